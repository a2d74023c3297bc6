"""Every page of the console, put together."""

from starlette.routing import BaseRoute, Route

from console import accounts, actions, login, money, overview, payment, people, profile
from console.application import ConsoleRoute
from console.deps import ConsoleDeps
from console.pages import PageRenderer
from console.sessions import Sessions
from console.static_files import PATH as STATIC
from console.tables import routes as tables
from service.overview import OverviewCounter


def routes(parts: ConsoleDeps) -> list[BaseRoute]:
    """The console as routes of the web application. Each area has its own, and brings the whole path of each."""
    pages = PageRenderer(parts)
    sessions = Sessions(parts, pages.cookies)
    figuring = OverviewCounter(parts.accounts, parts.clock)
    areas = [
        *login.routes(parts, pages, sessions),
        *profile.routes(parts, pages, sessions),
        *people.routes(parts, pages),
        *actions.routes(parts, pages),
        *payment.routes(parts, pages),
        *tables.routes(parts, pages),
        *overview.routes(parts, pages, figuring),
        *accounts.routes(parts, pages, figuring),
        *money.routes(parts, pages),
    ]
    static = Route(f"{STATIC}{{name}}", pages.static.serve, methods=["GET"])
    return [ConsoleRoute(parts, pages, sessions, [static, *areas])]
