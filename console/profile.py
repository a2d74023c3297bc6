"""The page of one's own profile: password and open sessions."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console.access import Person
from console.deps import ConsoleDeps
from console.errors import InvalidForm, WrongLogin
from console.login import LoginAttempt, count_attempt, forget_attempts, verify_password
from console.pages import PageRenderer
from console.sessions import Sessions, network_of
from service.passwords import check_strength, hash_password
from statemachine.errors import ServiceError
from storage import console_factors, console_sessions, console_users, operator_actions
from storage.database import Unit
from storage.errors import NotFound

_HERE = "/console/me"


def routes(deps: ConsoleDeps, pages: PageRenderer, sessions: Sessions) -> list[BaseRoute]:
    """Return the routes of the page and its forms."""
    own = ProfilePages(deps, pages, sessions)
    return [
        Route(_HERE, own.show, methods=["GET"]),
        Route(f"{_HERE}/password", own.change_password, methods=["POST"]),
        Route(f"{_HERE}/sessions/revoke", own.end_others, methods=["POST"]),
        Route(f"{_HERE}/sessions/{{id}}/revoke", own.end, methods=["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class ProfilePages:
    """Pages of one's own password and sessions; no other user's are reached."""

    deps: ConsoleDeps
    pages: PageRenderer
    sessions: Sessions

    async def show(self, request: Request) -> Response:
        """Serve the page."""
        return await self._page(request)

    async def change_password(self, request: Request) -> Response:
        """Change the password, end every session, and begin a new one for this browser."""
        person, form = _person(request), request.state.form
        attempt = LoginAttempt(person.name, network_of(self.deps.address_of(request.scope)), person.session_id)
        try:
            if form.get("new", "") != form.get("again", ""):
                raise InvalidForm("the new password was not typed the same twice")
            check_strength(form.get("new", ""), person.name)
            await count_attempt(self.deps, attempt)
            kept = await self.deps.read(lambda unit: console_users.get(unit, person.id))
            if not await verify_password(self.deps, kept, form.get("current", "")):
                raise WrongLogin("the current password is wrong")
        except ServiceError as error:
            if error.status >= 500:
                raise
            return await self._page(request, error=error.message, status_code=error.status)
        new_hash = await self.deps.passwords.do(lambda: hash_password(form["new"]))
        now = self.deps.clock()

        def change(unit: Unit) -> str:
            console_users.change_password(unit, person.id, new_hash, now, is_temporary=False)
            console_sessions.revoke_all(unit, person.id, now)
            forget_attempts(unit, attempt, self.deps.limits)
            operator_actions.note(
                unit,
                account=None,
                at=now,
                actor=person.name,
                action="change password",
                subject=person.id,
                reason="their own, in the console",
            )
            return self.sessions.begin(unit, kept, request, now)

        secret = await self.deps.write(change)
        response = self.pages.go(_HERE, "Your password is changed, and every other session of yours has ended.")
        self.pages.cookies.put(response, self.pages.cookies.session, self.deps.signing.session(secret))
        return response

    async def end(self, request: Request) -> Response:
        """End one of the user's own sessions."""
        person, now, session_id = _person(request), self.deps.clock(), request.path_params["id"]

        def revoke(unit: Unit) -> None:
            if console_sessions.get(unit, session_id).person_id != person.id:
                raise NotFound(f"no session {session_id}", param="session")
            console_sessions.revoke(unit, session_id, now)

        await self.deps.write(revoke)
        return self.pages.go(_HERE, "The session has ended.")

    async def end_others(self, request: Request) -> Response:
        """End the user's own sessions but this one."""
        person, now = _person(request), self.deps.clock()
        ended = await self.deps.write(
            lambda unit: console_sessions.revoke_all(unit, person.id, now, but=person.session_id)
        )
        many = "1 other session has ended." if ended == 1 else f"{ended} other sessions have ended."
        return self.pages.go(_HERE, many if ended else "There was no other session.")

    async def _page(self, request: Request, *, error: str | None = None, status_code: int = 200) -> Response:
        person, now = _person(request), self.deps.clock()
        found = await self.deps.read(lambda unit: console_sessions.of_person(unit, person.id))
        factor = await self.deps.read(lambda unit: console_factors.of_person(unit, person.id))
        current = [kept for kept in found if console_sessions.is_open(kept, now, self.deps.limits.idle_timeout)]
        return await self.pages.show(
            request,
            "profile.html",
            status_code=status_code,
            sessions=current,
            factor=factor,
            error=error,
            limits=self.deps.limits,
        )


def _person(request: Request) -> Person:
    person: Person = request.state.person
    return person
