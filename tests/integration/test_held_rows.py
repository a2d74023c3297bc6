"""One row that another session holds, on PostgreSQL: everything else goes on, and it is told which one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from fulfilment.contract import Delivered, OwedEffect, Result
from storage import connections, inbox, outbox
from storage.database import Database
from storage.errors import StorageUnavailable
from tests.integration.test_duties import failing_loops
from tests.support.databases import PostgreSQL
from tests.support.deliveries import event, sign
from tests.support.owing import Owing, dispatcher_to
from tests.support.serving import Served, eventually, serving, settings
from tests.support.waiting import DEADLINE_S


@pytest.fixture
def database(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setitem(connections.SESSION, "lock_timeout", "300ms")
    opened = postgresql.copy()
    yield opened
    postgresql.drop(opened)


@contextmanager
def held(database: Database, table: str, row_id: str, key: str = "id") -> Iterator[None]:
    """Another session has locked the row and does nothing, such as a psql that was left open."""
    other = Database(database.url)
    with other.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        found = connection.execute(sa.text(f"SELECT {key} FROM {table} WHERE {key} = :id FOR UPDATE"), {"id": row_id})  # noqa: S608
        assert found.first() is not None
        yield
    other.close()


def status(served: Served, message_id: str) -> str:
    with served.database.read() as unit:
        return inbox.get(unit, message_id).status


def again(served: Served, account: str, first: Any) -> str:
    """Another event about the payment of the first."""
    body = first.body.replace(b'"evt_', b'"evt_again_')
    return str(served.deliver(sign(account, body)).json()["id"])


def test_a_payment_that_is_held_holds_up_no_other(database: Database, tmp_path: Path) -> None:
    """Its messages wait without an attempt; the others are decided; the log and the probe name it."""
    config = settings(tmp_path, tick=0.05, handler="tests.integration.test_duties:take", database=database.url)
    with serving(config, migrated=False, with_work=True) as served:
        first = event("sg")
        message_id = str(served.deliver(first).json()["id"])
        eventually(lambda: status(served, message_id) == "decided")
        with served.database.read() as unit:
            payment = str(inbox.get(unit, message_id).payment_id)

        with held(database, "payment", payment):
            waiting = again(served, "sg", first)
            others = [str(served.deliver(event(account)).json()["id"]) for account in ("sg", "pf", "bk", "sg", "sg")]
            eventually(lambda: {status(served, each) for each in others} == {"decided"})
            eventually(lambda: payment in served.request("GET", "/readyz").json().get("held_payments", ()))

            assert status(served, waiting) == "pending"
            assert served.request("GET", "/readyz").status == 200
            assert "inbox" not in failing_loops(served)
        eventually(lambda: status(served, waiting) == "decided")
        with served.database.read() as unit:
            assert inbox.get(unit, waiting).attempts == 0, "nothing was wrong with it"


def test_what_a_command_says_is_recorded_although_its_payment_is_held(database: Database, tmp_path: Path) -> None:
    """Nothing that somebody said is lost for a row that is held; it is applied when that is free."""
    config = settings(tmp_path, database=database.url)
    with serving(config, migrated=False) as served:
        service = served.service
        first = event("sg")
        message_id = str(served.deliver(first).json()["id"])
        worker = service.inbox_worker()
        worker.step()
        with served.database.read() as unit:
            message = inbox.get(unit, message_id)
        with held(database, "payment", str(message.payment_id)):
            said = inbox.new_message(
                account="sg",
                source="webhook",
                delivery_key="said",
                body=first.body,
                received_at=service.clock(),
                about=message.payment_id,
            )
            recorded = worker.take(said)
            assert status(served, recorded.id) == "pending"
        worker.step()
        assert status(served, recorded.id) == "decided"


class Shop:
    """Takes everything, and remembers it."""

    name = "shop"

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def deliver(self, owed: OwedEffect, _now: Any) -> Result:
        self.taken.append(owed.id)
        return Delivered(200)

    async def aclose(self) -> None:
        return


def test_an_effect_whose_row_is_held_holds_up_no_other(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was delivered, and that is recorded when the row is free; meanwhile all others are delivered and recorded."""
    owing = Owing(database)
    owing.owe(6, effects=("payment.paid",))
    ids = [each[0] for each in owing.owed.values()]
    monkeypatch.setattr("worker.dispatch._HELD_RETRY_S", 0.2)

    def states() -> dict[str, str]:
        with database.read() as unit:
            return {each: outbox.get(unit, each).status for each in ids}

    class Holding(Shop):
        async def deliver(self, owed: OwedEffect, now: Any) -> Result:
            if owed.id == ids[0]:
                holding.__enter__()
            return await super().deliver(owed, now)

    holding, shop = held(database, "outbox_queue", ids[0], "outbox_id"), Holding()

    async def scenario() -> None:
        dispatched = dispatcher_to(database, shop)
        async with asyncio.timeout(DEADLINE_S):
            while list(states().values()).count("delivered") < 5:
                await dispatched.start()
                await asyncio.sleep(0.01)
            assert states()[ids[0]] == "pending"
            owing.owe(3, effects=("payment.paid",))
            ids.extend(each[0] for each in owing.owed.values() if each[0] not in ids)
            while list(states().values()).count("delivered") < 8:
                await dispatched.start()
                await asyncio.sleep(0.01)
            holding.__exit__(None, None, None)
            while set(states().values()) != {"delivered"}:
                await dispatched.start()
                await asyncio.sleep(0.01)
        await dispatched.aclose()

    with capture_logs() as logged:
        asyncio.run(scenario())

    assert sorted(shop.taken) == sorted(ids), "nothing was delivered twice"
    assert {line["outbox_id"] for line in logged if line["event"] == "effect.waiting"} == {ids[0]}


def test_a_table_that_is_held_is_a_database_that_is_away(database: Database, tmp_path: Path) -> None:
    """Where no message at all can be applied, nothing of them is tried one after the other for ever."""
    config = settings(tmp_path, database=database.url)
    with serving(config, migrated=False) as served:
        worker = served.service.inbox_worker()
        ids = [str(served.deliver(event("sg")).json()["id"]) for _ in range(8)]
        other = Database(database.url)
        with other.engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("LOCK TABLE payment IN EXCLUSIVE MODE")
            with pytest.raises(StorageUnavailable), capture_logs():
                worker.step()
        other.close()
        with served.database.write() as unit:
            unit.execute(sa.text("UPDATE inbox_queue SET available_at = now() - interval '1 minute'"))
        worker.step()
        assert {status(served, each) for each in ids} == {"decided"}
