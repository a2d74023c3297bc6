"""Rows that cannot be read, in every table that a loop reads: the rest goes on, and it is told which they are."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from audit.verify import Audit
from storage import inbox, search
from storage.database import Database
from tests.integration.test_duties import delivered, failing_loops
from tests.support import poison
from tests.support.databases import migrated
from tests.support.deliveries import event, sign
from tests.support.serving import eventually, serving, settings
from tests.support.waiting import DEADLINE_S


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    with migrated(request) as opened:
        yield opened


def dead(database: Database, table: str, column: str) -> dict[str, str]:
    """Why each dead row is, by what its id is on the disk."""
    with database.read() as unit:
        queues = {"outbox_message": ("outbox_queue", "outbox_id"), "inbox_queue": ("inbox_queue", "message_id")}
        table, key = queues.get(table, (table, "id"))
        raw = f"hex(CAST({key} AS BLOB))" if unit.dialect == "sqlite" else f"{key}::text"
        query = f"SELECT {raw}, {column} FROM {table} WHERE status = 'dead'"  # noqa: S608 - our own names
        return {row[0]: row[1] for row in unit.execute(sa.text(query))}


def test_poison_in_every_column_of_every_table_stops_nothing_else(database: Database, tmp_path: Path) -> None:
    """What comes after it is decided and delivered; what is due of it is set aside by its id, and named."""
    planted = poison.plant(database, "sg", "poison")
    assert {table for table, _, _ in planted} >= {"inbox_message", "payment", "outbox_message", "transition"}
    config = settings(tmp_path, tick=0.01, handler="tests.integration.test_duties:take", database=database.url)
    delivered.clear()
    with serving(config, migrated=False, with_work=True) as served:
        deliveries = [event(account) for account in ("sg", "sg", "bk", "ap")]
        answers = [served.deliver(each) for each in deliveries]
        wanted = [answer.json()["id"] for answer in answers]

        def are_decided() -> bool:
            with served.database.read() as unit:
                found = inbox.get_many(unit, wanted)
            return [each.status for each in found.values()] == ["decided"] * len(wanted)

        eventually(are_decided)
        eventually(lambda: delivered.count("payment.paid") >= 2)
        aside = {
            (table, column)
            for table, column, _ in planted
            if table in ("inbox_message", "inbox_queue", "outbox_message")
        }

        def not_set_aside() -> list[tuple[str, str]]:
            whys = dead(served.database, "inbox_queue", "last_error").values()
            words = " ".join(
                [
                    *(f"{table} {why}" for table in ("inbox_message", "inbox_queue") for why in whys),
                    *(
                        f"outbox_message {why}"
                        for why in dead(served.database, "outbox_message", "last_error").values()
                    ),
                ]
            )
            return [
                (table, column)
                for table, column in aside
                if (table, column) not in poison.SELECTED_BY
                and column not in UNREAD.get(table, ())
                and f"{table} the row cannot be read: {column} " not in words
            ]

        give_up = time.monotonic() + DEADLINE_S
        while not_set_aside() and time.monotonic() < give_up:
            threading.Event().wait(0.1)
        assert not_set_aside() == []
        lost = dead(served.database, "outbox_message", "last_error").values()
        ids = [column for table, column in aside if (table, column) == ("outbox_message", "id")]
        assert any("outbox_id names no message" in words for words in lost) == bool(ids)
        assert not failing_loops(served) & {"inbox", "outbox"}
        told = served.request("GET", "/metrics").body.decode()
        assert 'receipted_unreadable_rows_total{table="inbox_message"}' in told
        assert 'receipted_unreadable_rows_total{table="inbox_message"} 0.0' not in told
    found = Audit(database, {}).run()
    assert {fault.table for fault in found.faults} >= {"inbox_message", "payment", "outbox_message"}


#: Columns that no loop reads of a row; a list, a timeline or the audit meets them.
UNREAD = {
    "inbox_message": {
        *("id", "delivery_key", "digest", "key_id", "scrubbed_at", "headers"),
    },
    "inbox_queue": {"account", "last_error"},
    "outbox_message": {"id"},  # the queue names a message that is not there, and says so
}


def test_lists_show_what_cannot_be_read_in_its_place(database: Database) -> None:
    """No row is missing, none ends the list, and each says what is wrong with it."""
    poison.plant(database, "sg", "poison")
    with database.read() as unit:
        found = {
            "payment": search.payments(unit, search.RowFilter(), search.PageCursor(limit=500)),
            "inbox_message": search.messages(unit, search.RowFilter(), search.PageCursor(limit=500)),
            "outbox_message": search.outbox_messages(unit, search.RowFilter(), search.PageCursor(limit=500)),
            "rejected_delivery": search.rejected(unit, search.RowFilter(), search.PageCursor(limit=500)),
        }
        shelves = {
            "payment": search.PAYMENTS,
            "inbox_message": search.MESSAGES,
            "outbox_message": search.OWED,
            "rejected_delivery": search.REJECTED,
            "reconciliation": search.RECONCILIATIONS,
        }
        sifted = {
            table: search.page(unit, shelf, search.RowFilter(), search.PageCursor(limit=500))
            for table, shelf in shelves.items()
        }
        tables = {table: unit.rows(f"SELECT count(*) FROM {table}")[0][0] for table in sifted}  # noqa: S608
    assert {table: len(page.rows) for table, page in found.items()} == {table: tables[table] for table in found}
    assert {table: len(page.rows) for table, page in sifted.items()} == tables
    reasons = [message.reason or "" for message in found["inbox_message"].rows]
    assert any("the row cannot be read: received_at " in reason for reason in reasons)


def test_a_message_about_a_payment_that_cannot_be_read_fails_alone(database: Database, tmp_path: Path) -> None:
    """It is tried again and says why; nobody begins a second payment in the place of the first."""
    config = settings(tmp_path, database=database.url)
    with serving(config, migrated=False) as served:
        worker, first = served.service.inbox_worker(), event("sg")
        message_id = served.deliver(first).json()["id"]
        worker.step()
        with served.database.read() as unit:
            payment = str(inbox.get(unit, message_id).payment_id)
        with served.database.write() as unit:
            raw, poisoned = (payment.replace("-", ""), "'[1'") if unit.dialect == "sqlite" else (payment, "'5'")
            unit.execute(sa.text(f"UPDATE payment SET facts = {poisoned} WHERE id = :id"), {"id": raw})  # noqa: S608
        again = served.deliver(sign("sg", first.body.replace(b'"evt_', b'"evt_again_'))).json()["id"]
        others = [served.deliver(event(account)).json()["id"] for account in ("sg", "bk")]
        worker.step()

        with served.database.read() as unit:
            assert {inbox.get(unit, each).status for each in others} == {"decided"}
            waiting = inbox.get(unit, again)
            assert (waiting.status, waiting.attempts) == ("pending", 1)
            assert f"payment {payment}: the row cannot be read: facts" in str(waiting.last_error)
            assert unit.rows("SELECT count(*) FROM payment") == [(3,)]
