"""A 2xx is sent after the commit, and load makes batches."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as on_event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receipted.app import create_app
from receiver.group_commit import GroupWriter
from storage.database import Database
from storage.intake import Arrival, arrived
from storage.intake_stores import store_for
from tests.support.databases import fill
from tests.support.deliveries import event, sign
from tests.support.serving import Served, listening, serving, settings, write_locked
from tests.support.waiting import DEADLINE_S


def test_the_commit_precedes_the_answer(tmp_path: Path) -> None:
    """At the instant at which the answer is handed to the server, another connection sees the delivery."""
    seen: list[tuple[int, int]] = []

    def watched(app: ASGIApp, file: str) -> ASGIApp:
        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    with closing(sqlite3.connect(file)) as other:
                        count = other.execute("SELECT count(*) FROM inbox_message").fetchone()[0]
                    seen.append((message["status"], count))
                await send(message)

            await app(scope, receive, sent)

        return watch

    with serving(settings(tmp_path)) as running:
        app = watched(create_app(running.service, with_work=False), running.file)
        with listening(app) as port:
            client = Served(port, running.service)
            for _ in range(10):
                client.post(event("sg"))
    assert [(200, number) for number in range(1, 11)] == seen


def test_the_writer_writes_ahead_and_waits_for_the_disk(served: Served) -> None:
    """On the connection that commits deliveries: synchronous is FULL (2), journal_mode is wal."""
    found: list[tuple[Any, Any]] = []

    @on_event.listens_for(served.database.engine, "checkout")
    def _look(connection: sqlite3.Connection, *_: object) -> None:
        if threading.current_thread().name.startswith("intake"):
            found.append(
                (
                    connection.execute("PRAGMA synchronous").fetchone()[0],
                    connection.execute("PRAGMA journal_mode").fetchone()[0],
                )
            )

    assert served.post(event("sg")).status == 200
    assert found
    assert set(found) == {(2, "wal")}


def test_a_single_delivery_on_an_idle_service_is_one_commit(served: Served) -> None:
    """It waits for nobody."""
    for number in range(1, 4):
        assert served.post(event("sg")).status == 200
        assert served.commits == number


def test_two_hundred_deliveries_at_once_are_fewer_commits(served: Served) -> None:
    """What arrives during one commit is committed together by the next; all are recorded."""
    deliveries = [event("sg") for _ in range(200)]
    together = threading.Barrier(50)

    def deliver(at: int) -> list[int]:
        together.wait(DEADLINE_S)
        return [served.post(delivery).status for delivery in deliveries[at::50]]

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(deliver, range(50))) == [[200] * 4] * 50
    assert {delivery.body for delivery in deliveries} == {row.body for row in served.rows()}
    assert served.commits < 200


def test_what_waits_during_a_commit_is_one_transaction(served: Served) -> None:
    """While the first is committed forty wait: two commits, and not one more."""
    duplicate = event("sg")
    deliveries = [event("sg") for _ in range(38)] + [duplicate, duplicate]
    with ThreadPoolExecutor(41) as pool:
        with write_locked(served.file):
            first = pool.submit(served.post, event("sg"))
            served.until_waiting(0)
            others = [pool.submit(served.post, delivery) for delivery in deliveries]
            served.until_waiting(40)
        assert {200} == {answer.result().status for answer in (first, *others)}
    assert served.commits == 2
    assert len(served.rows()) == 40  # a duplicate within one batch is one too
    assert [row.redeliveries for row in served.rows() if row.body == duplicate.body] == [1]


@pytest.fixture
def poisoned(served: Served) -> Iterator[Served]:
    """A database that refuses one row: that with the body b'poison'."""
    with closing(sqlite3.connect(served.file)) as other:
        other.execute(
            "CREATE TRIGGER poison BEFORE INSERT ON inbox_message WHEN NEW.body = CAST('poison' AS BLOB) "
            "BEGIN SELECT RAISE(ABORT, 'poison'); END"
        )
    return served


def test_a_poison_row_fails_alone(poisoned: Served) -> None:
    """Its neighbours in the batch are recorded and answered 200; it is answered 500 in the error shape."""
    deliveries = [event("sg") for _ in range(10)]
    deliveries.insert(4, sign("sg", b"poison"))
    with ThreadPoolExecutor(12) as pool:
        with write_locked(poisoned.file):
            first = pool.submit(poisoned.post, event("sg"))
            poisoned.until_waiting(0)
            others = [pool.submit(poisoned.post, delivery) for delivery in deliveries]
            poisoned.until_waiting(11)
        answers = [other.result() for other in others]
    assert first.result().status == 200
    assert [answer.status for answer in answers] == [200] * 4 + [500] + [200] * 6
    assert (answers[4].error["type"], answers[4].error["code"]) == ("api_error", "unstorable")
    assert b"poison" not in answers[4].body
    assert len(poisoned.rows()) == 11


def test_a_request_that_is_cancelled_leaves_its_batch_alone(tmp_path: Path) -> None:
    """The neighbours of a cancelled request are recorded, and so may it be; the writer goes on."""
    database = Database(f"sqlite:///{tmp_path / 'receipted.db'}")
    fill(database)

    def message(number: int) -> Arrival:
        return arrived(
            account="sg", source="webhook", delivery_key=f"k{number}", body=b"x", received_at=datetime.now(UTC)
        )

    async def run() -> list[str]:
        writer = GroupWriter(store_for(database), queue=100, on_recorded=lambda: None)
        tasks = [asyncio.create_task(writer.record(message(number))) for number in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[5].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        again = await writer.record(message(11))
        await writer.close()
        assert not again.is_duplicate
        return [type(result).__name__ for result in ended]

    kinds = asyncio.run(run())
    database.close()
    assert ["CancelledError" if number in (0, 5) else "Recorded" for number in range(10)] == kinds
