"""A small history of every source and status on either database, audited and tampered with."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, create_engine, select, update

from poller.alarms import alarm_message
from providers.contract import Answer
from receiver.intake import verified_message
from receiver.returns import About
from statemachine import own_statements
from statemachine.phases import Alarm, Source
from storage import hashing, inbox, outbox
from storage.columns import table_of
from storage.database import Database, build_record
from storage.ids import new_id
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessageTable, Payment, Transition
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.types import OutboxStatus
from tests.property.pipeline_voices import VOICES, Telling
from tests.support.builders import PROVIDERS, our_message
from tests.support.pipeline_world import World

GENIUS, PAYIN = VOICES["stable_genius.payment_intent"], VOICES["payfield.payin"]

TABLES = {
    table_of(model).name: model
    for model in (InboxMessage, QueuedMessage, RecordedDecision, Payment, Transition, OutboxMessageTable)
}

#: By table: the column of a row's own seal, and what computes it.
SEALS = {
    "inbox_message": ("envelope_digest", hashing.envelope),
    "payment": ("seal", hashing.payment),
    "transition": ("hash", hashing.transition),
    "outbox_message": ("seal", lambda message: hashing.outbox_message(message.__dict__)),
}


class Shop:
    """Two accounts and what happened at them."""

    def __init__(self, world: World) -> None:
        self.world, self.clock = world, world.clock
        world.is_unsigned_allowed = False
        world.join("genius", PROVIDERS["stable_genius"])
        world.join("payfield", PROVIDERS["payfield"])

    def telling(self, ref: str, state: str) -> Telling:
        return Telling(ref, ref, state, 450, self.clock(), new_id())

    def webhook(self, ref: str, state: str) -> bytes:
        body = GENIUS.webhook(self.telling(ref, state))
        assert body is not None
        return self.deliver(body)

    def deliver(self, body: bytes) -> bytes:
        delivery = GENIUS.delivery(body, self.clock())
        receiving = self.world.members["genius"].receiving
        self.world.record(verified_message(receiving, None, None, delivery, self.clock()))
        self.work()
        return body

    def callback(self, payment_id: str, ref: str, state: str) -> None:
        delivery = PAYIN.delivery(PAYIN.answer(self.telling(ref, state)), self.clock())
        about = About("payfield", "payin", payment_id)
        receiving = self.world.members["payfield"].receiving
        self.world.record(verified_message(receiving, about, "payin", delivery, self.clock()))
        self.work()

    def wish(self, account: str, kind: str, reference: str, currency: str) -> str:
        payment_id = new_id()
        wanted = own_statements.CreateWanted(kind, reference, 450, currency, "https://shop.example/thanks")
        self.say(wanted, payment_id, account)
        return payment_id

    def say(self, statement: own_statements.Statement, payment_id: str, account: str) -> None:
        if isinstance(statement, own_statements.Resolution):
            self.world.note_resolution(account, payment_id, statement)
        self.world.record(our_message(statement, about=payment_id, at=self.clock(), account=account))
        self.work()

    def answer(self, source: Source, ref: str, state: str, payment_id: str | None) -> None:
        body, asked = GENIUS.answer(self.telling(ref, state)), ref if source is Source.POLL else None
        told = Answer(200, body, self.clock(), "payment_intent", asked)
        self.world.record(self.world.answered("genius", source, told, payment_id))
        self.work()

    def alarm(self) -> None:
        """One of the account as a whole, which no payment is about."""
        told = alarm_message(
            "genius", Alarm.SILENT, since=self.clock(), is_over=False, reason="quiet", details={}, now=self.clock()
        )
        self.world.record(told)
        self.work()

    def work(self) -> None:
        self.clock.advance(1)
        while self.world.worker().step():
            pass

    def dispatch(self) -> None:
        """Two effects are delivered, one of them at the second try; one is dead; the rest is owed."""
        for outcome in ("failed", "delivered", "delivered", "dead"):
            self.clock.advance(1)
            with self.world.database.write() as unit:
                owed = outbox.claim_of_others(unit, self.clock(), timedelta(seconds=60), [], 1)[0]
                attempt = DeliveryAttempt(
                    id="",
                    outbox_id=owed.id,
                    number=0,
                    started_at=self.clock(),
                    duration_ms=12,
                    outcome=outcome,
                    http_status=200 if outcome == "delivered" else 500,
                    error=None if outcome == "delivered" else "no",
                )
                status = OutboxStatus.PENDING if outcome == "failed" else OutboxStatus(outcome)
                outbox.settle(unit, owed, attempt, status=status, next_attempt_at=self.clock() - timedelta(days=1))

    def happen(self) -> None:
        """Every source, decision and status once."""
        paid = self.wish("genius", "payment_intent", "order-1", "USD")
        self.answer(Source.CREATE, "order-1", "awaiting_payment", paid)
        again = self.webhook("order-1", "confirmed")
        self.deliver(again)
        self.deliver(again.replace(b'"object":"event"', b'"object":"events"'))  # a variant
        self.answer(Source.POLL, "order-1", "settled", paid)
        self.webhook("order-1", "confirmed")  # stale
        called = self.wish("payfield", "payin", "order-2", "INR")
        self.callback(called, "order-2", "success")
        self.webhook("pi_elsewhere", "cancelled")
        self.webhook("pi_elsewhere", "confirmed")
        self.answer(Source.POLL, "pi_elsewhere", "confirmed", None)
        with self.world.database.read() as unit:
            late = inbox.find(unit, source="poll")[-1].payment_id
        assert late is not None
        self.say(own_statements.Resolution("confirmed", "seen at the bank", "ada"), late, "genius")
        refused = self.wish("genius", "payment_intent", "order-3", "USD")
        self.say(own_statements.CallFailed("create", "amount_too_small", "no", 400, False), refused, "genius")
        self.webhook("pi_strange", "blessed")  # parked
        self.alarm()
        self.dispatch()


class Tampering:
    """Changes rows behind the program's back, as whoever owns the file or the server can, and puts them back."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine if is_postgresql(database) else create_engine(database.url)
        if not is_postgresql(database):
            with self._engine.begin() as raw:
                for name in (
                    raw.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
                ):
                    raw.exec_driver_sql(f"DROP TRIGGER {name}")
        self._as_written = {table: self.rows(table) for table in TABLES}

    @contextmanager
    def editing(self) -> Iterator[Connection]:
        """Nothing of the database's own guards what is written."""
        with self._engine.begin() as raw:
            if raw.dialect.name == "postgresql":
                raw.exec_driver_sql("SET LOCAL session_replication_role = replica")
            yield raw

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Every row, in order of its id."""
        described = table_of(TABLES[table])
        with self._engine.connect() as raw:
            return [dict(row) for row in raw.execute(select(described).order_by(*described.primary_key)).mappings()]

    def row(self, table: str, row_id: str) -> dict[str, Any]:
        return next(row for row in self.rows(table) if row[key_of(table)] == row_id)

    def change(self, table: str, row_id: str, **values: Any) -> None:
        described = table_of(TABLES[table])
        with self.editing() as raw:
            changed = raw.execute(update(described).where(described.c[key_of(table)] == row_id).values(**values))
        assert changed.rowcount == 1

    def take_away(self, table: str, row_id: str) -> None:
        described = table_of(TABLES[table])
        with self.editing() as raw:
            raw.execute(described.delete().where(described.c[key_of(table)] == row_id))

    def add(self, table: str, row: dict[str, Any]) -> None:
        with self.editing() as raw:
            raw.execute(table_of(TABLES[table]).insert(), row)

    def reseal(self, table: str, row_id: str) -> None:
        """The row's own seal is right again, as by somebody who knows the program."""
        column, compute = SEALS[table]
        content = compute(build_record(TABLES[table], self.row(table, row_id)))
        self.change(table, row_id, **{column: hashing.Sealer().seal(content)})

    def undo(self) -> None:
        """Every row is as it was written."""
        with self.editing() as raw:
            for table, rows in self._as_written.items():
                raw.execute(table_of(TABLES[table]).delete())
                if rows:
                    raw.execute(table_of(TABLES[table]).insert(), rows)

    def close(self) -> None:
        self._engine.dispose()


def key_of(table: str) -> str:
    """The column of what a row is named by."""
    return "id" if "id" in table_of(TABLES[table]).c else "message_id"


def is_postgresql(database: Database) -> bool:
    return database.engine.dialect.name == "postgresql"
