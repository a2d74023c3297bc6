"""Page of the payments behind one sum of money of the overview, of one day."""

from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console import links
from console.deps import ConsoleDeps
from console.errors import InvalidForm
from console.pages import PageRenderer
from service.money import WAYS
from statemachine.names import is_line
from statemachine.phases import Phase
from storage import totals
from storage.ids import is_id
from storage.totals import Money

#: Payments on one page.
_PAGE_SIZE: Final = 100

_MAX_NAME_CHARS: Final = 64


def routes(deps: ConsoleDeps, pages: PageRenderer) -> list[BaseRoute]:
    """Return the route of the page."""

    async def show(request: Request) -> Response:
        query = request.query_params
        since, until = _range(query)
        way = query.get("way", "in")
        if way not in WAYS:
            raise InvalidForm(f"way is one of: {', '.join(WAYS)}", param="way")
        account, currency = _word(query, "account"), _word(query, "currency") or None
        kinds = [_word({"kind": kind}, "kind") for kind in query.getlist("kind")[:20]]
        after = query.get("after")
        if after is not None and not is_id(after):
            raise InvalidForm("after is the id of a row", param="after")
        phase = Phase.REFUNDED if way in ("back", "returned") else Phase.PAID
        wanted = [Money(account, kind, currency, phase) for kind in kinds]
        found = await deps.read(
            lambda unit: totals.entries(unit, since, until, wanted, after=after, limit=_PAGE_SIZE + 1)
        )
        more = found[_PAGE_SIZE - 1].id if len(found) > _PAGE_SIZE else None
        clock = _word(query, "until") or None
        older = links.money(f"{since:%Y-%m-%d}", account, currency, way, kinds, clock, more) if more else None
        return await pages.show(
            request,
            "money.html",
            entries=found[:_PAGE_SIZE],
            older=older,
            account=account,
            currency=currency,
            way_label=WAYS[way],
            since=since,
            until=until,
            links=links,
        )

    return [Route("/console/money", show, methods=["GET"])]


def _range(query: QueryParams) -> tuple[datetime, datetime]:
    """Parse the day in UTC, or its beginning up to the end of a minute."""
    try:
        since = datetime.strptime(query.get("day", ""), "%Y-%m-%d").replace(tzinfo=UTC)
        clock = query.get("until")
        until = datetime.strptime(clock, "%H:%M").replace(tzinfo=UTC) if clock else None
        end = since + (timedelta(days=1) if until is None else timedelta(hours=until.hour, minutes=until.minute + 1))
    except (ValueError, OverflowError):
        raise InvalidForm("day is a day such as 2026-11-21, and until a time such as 09:30", param="day") from None
    if not 1970 <= since.year <= 9998:
        raise InvalidForm("day is between the years 1970 and 9998", param="day")
    return since, end


def _word(query: QueryParams | dict[str, str], name: str) -> str:
    value = query.get(name, "")
    if not is_line(value, _MAX_NAME_CHARS):
        raise InvalidForm(f"{name} has at most {_MAX_NAME_CHARS} characters", param=name)
    return value
