"""A small history of every source and status, audited and tampered with."""

import sqlite3
from datetime import timedelta
from pathlib import Path

from poller.alarms import alarm_message
from providers.contract import Answer
from receiver.intake import verified_message
from receiver.tokens import About
from statemachine import statements
from statemachine.phases import Alarm, Source
from storage import inbox, outbox
from storage.ids import new_id
from storage.tables import DeliveryAttempt
from storage.types import OutboxStatus
from tests.builders import PROVIDERS, our_message
from tests.property.pipeline_voices import VOICES, Telling
from tests.property.pipeline_world import World

GENIUS, PAYIN = VOICES["stable_genius.payment_intent"], VOICES["payfield.payin"]


class Shop:
    """Two accounts and what happened at them."""

    def __init__(self, world: World) -> None:
        self.world, self.clock = world, world.clock
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
        wanted = statements.CreateWanted(kind, reference, 450, currency, "https://shop.example/thanks")
        self.say(wanted, payment_id, account)
        return payment_id

    def say(self, statement: statements.Statement, payment_id: str, account: str) -> None:
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
                owed = outbox.claim(unit, self.clock(), timedelta(seconds=60), 1)[0]
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
        self.say(statements.Resolution("confirmed", "seen at the bank", "ada"), late, "genius")
        refused = self.wish("genius", "payment_intent", "order-3", "USD")
        self.say(statements.CallFailed("create", "amount_too_small", "no", 400, False), refused, "genius")
        self.webhook("pi_strange", "blessed")  # parked
        self.alarm()
        self.dispatch()


def ids(path: Path, table: str) -> list[str]:
    """The ids of a table's rows as SQLite holds them."""
    with sqlite3.connect(path) as raw:
        found = [row[0] for row in raw.execute(f"SELECT id FROM {table} ORDER BY id")]  # noqa: S608
    raw.close()
    return found
