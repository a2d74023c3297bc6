"""Pages of the accounts: configuration, polling, webhook health and rejections."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console import links
from console.access import Person
from console.charts import Chart, Series
from console.deps import ConsoleDeps
from console.overview import shown
from console.pages import PageRenderer
from service.account_status import PushDay, account_status
from service.overview import OverviewCounter
from service.permissions import Permission
from storage.errors import NotFound

_HERE: Final = "/console/accounts"


def routes(deps: ConsoleDeps, pages: PageRenderer, figuring: OverviewCounter) -> list[BaseRoute]:
    """Return the routes of the list of accounts and of each account's page."""

    async def every(request: Request) -> Response:
        figures = await deps.read(figuring.look)
        return await pages.show(request, "accounts.html", **shown(figures, deps))

    async def one(request: Request) -> Response:
        account = deps.accounts.get(request.path_params["name"])
        if account is None:
            raise NotFound("no account of that name is in the settings", param="account")
        found = await deps.read(lambda unit: account_status(unit, account, deps.clock()))
        person: Person = request.state.person
        return await pages.show(
            request,
            "account.html",
            **found,
            chart=_chart(found["days"]),
            account=account,
            links=links,
            shows_settings=person.may(Permission.SETTINGS),
        )

    return [Route(_HERE, every, methods=["GET"]), Route(f"{_HERE}/{{name}}", one, methods=["GET"])]


def _chart(days: Sequence[PushDay]) -> Chart:
    return Chart(
        id="chart-push",
        title="Changes per day, by how they were heard of",
        description=f"The last {len(days)} days, UTC. Late and lost ones were found by asking.",
        heading="Day",
        labels=[f"{day.day:%m-%d}" for day in days],
        series=[
            Series("pushed", [day.pushed for day in days], "chart-ok"),
            Series("late", [day.late for day in days], "chart-warn"),
            Series("lost", [day.lost for day in days], "chart-bad"),
        ],
    )
