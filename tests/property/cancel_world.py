"""The commands of a service on a real database, and a provider whose calls go as a test says."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from audit.seals import Trust
from audit.verify import Audit, AuditReport
from providers.contract import Answer, Client, Provider
from providers.errors import ProviderError
from receipted.settings import load
from receipted.wiring import Service
from service.commands import Commands
from statemachine.phases import Source
from storage import inbox, outbox, payment_polls, payments, transitions
from storage.database import Database
from storage.ids import new_id
from storage.tables import InboxMessage, Payment, PaymentPoll, Transition
from tests.support.builders import a_message
from tests.support.clock import FakeClock
from tests.support.pipeline_world import Crashes, SimulatedCrash
from tests.support.settings_file import write_settings

ACCOUNT, KIND = "stable", "payment_intent"

#: What a call may be answered with instead of what the provider has.
AWAY = ProviderError("the provider cannot be reached (ConnectError)", may_retry=True)
NO_ANSWER = ProviderError("the provider did not answer (ReadTimeout)", may_retry=True, is_ambiguous=True)
BROKEN = ProviderError("answered 502", http_status=502, may_retry=True, is_ambiguous=True)
LIMITED = ProviderError("answered 429", type="rate_limit_error", http_status=429, may_retry=True)
FORBIDDEN = ProviderError("answered 403", type="authorization_error", http_status=403)
UNKNOWN = ProviderError("answered 404", type="not_found_error", http_status=404)
TOO_LATE = ProviderError("answered 409", type="conflict_error", provider_code="intent_not_cancellable", http_status=409)

Turn = Callable[["Genius", str, Callable[[], Answer]], Answer]


class Genius(Client):
    """Holds intents, and plays the next of its `turns` for each call; without one, the call goes well."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.states: dict[str, str] = {}
        self.calls: list[str] = []
        self.turns: list[Turn] = []
        self.on_move: Callable[[str, str], None] = lambda ref, state: None
        self.meeting: asyncio.Barrier | None = None  #: where so many cancel calls wait for each other

    def move(self, ref: str, state: str) -> bool:
        """The payer, or time, moves an intent that still waits; whether it did."""
        if self.states[ref] != "awaiting_payment":
            return False
        self.states[ref] = state
        self.on_move(ref, state)
        return True

    async def fetch(self, kind: str, ref: str) -> Answer:
        return await self._take_turn("fetch", ref, lambda: self._shown(ref))

    async def cancel(self, kind: str, ref: str) -> Answer:
        def work() -> Answer:
            if not self.move(ref, "cancelled"):
                raise TOO_LATE
            return self._shown(ref)

        return await self._take_turn("cancel", ref, work)

    async def _take_turn(self, call: str, ref: str, work: Callable[[], Answer]) -> Answer:
        self.calls.append(call)
        turn = self.turns.pop(0) if self.turns else fine
        self._clock.advance(0.001)
        await asyncio.sleep(0)  # others get their turn, as while a request is under way
        if self.meeting is not None and call == "cancel":
            await self.meeting.wait()
        return turn(self, ref, work)

    def _shown(self, ref: str) -> Answer:
        content = {"id": ref, "status": self.states[ref], "amount": 4.5, "currency": "usd"}
        return Answer(200, json.dumps(content).encode(), self._clock(), KIND, ref)


# -- turns


def fine(_genius: Genius, _ref: str, work: Callable[[], Answer]) -> Answer:
    """The call works, and is answered."""
    return work()


def failing(error: ProviderError) -> Turn:
    """The call is answered with an error, and nothing is done."""

    def turn(_genius: Genius, _ref: str, _work: Callable[[], Answer]) -> Answer:
        raise error

    return turn


def lost(error: ProviderError) -> Turn:
    """The call works, and its answer is lost."""

    def turn(_genius: Genius, _ref: str, work: Callable[[], Answer]) -> Answer:
        work()
        raise error

    return turn


def after(state: str, then: Turn = fine) -> Turn:
    """The intent moves just before the call."""

    def turn(genius: Genius, ref: str, work: Callable[[], Answer]) -> Answer:
        genius.move(ref, state)
        return then(genius, ref, work)

    return turn


def saying(body: bytes) -> Turn:
    """The call works, and is answered with these bytes."""

    def turn(_genius: Genius, _ref: str, work: Callable[[], Answer]) -> Answer:
        answer = work()
        return Answer(204, body, answer.asked_at, answer.kind, answer.ref)

    return turn


