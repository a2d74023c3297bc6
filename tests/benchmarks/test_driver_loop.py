"""The loop that is written by hand leaves the rows that the worker leaves; otherwise the comparison means nothing."""

import json

import pytest
from sqlalchemy import text

from receipted.wiring import Service
from tests.benchmarks import driver_loop, events
from tests.benchmarks.config import settings
from tests.benchmarks.filling import record

#: Of each table that the worker writes, what does not depend on ids, times and digests.
ROWS = {
    "inbox_queue": "status, attempts, awaits, last_error",
    "decision": "reading, number, statement, outcome, reason, payment_id IS NULL",
    "payment": (
        "account, kind, provider_ref, reference, alias, amount_minor, currency, captured_minor, refunded_minor, state, "
        "phase, version, review, reviews, CAST(facts AS varchar), failure_reason, expires_at IS NULL"
    ),
    "payment_poll": (
        "account, statements, asked_at, polls, poll_error, poll_priority, poll_failures, next_poll_at IS NULL"
    ),
    "transition": (
        "account, number, from_state, to_state, phase, CAST(via AS varchar), CAST(forced AS integer), source, actor, "
        "reason, as_of IS NULL, prev_hash = ''"
    ),
    "outbox": "account, effect, sink, occurrence, status, attempts, claim_token, delivered_at, last_error",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request, template, tmp_path):
    """The URLs of two migrated databases of one kind."""
    if request.param == "sqlite":
        for name in ("ours", "by-hand"):
            (tmp_path / f"{name}.db").write_bytes(template.read_bytes())
        yield [f"sqlite:///{tmp_path / name}.db" for name in ("ours", "by-hand")]
        return
    server = request.getfixturevalue("postgresql")
    made = [server.copy(), server.copy()]
    yield [database.url for database in made]
    for database in made:
        server.drop(database)


def test_the_rows_are_the_workers_and_the_audit_holds(databases, monkeypatch):
    monkeypatch.setattr(driver_loop, "BATCH", 10)  # some payments are known from the batch before
    bodies = events.bodies(35)
    ours, by_hand = (Service(settings(url)) for url in databases)
    for url in databases:
        record(url, bodies)

    worker = ours.inbox_worker()
    while worker.step():
        pass
    driver_loop.empty(by_hand.database.url)

    assert kept(by_hand) == kept(ours)
    audited = [service.audit().run() for service in (ours, by_hand)]
    assert [(report.messages, report.payments, report.transitions, report.outbox) for report in audited] == [
        (35, 12, 23, 11)
    ] * 2
    assert [report.faults for report in audited] == [[], []]
    for service in (ours, by_hand):
        service.close()


def kept(service):
    """The rows of each table, whatever their order."""
    with service.database.read() as unit:
        return {
            table: sorted(
                str([plain(value) for value in row])
                for row in unit.execute(text(f"SELECT {columns} FROM {table}"))  # noqa: S608
            )
            for table, columns in ROWS.items()
        }


def plain(value):
    """JSON objects may have their names in any order, and PostgreSQL and SQLite say true in words of their own."""
    return sorted(json.loads(value).items()) if isinstance(value, str) and value.startswith("{") else value
