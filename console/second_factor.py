"""One's own second factor: set up, confirmed, its recovery codes renewed, removed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console.access import Person
from console.deps import ConsoleDeps, Result
from console.errors import WrongLogin
from console.login import LoginAttempt, count_attempt, count_code, forget_attempts, forget_codes, verify_password
from console.pages import PageRenderer
from console.sessions import network_of
from service import second_factor
from service.second_factor import Enrolment, UsedCode
from statemachine.errors import ServiceError
from storage import console_factors, console_sessions, console_users, operator_actions
from storage.database import Unit

_HERE: Final = "/console/me"


def routes(deps: ConsoleDeps, pages: PageRenderer) -> list[BaseRoute]:
    """Return the routes of the forms; their status is on the page of the profile."""
    own = SecondFactorPages(deps, pages)
    return [
        Route(f"{_HERE}/second-factor", own.enrol, methods=["POST"]),
        Route(f"{_HERE}/second-factor/confirm", own.confirm, methods=["POST"]),
        Route(f"{_HERE}/second-factor/recovery", own.renew, methods=["POST"]),
        Route(f"{_HERE}/second-factor/remove", own.remove, methods=["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class SecondFactorPages:
    """Forms of the user's own second factor; keys and codes are shown once."""

    deps: ConsoleDeps
    pages: PageRenderer

    async def enrol(self, request: Request) -> Response:
        """Show a new key, for the password that the user has."""
        person: Person = request.state.person
        attempt = LoginAttempt(person.name, network_of(self.deps.address_of(request.scope)), person.session_id)

        def begin(unit: Unit) -> Enrolment:
            forget_attempts(unit, attempt, self.deps.limits)
            return second_factor.enrol(unit, self.deps.sealer, person.id, person.name, self.deps.clock())

        try:
            await count_attempt(self.deps, attempt)
            kept = await self.deps.read(lambda unit: console_users.get(unit, person.id))
            if not await verify_password(self.deps, kept, request.state.form.get("current", "")):
                raise WrongLogin("the current password is wrong")
            enrolment = await self.deps.write(begin)
        except ServiceError as error:
            return self._refused(error)
        return await self._show(request, enrolment=enrolment)

    async def confirm(self, request: Request) -> Response:
        """Ask for a code at log-in from now on; show the recovery codes.

        The user's other sessions end.
        """

        def change(unit: Unit, person: Person, code: str, now: datetime) -> list[str]:
            codes = second_factor.confirm(unit, self.deps.sealer, person.id, code, now)
            console_sessions.revoke_all(unit, person.id, now, but=person.session_id)
            _note(unit, person, "add second factor", "their own, in the console", now)
            return codes

        try:
            codes = await self._with_code(request, change)
        except ServiceError as error:
            return self._refused(error)
        return await self._show(request, recovery=codes)

    async def renew(self, request: Request) -> Response:
        """Replace the recovery codes, for a code."""

        def change(unit: Unit, person: Person, code: str, now: datetime) -> list[str]:
            second_factor.accept_code(unit, self.deps.sealer, person.id, code, now)
            _note(unit, person, "renew recovery codes", "their own, in the console", now)
            return second_factor.renew_recovery(unit, person.id)

        try:
            codes = await self._with_code(request, change)
        except ServiceError as error:
            return self._refused(error)
        return await self._show(request, recovery=codes)

    async def remove(self, request: Request) -> Response:
        """Remove the second factor, for a code."""

        def change(unit: Unit, person: Person, code: str, now: datetime) -> None:
            used = second_factor.accept_code(unit, self.deps.sealer, person.id, code, now)
            console_factors.remove(unit, person.id)
            by = "a recovery code" if used is UsedCode.RECOVERY else "a code"
            _note(unit, person, "remove second factor", f"their own, in the console, by {by}", now)

        try:
            await self._with_code(request, change)
        except ServiceError as error:
            return self._refused(error)
        return self.pages.go(_HERE, "Your second factor is removed.", "warn")

    async def _with_code(self, request: Request, change: Callable[[Unit, Person, str, datetime], Result]) -> Result:
        """Count the code and make the change; a right one forgets those that failed."""
        person: Person = request.state.person
        code = request.state.form.get("code", "")
        await count_code(self.deps, person.id)

        def whole(unit: Unit) -> Result:
            result = change(unit, person, code, self.deps.clock())
            forget_codes(unit, person.id)
            return result

        return await self.deps.write(whole)

    def _refused(self, error: ServiceError) -> Response:
        if error.status >= 500:
            raise error
        return self.pages.go(_HERE, error.message, "bad")

    async def _show(
        self, request: Request, *, enrolment: Enrolment | None = None, recovery: list[str] | None = None
    ) -> Response:
        return await self.pages.show(request, "second_factor.html", enrolment=enrolment, recovery=recovery)


def _note(unit: Unit, person: Person, action: str, reason: str, now: datetime) -> None:
    operator_actions.note(
        unit, account=None, at=now, actor=person.name, action=action, subject=person.id, reason=reason
    )
