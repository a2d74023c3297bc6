"""`receipted users`: users of the console, their passwords and sessions."""

import sys
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from receipted.cli import output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.lists import find_id
from receipted.cli.options import AsJson, By, Reason, open_service, subcommands
from receipted.wiring import Service
from service.errors import UnusableName, UnusablePassword
from service.passwords import check_strength, hash_password
from service.permissions import Role
from service.users import name_of, new_person
from storage import console_factors, console_sessions, console_users, operator_actions
from storage.database import Unit
from storage.errors import NotFound
from storage.tables_support import ConsolePerson, ConsoleSession

app = subcommands("Manage the users of the console.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the person logs in with.", show_default=False)]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin, and do not ask.")
]
Temporary = Annotated[bool, typer.Option("--temporary", help="The person has to change it before anything else.")]

_COLUMNS: Final = ("Name", "Role", "Created", "Password of", "Sessions", "Last used", "Status")
_SESSION_COLUMNS: Final = ("ID", "Begun", "Last used", "Ends", "From", "Browser", "Status")


@app.command(epilog=example("receipted users add ada --role admin --by root"))
def add(
    context: typer.Context,
    name: Name,
    role: Annotated[Role, typer.Option("--role", help="What they may do; each includes those before it.")],
    by: By,
    password_stdin: PasswordStdin = False,
    temporary: Temporary = False,
    json: AsJson = False,
) -> None:
    """Add a user of the console, with a password that is typed twice."""
    name = _name(name)
    with open_service(context) as service:
        kept = hash_password(_password(name, from_stdin=password_stdin))
        now = service.clock()
        person = new_person(name, role, kept, now, is_temporary=temporary)
        with service.database.write() as unit:
            console_users.add(unit, person)
            _note(unit, now, by, "add person", person.id, f"{name} as {role.value}")
        url = f"{service.settings.service.public_url}/console/"
    if json:
        output.as_json(_data(person, []))
        return
    output.say(f"{name} may log in as {role.value}")
    output.note(f"at {url}")


@app.command("list", epilog=example("receipted users list"))
def list_(context: typer.Context, json: AsJson = False) -> None:
    """List all users, without their secrets."""
    with open_service(context) as service:
        now, idle = service.clock(), _idle(service)
        with service.database.read() as unit:
            found = [(person, _open(unit, person.id, now, idle)) for person in console_users.find(unit)]
    if json:
        output.as_json([_data(person, current) for person, current in found])
        return
    output.table(
        _COLUMNS,
        (
            (
                person.name,
                person.role,
                person.created_at,
                person.password_changed_at,
                len(current),
                max((session.last_seen_at for session in current), default="-"),
                _status(person),
            )
            for person, current in found
        ),
    )


@app.command(epilog=example('receipted users disable ada --by root --reason "has left"'))
def disable(context: typer.Context, name: Name, by: By, reason: Reason, json: AsJson = False) -> None:
    """Disable a user; their sessions end at once, in every process."""
    with open_service(context) as service:
        now = service.clock()
        with service.database.write() as unit:
            person = _person(unit, name)
            console_users.disable(unit, person.id, now)
            ended = console_sessions.revoke_all(unit, person.id, now)
            _note(unit, now, by, "disable person", person.id, reason)
            person = console_users.get(unit, person.id)
    _print_result(person, f"{person.name} may not log in any more, and {ended} sessions have ended", as_json=json)


@app.command(epilog=example('receipted users enable ada --by root --reason "is back"'))
def enable(context: typer.Context, name: Name, by: By, reason: Reason, json: AsJson = False) -> None:
    """Enable a disabled user again."""
    with open_service(context) as service, service.database.write() as unit:
        person = _person(unit, name)
        console_users.enable(unit, person.id)
        _note(unit, service.clock(), by, "enable person", person.id, reason)
        person = console_users.get(unit, person.id)
    _print_result(person, f"{person.name} may log in again", as_json=json)


@app.command(epilog=example("receipted users role ada operator --by root"))
def role(
    context: typer.Context,
    name: Name,
    new: Annotated[Role, typer.Argument(metavar="ROLE", help="viewer, operator or admin.", show_default=False)],
    by: By,
    json: AsJson = False,
) -> None:
    """Change a user's role, from their next request on."""
    with open_service(context) as service, service.database.write() as unit:
        person = _person(unit, name)
        console_users.change_role(unit, person.id, new.value)
        reason = f"{person.name}: {person.role} to {new.value}"
        _note(unit, service.clock(), by, "change role", person.id, reason)
        person = console_users.get(unit, person.id)
    _print_result(person, f"{person.name} is {person.role} now", as_json=json)


