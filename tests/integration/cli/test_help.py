"""What a person learns by asking for help."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer

from receipted.cli.exits import EXIT_CODES, Exit
from receipted.cli.main import COMMANDS, SECTIONS, app

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


GROUPS = [path for path in PATHS if path not in LEAVES]


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_a_group_alone_shows_its_help_and_nothing_around_it(group):
    """A group without a command is wrong usage, answered with what there is."""
    alone = Shell(None)(*group, code=2)

    assert alone.err == Shell(None)(*group, "--help").out
    assert alone.out == ""


def test_the_version_is_that_of_the_distribution():
    assert Shell(None)("--version").out == f"receipted {version('receipted')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_help_says_of_a_command_is_what_the_command_says_of_itself(name):
    """The list is shown without importing any of them."""
    told = (typer.main.get_command(app).commands[name].help or "").split("\n\n")[0]

    assert COMMANDS[name].summary == " ".join(told.split())


def test_the_help_has_sections_with_whole_sentences_in_80_columns():
    """Each command stands below its section, once, and nothing is cut off."""
    shown = Shell(None)("--help").out
    below = {title: shown.partition(f"\n{title}:\n")[2].partition("\n\n")[0] for title in SECTIONS}

    assert {
        title: [line.split()[0] for line in text.splitlines() if re.match("  [a-z]", line)]
        for title, text in below.items()
    } == {title: [*commands] for title, commands in SECTIONS.items()}
    assert len(COMMANDS) == sum(map(len, SECTIONS.values()))
    flat = " ".join(shown.split())
    assert [name for name, entry in COMMANDS.items() if f"{name} {entry.summary}" not in flat] == []
    assert max(map(len, shown.splitlines())) <= 80


#: What takes long to import, and what a help needs none of.
HEAVY = {
    "alembic",
    "cryptography",
    "httpx2",
    "jinja2",
    "msgspec",
    "pydantic",
    "rich",
    "sqlalchemy",
    "sqlmodel",
    "starlette",
}
HEAVY |= {
    "structlog",
    "transitions",
    "uvicorn",
    "api",
    "console",
    "fulfilment",
    "poller",
    "providers",
    "receiver",
    "worker",
}


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["paymants"]])
def test_a_help_imports_little(words):
    """Counted in modules, which are the same on a slow machine."""
    program = (
        "import sys; sys.argv = ['receipted', *sys.argv[1:]]; from receipted.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.stdout.write('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, timeout=90
    )
    modules = done.stdout.rpartition("\n")[2].split()

    if words != ["paymants"]:  # an error is told by what tells every other
        assert HEAVY & {name.partition(".")[0] for name in modules} == set()
        assert len(modules) < 320
