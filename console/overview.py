"""The overview, the first page: every figure links to the rows behind it."""

from datetime import datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console import charts, links
from console.deps import ConsoleDeps
from console.live_updates import LiveUpdates
from console.pages import PageRenderer
from service.money import MoneyRow, totals
from service.overview import OverviewCounter, OverviewFigures, alarms_of, lines_of, tiles_of

_HERE: Final = "/console/"


def routes(deps: ConsoleDeps, pages: PageRenderer, figuring: OverviewCounter) -> list[BaseRoute]:
    """Return the routes of the page and of its live updates."""
    live = LiveUpdates(deps, lambda unit, keys: dict.fromkeys(keys, figuring.look(unit).mark))
    drawings = charts.ChartCache()

    async def show(request: Request) -> Response:
        figures = await deps.read(figuring.look)
        drawn = await deps.in_thread(lambda: drawings.of(figures))
        return await pages.show(request, "overview.html", **shown(figures, deps), charts=drawn)

    async def changes(request: Request) -> Response:
        return live.stream(request, "overview")

    return [Route(_HERE, show, methods=["GET"]), Route(f"{_HERE}live", changes, methods=["GET"])]


def shown(figures: OverviewFigures, deps: ConsoleDeps) -> dict[str, Any]:
    """Return the template's context of the figures, without the charts."""
    lines = lines_of(figures, deps.accounts)
    return {
        "figures": figures,
        "alarms": alarms_of(figures.alarms),
        "broken": [line for line in lines if line.broken is not None],
        "tiles": tiles_of(figures),
        "money": figures.money,
        "totals": totals(figures.money),
        "lines": lines,
        "accounts": deps.accounts,
        "links": links,
        "money_link": lambda row, **which: _money_link(row, figures.at, **which),
    }


def _money_link(row: MoneyRow, now: datetime, *, is_yesterday: bool = False) -> str:
    day = now - timedelta(days=1) if is_yesterday else now
    until = f"{day:%H:%M}" if is_yesterday else None
    return links.money(f"{day:%Y-%m-%d}", row.account, row.currency, row.way, row.kinds, until)
