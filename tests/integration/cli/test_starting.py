"""Starting: what `config check` passes does start, and what cannot start is one line, said by both."""

import io
import sys
from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from receipted.cli import processes
from receipted.cli.exits import Exit
from receipted.cli.options import load_settings
from receipted.settings import load
from tests.support.settings_file import write_settings

from .conftest import Shell, forget_logs

HANDLERS = {
    "no_such_module:ship": "cannot be found (No module named 'no_such_module')",
    "json:no_such_function": "cannot be found (module 'json' has no attribute 'no_such_function')",
    "json:__name__": "is not callable",
    "json.no_such:ship": "No module named 'json.no_such'",
    "no-such-entry-point": "no entry point",
    "breaks_at_import:ship": "cannot be imported (ZeroDivisionError)",
    "breaks_the_parser:ship": "cannot be imported (SyntaxError)",
    "leaves_at_import:ship": "cannot be imported (SystemExit)",
    "needs_what_is_missing:ship": "No module named 'of_nobody'",
}


HTTP_SINK = 'kind = "http"\nurl = "http://127.0.0.1:9/fulfilment"\nsecrets = '


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A shell whose settings have this in place of that."""
    (tmp_path / "breaks_at_import.py").write_text("1 / 0\n")
    (tmp_path / "breaks_the_parser.py").write_text("def ship(:\n")
    (tmp_path / "leaves_at_import.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "needs_what_is_missing.py").write_text("import of_nobody\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write_settings(tmp_path)

    def change(this, that):
        text = path.read_text()
        assert this in text
        path.write_text(text.replace(this, that))
        return Shell(path)

    return change


def refused(shell, said, setting):
    """Both refuse it with the same words, in one line for each fault and without a traceback."""
    for args in (("config", "check"), ("serve", "--migrate"), ("worker",)):
        typed = shell(*args, code=Exit.USAGE)
        lines = typed.err.splitlines()
        assert lines[0] == "error: the settings have 1 fault:", args
        assert len(lines) == 2, args
        assert said in lines[1]
        assert lines[1].startswith(f"- {setting} ")
        assert typed.out == ""
    return lines[1]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_that_cannot_be_called_is_one_line(changed, handler):
    sink = f'kind = "python"\nhandler = "{handler}"\n'
    shell = changed(HTTP_SINK, f"{sink}#")

    line = refused(shell, HANDLERS[handler], "sinks.0.handler")
    assert "PYTHONPATH" in line


def test_what_delivers_nothing_starts_without_handlers(changed, monkeypatch):
    shell = changed(HTTP_SINK, 'kind = "python"\nhandler = "breaks_at_import:ship"\n#')
    shell("migrate")
    monkeypatch.setattr(processes, "_serve", lambda _service, listener, *_rest: listener.close())

    shell("web")


@pytest.mark.parametrize("rest", ["//here.db", "//", "/", "/:memory:"])
def test_a_database_without_a_file_is_one_line(changed, tmp_path, rest):
    shell = changed(f'"sqlite:///{tmp_path / "receipted.db"}"', f'"sqlite:{rest}"')

    refused(shell, "names no file", "service.database")


def test_a_database_in_the_place_of_a_folder_or_below_a_file_is_one_line(changed, tmp_path):
    file = tmp_path / "receipted.db"
    refused(changed(f"sqlite:///{file}", f"sqlite:///{tmp_path}"), "names the folder", "service.database")
    (tmp_path / "file").touch()
    below = f"sqlite:///{tmp_path}/file/a.db"
    refused(changed(f'"sqlite:///{tmp_path}"', f'"{below}"'), "which is no folder", "service.database")


def test_a_client_or_sink_that_refuses_what_it_is_made_of_is_one_line(changed, monkeypatch):
    """Whatever refuses when a start builds it, `config check` has built as well."""

    def refuse(*_args, **_options):
        raise ValueError("it")

    monkeypatch.setattr("receipted.wiring.Service.client", refuse)
    monkeypatch.setattr("receipted.wiring.Service.sink", refuse)
    shell = changed("[worker]", "[worker]")

    for args in (("config", "check"), ("serve", "--migrate")):
        typed = shell(*args, code=Exit.USAGE)
        told = [line.partition(" cannot be used: ValueError")[0] for line in typed.err.splitlines()[1:]]
        assert "- accounts.payfield" in told
        assert "- sinks.0" in told
        assert "Traceback" not in typed.err


def test_unwise_settings_are_told_and_start(changed):
    shell = changed("development = true", 'development = true\ntrusted_proxies = ["0.0.0.0/0"]')

    typed = shell("config", "check")
    assert "warning: service.trusted_proxies has 0.0.0.0/0, which holds strangers" in typed.err
    assert [each["setting"] for each in shell("config", "check", "--json").json["warnings"]] == [
        "service.trusted_proxies"
    ]


def test_without_a_settings_file_that_is_said_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECEIPTED_CONFIG", raising=False)
    for args in (("config", "check"), ("serve",), ("payments", "list")):
        lines = Shell(None)(*args, code=Exit.USAGE).err.splitlines()
        assert lines[1].startswith(f"- a settings file was not found: {tmp_path / 'receipted.toml'} does not exist")
        assert "--config PATH" in lines[1]
        assert len(lines) > 2


class Terminal(io.StringIO):
    """Standard error, as a terminal or as anything else."""

    def __init__(self, *, is_one: bool) -> None:
        super().__init__()
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


@pytest.mark.parametrize(
    ("setting", "is_terminal", "is_json"),
    [("", True, False), ("", False, True), ("json", True, True), ("console", False, False), ("auto", True, False)],
)
def test_a_process_logs_for_people_on_a_terminal_and_for_machines_elsewhere(
    changed, monkeypatch, setting, is_terminal, is_json
):
    shell = changed("[worker]", f'[log]\nformat = "{setting}"\n[worker]' if setting else "[worker]")
    errors = Terminal(is_one=is_terminal)
    monkeypatch.setattr(sys, "stderr", errors)
    context = SimpleNamespace(find_root=lambda: SimpleNamespace(params={"config": shell.config}))
    try:
        load.warn(load_settings(context, is_process=True).model_copy(update={"service": huge(shell)}))
    finally:
        forget_logs()

    lines = errors.getvalue().splitlines()
    assert lines
    assert all(line.startswith("{") for line in lines) is is_json


def huge(shell):
    """The service's settings with something to warn of."""
    found = load.load(shell.config, {}).service
    return found.model_copy(update={"trusted_proxies": (ip_network("0.0.0.0/0"),)})
