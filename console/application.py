"""The console as one route of the web application, which checks every request.

HTTPS, session, permission, origin and the form's token are checked here, before any page.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from starlette.datastructures import ImmutableMultiDict, MutableHeaders, URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Message, Receive, Scope, Send

from console import accounts, actions, login, money, oidc, overview, payment, people, profile, second_factor
from console.access import RoutePermissions
from console.browser_security import SAFE_METHODS, add_security_headers, check_origin, parse_form
from console.deps import ConsoleDeps
from console.errors import ConsoleHttpsRequired, NotFromHere, NotLoggedIn, PasswordIsTemporary, SecondFactorRequired
from console.pages import PageRenderer
from console.sessions import Sessions
from console.static_files import PATH as STATIC
from console.tables import routes as tables
from service.overview import OverviewCounter
from statemachine.errors import ServiceError
from storage.ids import new_id

log = structlog.get_logger()

_HOME: Final = "/console/"
LOGIN: Final = "/console/login"
LOGIN_CODE: Final = "/console/login/code"
_OWN: Final = "/console/me"

#: Paths that are served without a session.
_OPEN: Final = (LOGIN, LOGIN_CODE, f"{LOGIN}/oidc", f"{LOGIN}/oidc/callback")

#: Paths that are served to a person who must change a password or set up a second factor first.
_BEFORE_CHANGE: Final = (_OWN, LOGIN, "/console/logout")


class ConsoleRoute(BaseRoute):
    """Everything under /console: pages need a session, changes need its form.

    `request.state` has person, secret (what forms of this page are bound to), form and request_id.
    """

    def __init__(self, deps: ConsoleDeps, pages: PageRenderer, sessions: Sessions, routes: Sequence[BaseRoute]) -> None:
        self._deps, self._pages, self._sessions = deps, pages, sessions
        self._router = Router(routes, redirect_slashes=False)
        self._access = RoutePermissions(routes)
        pages.is_served = self._is_served

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the paths of the console."""
        path = scope["path"] if scope["type"] == "http" else ""
        is_here = path == "/console" or path.startswith(_HOME)
        return (Match.FULL if is_here else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Return the path of a route of the console."""
        return self._router.url_path_for(name, **path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        request_id = new_id()
        is_begun = False

        async def guarded(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                add_security_headers(
                    MutableHeaders(scope=message), request_id, is_development=self._deps.is_development
                )
            await send(message)

        state = {
            **scope.get("state", {}),
            "request_id": request_id,
            "person": None,
            "secret": None,
            "form": ImmutableMultiDict(),
        }
        # Errors become pages here, and not the JSON of the application around.
        inner = {**scope, "state": state, "starlette.exception_handlers": ({}, {})}
        if scope["path"] == "/console":
            inner["path"] = _HOME
        request = Request(inner, receive)
        try:
            answer = await self._redirect_or_check(request)
            if answer is None:
                self._access.check(inner, request.state.person)
                await self._router(inner, _replay_body(state, receive), guarded)
            else:
                await answer(inner, receive, guarded)
        except Exception as error:
            if is_begun and isinstance(error, ServiceError):  # the server breaks the connection off
                log.info("request.broken", request_id=request_id, code=error.code)
                return
            if is_begun:
                raise
            response = await self._error_page(request, error)
            await response(inner, receive, guarded)

    async def _redirect_or_check(self, request: Request) -> Response | None:
        """Return a redirect, or None where the page may be served; raises the refusal."""
        deps, path = self._deps, request.url.path
        if not deps.is_secure(request.scope):
            raise ConsoleHttpsRequired
        if path.startswith(STATIC):
            return None
        found = await self._sessions.find(request)
        if found is not None:
            request.state.person, request.state.secret = found
        if path in _OPEN:
            request.state.secret = request.cookies.get(self._pages.cookies.before)
        elif found is None:
            return _to_login(request)
        if request.method not in SAFE_METHODS:
            await self._check_form(request)
        person = request.state.person
        if person is not None and person.is_held_up and not path.startswith(_BEFORE_CHANGE):
            if request.method in SAFE_METHODS:
                return RedirectResponse(_OWN, 303)
            raise PasswordIsTemporary if person.must_change else SecondFactorRequired
        return None

    async def _check_form(self, request: Request) -> None:
        """Check that a page of the console sent the session's form; raises NotFromHere."""
        check_origin(self._deps, request.headers)
        body = await self._deps.read_body(request.scope, request.receive)
        request.state.body = body
        request.state.form = parse_form(body, request.headers)
        token = request.state.form.get("csrf") or request.headers.get("x-csrf-token", "")
        secret = request.state.secret
        if not secret or not self._deps.signing.is_form(secret, token):
            raise NotFromHere

    async def _error_page(self, request: Request, error: Exception) -> Response:
        """Render the page of an error, without internal details."""
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        if isinstance(error, ServiceError):
            status, code, words = error.status, error.code, error.message
            wait = getattr(error, "retry_after", None)
            if status in (429, 503):
                headers["retry-after"] = str(int(wait) if wait else 5)
        elif isinstance(error, HTTPException):
            status, code = error.status_code, f"http_{error.status_code}"
            words = _WORDS.get(status, error.detail)
        else:
            status, code, words = 500, "internal", "An internal error; it is logged under the request id below."
            log.error("request.failed", request_id=request.state.request_id, exc_info=error)
        log.info("request.refused", request_id=request.state.request_id, code=code, status=status)
        response = await self._pages.show(
            request,
            "refused.html",
            status_code=status,
            status=status,
            words=words,
            title=_TITLES.get(status, "That did not work"),
        )
        response.headers.update(headers)
        return response

    def _is_served(self, path: str) -> bool:
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
        return any(route.matches(scope)[0] is Match.FULL for route in self._router.routes)


_TITLES: Final = {
    401: "You are not logged in",
    403: "You may not do that",
    404: "There is nothing here",
    409: "It has changed meanwhile",
    429: "Too often",
    500: "Something broke",
    503: "Not now",
}
_WORDS: Final = {
    404: "There is no page of this name, or what it was about is not there any more.",
    405: "This page does not take that.",
}


def _to_login(request: Request) -> Response:
    """Redirect a navigation to the log-in and back; else raise NotLoggedIn."""
    if request.method not in ("GET", "HEAD") or request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        raise NotLoggedIn
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(LOGIN if wanted == _HOME else f"{LOGIN}?{urlencode({'next': wanted})}", 303)


def _replay_body(state: dict[str, Any], receive: Receive) -> Receive:
    """Replay a body that was read for the form's token; then pass on what comes."""
    body: bytes | None = state.pop("body", None)

    async def replayed() -> Message:
        nonlocal body
        if body is None:
            return await receive()
        given, body = body, None
        return {"type": "http.request", "body": given, "more_body": False}

    return replayed


def routes(deps: ConsoleDeps) -> list[BaseRoute]:
    """Return the console as routes of the web application.

    Each area of pages brings its own routes, with their whole paths.
    """
    pages = PageRenderer(deps)
    sessions = Sessions(deps, pages.cookies)
    figuring = OverviewCounter(deps.accounts, deps.clock)
    areas = [
        *login.routes(deps, pages, sessions),
        *oidc.routes(deps, pages, sessions),
        *profile.routes(deps, pages, sessions),
        *second_factor.routes(deps, pages),
        *people.routes(deps, pages),
        *actions.routes(deps, pages),
        *payment.routes(deps, pages),
        *tables.routes(deps, pages),
        *overview.routes(deps, pages, figuring),
        *accounts.routes(deps, pages, figuring),
        *money.routes(deps, pages),
    ]
    static = Route(f"{STATIC}{{name}}", pages.static.serve, methods=["GET"])
    return [ConsoleRoute(deps, pages, sessions, [static, *areas])]
