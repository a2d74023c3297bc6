"""Payments that are owed several effects each, in a real database, and a dispatcher that hands them to one sink."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fulfilment.backoff import Backoff
from fulfilment.contract import Sink
from storage import inbox, outbox
from storage.database import Database
from storage.ids import new_id
from storage.tables import OutboxMessage, Payment
from storage.types import OutboxStatus
from tests.support import keeping
from worker.dispatch import Dispatcher

#: In the order in which each payment is owed them.
EFFECTS = ("payment.paid", "payment.settled", "payment.refunded")
#: Soon again and never dead: what is tested is what becomes of an effect, not how patient anybody is.
BACKOFF = Backoff((0.05, 0.1, 0.2), max_attempts=100_000, jitter=0.1)


def now() -> datetime:
    return datetime.now(UTC)


def dispatcher_to(database: Database, sink: Sink, concurrency: int = 16) -> Dispatcher:
    """The real dispatcher, with one sink."""
    return Dispatcher(
        database,
        {sink.name: sink},
        now,
        random.Random(7),
        backoff=BACKOFF,
        lease=timedelta(seconds=20),
        concurrency=concurrency,
    )


@dataclass
class Owing:
    """What is owed, in order, and whether all of it is delivered."""

    database: Database
    owed: dict[str, list[str]] = field(default_factory=dict)  #: outbox ids of each payment, in order
    payloads: dict[str, str] = field(default_factory=dict)

    def owe(self, count: int, effects: Sequence[str] = EFFECTS) -> None:
        """So many payments, each with all effects, as if applied just now."""
        at = now()
        with self.database.write() as unit:
            for _ in range(count):
                cause = inbox.new_message(
                    account="acme", source="webhook", delivery_key=new_id(), body=b"{}", received_at=at
                )
                payment = Payment(
                    id=new_id(),
                    account="acme",
                    kind="demo",
                    provider_ref=new_id(),
                    phase="paid",
                    created_at=at,
                    changed_at=at,
                )
                inbox.record(unit, [cause])
                keeping.keep(unit, payment)
                for effect in effects:
                    payload = json.dumps({"type": effect, "data": {"payment": payment.id, "name": "Bücher – 7"}})
                    found = outbox.owe(
                        unit,
                        payment_id=payment.id,
                        account="acme",
                        effect=effect,
                        sink="shop",
                        occurrence=0,
                        cause=cause.id,
                        payload=payload,
                        now=at,
                    )
                    assert found is not None
                    self.owed.setdefault(payment.id, []).append(found)
                    self.payloads[found] = payload

    def messages(self) -> list[OutboxMessage]:
        with self.database.read() as unit:
            return outbox.find(unit, limit=100_000)

    def delivered(self) -> int:
        return sum(message.status == OutboxStatus.DELIVERED for message in self.messages())

    async def deliver_all(self, sink: Sink, *, seconds: float = 60, concurrency: int = 16) -> Dispatcher:
        """Return when every effect is delivered, by the real dispatcher; AssertionError when not in time."""
        dispatcher = dispatcher_to(self.database, sink, concurrency)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    # Nothing due: either all is done, or what has failed waits for its next attempt.
                    if not await dispatcher.step():
                        if await asyncio.to_thread(self.delivered) == len(self.payloads):
                            return dispatcher
                        await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.delivered()} of {len(self.payloads)} delivered in {seconds} s") from None

    def require_in_order(self, ids: Sequence[str]) -> None:
        """Each effect is there, and no payment's effect was seen before the one that came before it."""
        first = {found: place for place, found in reversed(list(enumerate(ids)))}
        assert set(first) == set(self.payloads)
        for own in self.owed.values():
            assert [first[each] for each in own] == sorted(first[each] for each in own)
