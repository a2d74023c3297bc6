"""Users of the console, managed by admins."""

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console.access import Person
from console.actions import ActionRequest, ActionResult, action_endpoint
from console.deps import ConsoleDeps
from console.errors import InvalidForm
from console.pages import PageRenderer
from service.passwords import generate_password, hash_password
from service.permissions import Role
from service.users import name_of, new_person
from statemachine.errors import ServiceError
from storage import console_factors, console_sessions, console_users, operator_actions
from storage.database import Unit
from storage.tables_support import ConsolePerson, ConsoleSession

_HERE: Final = "/console/people"


def routes(deps: ConsoleDeps, pages: PageRenderer) -> list[BaseRoute]:
    """Return the routes of the list and its forms."""
    page = PeoplePages(deps, pages)

    return [
        Route(_HERE, page.show, methods=["GET"]),
        Route(_HERE, page.add, methods=["POST"]),
        Route(f"{_HERE}/{{id}}/role", action_endpoint(deps, pages, change_role, back=_HERE), methods=["POST"]),
        Route(
            f"{_HERE}/{{id}}/disable",
            action_endpoint(deps, pages, disable, needs_reason=True, back=_HERE),
            methods=["POST"],
        ),
        Route(
            f"{_HERE}/{{id}}/enable",
            action_endpoint(deps, pages, enable, needs_reason=True, back=_HERE),
            methods=["POST"],
        ),
        Route(f"{_HERE}/{{id}}/logout", action_endpoint(deps, pages, log_out, back=_HERE), methods=["POST"]),
        Route(f"{_HERE}/{{id}}/password", page.reset, methods=["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class PeoplePages:
    """The list of users, and pages that show a new password once (stored nowhere)."""

    deps: ConsoleDeps
    pages: PageRenderer

    async def show(self, request: Request) -> Response:
        """Serve the list of users with their open sessions."""
        return await self._page(request)

    async def add(self, request: Request) -> Response:
        """Add a user with a generated password, which is shown once."""
        admin: Person = request.state.person
        form = request.state.form
        try:
            name, role = name_of(form.get("name", "")), role_of(form.get("role", ""))
            password = generate_password()
            kept = await self.deps.passwords.do(lambda: hash_password(password))
            now = self.deps.clock()
            person = new_person(name, role, kept, now, is_temporary=True)

            def add(unit: Unit) -> None:
                console_users.add(unit, person)
                note(unit, self.deps, admin.name, "add person", person.id, f"{name} as {role.value}")

            await self.deps.write(add)
        except ServiceError as error:
            if error.status >= 500:
                raise
            return await self._page(request, error=error.message, status_code=error.status)
        return await self._page(request, new_password=(name, password), status_code=201)

    async def reset(self, request: Request) -> Response:
        """Set a generated password, show it once, and end the user's sessions."""
        admin: Person = request.state.person
        person_id = request.path_params["id"]
        password = generate_password()
        kept = await self.deps.passwords.do(lambda: hash_password(password))
        now = self.deps.clock()

        def change(unit: Unit) -> str:
            person = console_users.get(unit, person_id)
            console_users.change_password(unit, person.id, kept, now, is_temporary=True)
            console_sessions.revoke_all(unit, person.id, now)
            note(unit, self.deps, admin.name, "reset password", person.id, f"of {person.name}, in the console")
            return person.name

        name = await self.deps.write(change)
        return await self._page(request, new_password=(name, password))

    async def _page(
        self,
        request: Request,
        *,
        error: str | None = None,
        new_password: tuple[str, str] | None = None,
        status_code: int = 200,
    ) -> Response:
        now = self.deps.clock()

        def read(unit: Unit) -> list[tuple[ConsolePerson, list[ConsoleSession]]]:
            return [
                (
                    person,
                    [
                        session
                        for session in console_sessions.of_person(unit, person.id)
                        if console_sessions.is_open(session, now, self.deps.limits.idle_timeout)
                    ],
                )
                for person in console_users.find(unit)
            ]

        found = await self.deps.read(read)
        with_factor = await self.deps.read(console_factors.confirmed)
        return await self.pages.show(
            request,
            "people.html",
            status_code=status_code,
            people=found,
            with_factor=with_factor,
            roles=list(Role),
            error=error,
            new_password=new_password,
        )


async def change_role(act: ActionRequest) -> ActionResult:
    """Change the user's role, from their next request on."""
    role = role_of(act.form.get("role", ""))

    def change(unit: Unit) -> str:
        person = console_users.get(unit, act.path("id"))
        if role is not Role.ADMIN:
            _keep_an_admin(unit, person)
        console_users.change_role(unit, person.id, role.value)
        note(unit, act.deps, act.by, "change role", person.id, f"{person.name}: {person.role} to {role.value}")
        return person.name

    return ActionResult(f"{await act.deps.write(change)} is {role.value} now.")


async def disable(act: ActionRequest) -> ActionResult:
    """Disable the user and end their sessions."""
    if act.path("id") == act.person.id:
        raise InvalidForm("nobody shuts themselves out here: ask another admin")

    def change(unit: Unit) -> str:
        person = console_users.get(unit, act.path("id"))
        _keep_an_admin(unit, person)
        now = act.deps.clock()
        console_users.disable(unit, person.id, now)
        console_sessions.revoke_all(unit, person.id, now)
        note(unit, act.deps, act.by, "disable person", person.id, act.reason)
        return person.name

    return ActionResult(f"{await act.deps.write(change)} may not log in any more.")


async def enable(act: ActionRequest) -> ActionResult:
    """Let the user log in again."""

    def change(unit: Unit) -> str:
        person = console_users.get(unit, act.path("id"))
        console_users.enable(unit, person.id)
        note(unit, act.deps, act.by, "enable person", person.id, act.reason)
        return person.name

    return ActionResult(f"{await act.deps.write(change)} may log in again.")


async def log_out(act: ActionRequest) -> ActionResult:
    """End every session of the user."""

    def change(unit: Unit) -> tuple[str, int]:
        person = console_users.get(unit, act.path("id"))
        ended = console_sessions.revoke_all(unit, person.id, act.deps.clock())
        note(unit, act.deps, act.by, "end sessions", person.id, f"{ended} of {person.name}")
        return person.name, ended

    name, ended = await act.deps.write(change)
    return ActionResult(f"{ended} sessions of {name} have ended.")


def role_of(text: str) -> Role:
    """Parse a role; raises InvalidForm."""
    try:
        return Role(text)
    except ValueError:
        raise InvalidForm(f"a role is one of {', '.join(Role)}", param="role") from None


def note(unit: Unit, deps: ConsoleDeps, by: str, action: str, subject: str, reason: str) -> None:
    """Record an action of an admin."""
    operator_actions.note(unit, account=None, at=deps.clock(), actor=by, action=action, subject=subject, reason=reason)


def _keep_an_admin(unit: Unit, person: ConsolePerson) -> None:
    """Check that another admin stays; raises InvalidForm."""
    is_admin = person.role == Role.ADMIN.value and person.disabled_at is None
    if is_admin and not console_users.others_with_role(unit, Role.ADMIN.value, person.id):
        raise InvalidForm(f"{person.name} is the only admin; make somebody else one first")
