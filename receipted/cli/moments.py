"""Moments as people type them: an instant, a day, or how long ago."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from receipted.cli.exits import InvalidInput

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment_of(text: str, now: datetime, *, option: str) -> datetime:
    """The instant: ISO 8601, UTC where it names no zone, a day's first instant, or as long ago as `2d` or `36h` says.

    Raises InvalidInput for anything else.
    """
    try:
        if ago := _AGO.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"--{option} takes a moment such as 2026-11-01, 2026-11-01T12:00Z or 2d (so long ago), not {text!r}",
            param=option,
        ) from None


def span_of(text: str, *, option: str) -> timedelta:
    """The span that `90d` or `12h` says; raises InvalidInput for anything else."""
    found = _AGO.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"--{option} takes a span such as 90d or 12h, not {text!r}", param=option)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def lasting(seconds: float | None) -> str:
    """How long that is, in its two largest units, such as `2h 5m`; empty for None."""
    if seconds is None:
        return ""
    left, words = round(seconds), list[str]()
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
    return " ".join(words[:2])
