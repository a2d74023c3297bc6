"""The log-in and the log-out."""

from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console.errors import TooManyLogins, WrongLogin
from console.guards import local
from console.knowing import Try, count, succeeded, verified
from console.page import Pages
from console.parts import Parts
from console.passwords import hashed, is_weaker
from console.person import Person
from console.sessions import Sessions, network_of
from console.signing import KNOWN, digest_of
from statemachine.errors import ServiceError
from storage import console_sessions, console_users
from storage.database import Unit

log = structlog.get_logger()

_LOGIN: Final = "/console/login"


def routes(parts: Parts, pages: Pages, sessions: Sessions) -> list[BaseRoute]:
    """The log-in, which is open to all, and the log-out."""
    login = Login(parts, pages, sessions)
    return [
        Route(_LOGIN, login.show, methods=["GET"]),
        Route(_LOGIN, login.enter, methods=["POST"]),
        Route("/console/logout", login.leave, methods=["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class Login:
    """Who proves to know a person's password gets a session, and nobody learns which names there are."""

    parts: Parts
    pages: Pages
    sessions: Sessions

    async def show(self, request: Request) -> Response:
        """The form. A browser that came here from another site, and sent no cookie therefore, is let try once more."""
        wanted = local(request.query_params.get("next", ""), "")
        if wanted and request.headers.get("sec-fetch-site") == "cross-site":
            return await self.pages.show(request, "onward.html", to=wanted)
        return await self._form(request, wanted)

    async def enter(self, request: Request) -> Response:
        """A session for the right password, and the page that was wanted; else the form again, with what is wrong."""
        form = request.state.form
        wanted = local(form.get("next", ""), "")
        name, password = form.get("name", "").strip().lower(), form.get("password", "")
        try:
            if not self.parts.signing.is_before(request.state.secret, self.parts.clock()):
                raise WrongLogin("this page stood open for too long; log in now")
            tried = self._tried(request, name)
            await count(self.parts, tried)
            secret = await self._begun(request, tried, password)
        except ServiceError as error:
            if error.status >= 500:
                raise
            log.warning("login.refused", code=error.code, network=self._network(request))
            response = await self._form(request, wanted, error=error.message, name=name[:64], status_code=error.status)
            if isinstance(error, TooManyLogins):
                response.headers["retry-after"] = str(error.retry_after)
            return response
        response = self.pages.go(wanted or "/console/")
        cookies, signing = self.pages.cookies, self.parts.signing
        cookies.put(response, cookies.session, signing.session(secret))
        known = signing.known(name, self.parts.clock())
        cookies.put(response, cookies.known, known, seconds=int(KNOWN.total_seconds()))
        cookies.drop(response, cookies.before)
        return response

    async def leave(self, request: Request) -> Response:
        """The session ends, here and in every process."""
        person: Person = request.state.person
        now = self.parts.clock()
        await self.parts.write(lambda unit: console_sessions.revoke(unit, person.session_id, now))
        log.info("login.ended", person_id=person.id, session_id=person.session_id)
        response = self.pages.go(_LOGIN, "You are logged out.")
        self.pages.cookies.drop(response, self.pages.cookies.session)
        return response

    async def _form(
        self, request: Request, wanted: str, *, error: str | None = None, name: str = "", status_code: int = 200
    ) -> Response:
        before, now = request.state.secret, self.parts.clock()
        if before is None or not self.parts.signing.is_before(before, now):
            before = request.state.secret = self.parts.signing.before(now)
        response = await self.pages.show(
            request,
            "login.html",
            status_code=status_code,
            wanted=wanted,
            error=error,
            name=name,
            has_ended=request.state.person is None and self.pages.cookies.session in request.cookies,
        )
        self.pages.cookies.put(response, self.pages.cookies.before, before)
        return response

    def _tried(self, request: Request, name: str) -> Try:
        cookie = request.cookies.get(self.pages.cookies.known, "")
        browser = self.parts.signing.browser(cookie, name, self.parts.clock())
        return Try(name, self._network(request), browser)

    async def _begun(self, request: Request, tried: Try, password: str) -> str:
        """The secret of a new session; raises WrongLogin, whichever of the two is wrong."""
        person = await self.parts.read(lambda unit: console_users.by_name(unit, tried.name))
        if not await verified(self.parts, person, password) or person is None:
            raise WrongLogin
        found, stronger = person, None
        if is_weaker(found.password_hash):
            stronger = await self.parts.passwords.do(lambda: hashed(password))
        now = self.parts.clock()
        old = self.parts.signing.secret(request.cookies.get(self.pages.cookies.session, ""))

        def begin(unit: Unit) -> str:
            current = console_users.get(unit, found.id)
            if current.disabled_at is not None or current.password_hash != found.password_hash:
                raise WrongLogin  # both may have changed while the password was checked
            if stronger is not None:
                console_users.rehash(unit, found.id, found.password_hash, stronger)
            succeeded(unit, tried, self.parts.bounds)
            if old is not None:
                console_sessions.revoke_secret(unit, digest_of(old), now)
            return self.sessions.begin(unit, found, request, now)

        secret = await self.parts.write(begin)
        log.info("login.succeeded", person_id=found.id, network=tried.network)
        return secret

    def _network(self, request: Request) -> str:
        return network_of(self.parts.address_of(request.scope))
