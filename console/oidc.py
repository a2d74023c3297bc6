"""Log-in by OpenID Connect: to the provider, and back with a session."""

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from console.browser_security import local_path
from console.deps import ConsoleDeps
from console.errors import OidcRefused
from console.login import count_network, give_back_network
from console.oidc_client import OidcAttempt, OidcClient, OidcIdentity
from console.pages import PageRenderer
from console.sessions import Sessions, network_of
from console.signing import OIDC_LIFETIME, digest_of
from service.passwords import UNMATCHABLE_HASH
from service.users import name_of, new_person
from storage import console_sessions, console_users, operator_actions
from storage.database import Unit
from storage.tables_support import ConsolePerson

log = structlog.get_logger()

_HERE: Final = "/console/login/oidc"
#: Who is on record for people that the provider of log-ins adds or changes.
_ACTOR: Final = "openid connect"


def routes(deps: ConsoleDeps, pages: PageRenderer, sessions: Sessions) -> list[BaseRoute]:
    """Return the routes to the provider and back; they answer 404 where there is none."""
    oidc = OidcPages(deps, pages, sessions)
    return [
        Route(_HERE, oidc.leave, methods=["GET"]),
        Route(f"{_HERE}/callback", oidc.come_back, methods=["GET"]),
    ]


@dataclass(frozen=True, slots=True)
class OidcPages:
    """The way to the provider and back."""

    deps: ConsoleDeps
    pages: PageRenderer
    sessions: Sessions

    async def leave(self, request: Request) -> Response:
        """Redirect to the provider, with state, nonce and challenge of this browser alone."""
        client, network = self._client(), self._network(request)
        await count_network(self.deps, network)
        attempt = OidcAttempt.begin()
        response = RedirectResponse(await client.authorization_url(attempt), 303)
        wanted = local_path(request.query_params.get("next", ""), "")
        kept = self.deps.signing.oidc([*attempt, wanted], self.deps.clock())
        seconds = int(OIDC_LIFETIME.total_seconds())
        self.pages.cookies.put(response, self.pages.cookies.oidc, kept, seconds=seconds, is_lax=True)
        return response

    async def come_back(self, request: Request) -> Response:
        """Begin a session for whom the provider names; raises OidcRefused or OidcFailed."""
        client, given = self._client(), request.query_params
        kept = self.deps.signing.oidc_attempt(request.cookies.get(self.pages.cookies.oidc, ""), self.deps.clock())
        if kept is None:
            raise OidcRefused("that took too long, or began in another browser; log in again")
        state, nonce, verifier, wanted = kept
        if not hmac.compare_digest(state.encode(), given.get("state", "").encode()):
            raise OidcRefused("the answer belongs to another log-in; log in again")
        if "error" in given or not given.get("code"):
            raise OidcRefused("the provider did not let you in")
        identity = await client.identify(OidcAttempt(state, nonce, verifier), given["code"], given.get("iss"))
        person_id, secret = await self._begin_session(request, identity)
        log.info("login.succeeded", person_id=person_id, network=self._network(request))
        # This request came from the provider's site, and a redirect would be sent without the new cookie.
        response = await self.pages.show(request, "onward.html", to=local_path(wanted))
        cookies = self.pages.cookies
        cookies.put(response, cookies.session, self.deps.signing.session(secret))
        cookies.drop(response, cookies.oidc)
        cookies.drop(response, cookies.before)
        return response

    async def _begin_session(self, request: Request, identity: OidcIdentity) -> tuple[str, str]:
        now, subject = self.deps.clock(), self._subject(identity)
        old = self.deps.signing.secret(request.cookies.get(self.pages.cookies.session, ""))

        def begin(unit: Unit) -> tuple[str, str]:
            person = console_users.by_subject(unit, subject) or self._add(unit, identity, subject)
            if person.disabled_at is not None:
                raise OidcRefused("you may not log in here any more; ask an admin of this console")
            if person.role != identity.role.value:
                console_users.change_role(unit, person.id, identity.role.value)
                self._note(unit, "change role", person.id, f"{person.name}: {person.role} to {identity.role.value}")
            if old is not None:
                console_sessions.revoke_secret(unit, digest_of(old), now)
            give_back_network(unit, self._network(request))
            return person.id, self.sessions.begin(unit, person, request, now)

        return await self.deps.write(begin)

    def _add(self, unit: Unit, identity: OidcIdentity, subject: str) -> ConsolePerson:
        """Add the person, without a password; raises OidcRefused for a name that is taken."""
        name = name_of(identity.name)
        if console_users.by_name(unit, name) is not None:
            raise OidcRefused(f"there is another person {name} here; ask an admin of this console")
        person = new_person(name, identity.role, UNMATCHABLE_HASH, self.deps.clock(), is_temporary=False)
        person.oidc_subject = subject
        console_users.add(unit, person)
        self._note(unit, "add person", person.id, f"{name} as {identity.role.value}")
        return person

    def _note(self, unit: Unit, action: str, subject: str, reason: str) -> None:
        operator_actions.note(
            unit, account=None, at=self.deps.clock(), actor=_ACTOR, action=action, subject=subject, reason=reason
        )

    def _subject(self, identity: OidcIdentity) -> str:
        return sha256(f"{self._client().issuer} {identity.subject}".encode()).hexdigest()

    def _client(self) -> OidcClient:
        if self.deps.oidc is None:
            raise HTTPException(404)
        return self.deps.oidc

    def _network(self, request: Request) -> str:
        return network_of(self.deps.address_of(request.scope))
