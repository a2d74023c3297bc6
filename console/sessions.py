"""Sessions: begun at log-in with a new secret, and found by the cookie.

They end by idleness, age, log-out or an admin.
"""

from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from console.access import Person
from console.deps import ConsoleDeps
from console.signing import digest_of, new_secret
from service.passwords import UNMATCHABLE_HASH
from service.permissions import Role
from service.second_factor import is_asked
from storage import console_factors, console_sessions
from storage.database import Unit
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.tables_support import ConsolePerson, ConsoleSession

log = structlog.get_logger()

_MAX_AGENT_CHARS: Final = 120


class Cookies:
    """Cookies: Secure, HttpOnly, SameSite=Strict, and of this host alone."""

    def __init__(self, deps: ConsoleDeps) -> None:
        self._is_secure = not deps.is_development
        prefix = "__Host-" if self._is_secure else ""  # the prefix is refused by browsers over plain HTTP
        self.session: Final = f"{prefix}receipted"
        self.before: Final = f"{prefix}receipted-login"
        self.known: Final = f"{prefix}receipted-known"
        self.pending: Final = f"{prefix}receipted-code"
        self.oidc: Final = f"{prefix}receipted-oidc"
        self.flash: Final = f"{prefix}receipted-flash"

    def put(
        self, response: Response, name: str, value: str, *, seconds: int | None = None, is_lax: bool = False
    ) -> None:
        """Set a cookie; without `seconds` it lasts until the browser is closed.

        With `is_lax` it is sent along when another site leads here, too.
        """
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/",
            secure=self._is_secure,
            httponly=True,
            samesite="lax" if is_lax else "strict",
        )

    def drop(self, response: Response, name: str) -> None:
        """Delete a cookie."""
        response.delete_cookie(name, path="/", secure=self._is_secure, httponly=True, samesite="strict")


class Sessions:
    """Sessions in the database, without a cache: they end in every process at once."""

    def __init__(self, deps: ConsoleDeps, cookies: Cookies) -> None:
        self._deps = deps
        self._cookies = cookies

    def begin(self, unit: Unit, person: ConsolePerson, request: HTTPConnection, now: datetime) -> str:
        """Begin a session and return its secret; nothing of an earlier one is kept."""
        secret = new_secret()
        kept = ConsoleSession(
            id=new_id(),
            digest=digest_of(secret),
            person_id=person.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + self._deps.limits.max_age,
            address=network_of(self._deps.address_of(request.scope)),
            user_agent=_user_agent(request.headers),
        )
        console_sessions.begin(unit, kept)
        return secret

    async def find(self, request: HTTPConnection) -> tuple[Person, str] | None:
        """Return the person and the session's secret; None without an open session."""
        secret = self._deps.signing.secret(request.cookies.get(self._cookies.session, ""))
        if secret is None:
            return None
        person = await self._deps.in_thread(lambda: self._read_session(secret, is_use=_is_navigation(request)))
        return None if person is None else (person, secret)

    def _read_session(self, secret: str, *, is_use: bool) -> Person | None:
        now, deps = self._deps.clock(), self._deps
        with deps.database.read() as unit:
            found = console_sessions.by_digest(unit, digest_of(secret))
            has_factor = (
                deps.limits.requires_second_factor
                and found is not None
                and is_asked(console_factors.of_person(unit, found[1].id))
            )
        if found is None:
            return None
        session, person = found
        if person.disabled_at is not None or not console_sessions.is_open(session, now, deps.limits.idle_timeout):
            return None
        if is_use and console_sessions.is_use_due(session, now):
            self._note_use(session, now)
        has_password = person.password_hash != UNMATCHABLE_HASH  # who has none logs in elsewhere, with a factor there
        must_enrol = deps.limits.requires_second_factor and has_password and not has_factor
        return Person(person.id, person.name, Role(person.role), session.id, person.is_temporary, must_enrol)

    def _note_use(self, session: ConsoleSession, now: datetime) -> None:
        """Record the use of a session.

        If that fails the session ends early; the present request is served all the same.
        """
        try:
            with self._deps.database.write() as unit:
                console_sessions.note_use(unit, session.id, now)
        except StorageUnavailable as fault:
            log.warning("session.failed", session_id=session.id, error=fault.message)


def _is_navigation(request: HTTPConnection) -> bool:
    """Return True for a navigation: live updates must not keep a session open.

    A browser that does not say is believed to be used.
    """
    return request.headers.get("sec-fetch-mode", "navigate") == "navigate"


def network_of(address: str) -> str:
    """Return the network of an address: /24 of IPv4, /56 of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(ip_network((parsed, 24 if parsed.version == 4 else 56), strict=False))


def _user_agent(headers: Headers) -> str:
    given = headers.get("user-agent", "")
    return "".join(letter for letter in given if letter.isprintable())[:_MAX_AGENT_CHARS]
