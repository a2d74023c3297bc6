"""The API as routes of the web application: the operations, their description, and the page."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.datastructures import URLPath
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.application import Api
from api.catalogue import operations
from api.openapi import description
from api.page import page
from api.parts import Parts
from storage.ids import new_id

#: Nothing of the page is from elsewhere, and nobody may frame it.
_GUARDS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def routes(parts: Parts, *, public_url: str) -> list[BaseRoute]:
    """Every route of the API; `public_url` is where programs of yours reach it."""
    served = operations()
    document = description(served, server=public_url)
    api = Api(parts, served)
    return [
        Route("/openapi.json", _constant(json.dumps(document), "application/json"), methods=["GET"]),
        Route("/docs", _page(page(document)), methods=["GET"]),
        _Under("/v1", api),
    ]


class _Under(BaseRoute):
    """Everything under a path is the application's to answer; Starlette's Mount passes over a path with a newline."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        self._path, self._app = path, app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for here."""
        path = scope["path"] if scope["type"] == "http" else ""
        is_here = path == self._path or path.startswith(f"{self._path}/")
        return (Match.FULL if is_here else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's answer."""
        await self._app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        """No path has a name here."""
        raise NoMatchFound(name, path_params)


def _constant(text: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        return Response(text, media_type=media_type, headers=_headers())

    return answer


def _page(text: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        return HTMLResponse(text, headers={**_headers(), **_GUARDS})

    return answer


def _headers() -> dict[str, str]:
    return {"cache-control": "no-cache", "x-request-id": new_id()}