class Till:
    """One service, its clock, its provider, and what became of its payments."""

    def __init__(self, template: Path, folder: Path, *, database: Database | None = None) -> None:
        shutil.copyfile(template, folder / "receipted.db")
        self.service = Service(load.load(write_settings(folder), {}))
        if database is not None:
            self.service.database.close()
            self.service.database = database
        self.clock = FakeClock()
        self.service.clock = self.clock
        self.genius = Genius(self.clock)
        self.crashes = Crashes(self.service.database)

    def close(self) -> None:
        self.crashes.disarm()
        self.service.close()

    def has_provider(self, provider: Provider) -> None:
        """The account is at this provider from now on."""
        self.service.accounts[ACCOUNT] = replace(self.service.accounts[ACCOUNT], provider=provider)

    def commands(self) -> Commands:
        """Commands that remember nothing, as after a restart."""
        return self.service.commands(dict.fromkeys(self.service.accounts, self.genius))

    def a_payment(self, state: str = "awaiting_payment") -> Payment:
        """A payment that the provider has, tracked here while it still waited, and asked about in an hour."""
        ref = f"pi_{new_id()[-12:]}"
        self.genius.states[ref] = "awaiting_payment"
        made = asyncio.run(self.commands().track(ACCOUNT, ref))
        self.genius.states[ref] = state
        with self.service.database.write() as unit:
            payment_polls.set_next(unit, made.id, self.clock() + timedelta(hours=1))
        self.clock.advance(5)
        self.genius.calls.clear()
        return self.get(made.id)

    def cancel(self, payment: Payment) -> Payment:
        return self.run(self.commands().cancel(payment.id))

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return asyncio.run(awaited())

    def webhook(self, ref: str, status: str) -> None:
        """A webhook is in the inbox, and undecided."""
        content = {"id": ref, "status": status, "amount": 4.5, "currency": "usd"}
        body = json.dumps({"id": f"evt_{new_id()}", "type": f"payment_intent.{status}", "data": content}).encode()
        with self.service.database.write() as unit:
            inbox.record(unit, [a_message(account=ACCOUNT, body=body, received_at=self.clock())])

    def work(self) -> None:
        """Leases run out, and workers and pollers work until there is nothing to decide."""
        for _ in range(60):
            while self.service.inbox_worker().step():
                pass
            with self.service.database.read() as unit:
                if not inbox.depth(unit).get("pending"):
                    return
            self.clock.advance(61)
        raise AssertionError("messages stay pending for ever")

    def poll(self) -> None:
        """Every question that is due, and what they lead to."""
        poller = self.service.poller(dict.fromkeys(self.service.accounts, self.genius))
        while self.run(poller.step()):
            self.work()

    def forget(self, payment: Payment) -> None:
        """The payment is not asked about any more, so that it does not hold others up."""
        with self.service.database.write() as unit:
            payment_polls.set_next(unit, payment.id, None)

    # -- looking

    def get(self, payment_id: str) -> Payment:
        with self.service.database.read() as unit:
            return payments.get(unit, payment_id)

    def poll_of(self, payment_id: str) -> PaymentPoll:
        with self.service.database.read() as unit:
            return payment_polls.get(unit, payment_id)

    def effects(self, payment: Payment) -> list[str]:
        with self.service.database.read() as unit:
            return [owed.effect for owed in outbox.of_payment(unit, payment.id)]

    def chain(self, payment: Payment) -> list[Transition]:
        with self.service.database.read() as unit:
            return transitions.of_payment(unit, payment.id)

    def told(self, payment: Payment, source: Source = Source.CANCEL) -> list[InboxMessage]:
        """What the inbox has of the payment from that source."""
        with self.service.database.read() as unit:
            return [message for message in inbox.concerning(unit, payment.id) if message.source == source]

    def audit(self) -> AuditReport:
        accounts = self.service.audited_accounts()
        unsigned = Trust(self.service.database.sealer, retired_keys=frozenset(f"{name}/-" for name in accounts))
        return Audit(self.service.database, accounts, unsigned).run()


def crashing(till: Till, at: int, do: Callable[[], Any]) -> bool:
    """Whether `do` ended by a crash at its at-th write."""
    till.crashes.arm(at)
    try:
        do()
    except SimulatedCrash:
        return True
    finally:
        till.crashes.disarm()
    return False
