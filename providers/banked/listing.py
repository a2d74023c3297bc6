"""Banked's list: newest first, at most 100 at a time, and no cursor but the time.

Source: https://developer.banked.com/reference/get_v2-payment-sessions. The page names `limit`, and "the time filters"
without their names; it shows no answer.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from providers.banked.options import BankedOptions
from providers.banked.parse import listed
from providers.decoding import instant
from providers.listing import Extent, after, text_of

#: The largest page that the provider has.
LIMIT: Final = 100

#: How exactly times of creation are told: whole seconds in v2. A page may end within one.
_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LAST_YEAR: Final = 9999  #: beyond which nothing can be reckoned
_DAWN: Final = datetime.min.replace(tzinfo=UTC)


def query_of(options: BankedOptions, since: datetime, until: datetime, position: str | None) -> dict[str, str]:
    """Return the filters of a page that the account names; `position` is an instant."""
    query = {}
    if options.list_after is not None:
        query[options.list_after] = after(since.replace(microsecond=0))
    if options.list_before is not None:
        query[options.list_before] = position or text_of(until)
    return query


def extent_of(options: BankedOptions, body: bytes, size: int, since: datetime) -> Extent:
    """Find where a page leads: to the second of its oldest resource. Raise Unreadable.

    The resources of that second are listed again, which is harmless.
    """
    resources = listed(body)
    count = len(resources)
    told = [_created_at(each) for each in resources]
    known = [at for at in told if at is not None]
    if count < size or (len(known) == count and min(known) < since.replace(microsecond=0)):
        return Extent(count, None)
    if not known:
        return Extent(count, None, "more may follow, and no resource on the page says when it was created")
    if options.list_before is None:
        return Extent(count, None, "more may follow, and the account names no filter (list_before) to ask for it")
    step = _MILLISECOND if any(at.microsecond for at in known) else _SECOND
    oldest, newest = (at - (at - _DAWN) % step for at in (min(known), max(known)))
    if oldest == newest:
        return Extent(count, None, "more may follow, and a whole page was created at one time")
    return Extent(count, text_of(oldest + step))


def _created_at(resource: object) -> datetime | None:
    """`YYYY-MM-DD HH:MM:SS UTC` in v2, ISO 8601 elsewhere."""
    told = resource.get("created_at") if isinstance(resource, dict) else None
    if not isinstance(told, str):
        return None
    at = instant(told.removesuffix(" UTC") + "+00:00" if told.endswith(" UTC") else told)
    return at if at is not None and at.year < _LAST_YEAR else None
