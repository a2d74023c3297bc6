"""Every page of the console, put together."""

from starlette.routing import BaseRoute, Route

from console import accounts, acts, login, money, overview, own, payment, people
from console.application import Console
from console.page import Pages
from console.parts import Parts
from console.sessions import Sessions
from console.static_files import PATH as STATIC
from console.tables import pages as tables
from service.overview import OverviewCounter


def routes(parts: Parts) -> list[BaseRoute]:
    """The console as routes of the web application. Each area has its own, and brings the whole path of each."""
    pages = Pages(parts)
    sessions = Sessions(parts, pages.cookies)
    figuring = OverviewCounter(parts.accounts, parts.clock)
    areas = [
        *login.routes(parts, pages, sessions),
        *own.routes(parts, pages, sessions),
        *people.routes(parts, pages),
        *acts.routes(parts, pages),
        *payment.routes(parts, pages),
        *tables.routes(parts, pages),
        *overview.routes(parts, pages, figuring),
        *accounts.routes(parts, pages, figuring),
        *money.routes(parts, pages),
    ]
    static = Route(f"{STATIC}{{name}}", pages.static.serve, methods=["GET"])
    return [Console(parts, pages, sessions, [static, *areas])]
