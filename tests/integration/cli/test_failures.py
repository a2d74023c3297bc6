"""Whatever goes wrong: one clear line, a code that says what it was, and JSON where machines read."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from receipted.cli import processes
from receipted.cli.exits import Exit
from storage import migrate

from .conftest import Shell

FAR = "0190a5c8-6b1e-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["payments", "show", FAR], Exit.NOT_FOUND, f"no payment {FAR} (not_found)"),
        (["payments", "show", "0190"], Exit.USAGE, "'0190' is too short: give at least 8 characters"),
        (["payments", "show", "not-an-id"], Exit.USAGE, "'not-an-id' is no id of a payment"),
        (
            ["payments", "list", "--account", "shpo"],
            Exit.NOT_FOUND,
            "no account 'shpo'; there are: alternative",
        ),
        (["payments", "list", "--phase", "moneyed"], Exit.USAGE, "Invalid value for '--phase'"),
        (["payments", "list", "--limit", "0"], Exit.USAGE, "--limit"),
        (["payments", "track", "stable", "pi_1", "--kind", "payout"], Exit.USAGE, "has no 'payout'"),
        (["payments", "lists"], Exit.USAGE, "Did you mean 'list'"),
        (["inbox", "show", FAR], Exit.NOT_FOUND, "no inbox message"),
        (["outbox", "list", "--sink", "shpo"], Exit.NOT_FOUND, "no sink 'shpo'; there are: shop"),
        (["outbox", "redrive", "--reason", "r", "--by", "b"], Exit.USAGE, "give either IDs, or --all-dead together"),
        (["rejected", "list", "shpo"], Exit.NOT_FOUND, "no account 'shpo'"),
        (["webhooks", "register", "payfield"], Exit.FAILED, "unsupported_by_provider"),
        (["lifecycles", "acme_pay"], Exit.USAGE, "no provider 'acme_pay'; there are: alternative_payments"),
        (["sandbox", "--faults", "loose=1"], Exit.USAGE, "no such fault: loose; there are: lose, duplicate"),
        (["sandbox", "--faults", "lose=2"], Exit.USAGE, "lose is a probability"),
        (["sandbox", "--faults", "lose=much"], Exit.USAGE, "lose is no number"),
        (["sandbox", "--speed", "0"], Exit.USAGE, "speed must be above 0"),
        (["audit", "export", "--payment", FAR], Exit.NOT_FOUND, "no payment"),
    ],
)
def test_a_failure_is_one_clear_line_and_a_code(shell, args, code, said):
    """What is wrong is on stderr, nothing is on stdout, and with --json it is the other way round."""
    typed = shell(*args, code=code)
    assert said in typed.err
    assert "Traceback" not in typed.err
    assert typed.out == ""

    error = shell(*args, "--json", code=code).json["error"]
    assert set(error) == {"type", "code", "message", "param", "request_id"}


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        ("ten", "USD", "amount must be a decimal number"),
        ("1.005", "USD", "more decimal places than USD allows"),
        ("1", "dollars", "three-letter"),
        ("-1", "USD", "amount must be a decimal number"),
        ("0", "USD", "a positive amount"),
    ],
)
def test_money_is_exact_or_refused(shell, amount, currency, said):
    """An amount that cannot be stated whole is wrong usage, before anything is recorded."""
    args = ("payments", "create", "stable", "--amount", amount, "--currency", currency, "--reference", "r")

    assert said in shell(*args, code=Exit.USAGE).err
    assert shell("inbox", "list", "--json").json == []


@pytest.mark.parametrize("extra", ["no-equals", "=value", "{broken", '{"a": 1} x'])
def test_further_fields_are_pairs_or_an_object(shell, extra):
    """A further field that is neither is refused before anything is recorded."""
    args = ("payments", "create", "stable", "--amount", "1", "--currency", "USD", "--reference", "r", "--extra", extra)

    assert "--extra" in shell(*args, code=Exit.USAGE).err
    assert shell("inbox", "list", "--json").json == []


def test_an_unexpected_error_is_a_bug_and_its_secrets_stay_secret(shell, monkeypatch):
    """A bug ends with 70; its traceback goes through the log, where secrets are masked."""

    def break_down(_database):
        raise RuntimeError("with ap_webhook_secret_sandbox_0001 in it")

    monkeypatch.setattr(migrate, "check", break_down)
    typed = shell("payments", "list", code=Exit.BUG)

    logged = json.loads(typed.err.splitlines()[0])
    assert (logged["event"], logged["exception"]["type"]) == ("service.failed", "RuntimeError")
    assert "ap_webhook_secret_sandbox_0001" not in typed.err
    assert typed.err.splitlines()[-1] == "error: an unexpected error; the log on stderr has it (internal)"


def test_an_interruption_is_its_own_code(shell, monkeypatch):
    """Ctrl-C before a command is done ends with 130, without a traceback."""

    def interrupt(_database):
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "check", interrupt)

    assert "Traceback" not in shell("payments", "list", code=Exit.INTERRUPTED).err


def test_storage_that_is_away_is_said_so(shell):
    """A database that cannot be read is a failure that may pass, not a bug."""
    database = shell.config.parent / "receipted.db"
    database.unlink()
    database.mkdir()

    assert "(storage_unavailable)" in shell("payments", "list", code=Exit.FAILED).err


@pytest.mark.parametrize("args", [["payments", "list"], ["serve"], ["web"], ["worker"], ["migrate", "--check"]])
def test_an_outdated_schema_is_named_with_its_remedy(empty, args):
    """Nothing works on an old schema, and nothing changes it unasked; the remedy is one command."""
    assert "run receipted migrate (schema_outdated)" in empty(*args, code=Exit.SCHEMA).err
    assert not (empty.config.parent / "receipted.db").exists()


@pytest.mark.parametrize("args", [["serve", "--migrate"], ["serve"], ["migrate"], ["migrate", "--check"]])
def test_a_database_of_an_unreleased_version_is_refused(shell, args):
    """It is not migrated and not served: the message says which revision it has, and what to do."""
    database = shell.config.parent / "receipted.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("UPDATE alembic_version SET version_num = '0009'")
        other.commit()
        before = list(other.iterdump())

    told = shell(*args, code=Exit.SCHEMA).err

    assert "at revision 0009, which this program does not know" in told
    assert "begin with an empty database (schema_outdated)" in told
    with closing(sqlite3.connect(database)) as other:
        assert list(other.iterdump()) == before


def test_every_fault_of_the_settings_is_listed(tmp_path):
    """Settings that cannot work are refused with all that is wrong, for people and for machines."""
    path = tmp_path / "receipted.toml"
    path.write_text('[service]\npublic_url = "http://shop.example"\n[accounts.shop]\nprovider = "acme_pay"\n')
    shell = Shell(path)

    said = shell("config", "check", code=Exit.USAGE).err
    faults = shell("config", "check", "--json", code=Exit.USAGE).json["faults"]

    settings = {fault["setting"] for fault in faults}
    assert settings >= {"service.public_url", "service.token_keys", "sinks", "accounts.shop.provider"}
    assert all(f"- {setting} " in said for setting in settings)
    assert shell("serve", code=Exit.USAGE).err == said


def test_a_settings_file_that_is_not_there_is_named(tmp_path):
    """The file that was asked for is said to be missing."""
    assert "nowhere.toml does not exist" in Shell(tmp_path / "nowhere.toml")("serve", code=Exit.USAGE).err


def test_a_port_that_is_taken_is_said_so(shell):
    """A process that cannot listen ends with a clear line, before it does any work."""
    with processes.server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        typed = shell("sandbox", "--port", str(port), code=Exit.FAILED)

    assert f"cannot listen at 127.0.0.1:{port}" in typed.err


def test_a_bug_before_the_settings_are_read_shows_no_values(monkeypatch):
    """In a process of its own, whose logs are not set up: local variables may hold secrets."""
    code = (
        "from receipted.settings import load\n"
        "def read(*args, **options):\n"
        "    secret = 'sk_live_' + 'shown'\n"
        "    raise RuntimeError('a bug')\n"
        "load.load = read\n"
        "from receipted.cli.main import main\n"
        "main()\n"
    )
    typed = subprocess.run(
        [sys.executable, "-c", code, "payments", "list"], capture_output=True, text=True, check=False, timeout=60
    )

    assert typed.returncode == Exit.BUG
    assert "service.failed" in typed.stderr
    assert "sk_live_shown" not in typed.stderr + typed.stdout
