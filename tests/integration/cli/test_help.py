"""What a person learns by asking for help."""

import re

import pytest
import typer

from receipted.cli.exits import EXIT_CODES, Exit
from receipted.cli.main import app

from .conftest import Shell


def _commands(command, path=()):
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*path, name))


PATHS = list(_commands(typer.main.get_command(app)))
LEAVES = [path for path in PATHS if not any(other[: len(path)] == path and other != path for other in PATHS)]


def test_every_command_of_the_issue_is_there():
    """The tree of commands is the one that people were promised."""
    assert {
        *(("serve",), ("web",), ("worker",), ("sandbox",), ("migrate",), ("lifecycles",), ("config", "check")),
        *(("payments", name) for name in ("list", "show", "track", "create", "cancel", "refresh", "resolve")),
        *(("inbox", name) for name in ("list", "show", "replay")),
        *(("outbox", name) for name in ("list", "redrive")),
        *(("audit", name) for name in ("verify", "export")),
        *(("rejected", name) for name in ("list", "redeem")),
        *(("reconciliations", name) for name in ("list", "show")),
        ("reconcile",),
        ("webhooks", "register"),
    } <= set(LEAVES)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_shows_an_example_of_the_command(path):
    """Each --help ends with a line that could be typed."""
    shown = Shell(None)(*path, "--help").out

    assert "Example:" in shown
    assert re.search(rf"^\s+receipted.*{' '.join(path)}", shown.partition("Example:")[2], re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in LEAVES if path != ("demo",)], ids=" ".join)
def test_every_command_speaks_json(path):
    """Each command that does something takes --json."""
    assert "--json" in Shell(None)(*path, "--help").out


def test_help_lists_every_exit_code():
    """The codes in the help are those that commands end with."""
    listed = {int(code) for code in re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)}

    assert listed == {code.value for code in Exit}
    assert EXIT_CODES.removeprefix("\b\n").splitlines()[3].strip() in Shell(None)("--help").out


@pytest.mark.parametrize("group", ["payments", "inbox", "outbox", "audit", "rejected"])
def test_a_group_alone_shows_its_help(group):
    """A group without a command is wrong usage, answered with what there is."""
    assert "Commands:" in Shell(None)(group, code=2).err
