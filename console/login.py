"""Log-in and log-out: passwords are verified within limits on attempts.

Answer and time are the same for unknown names, so that existing ones cannot be found out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import urlencode

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console.access import Person
from console.browser_security import local_path
from console.deps import ConsoleDeps, ConsoleLimits
from console.errors import TooManyLogins, WrongLogin
from console.pages import PageRenderer
from console.sessions import Sessions, network_of
from console.signing import CODE_LIFETIME, KNOWN_BROWSER_LIFETIME, digest_of
from service.passwords import MAX_PASSWORD_CHARS, UNMATCHABLE_HASH, hash_password, matches_hash, needs_rehash
from service.second_factor import UsedCode, accept_code, is_asked
from statemachine.errors import ServiceError
from storage import console_factors, console_sessions, console_users, operator_actions
from storage.database import Unit
from storage.tables_support import ConsolePerson


async def verify_password(deps: ConsoleDeps, person: ConsolePerson | None, password: str) -> bool:
    """Verify the password of a person who may log in.

    Without a person a hash is computed all the same, so that it takes as long.
    """
    may = person is not None and person.disabled_at is None
    kept = person.password_hash if person is not None else UNMATCHABLE_HASH
    is_right = await deps.passwords.do(lambda: matches_hash(password[: MAX_PASSWORD_CHARS + 1], kept))
    return is_right and may


class AttemptCounter(NamedTuple):
    """One of the counters that an attempt falls under."""

    subject: str
    at_most: int
    is_own: bool  #: of this name from here alone, so that the right password forgets all of it


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """An attempt at a password: its name, network, and browser if that is known.

    Strangers share what they may try of a name, and use it up for each other and for its person. A browser that is
    known by its session, or by the cookie of an earlier log-in, is counted by itself: no other browser can lock it out.
    """

    name: str
    network: str
    browser: str | None = None  #: a secret of its own that was signed here for this name, or its session's id

    def counters(self, limits: ConsoleLimits) -> Iterator[AttemptCounter]:
        """Yield its counters, always in this order, so that no two attempts deadlock."""
        if self.browser is not None:
            yield AttemptCounter(_subject("browser", self.browser), limits.attempts, is_own=True)
            return
        yield AttemptCounter(_subject("network", self.network), limits.attempts_per_network, is_own=False)
        yield AttemptCounter(_subject("here", f"{self.network} {self.name}"), limits.attempts, is_own=True)
        yield AttemptCounter(_subject("name", self.name), limits.attempts_everywhere, is_own=False)


async def count_attempt(deps: ConsoleDeps, attempt: LoginAttempt) -> None:
    """Count an attempt before the password is checked; raises TooManyLogins.

    The counters are shared by all processes.

    An unknown name is counted like any other, and so is one that is locked out: neither can be told apart.
    """
    now, limits = deps.clock(), deps.limits

    def take(unit: Unit) -> TooManyLogins | None:
        for each in attempt.counters(limits):
            wait = console_sessions.take(unit, each.subject, now, at_most=each.at_most, window=limits.attempts_window)
            if wait is not None:
                return TooManyLogins(wait)  # what was counted until here is kept
        console_sessions.forget_before(unit, _forget_before(now, deps))
        return None

    refused = await deps.write(take)
    if refused is not None:
        raise refused


async def count_code(deps: ConsoleDeps, person_id: str) -> None:
    """Count a code before it is checked; raises TooManyLogins.

    By the person alone, from wherever it comes: who gets here knows the password.
    """
    now, limits = deps.clock(), deps.limits
    subject = _subject("code", person_id)
    wait = await deps.write(
        lambda unit: console_sessions.take(unit, subject, now, at_most=limits.codes, window=limits.attempts_window)
    )
    if wait is not None:
        raise TooManyLogins(wait)


async def count_network(deps: ConsoleDeps, network: str) -> None:
    """Count a log-in at a provider by its network alone; raises TooManyLogins."""
    now, limits = deps.clock(), deps.limits
    subject, at_most = _subject("network", network), limits.attempts_per_network
    wait = await deps.write(
        lambda unit: console_sessions.take(unit, subject, now, at_most=at_most, window=limits.attempts_window)
    )
    if wait is not None:
        raise TooManyLogins(wait)


def give_back_network(unit: Unit, network: str) -> None:
    """Uncount the last log-in of the network, which succeeded."""
    console_sessions.give_back(unit, _subject("network", network))


def forget_codes(unit: Unit, person_id: str) -> None:
    """Forget the codes that failed, after one that was right."""
    console_sessions.forget(unit, _subject("code", person_id))


def forget_attempts(unit: Unit, attempt: LoginAttempt, limits: ConsoleLimits) -> None:
    """Forget the attempts of this name from here, and take back the last shared one.

    Shared are the counters of the network, and of the name from everywhere.
    """
    for each in attempt.counters(limits):
        (console_sessions.forget if each.is_own else console_sessions.give_back)(unit, each.subject)


def _forget_before(now: datetime, deps: ConsoleDeps) -> datetime:
    return now - 10 * deps.limits.attempts_window


def _subject(kind: str, value: str) -> str:
    """Hash a name before it is stored: it may be a password in the wrong field."""
    return sha256(f"{kind}:{value}".encode()).hexdigest()


log = structlog.get_logger()

_LOGIN: Final = "/console/login"


def routes(deps: ConsoleDeps, pages: PageRenderer, sessions: Sessions) -> list[BaseRoute]:
    """Return the routes of log-in, which is open to all, and log-out."""
    login = LoginPages(deps, pages, sessions)
    return [
        Route(_LOGIN, login.show, methods=["GET"]),
        Route(_LOGIN, login.enter, methods=["POST"]),
        Route(f"{_LOGIN}/code", login.ask_code, methods=["GET"]),
        Route(f"{_LOGIN}/code", login.enter_code, methods=["POST"]),
        Route("/console/logout", login.leave, methods=["POST"]),
    ]


class CodeAwaited(NamedTuple):
    """The password was right, and the second factor is asked for."""

    person_id: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class LoginPages:
    """Pages of log-in and log-out."""

    deps: ConsoleDeps
    pages: PageRenderer
    sessions: Sessions

    async def show(self, request: Request) -> Response:
        """Serve the form.

        A browser that came from another site sent no cookie (SameSite=Strict): it is sent on once, with it.
        """
        wanted = local_path(request.query_params.get("next", ""), "")
        if wanted and request.headers.get("sec-fetch-site") == "cross-site":
            return await self.pages.show(request, "onward.html", to=wanted)
        return await self._form(request, wanted)

    async def enter(self, request: Request) -> Response:
        """Begin a session and redirect to the wanted page; else show the form again."""
        form = request.state.form
        wanted = local_path(form.get("next", ""), "")
        name, password = form.get("name", "").strip().lower(), form.get("password", "")
        try:
            if not self.deps.signing.is_before(request.state.secret, self.deps.clock()):
                raise WrongLogin("this page stood open for too long; log in now")
            attempt = self._attempt(request, name)
            await count_attempt(self.deps, attempt)
            begun = await self._check_password(request, attempt, password)
        except ServiceError as error:
            if error.status >= 500:
                raise
            log.warning("login.refused", code=error.code, network=self._network(request))
            response = await self._form(request, wanted, error=error.message, name=name[:64], status_code=error.status)
            if isinstance(error, TooManyLogins):
                response.headers["retry-after"] = str(error.retry_after)
            return response
        cookies, signing = self.pages.cookies, self.deps.signing
        if isinstance(begun, CodeAwaited):
            response = self.pages.go(f"{_LOGIN}/code" + (f"?{urlencode({'next': wanted})}" if wanted else ""))
            pending = signing.pending(begun.person_id, begun.password_hash, self.deps.clock())
            cookies.put(response, cookies.pending, pending, seconds=int(CODE_LIFETIME.total_seconds()))
            return response
        return self._welcome(wanted, name, begun)

    async def ask_code(self, request: Request) -> Response:
        """Serve the form for the code of the second factor."""
        wanted = local_path(request.query_params.get("next", ""), "")
        cookie = request.cookies.get(self.pages.cookies.pending, "")
        if self.deps.signing.pending_person(cookie, self.deps.clock()) is None or request.state.secret is None:
            return self.pages.go(_LOGIN)
        return await self.pages.show(request, "login_code.html", wanted=wanted, error=None)

    async def enter_code(self, request: Request) -> Response:
        """Begin a session after the code; else show the form again, or begin anew."""
        form, now, signing = request.state.form, self.deps.clock(), self.deps.signing
        wanted = local_path(form.get("next", ""), "")
        pending = signing.pending_person(request.cookies.get(self.pages.cookies.pending, ""), now)
        if pending is None or not signing.is_before(request.state.secret, now):
            return self._begin_anew()
        person_id, digest = pending
        try:
            await count_code(self.deps, person_id)
            name, secret = await self._accept_code(request, person_id, digest, form.get("code", ""))
        except WrongLogin:
            return self._begin_anew()
        except ServiceError as error:
            if error.status >= 500:
                raise
            log.warning("login.refused", code=error.code, network=self._network(request))
            response = await self.pages.show(
                request, "login_code.html", wanted=wanted, error=error.message, status_code=error.status
            )
            if isinstance(error, TooManyLogins):
                response.headers["retry-after"] = str(error.retry_after)
            return response
        return self._welcome(wanted, name, secret)

    def _begin_anew(self) -> Response:
        response = self.pages.go(_LOGIN, "That took too long, or something has changed: log in again.", "warn")
        self.pages.cookies.drop(response, self.pages.cookies.pending)
        return response

    async def _accept_code(self, request: Request, person_id: str, digest: str, code: str) -> tuple[str, str]:
        now = self.deps.clock()
        old = self.deps.signing.secret(request.cookies.get(self.pages.cookies.session, ""))

        def begin(unit: Unit) -> tuple[str, str]:
            person = console_users.get(unit, person_id)
            if person.disabled_at is not None or digest_of(person.password_hash) != digest:
                raise WrongLogin
            if accept_code(unit, self.deps.sealer, person_id, code, now) is UsedCode.RECOVERY:
                operator_actions.note(
                    unit,
                    account=None,
                    at=now,
                    actor=person.name,
                    action="use recovery code",
                    subject=person_id,
                    reason="to log in",
                )
            forget_codes(unit, person_id)
            forget_attempts(unit, self._attempt(request, person.name), self.deps.limits)
            if old is not None:
                console_sessions.revoke_secret(unit, digest_of(old), now)
            return person.name, self.sessions.begin(unit, person, request, now)

        name, secret = await self.deps.write(begin)
        log.info("login.succeeded", person_id=person_id, network=self._network(request))
        return name, secret

    def _welcome(self, wanted: str, name: str, secret: str) -> Response:
        response = self.pages.go(wanted or "/console/")
        cookies, signing = self.pages.cookies, self.deps.signing
        cookies.drop(response, cookies.pending)
        cookies.put(response, cookies.session, signing.session(secret))
        known = signing.known(name, self.deps.clock())
        cookies.put(response, cookies.known, known, seconds=int(KNOWN_BROWSER_LIFETIME.total_seconds()))
        cookies.drop(response, cookies.before)
        return response

    async def leave(self, request: Request) -> Response:
        """End the session, in every process."""
        person: Person = request.state.person
        now = self.deps.clock()
        await self.deps.write(lambda unit: console_sessions.revoke(unit, person.session_id, now))
        log.info("login.ended", person_id=person.id, session_id=person.session_id)
        response = self.pages.go(_LOGIN, "You are logged out.")
        self.pages.cookies.drop(response, self.pages.cookies.session)
        return response

    async def _form(
        self, request: Request, wanted: str, *, error: str | None = None, name: str = "", status_code: int = 200
    ) -> Response:
        before, now = request.state.secret, self.deps.clock()
        if before is None or not self.deps.signing.is_before(before, now):
            before = request.state.secret = self.deps.signing.before(now)
        response = await self.pages.show(
            request,
            "login.html",
            status_code=status_code,
            wanted=wanted,
            error=error,
            name=name,
            has_oidc=self.deps.oidc is not None,
            has_ended=request.state.person is None and self.pages.cookies.session in request.cookies,
        )
        self.pages.cookies.put(response, self.pages.cookies.before, before)
        return response

    def _attempt(self, request: Request, name: str) -> LoginAttempt:
        cookie = request.cookies.get(self.pages.cookies.known, "")
        browser = self.deps.signing.browser(cookie, name, self.deps.clock())
        return LoginAttempt(name, self._network(request), browser)

    async def _check_password(self, request: Request, attempt: LoginAttempt, password: str) -> "str | CodeAwaited":
        """Begin a session and return its secret, or what says that a code is awaited.

        Raises WrongLogin for a wrong name or password.
        """
        person = await self.deps.read(lambda unit: console_users.by_name(unit, attempt.name))
        if not await verify_password(self.deps, person, password) or person is None:
            raise WrongLogin
        found, stronger = person, None
        if needs_rehash(found.password_hash):
            stronger = await self.deps.passwords.do(lambda: hash_password(password))
        now = self.deps.clock()
        old = self.deps.signing.secret(request.cookies.get(self.pages.cookies.session, ""))

        def begin(unit: Unit) -> str | CodeAwaited:
            current = console_users.get(unit, found.id)
            if current.disabled_at is not None or current.password_hash != found.password_hash:
                raise WrongLogin  # both may have changed while the password was checked
            if stronger is not None:
                console_users.rehash(unit, found.id, found.password_hash, stronger)
            if is_asked(console_factors.of_person(unit, found.id)):
                return CodeAwaited(found.id, stronger or found.password_hash)
            forget_attempts(unit, attempt, self.deps.limits)
            if old is not None:
                console_sessions.revoke_secret(unit, digest_of(old), now)
            return self.sessions.begin(unit, found, request, now)

        begun = await self.deps.write(begin)
        if isinstance(begun, str):
            log.info("login.succeeded", person_id=found.id, network=attempt.network)
        return begun

    def _network(self, request: Request) -> str:
        return network_of(self.deps.address_of(request.scope))
