"""Text for people: values as they are read, ids shortened, counts in words. Pure."""

import unicodedata
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

#: Characters of an id that tell rows apart; every command takes them for the whole id.
SHORT_ID_CHARS: Final = 12


def shown(value: Any, *, keep: str = "") -> str:
    """Format a value for a person; control characters are replaced.

    A provider's text may hold any.
    """
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        value = value.value
    return "".join(c if c in keep or unicodedata.category(c)[0] != "C" else "\ufffd" for c in str(value))


def short(record_id: str | None) -> str | None:
    """Return the end of an id."""
    return None if record_id is None else record_id[-SHORT_ID_CHARS:]


_NUMBERS: Final = ("", "once", "twice", "three times", "four times", "five times", "six times")


def times(count: int) -> str:
    """Format a count of repeats, in words where they are short."""
    return _NUMBERS[count] if 0 < count < len(_NUMBERS) else f"{count} times"
