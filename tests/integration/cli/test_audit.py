"""Proving and exporting the history."""

import json

import pytest
from sqlalchemy import text

from receipted.cli.exits import Exit
from tests.support.databases import unguarded

from .test_inbox_outbox import refused_create


def tamper(shell, statement, **values):
    service = shell.service()
    with service.database.write() as unit:
        unguarded(unit)
        unit.execute(text(statement), values)
    service.close()


def test_an_untouched_history_holds(shell):
    """A clean history ends with 0 and says what was checked."""
    refused_create(shell)

    assert "everything holds" in shell("audit", "verify").out
    report = shell("audit", "verify", "--json").json
    assert (report["ok"], report["first"], report["faults"]) == (True, None, [])
    assert (report["messages"], report["payments"], report["transitions"], report["outbox"]) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("statement", "table", "problem"),
    [
        ("UPDATE payment SET amount_minor = 1", "payment", "what is kept of the payment has changed"),
        ("UPDATE inbox_message SET body = x'00'", "inbox_message", "the body is not the one that was received"),
        ("UPDATE outbox_queue SET attempts = 7", "outbox_message", "its status has changed"),
    ],
)
def test_the_first_row_that_is_wrong_is_named(shell, statement, table, problem):
    """A changed row ends the audit with 4, naming table, id and problem; JSON has every fault."""
    refused_create(shell)
    tamper(shell, statement)

    report = shell("audit", "verify", "--json", code=Exit.AUDIT).json
    said = shell("audit", "verify", code=Exit.AUDIT).out

    assert report["first"] == report["faults"][0]
    assert (report["ok"], report["first"]["table"], report["first"]["problem"]) == (False, table, problem)
    assert f"FAULT: the first row that is wrong is {table} {report['first']['row']}" in said
    assert problem in said


def test_the_history_is_exported_as_lines(shell, tmp_path):
    """Every line is one row, for one payment or all, to stdout or to a file that is whole."""
    payment = refused_create(shell, "order 1")
    refused_create(shell, "order 2")
    target = tmp_path / "history.jsonl"

    lines = [json.loads(line) for line in shell("audit", "export").out.splitlines()]
    one = shell("audit", "export", "--payment", payment["id"][-12:], "--json").json
    written = shell("audit", "export", "--output", str(target), "--json").json

    tables = {"payment", "payment_poll", "inbox_message", "decision", "transition", "outbox_message"}
    assert {line["table"] for line in lines} == tables
    assert [row["id"] for row in one if row["table"] == "payment"] == [payment["id"]]
    assert written == {"output": str(target), "lines": len(lines)}
    assert [json.loads(line) for line in target.read_text().splitlines()] == lines
    assert list(tmp_path.glob("*.part")) == []


def test_one_payment_is_proved_alone(shell):
    """Its own rows are checked, and no others; that is no audit of everything, and is not kept as one."""
    right, wrong = refused_create(shell, "order 1"), refused_create(shell, "order 2")
    tamper(shell, "UPDATE payment SET amount_minor = 1 WHERE reference = :reference", reference="order 2")

    report = shell("audit", "verify", "--payment", right["id"][-12:], "--json").json
    said = shell("audit", "verify", "--payment", wrong["id"], code=Exit.AUDIT).out

    assert (report["ok"], report["payments"], report["transitions"]) == (True, 1, 1)
    assert f"payment {wrong['id']}" in said
    assert shell("audit", "runs", "--json").json == []


def test_heads_are_what_an_auditor_writes_down(shell):
    """The hash of each payment's last transition, whole; the newest payment first."""
    first, second = refused_create(shell, "order 1"), refused_create(shell, "order 2")

    heads = shell("audit", "heads", "--json").json

    assert [(head["id"], head["head_hash"], head["version"]) for head in heads] == [
        (payment["id"], payment["head_hash"], 1) for payment in (second, first)
    ]
    assert second["head_hash"] in shell("audit", "heads", "--limit", "1").out
    assert [head["id"] for head in shell("audit", "heads", "--after", second["id"], "--json").json] == [first["id"]]
    assert f'"{first["id"]}","alternative"' in shell("audit", "heads", "--oldest", "--csv").out
    shell("audit", "heads", "--account", "nobody", code=Exit.NOT_FOUND)


def test_past_audits_are_listed(shell):
    """The newest first, with how many rows were checked and how many were wrong."""
    assert "nothing was proved yet" in shell("audit", "runs").out
    refused_create(shell)
    shell("audit", "verify")
    tamper(shell, "UPDATE payment SET amount_minor = 1")
    shell("audit", "verify", code=Exit.AUDIT)

    newest, oldest = shell("audit", "runs", "--json").json

    assert (newest["faults"], oldest["faults"], oldest["messages"], oldest["payments"]) == (
        2,
        0,
        2,
        1,
    )  # by its seal, and by its messages
    assert shell("audit", "runs", "--after", newest["id"][-12:], "--json").json == [oldest]
    assert newest["id"][-12:] in shell("audit", "runs").out
