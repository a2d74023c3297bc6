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

#: Times of creation are whole seconds here, and a page may end within one.
_SECOND: Final = timedelta(seconds=1)


def query_of(options: BankedOptions, since: datetime, until: datetime, position: str | None) -> dict[str, str]:
    """The filters of one page, as far as the account names them; `position` is such an instant."""
    query = {}
    if options.list_after is not None:
        query[options.list_after] = after(since.replace(microsecond=0))
    if options.list_before is not None:
        query[options.list_before] = position or text_of(until)
    return query


def extent_of(options: BankedOptions, body: bytes, size: int, since: datetime) -> Extent:
    """Where a page leads: to what was created up to the second of its oldest resource. Raises Unreadable.

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
    onward = min(known).replace(microsecond=0) + _SECOND
    if onward >= max(known) + _SECOND:
        return Extent(count, None, "more may follow, and a whole page was created within one second")
    return Extent(count, text_of(onward))


def _created_at(resource: object) -> datetime | None:
    """`YYYY-MM-DD HH:MM:SS UTC` in v2, ISO 8601 elsewhere."""
    told = resource.get("created_at") if isinstance(resource, dict) else None
    if not isinstance(told, str):
        return None
    at = instant(told.removesuffix(" UTC") + "+00:00" if told.endswith(" UTC") else told)
    return at.astimezone(UTC) if at is not None else None
