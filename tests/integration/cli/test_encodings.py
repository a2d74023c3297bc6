"""What a terminal cannot write never ends a command: every command, in every encoding that terminals have."""

import csv
import io
import json
import shutil
import subprocess

import pytest
import typer
from typer.testing import CliRunner

from receipted.cli.exits import Exit
from receipted.cli.main import app
from storage import inbox, operator_actions, outbox, quarantine
from storage.ids import new_id
from storage.tables import RejectedDelivery
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.processes import RECEIPTED
from tests.support.settings_file import write_settings

from .conftest import Shell, forget_logs

#: Letters that one encoding or another lacks, some that steer, and half of a pair.
FOREIGN = "Ωmega-日本-Łódź-😀-é"

ENCODINGS = ["utf-8", "latin-1", "cp1252", "ascii"]

#: Words to type after each command that needs some; {name} is the id of a row that there is.
WORDS = {
    "accounts": ["stable", "--settings"],
    "push-quality": ["stable"],
    "lifecycles": ["banked", "--mermaid"],
    "money": ["2026-11-21", "--payments"],
    "payments transitions": ["{payment}"],
    "payments show": ["{payment}"],
    "payments track": ["stable", FOREIGN],
    "payments create": ["stable", "--amount", "1", "--currency", "USD", "--reference", FOREIGN],
    "payments refresh": ["{payment}", "--by", FOREIGN, "--reason", FOREIGN],
    "payments cancel": ["{payment}", "--by", FOREIGN, "--reason", FOREIGN],
    "payments resolve": ["{payment}", "--state", "confirmed", "--reason", FOREIGN, "--by", FOREIGN],
    "inbox show": ["{message}", "--body"],
    "inbox replay": ["{message}", "--reason", FOREIGN, "--by", FOREIGN],
    "outbox show": ["{effect}", "--payload"],
    "outbox redrive": ["{effect}", "--reason", FOREIGN, "--by", FOREIGN],
    "rejected show": ["{rejected}", "--body"],
    "rejected redeem": ["stable", "--by", FOREIGN, "--reason", FOREIGN],
    "webhooks register": ["banked"],
    "reconcile": ["stable", "--by", FOREIGN],
    "reconciliations show": [FOREIGN],
    "audit verify": [],
    "keys add": [FOREIGN, "--scope", "read", "--by", FOREIGN],
    "keys rotate": [FOREIGN, "--by", FOREIGN],
    "keys revoke": [FOREIGN, "--by", FOREIGN],
    "users add": [FOREIGN, "--role", "viewer", "--by", FOREIGN, "--temporary"],
    "users disable": [FOREIGN, "--by", FOREIGN, "--reason", FOREIGN],
    "users enable": [FOREIGN, "--by", FOREIGN, "--reason", FOREIGN],
    "users role": [FOREIGN, "admin", "--by", FOREIGN],
    "users password": [FOREIGN, "--by", FOREIGN, "--temporary"],
    "users sessions": [FOREIGN],
    "users revoke": [FOREIGN, "--by", FOREIGN],
    "doctor": ["https://" + FOREIGN],
    "listen": ["stable", "--since", "30d", "--count", "1", "--bodies"],
    "tail": ["--since", "30d", "--count", "1"],
    "actions": ["--by", FOREIGN],
}

#: Processes that run until they are stopped; what they print is said by the same functions.
ENDLESS = {"serve", "web", "worker", "sandbox", "demo"}


def leaves(command, path=()):
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path)


COMMANDS = sorted(leaves(typer.main.get_command(app)))
TYPED = [command for command in COMMANDS if command not in ENDLESS]


