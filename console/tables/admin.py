"""starlette-admin within the console: its lists and its rows' pages, and nothing else of it.

Not served are its scripts and styles, its log-in, its forms, its import and its own protection of forms: the console's
frame, session and forms stand in their place (ADR 0026).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette_admin import BaseAdmin
from starlette_admin.auth import AdminUser, BaseAuthProvider

from console.errors import NotLoggedIn
from console.page import Pages
from console.parts import Parts
from console.tables import raw
from console.tables.export import LIMITS, exported
from console.tables.many import steps
from console.tables.queues import Inbox, Outbox, Quarantine, is_dead, is_replayable
from console.tables.records import Actions, Heads, Payments, Reconciliations
from console.tables.view import Table
from storage.errors import NotFound
from storage.telling import shown

PATH: Final = "/console/tables"

_NAME: Final = "tables"

#: The routes of starlette-admin that are served. All are GET.
_KEPT: Final = frozenset({"list", "detail"})


def routes(parts: Parts, pages: Pages) -> list[BaseRoute]:
    """Everything under /console/tables."""
    admin = Tables(parts, pages)
    acting = [Route(path, do, methods=["POST"]) for path, do in steps(parts, pages)]
    inside = [
        Route("/", _to_first, methods=["GET"]),
        Route("/{key}/export", partial(_export, admin.tables), methods=["GET"]),
        *acting,
        *admin.routes,
    ]
    return [Mount(PATH, routes=inside, name=_NAME, middleware=admin.middlewares)]


async def _to_first(_request: Request) -> Response:
    return RedirectResponse(f"{PATH}/payments/list", 303)


async def _export(tables: Sequence[Table], request: Request) -> Response:
    table = next((table for table in tables if table.key == request.path_params["key"]), None)
    if table is None:
        raise NotFound("no such table", param="table")
    return exported(table, request)


class Tables(BaseAdmin):
    """The tables, rendered by the console's own pages."""

    def __init__(self, parts: Parts, pages: Pages) -> None:
        self._pages = pages
        self.tables: Sequence[Table] = [
            Payments(parts),
            Inbox(parts),
            Outbox(parts),
            Quarantine(parts),
            Reconciliations(parts),
            Actions(parts),
            Heads(parts),
        ]
        super().__init__(
            title="Receipted",
            base_url=PATH,
            route_name=_NAME,
            auth_provider=ConsoleSessions(),
            secret_key="unused: what it would sign is not served",  # noqa: S106 - no secret
            timezone_config=None,
            export_config=LIMITS,
        )
        for table in self.tables:
            self.add_view(table)
        self.routes = [route for route in self.routes if isinstance(route, Route) and route.name in _KEPT]
        self.middlewares = [self.auth_provider.get_middleware()] if self.auth_provider else []

    def _template_response(
        self, request: Request, name: str, context: dict[str, Any] | None = None, status_code: int = 200
    ) -> Response:
        """The page in the console's frame."""
        given = {**(context or {}), "told": shown, "most": LIMITS.max_rows}
        view = given["view"]
        if "list_params" in given:
            given |= view.shown(request, given["list_params"])
        else:
            given |= {"line": given["raw_obj"], "raw": raw.raw, "headers": raw.headers}
            given |= {"is_replayable": is_replayable, "is_dead": is_dead}
        return _Page(self._pages, request, name, status_code, given)


class _Page(Response):
    """A page of the console, made when it is sent: making one may wait."""

    def __init__(self, pages: Pages, request: Request, name: str, status_code: int, given: dict[str, Any]) -> None:
        super().__init__(status_code=status_code)
        self._pages, self._request, self._name, self._given = pages, request, name, given

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make and send it."""
        page = await self._pages.show(self._request, self._name, status_code=self.status_code, **self._given)
        await page(scope, receive, send)


class ConsoleSessions(BaseAuthProvider):
    """Whoever is logged in at the console. It brings no page: the console has let nobody else come here."""

    async def authenticate(self, request: Request) -> AdminUser | None:
        """The person of the session."""
        person = request.state.person
        return None if person is None else AdminUser(username=person.name)

    def get_middleware(self) -> Middleware:
        """What asks it for every request."""
        return Middleware(_Known, provider=self)


class _Known:
    """Nobody gets past it without a session, whatever is mounted around it."""

    def __init__(self, app: ASGIApp, provider: ConsoleSessions) -> None:
        self._app, self._provider = app, provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; raises NotLoggedIn."""
        request = Request(scope, receive)
        request.state.admin_user = await self._provider.authenticate(request)
        if request.state.admin_user is None:
            raise NotLoggedIn
        await self._app(scope, receive, send)
