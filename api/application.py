"""The API as a FastAPI application, and as routes of the web application."""

import json
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api import accounts, audit, events, keys, payments, queues, reconciliations
from api.admission import Admission
from api.deps import ApiDeps
from api.docs_page import docs_page
from api.errors import MethodNotAllowed, UnknownPath, as_refusal
from api.feed import Feed
from api.idempotency import Idempotency
from api.middleware import RequestMiddleware
from api.openapi import document
from api.responses import refuse
from api.routing import ApiRoute
from providers.catalogue import PROVIDERS
from statemachine.errors import ServiceError
from storage.ids import new_id

log = structlog.get_logger()

#: In the order of the documents.
ROUTERS: Final[tuple[APIRouter, ...]] = (
    payments.router,
    events.router,
    queues.inbox_router,
    queues.outbox_router,
    queues.rejected_router,
    accounts.router,
    reconciliations.router,
    audit.router,
    keys.router,
)

#: Nothing of the page is from elsewhere, and nothing may frame it.
_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}

#: Characters of a path that is compared with those that exist.
_MAX_PATH_CHARS: Final = 100

#: FastAPI's own telemetry would carry values of requests; tracing is the application's.
_NO_TELEMETRY: Final[Any] = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


def operations() -> list[ApiRoute]:
    """Return every operation of the API.

    Its description, the page and the tests read this list and no other.
    """
    return [route for router in ROUTERS for route in router.routes if isinstance(route, ApiRoute)]


def api_routes(deps: ApiDeps, *, public_url: str) -> list[BaseRoute]:
    """Return every route of the API; `public_url` is where programs reach it."""
    pages = _Documents(public_url)
    return [
        Route("/openapi.json", pages.openapi, methods=["GET"]),
        Route("/docs", pages.page, methods=["GET"]),
        _Prefix("/v1", create_api(deps)),
    ]


def create_api(deps: ApiDeps) -> ASGIApp:
    """Build the FastAPI application, behind the middleware that frames each request."""
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    for router in ROUTERS:
        app.include_router(router)
    app.state.deps = deps
    app.state.admission = Admission(deps)
    app.state.idempotency = Idempotency()
    app.state.feed = Feed(deps)
    app.add_exception_handler(ServiceError, _refuse_service_error)
    app.add_exception_handler(HTTPException, _refuse_http_error)
    app.add_exception_handler(Exception, _refuse_internal_error)
    return RequestMiddleware(app, deps.is_secure)


async def _refuse_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return refuse(request, as_refusal(error))


async def _refuse_http_error(request: Request, error: Exception) -> Response:
    """Refuse an unknown path or method; any other error of the router is a bug."""
    if not isinstance(error, HTTPException) or error.status_code not in (404, 405):
        raise error
    path = request.scope["path"]
    methods = _methods_at(path)
    if not methods:
        near = next(iter(get_close_matches(path[:_MAX_PATH_CHARS], _paths(), n=1, cutoff=0.8)), None)
        return refuse(request, UnknownPath(f"there is nothing at this path; did you mean {near}?" if near else None))
    request.state.headers["allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return refuse(request, MethodNotAllowed())


async def _refuse_internal_error(request: Request, error: Exception) -> Response:
    request.state.is_failed = True
    log.error("request.failed", request_id=request.state.request_id, exc_info=error)
    return refuse(request, ServiceError("an internal error; it is logged"))


def _paths() -> list[str]:
    """Return each path once, those without a part in braces first."""
    return sorted(dict.fromkeys(route.path for route in operations()), key=lambda path: "{" in path)


def _methods_at(path: str) -> set[str]:
    """Return the methods that the path takes.

    A fixed path has none of the methods of a template that it fits.
    """
    fixed = {route.method for route in operations() if route.path == path}
    return fixed or {route.method for route in operations() if route.path_regex.fullmatch(path)}


class _Documents:
    """Description of the API for programs and for people.

    Each is made on its first request.
    """

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    @cached_property
    def _document(self) -> dict[str, Any]:
        return api_document(self._public_url)

    @cached_property
    def _json(self) -> str:
        return json.dumps(self._document)

    @cached_property
    def _html(self) -> str:
        return docs_page(self._document)

    async def openapi(self, _request: Request) -> Response:
        """Answer with the OpenAPI document."""
        return Response(self._json, media_type="application/json", headers=_headers())

    async def page(self, _request: Request) -> Response:
        """Answer with the page for people."""
        return HTMLResponse(self._html, headers={**_headers(), **_PAGE_HEADERS})


def api_document(public_url: str) -> dict[str, Any]:
    """Describe the API in OpenAPI."""
    tags = [str(tag) for router in ROUTERS for tag in router.tags]
    subjects = sorted({life.subject for each in PROVIDERS.values() for life in each.lifecycles.values()})
    return document(operations(), tags=tags, server=public_url, subjects=subjects)


def _headers() -> dict[str, str]:
    return {"cache-control": "no-cache", "x-request-id": new_id()}


class _Prefix(BaseRoute):
    """Everything under a path; Starlette's Mount passes over a path with a line feed."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        self._path, self._app = path, app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path and everything under it."""
        path = scope["path"] if scope["type"] == "http" else ""
        is_here = path == self._path or path.startswith(f"{self._path}/")
        return (Match.FULL if is_here else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request to the application."""
        await self._app(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        """Raise NoMatchFound: no path has a name here."""
        raise NoMatchFound(name, path_params)