@pytest.fixture
def told(tmp_path, template):
    """A shell whose rows are full of what terminals lack, and the rows' ids."""
    shutil.copyfile(template, tmp_path / "receipted.db")
    shell = Shell(write_settings(tmp_path))
    payment = a_payment(account="stable", kind="payment_intent", reference=FOREIGN, provider_ref=FOREIGN)
    shell.write(payment)
    message = a_message(
        account="stable", body=json.dumps({"name": FOREIGN}, ensure_ascii=False).encode(), about=payment.id
    )
    rejected = RejectedDelivery(
        id=new_id(),
        account="stable",
        received_at=START,
        reason="signature_wrong",
        client="192.0.2.1",
        headers=[["x-note", FOREIGN]],
        body=FOREIGN.encode(),
    )
    service = shell.service()
    with service.database.write() as unit:
        inbox.record(unit, [message])
        quarantine.keep(unit, rejected, at_most=100)
        operator_actions.note(
            unit, account="stable", at=START, actor=FOREIGN, action="replay", subject=payment.id, reason=FOREIGN
        )
        effect = outbox.owe(
            unit,
            payment_id=payment.id,
            account="stable",
            effect="payment.paid",
            sink="shop",
            occurrence=0,
            cause=message.id,
            payload=json.dumps({"data": {"reference": FOREIGN}}, ensure_ascii=False),
            now=START,
        )
    service.close()
    return shell, {"payment": payment.id, "message": message.id, "effect": effect, "rejected": rejected.id}


def typed(told, encoding, command, *more):
    """One command before a terminal of the encoding: its exit code, standard output and standard error as bytes."""
    shell, ids = told
    words = [word.format(**ids) if "{" in word else word for word in WORDS.get(command, [])]
    given = ["--config", str(shell.config), *command.split(), *words, *more]
    try:
        result = CliRunner(charset=encoding).invoke(app, given)
    finally:
        forget_logs()
    return result.exit_code, result.stdout_bytes, result.stderr_bytes


def is_csv(command):
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    return any("--csv" in option.opts for option in found.params)


def test_every_command_is_typed():
    assert set(COMMANDS) >= set(WORDS) | ENDLESS
    assert len(TYPED) > 40


@pytest.mark.parametrize("command", TYPED)
def test_no_command_ends_by_what_a_terminal_cannot_write(told, command):
    for form in ([], ["--csv"]) if is_csv(command) else ([],):
        code, out, err = typed(told, "ascii", command, *form)

        assert code != Exit.BUG, err
        assert b"UnicodeEncodeError" not in err
        err.decode("ascii")
        out.decode("utf-8" if form or command == "audit export" else "ascii")


@pytest.mark.parametrize("command", ["payments list", "actions"])
def test_csv_and_json_are_utf8_whatever_the_terminal_has(told, command):
    ((_, table, _),) = {typed(told, encoding, command, "--csv") for encoding in ENCODINGS}
    ((_, data, _),) = {typed(told, encoding, command, "--json") for encoding in ENCODINGS}
    (row,) = csv.DictReader(io.StringIO(table.decode("utf-8")))

    assert FOREIGN in row.values()
    assert FOREIGN in json.loads(data)[0].values()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_people_see_an_escape_in_the_place_of_what_is_lacking(told, encoding):
    code, out, _ = typed(told, encoding, "payments list")

    assert code == 0
    assert "\\u03a9mega" in out.decode(encoding)


ENVIRONMENTS = {
    "ascii, strictly": {"PYTHONIOENCODING": "ascii:strict"},
    "POSIX": {"LC_ALL": "POSIX", "LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_process_with_the_encoding_lists_and_finds_what_it_cannot_write(told, name):
    """Also what is typed is read as UTF-8 there."""
    shell, _ = told
    for form in ((), ("--csv",)):
        words = ["--config", str(shell.config), "payments", "list", "--reference", FOREIGN, *form]
        variables = [f"{variable}={value}" for variable, value in ENVIRONMENTS[name].items()]
        done = subprocess.run(["env", *variables, *RECEIPTED, *words], capture_output=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        assert done.stderr == b""
        assert len(done.stdout.splitlines()) >= 2