@app.command(epilog=example("receipted users password ada --temporary --by root"))
def password(
    context: typer.Context,
    name: Name,
    by: By,
    password_stdin: PasswordStdin = False,
    temporary: Temporary = False,
    json: AsJson = False,
) -> None:
    """Change a user's password; their sessions end at once."""
    with open_service(context) as service:
        with service.database.read() as unit:
            person = _person(unit, name)
        kept, now = hash_password(_password(person.name, from_stdin=password_stdin)), service.clock()
        with service.database.write() as unit:
            console_users.change_password(unit, person.id, kept, now, is_temporary=temporary)
            ended = console_sessions.revoke_all(unit, person.id, now)
            _note(unit, now, by, "reset password", person.id, f"of {person.name}, on the command line")
            person = console_users.get(unit, person.id)
    _print_result(person, f"the password of {person.name} is changed, and {ended} sessions have ended", as_json=json)


@app.command(epilog=example('receipted users reset-factor ada --by root --reason "lost her telephone"'))
def reset_factor(context: typer.Context, name: Name, by: By, reason: Reason, json: AsJson = False) -> None:
    """Remove a user's second factor; their sessions end at once."""
    with open_service(context) as service:
        now = service.clock()
        with service.database.write() as unit:
            person = _person(unit, name)
            if not console_factors.remove(unit, person.id):
                raise NotFound(f"{person.name} has no second factor", param="name")
            ended = console_sessions.revoke_all(unit, person.id, now)
            _note(unit, now, by, "reset second factor", person.id, reason)
    _print_result(person, f"{person.name} has no second factor now, and {ended} sessions have ended", as_json=json)


@app.command(epilog=example("receipted users sessions ada"))
def sessions(context: typer.Context, name: Name, json: AsJson = False) -> None:
    """List a user's sessions, the newest first."""
    with open_service(context) as service:
        now, idle = service.clock(), _idle(service)
        with service.database.read() as unit:
            found = console_sessions.of_person(unit, _person(unit, name).id)
    if json:
        output.as_json([output.columns_of(session, without=("digest",)) for session in found])
        return
    output.table(
        _SESSION_COLUMNS,
        (
            (
                output.short(session.id),
                session.created_at,
                session.last_seen_at,
                session.expires_at,
                session.address,
                session.user_agent,
                _session_status(session, now, idle),
            )
            for session in found
        ),
    )


@app.command(
    epilog=example("receipted users revoke ada --by root", "receipted users revoke ada 5b0c2f7e91aa --by root")
)
def revoke(
    context: typer.Context,
    name: Name,
    by: By,
    session: Annotated[
        str | None,
        typer.Argument(metavar="[SESSION]", help="The session's id, or a part; else all.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """End one of a user's sessions, or all of them, at once in every process."""
    with open_service(context) as service:
        now = service.clock()
        with service.database.write() as unit:
            person = _person(unit, name)
            if session is None:
                ended = console_sessions.revoke_all(unit, person.id, now)
            else:
                found = console_sessions.get(unit, find_id(unit, ConsoleSession, session))
                if found.person_id != person.id:
                    raise NotFound(f"no session {session} of {person.name}", param="session")
                console_sessions.revoke(unit, found.id, now)
                ended = 1
            _note(unit, now, by, "end sessions", person.id, f"{ended} of {person.name}")
    if json:
        output.as_json({"name": person.name, "ended": ended})
    else:
        output.say(f"{ended} sessions of {person.name} have ended")


def _name(text: str) -> str:
    try:
        return name_of(text)
    except UnusableName as fault:
        raise InvalidInput(fault.message, param="name") from None


def _person(unit: Unit, text: str) -> ConsolePerson:
    person = console_users.by_name(unit, text.strip().lower())
    if person is None:
        raise NotFound(f"no person {text!r}; receipted users list shows everybody", param="name")
    return person


def _password(name: str, *, from_stdin: bool) -> str:
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
    else:
        given = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    try:
        check_strength(given, name)
    except UnusablePassword as fault:
        raise InvalidInput(fault.message, param="password") from None
    return str(given)


def _idle(service: Service) -> timedelta:
    return timedelta(seconds=service.settings.console.idle_seconds)


def _open(unit: Unit, person_id: str, now: datetime, idle: timedelta) -> list[ConsoleSession]:
    found = console_sessions.of_person(unit, person_id)
    return [session for session in found if console_sessions.is_open(session, now, idle)]


def _status(person: ConsolePerson) -> str:
    if person.disabled_at is not None:
        return "disabled"
    return "has to change the password" if person.is_temporary else "good"


def _session_status(session: ConsoleSession, now: datetime, idle: timedelta) -> str:
    if session.revoked_at is not None:
        return "revoked"
    return "open" if console_sessions.is_open(session, now, idle) else "ended"


def _data(person: ConsolePerson, current: list[ConsoleSession]) -> dict[str, Any]:
    return {**output.columns_of(person, without=("password_hash",)), "sessions": len(current)}


def _print_result(person: ConsolePerson, words: str, *, as_json: bool) -> None:
    if as_json:
        output.as_json(output.columns_of(person, without=("password_hash",)))
    else:
        output.say(words)


def _note(unit: Unit, now: datetime, by: str, action: str, subject: str, reason: str) -> None:
    operator_actions.note(unit, account=None, at=now, actor=by, action=action, subject=subject, reason=reason)
