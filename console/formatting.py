"""Template filters: formats of money, instants, durations, sizes and ids."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from statemachine.errors import InvalidAmount
from statemachine.money import from_minor

DASH: Final = Markup('<span class="nothing">–</span>')

_STEPS: Final = ((86_400 * 2, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def money(minor: int | None, currency: str | None) -> Markup:
    """Format an amount in major units with its currency; a dash for None."""
    if minor is None:
        return DASH
    try:
        shown = _grouped(from_minor(minor, currency or ""))
    except InvalidAmount:
        return Markup('<span class="money">{} <span class="unit">minor units</span></span>').format(f"{minor:,}")
    return Markup('<span class="money">{} <span class="unit">{}</span></span>').format(shown, currency)


def instant(at: datetime | None) -> Markup:
    """Format an instant in UTC, to the second."""
    if at is None:
        return DASH
    return Markup('<time datetime="{}">{} <span class="unit">UTC</span></time>').format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}"
    )


@pass_context
def ago(context: Context, at: datetime | None) -> Markup:
    """Format an instant relative to now; the exact instant is its title."""
    if at is None:
        return DASH
    now: datetime = context["now"]
    words = duration(abs(now - at))
    relative = f"{words} ago" if at <= now else f"in {words}"
    if words == "0 s":
        relative = "now"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}", relative
    )


def duration(length: timedelta) -> str:
    """Format a duration in the largest unit of which it has at least two."""
    seconds = int(length.total_seconds())
    from_, unit, word = next(step for step in _STEPS if seconds >= step[0])
    del from_
    return f"{seconds // unit} {word}"


def short_duration(length: timedelta | None) -> Markup | str:
    """Format a short duration of either sign, to two digits; a dash for None."""
    if length is None:
        return DASH
    sign, rest = ("-", -length) if length < timedelta(0) else ("", length)
    seconds = rest.total_seconds()
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms"
    return f"{sign}{seconds:.2g} s" if seconds < 10 else f"{sign}{duration(rest)}"


def byte_size(count: int | None) -> Markup | str:
    """Format a number of bytes; a dash for None."""
    if count is None:
        return DASH
    shown = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if shown < 1024:
            return f"{count} B" if unit == "B" else f"{shown:.1f} {unit}"
        shown /= 1024
    return f"{shown:.1f} TiB"


def short_id(value: str | None) -> Markup:
    """Format an id by its end, which differs within a moment; the whole is its title."""
    if not value:
        return DASH
    if len(value) <= 14:
        return Markup('<code class="id">{}</code>').format(value)
    return Markup('<code class="id" title="{}">…{}</code>').format(value, value[-12:])


def browser_name(agent: str) -> str:
    """Name the browser and operating system of a User-Agent."""
    browsers = (
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    machines = (
        ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS"),
        ("CrOS", "ChromeOS"), ("Linux", "Linux"),
    )  # fmt: skip
    name = next((word for sign, word in browsers if sign in agent), None)
    machine = next((word for sign, word in machines if sign in agent), None)
    if name is None:
        return agent.partition(" ")[0] or "Unnamed browser"
    return f"{name} on {machine}" if machine else name


def sentence(words: str) -> str:
    """Add a capital letter and a full stop."""
    text = words.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")


def _grouped(amount: str) -> str:
    whole, point, rest = amount.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole != "-0" else amount


TEMPLATE_FILTERS: Final[Mapping[str, Any]] = {
    "money": money,
    "instant": instant,
    "ago": ago,
    "span": duration,
    "bytes": byte_size,
    "lag": short_duration,
    "short": short_id,
    "browser": browser_name,
    "sentence": sentence,
}
