"""Says things about payments of a Stable Genius account, and looks at what became of them."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from providers.contract import Answer, Reading
from statemachine import own_statements
from statemachine.phases import Source
from storage import inbox, outbox, payment_polls, payments, transitions
from storage.ids import new_id
from storage.payment_polls import PolledPayment
from storage.tables import InboxMessage, OutboxMessage, Payment, PaymentPoll, Transition
from tests.support.builders import PROVIDERS, a_message, our_message
from tests.support.pipeline_world import World
from worker.accounts import AccountRules

KIND = "payment_intent"


class Desk:
    """One account named acme, at Stable Genius, in adopt mode."""

    def __init__(self, world: World) -> None:
        self.world, self.clock, self.database = world, world.clock, world.database
        self.member = world.join("acme", PROVIDERS["stable_genius"])

    def rule(self, **changes: Any) -> None:
        """The account has other rules from now on."""
        self.rules("acme", **changes)

    def rules(self, account: str, **changes: Any) -> None:
        """The account of that name has other rules from now on."""
        rules: AccountRules = self.world.rules[account]
        self.world.rules[account] = replace(rules, **changes)

    def set(self, **changes: Any) -> None:
        """The worker has other settings from now on."""
        self.world.settings = replace(self.world.settings, **changes)

    # -- saying

    def event(self, status: str | None, ref: str = "pi_1", **intent: Any) -> bytes:
        content = {"id": ref, "status": status, "amount": 4.5, "currency": "usd"} | intent
        name = f"payment_intent.{status}"
        return json.dumps({"id": f"evt_{new_id()}", "type": name, "data": content}).encode()

    def webhook(self, status: str | None, ref: str = "pi_1", **intent: Any) -> str:
        """A webhook is recorded; returns its id."""
        return self.keep(a_message(body=self.event(status, ref, **intent), received_at=self.clock()))

    def answer(self, source: Source, status: str, ref: str = "pi_1", about: str | None = None, **intent: Any) -> str:
        content = {"id": ref, "status": status, "amount": 4.5, "currency": "usd"} | intent
        asked = ref if source is not Source.CREATE else None
        told = Answer(200, json.dumps(content).encode(), self.clock(), KIND, asked)
        return self.keep(self.world.answered("acme", source, told, about))

    def say(self, statement: own_statements.Statement, about: str | None, **changes: Any) -> str:
        if isinstance(statement, own_statements.Resolution) and about is not None:
            self.world.note_resolution("acme", about, statement)
        return self.keep(our_message(statement, about=about, at=self.clock(), **changes))

    def wish(self, reference: str = "order-1") -> str:
        """The merchant wants a payment of 4.50; returns its id."""
        payment_id = new_id()
        wanted = own_statements.CreateWanted(KIND, reference, 450, "USD")
        self.say(wanted, payment_id, delivery_key=f"create:{reference}")
        self.work()
        return payment_id

    def keep(self, message: InboxMessage) -> str:
        return self.world.record(message)[0].id

    def work(self) -> int:
        return self.world.worker().step()

    def a_quiet_payment(self) -> None:
        """A payment that awaits payment and is asked about in an hour."""
        self.told("awaiting_payment")
        with self.database.write() as unit:
            payment_polls.set_next(unit, self.payment().id, self.clock() + timedelta(hours=1))
        self.clock.advance(5)

    def told(self, status: str, ref: str = "pi_1", **intent: Any) -> InboxMessage:
        """A webhook is recorded and applied."""
        message_id = self.webhook(status, ref, **intent)
        self.work()
        return self.message(message_id)

    # -- looking

    def message(self, message_id: str) -> InboxMessage:
        with self.database.read() as unit:
            return inbox.get(unit, message_id)

    def payments(self) -> list[Payment]:
        with self.database.read() as unit:
            return payments.find(unit)

    def payment(self, ref: str = "pi_1") -> Payment:
        return next(payment for payment in self.payments() if payment.provider_ref == ref)

    def poll(self, ref: str = "pi_1") -> PaymentPoll:
        return self.poll_of(self.payment(ref).id)

    def poll_of(self, payment_id: str) -> PaymentPoll:
        with self.database.read() as unit:
            return payment_polls.get(unit, payment_id)

    def polled(self, payment_id: str) -> PolledPayment:
        return PolledPayment(self.get(payment_id), self.poll_of(payment_id))

    def polls(self) -> list[PaymentPoll]:
        return [self.poll_of(payment.id) for payment in self.payments()]

    def get(self, payment_id: str) -> Payment:
        with self.database.read() as unit:
            return payments.get(unit, payment_id)

    def chain(self, payment_id: str) -> list[Transition]:
        with self.database.read() as unit:
            return transitions.of_payment(unit, payment_id)

    def owed(self, payment_id: str, sink: str = "shop") -> list[OutboxMessage]:
        with self.database.read() as unit:
            return [o for o in outbox.of_payment(unit, payment_id) if o.sink == sink]

    def effects(self, payment_id: str) -> list[str]:
        return [o.effect for o in self.owed(payment_id)]

    def read_as(self, make: Any) -> None:
        """The provider reads every statement as `make` says, or breaks where it raises."""
        real = self.world.rules["acme"].provider

        class Reader(type(real)):  # type: ignore[misc]
            def parse(self, statement: Any) -> Reading:
                found = make(statement, super().parse)
                assert isinstance(found, Reading)
                return found

        self.rule(provider=Reader(real.options))
