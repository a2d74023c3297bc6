"""`receipted users`: added with a password from stdin, listed without it, disabled, given another role."""

import pytest
from pyotp import TOTP
from typer.testing import CliRunner

from receipted.cli.main import app
from service.passwords import matches_hash
from service.second_factor import KeySealer, confirm, enrol
from storage import console_sessions, console_users, operator_actions
from tests.integration.cli.conftest import forget_logs

PASSWORD = "four words of a poem"


def typed(shell, *args, stdin, code=0):
    try:
        result = CliRunner().invoke(app, ["--config", str(shell.config), *args], input=stdin)
    finally:
        forget_logs()
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


def add(shell, name="ada", role="operator", *more):
    typed(shell, "users", "add", name, "--role", role, "--by", "root", "--password-stdin", *more, stdin=f"{PASSWORD}\n")


def kept(shell, name="ada"):
    service = shell.service()
    try:
        with service.database.read() as unit:
            person = console_users.by_name(unit, name)
            return person, operator_actions.of_subjects(unit, [person.id]), console_sessions.of_person(unit, person.id)
    finally:
        service.close()


def test_a_person_is_added_with_a_password_that_is_not_kept_and_it_is_known_by_whom(shell):
    add(shell, "Ada", "admin")
    person, actions, _ = kept(shell)

    assert (person.name, person.role, person.is_temporary) == ("ada", "admin", False)
    assert matches_hash(PASSWORD, person.password_hash)
    assert PASSWORD not in person.password_hash
    assert [(done.actor, done.action, done.reason) for done in actions] == [("root", "add person", "ada as admin")]


def test_the_password_is_asked_for_twice(shell):
    given = typed(shell, "users", "add", "ada", "--role", "viewer", "--by", "root", stdin=f"{PASSWORD}\n{PASSWORD}\n")

    assert PASSWORD not in given.stdout + given.stderr
    assert matches_hash(PASSWORD, kept(shell)[0].password_hash)


def test_the_list_shows_everybody_and_no_password(shell):
    add(shell, "ada", "admin")
    add(shell, "grace", "viewer", "--temporary")

    (ada, grace) = shell("users", "list", "--json").json
    assert (ada["name"], ada["role"], grace["is_temporary"]) == ("ada", "admin", True)
    shown = shell("users", "list").out + shell("users", "list", "--json").out
    assert "scrypt" not in shown
    assert "has to change the password" in shown


@pytest.mark.parametrize(
    "password", ["short", "x" * 300, "aaaaaaaaaaaaaaaa", "ada-1234567890"], ids=["short", "long", "same", "name"]
)
def test_a_password_that_is_guessed_is_refused(shell, password):
    args = ("users", "add", "ada", "--role", "viewer", "--by", "root", "--password-stdin")

    assert "password" in typed(shell, *args, stdin=f"{password}\n", code=2).stderr


@pytest.mark.parametrize("name", ["", "a b", "-ada", "a" * 65, "ad\u0430"])
def test_a_name_cannot_be_mistaken_for_another(shell, name):
    args = ("users", "add", "--role", "viewer", "--by", "root", "--password-stdin", "--", name)

    typed(shell, *args, stdin=f"{PASSWORD}\n", code=2)


def test_two_people_do_not_share_a_name(shell):
    add(shell)
    args = ("users", "add", "ADA", "--role", "viewer", "--by", "root", "--password-stdin")

    assert "already" in typed(shell, *args, stdin=f"{PASSWORD}\n", code=1).stderr


def test_what_is_done_to_a_person_is_kept_with_who_and_why(shell):
    add(shell)
    shell("users", "role", "ada", "viewer", "--by", "root")
    shell("users", "disable", "ada", "--by", "root", "--reason", "has left")
    assert kept(shell)[0].disabled_at is not None
    shell("users", "enable", "ada", "--by", "root", "--reason", "is back")
    typed(shell, "users", "password", "ada", "--by", "root", "--password-stdin", stdin="another good password\n")
    person, actions, _ = kept(shell)

    assert (person.role, person.disabled_at) == ("viewer", None)
    assert matches_hash("another good password", person.password_hash)
    assert [(done.action, done.reason) for done in actions][1:4] == [
        ("change role", "ada: operator to viewer"),
        ("disable person", "has left"),
        ("enable person", "is back"),
    ]


def test_nobody_is_found_by_a_name_that_nobody_has(shell):
    for args in (("sessions",), ("disable", "--by", "a", "--reason", "b"), ("revoke", "--by", "a")):
        assert "no person" in shell("users", args[0], "nobody", *args[1:], code=5).err


def test_a_second_factor_is_reset_and_who_did_it_and_why_is_kept(shell):
    add(shell)
    person, *_ = kept(shell)
    service = shell.service()
    try:
        with service.database.write() as unit:
            sealer = KeySealer([b"a token key of this test"])
            key = enrol(unit, sealer, person.id, person.name, service.clock()).key.replace(" ", "")
            confirm(unit, sealer, person.id, TOTP(key).at(service.clock()), service.clock())
    finally:
        service.close()

    by = ("--by", "root", "--reason", "lost her telephone")
    assert "has no second factor now" in typed(shell, "users", "reset-factor", "ada", *by, stdin="").stdout

    _, actions, _ = kept(shell)
    done = next(each for each in actions if each.action == "reset second factor")
    assert (done.actor, done.reason) == ("root", "lost her telephone")
    assert "has no second factor" in typed(shell, "users", "reset-factor", "ada", *by, stdin="", code=5).stderr
