"""Figures of the database: read seldom, cheap, and given up alone where they fail."""

import asyncio
from datetime import timedelta

import pytest

from receipted.metrics.catalogue import LabelBounds
from receipted.metrics.database import DatabaseFigures
from statemachine.histograms import Counts, counts
from storage import audits, inbox, outbox, webhook_health
from storage import counts as storage_counts
from storage.database import Database, Unit
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.tables_support import AuditRun
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import FakeClock
from tests.support.rows import put_status


class Steps:
    """A clock of seconds that tests move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def figures(database: Database, clock: FakeClock, errors: Counts, steps: Steps) -> DatabaseFigures:
    bounds = LabelBounds(["acme"], ["shop"], "1")
    return DatabaseFigures(database, bounds, ("acme",), clock, errors, fresh_seconds=5, monotonic=steps)


def read(found: DatabaseFigures) -> dict:
    return asyncio.run(_rows(found))


async def _rows(found: DatabaseFigures) -> dict:
    return await found.rows()


def test_each_figure_is_that_of_the_rows(either: Database, clock: FakeClock) -> None:
    old = clock() - timedelta(seconds=90)
    with either.write() as unit:
        inbox.record(unit, [a_message(received_at=old), a_message(), a_message(delivery_key="parked")])
        assert put_status(unit, "parked", "delivery_key = 'parked'") == 1
        for review in ("conflict", "conflict", "gave_up", None):
            keeping.keep(unit, a_payment(review=review))
        owing = a_payment()
        keeping.keep(unit, owing)
        outbox.owe(
            unit,
            payment_id=owing.id,
            account="acme",
            effect="payment.paid",
            sink="shop",
            occurrence=0,
            cause=new_id(),
            payload="{}",
            now=old,
        )
        watch = webhook_health.claim(unit, "acme", clock(), timedelta(0))
        assert watch is not None
        since = {"since": old.isoformat()}
        watch.alarms, watch.heard_at = {"silent": since, "unreachable": since, "dead_letters": since}, old
        webhook_health.keep(unit, watch)
        for faults in (7, 2):
            run = AuditRun(id=new_id(), began_at=old, ended_at=clock(), messages=3, payments=5, faults=faults)
            audits.note(unit, run)
    errors = counts()
    rows = read(figures(either, clock, errors, Steps()))

    assert rows["receipted_inbox_messages"] == {("pending",): [2], ("parked",): [1], ("dead",): [0]}
    assert rows["receipted_inbox_oldest_pending_seconds"] == {(): [90]}
    assert rows["receipted_outbox_messages"] == {("pending",): [1], ("dead",): [0]}
    assert rows["receipted_outbox_oldest_pending_seconds"] == {(): [90]}
    reviews = {labels: row[0] for labels, row in rows["receipted_reviews_open"].items() if row[0]}
    assert reviews == {("conflict",): 2, ("gave_up",): 1}
    for alarm in ("silent", "unreachable", "dead_letters"):
        assert rows["receipted_account_alarm"]["acme", alarm] == [1]
    assert rows["receipted_account_alarm"]["acme", "push_loss"] == [0]
    assert rows["receipted_last_delivery_timestamp_seconds"] == {("acme",): [old.timestamp()]}
    assert rows["receipted_audit_faults"] == {(): [2]}
    assert rows["receipted_audit_timestamp_seconds"] == {(): [clock().timestamp()]}
    assert not errors


def test_figures_are_read_once_for_all_who_ask_within_seconds(either: Database, clock: FakeClock) -> None:
    steps = Steps()
    found = figures(either, clock, counts(), steps)
    assert read(found)["receipted_inbox_messages"]["pending",] == [0]
    with either.write() as unit:
        inbox.record(unit, [a_message()])
    steps.now += 4
    assert read(found)["receipted_inbox_messages"]["pending",] == [0]
    steps.now += 2
    assert read(found)["receipted_inbox_messages"]["pending",] == [1]


def _refused(_unit: Unit) -> dict[str, int]:
    raise StorageUnavailable


def test_a_figure_that_fails_is_given_up_alone_and_comes_back(
    either: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, steps = counts(), Steps()
    found = figures(either, clock, errors, steps)
    with monkeypatch.context() as broken:
        broken.setattr(storage_counts, "reviews", _refused)
        rows = read(found)
    assert "receipted_reviews_open" not in rows
    assert "receipted_inbox_messages" in rows
    assert errors == {("reviews", ""): 1}
    assert "receipted_reviews_open" in read(found)
    assert errors == {("reviews", ""): 1}


def test_a_statement_that_takes_too_long_is_ended(either: Database) -> None:
    """And the connection is as good as before."""
    endless = {
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
        "postgresql": "SELECT count(*) FROM generate_series(1, 100000) AS a, generate_series(1, 100000) AS b",
    }[either.engine.dialect.name]
    with pytest.raises(StorageUnavailable), storage_counts.bounded_read(either, 0.05) as unit:
        unit.rows(endless)
    with either.read() as unit:
        assert storage_counts.inbox(unit).counts["pending"] == 0


def test_a_database_that_is_away_costs_its_figures_and_no_answer(clock: FakeClock) -> None:
    errors = counts()
    nowhere = Database("postgresql://nobody@127.0.0.1:9/nothing")

    assert read(figures(nowhere, clock, errors, Steps())) == {}
    assert {group for group, _ in errors} == {"inbox", "outbox", "reviews", "quarantine", "asking", "push", "audit"}
    nowhere.close()


@pytest.mark.parametrize(
    ("table", "condition"),
    [
        ("inbox_queue", "status = 'pending'"),
        ("inbox_queue", "status = 'dead'"),
        ("inbox_queue", "status = 'parked'"),
        ("outbox_queue", "status = 'pending'"),
        ("outbox_queue", "status = 'dead'"),
        ("payment", "review IS NOT NULL"),
    ],
)
def test_what_is_counted_has_an_index_that_holds_nothing_else(database: Database, table: str, condition: str) -> None:
    with database.read() as unit:
        plan = unit.rows(f"EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE {condition} LIMIT 10")  # noqa: S608

    assert "USING" in plan[0][3]
    assert "INDEX ix_" in plan[0][3]
