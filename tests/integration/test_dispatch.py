"""The dispatcher on a real database file, with real HTTP to a merchant's endpoint."""

import asyncio
import json
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.responses import Response
from structlog.testing import capture_logs

from fulfilment.backoff import Backoff
from fulfilment.contract import Delivered, Failed, OwedEffect, Result, Sink
from fulfilment.http_sink import HttpSink
from storage import inbox, outbox
from storage.database import Database, Unit
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.outbox import Settlement
from storage.tables import DeliveryAttempt, OutboxMessage, Payment
from tests.support import keeping
from tests.support.databases import fill
from tests.support.effect_receiver import KEY, Received, Receiver
from tests.support.waiting import DEADLINE_S
from worker.dispatch import Dispatcher

LEASE = timedelta(seconds=60)
BACKOFF = Backoff((5.0, 300.0), max_attempts=3, jitter=0.0)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Killed(BaseException):
    """Stands for the end of the process at that very place."""


@dataclass
class Shop:
    database: Database
    receiver: Receiver
    clock: Clock

    def payment(self) -> tuple[str, str]:
        """A payment and the inbox message that caused its effects."""
        now = self.clock()
        message = inbox.new_message(
            account="acme", source="webhook", delivery_key=new_id(), body=b"{}", received_at=now
        )
        payment = Payment(
            id=new_id(),
            account="acme",
            kind="demo",
            provider_ref=new_id(),
            phase="paid",
            created_at=now,
            changed_at=now,
        )
        with self.database.write() as unit:
            inbox.record(unit, [message])
            keeping.keep(unit, payment)
        return payment.id, message.id

    def owe(self, payment: tuple[str, str], effect: str = "payment.paid", sink: str = "shop") -> str:
        payment_id, cause = payment
        with self.database.write() as unit:
            found = outbox.owe(
                unit,
                payment_id=payment_id,
                account="acme",
                effect=effect,
                sink=sink,
                occurrence=0,
                cause=cause,
                payload=json.dumps({"type": effect, "payment": payment_id}),
                now=self.clock(),
            )
        assert found is not None
        return found

    def message(self, message_id: str) -> OutboxMessage:
        with self.database.read() as unit:
            return outbox.get(unit, message_id)

    def attempts(self, message_id: str) -> list[DeliveryAttempt]:
        with self.database.read() as unit:
            return outbox.attempts_of(unit, [message_id])

    def http_sink(self) -> HttpSink:
        return HttpSink("shop", self.receiver.url, [KEY], allow_loopback=True, timeout=10)

    def dispatcher(self, sinks: Mapping[str, Sink], **settings: object) -> Dispatcher:
        given = {"backoff": BACKOFF, "lease": LEASE, **settings}
        return Dispatcher(self.database, sinks, self.clock, random.Random(7), **given)  # type: ignore[arg-type]

    def run(self, scenario: Callable[[Dispatcher], Awaitable[None]]) -> None:
        """Run a scenario with a dispatcher to the receiver, in one event loop."""

        async def whole() -> None:
            sink = self.http_sink()
            try:
                await scenario(self.dispatcher({"shop": sink}))
            finally:
                await sink.aclose()

        asyncio.run(whole())

    def received_ids(self) -> list[str]:
        return [got.id.removeprefix("msg_") for got in self.receiver.received]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    database = Database(f"sqlite:///{tmp_path / 'receipted.sqlite'}")
    fill(database)
    receiver = Receiver()
    receiver.start()
    yield Shop(database, receiver, Clock())
    receiver.stop()
    database.close()


def test_delivered(shop: Shop) -> None:
    """What is owed arrives verifiably signed, is recorded with its attempt, and is not sent again."""
    message_id = shop.owe(shop.payment())

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 1
        assert await dispatcher.step() == 0
        shop.clock.advance(86_400)
        assert await dispatcher.step() == 0

    with capture_logs() as logs:
        shop.run(scenario)
    [got] = shop.receiver.received
    assert got.id == f"msg_{message_id}"
    assert got.verify() == json.loads(shop.message(message_id).payload)
    message, [attempt] = shop.message(message_id), shop.attempts(message_id)
    assert (message.status, message.attempts, message.last_error) == ("delivered", 1, None)
    assert message.delivered_at is not None
    assert (attempt.outcome, attempt.http_status, attempt.number) == ("delivered", 204, 1)
    [event] = [log for log in logs if log["event"].startswith("effect.")]
    assert event == {
        "event": "effect.delivered",
        "log_level": "info",
        "outbox_id": message_id,
        "account": "acme",
        "payment_id": message.payment_id,
        "sink": "shop",
        "effect": "payment.paid",
        "attempt": 1,
        "http_status": 204,
        "sampled": 1,
    }


def test_the_answer_is_kept_as_it_is_redacted(shop: Shop) -> None:
    """What `redact_answer` makes of a body is kept with its attempt; without it nothing of a body is."""
    shop.receiver.answers += [Response(b"secret 1", 500), Response(b"secret 2", 200)]
    message_id = shop.owe(shop.payment())

    async def scenario(keep: Callable[[bytes], str | None]) -> None:
        sink = shop.http_sink()
        await shop.dispatcher({"shop": sink}, redact_answer=keep).step()
        await sink.aclose()

    asyncio.run(scenario(lambda body: body.decode().replace("secret", "[redacted]")))
    shop.clock.advance(3600)
    asyncio.run(scenario(lambda _body: None))

    assert [each.answer for each in shop.attempts(message_id)] == ["[redacted] 1", None]


def test_lines_left_out(shop: Shop) -> None:
    """Of effects delivered by the thousand some lines are left out, and no failure's; all attempts are kept."""
    message_ids = [shop.owe(shop.payment()) for _ in range(3)]
    shop.receiver.answers += [Response(status_code=204), Response(status_code=500), Response(status_code=204)]
    asked: list[str] = []

    def sample(event: str) -> int:
        asked.append(event)
        return 0 if len(asked) == 1 else 2

    async def scenario() -> None:
        sink = shop.http_sink()
        dispatcher = shop.dispatcher({"shop": sink}, sample=sample, concurrency=1)
        assert await dispatcher.step() == 3
        assert dispatcher.attempts == {("shop", "delivered"): 2, ("shop", "failed"): 1}
        await sink.aclose()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert asked == ["effect.delivered"] * 2
    told = [(log["event"], log.get("sampled")) for log in logs if log["event"].startswith("effect.")]
    assert told == [("effect.failed", None), ("effect.delivered", 2)]
    assert [len(shop.attempts(message_id)) for message_id in message_ids] == [1, 1, 1]


def test_retry_then_success(shop: Shop) -> None:
    """A failed attempt is tried again by schedule, not before, with the same id and a signature of its own."""
    message_id = shop.owe(shop.payment())
    shop.receiver.answers.append(Response(status_code=500))

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 1
        assert (shop.message(message_id).status, shop.message(message_id).last_error) == ("pending", "answered 500")
        shop.clock.advance(4.9)
        assert await dispatcher.step() == 0
        shop.clock.advance(0.1)
        assert await dispatcher.step() == 1

    shop.run(scenario)
    assert shop.received_ids() == [message_id] * 2
    assert all(got.is_signed() for got in shop.receiver.received)
    first, second = (int(got.headers["webhook-timestamp"]) for got in shop.receiver.received)
    assert second - first == 5
    assert shop.message(message_id).status == "delivered"
    assert [(a.number, a.outcome, a.http_status) for a in shop.attempts(message_id)] == [
        (1, "failed", 500),
        (2, "delivered", 204),
    ]


def test_retry_after(shop: Shop) -> None:
    """Retry-After moves the next attempt later than the schedule would."""
    shop.owe(shop.payment())
    shop.receiver.answers.append(Response(status_code=503, headers={"retry-after": "40"}))

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 1
        shop.clock.advance(39.9)
        assert await dispatcher.step() == 0
        shop.clock.advance(0.1)
        assert await dispatcher.step() == 1

    shop.run(scenario)


def test_gone_is_dead_until_redriven(shop: Shop) -> None:
    """410 is dead after one attempt and stays so until a person redrives it."""
    message_id = shop.owe(shop.payment())
    shop.receiver.answers.append(Response(status_code=410))

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 1
        assert shop.message(message_id).status == "dead"
        shop.clock.advance(86_400)
        assert await dispatcher.step() == 0
        with shop.database.write() as unit:
            outbox.redrive(unit, message_id, shop.clock())
        assert await dispatcher.step() == 1

    shop.run(scenario)
    assert shop.message(message_id).status == "delivered"
    assert shop.received_ids() == [message_id] * 2
    assert [a.outcome for a in shop.attempts(message_id)] == ["dead", "delivered"]


def test_dead_after_the_last_attempt(shop: Shop) -> None:
    """Exhausted attempts end dead, said so in the log; a redrive has the whole schedule before it again."""
    message_id = shop.owe(shop.payment())
    shop.receiver.rule = lambda _got: Response(status_code=500)

    async def fail(dispatcher: Dispatcher) -> None:
        for delay in (5, 300, 86_400):
            assert await dispatcher.step() == 1
            shop.clock.advance(delay)
        assert await dispatcher.step() == 0
        assert shop.message(message_id).status == "dead"

    async def scenario(dispatcher: Dispatcher) -> None:
        await fail(dispatcher)
        with shop.database.write() as unit:
            outbox.redrive(unit, message_id, shop.clock())
        await fail(dispatcher)

    with capture_logs() as logs:
        shop.run(scenario)
    assert [a.outcome for a in shop.attempts(message_id)] == ["failed", "failed", "dead"] * 2
    assert [a.number for a in shop.attempts(message_id)] == [1, 2, 3, 4, 5, 6]
    events = [log["event"] for log in logs if log["event"].startswith("effect.")]
    assert events == ["effect.failed", "effect.failed", "effect.dead"] * 2
    assert not any("payload" in log or KEY in str(log) or "shop=1" in str(log) for log in logs)


def test_order_within_a_payment(shop: Shop) -> None:
    """While a payment's first effect is failing its second waits, and other payments go on."""
    slow, other = shop.payment(), shop.payment()
    paid, settled = shop.owe(slow), shop.owe(slow, "payment.settled")
    elsewhere = shop.owe(other)
    is_failing = True

    def rule(got: Received) -> Response:
        return Response(status_code=500 if is_failing and got.id == f"msg_{paid}" else 200)

    shop.receiver.rule = rule

    async def scenario(dispatcher: Dispatcher) -> None:
        nonlocal is_failing
        assert await dispatcher.step() == 2
        assert shop.message(elsewhere).status == "delivered"
        shop.clock.advance(5)
        assert await dispatcher.step() == 1
        assert settled not in shop.received_ids()
        is_failing = False
        shop.clock.advance(300)
        while await dispatcher.step():
            pass

    shop.run(scenario)
    assert [found for found in shop.received_ids() if found != elsewhere] == [paid, paid, paid, settled]
    assert shop.message(settled).status == "delivered"


def test_order_is_kept_within_a_sink_only(shop: Shop) -> None:
    """A payment's effects for one sink do not wait for those of another."""
    payment = shop.payment()
    shop.owe(payment, sink="gone")
    here = shop.owe(payment)

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 2

    shop.run(scenario)
    assert shop.message(here).status == "delivered"


class Wrapped:
    """A sink that does something of the test's once the real one has answered."""

    def __init__(self, sink: Sink, then: Callable[[], Awaitable[None]]) -> None:
        self.name = sink.name
        self._sink = sink
        self._then = then

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        result = await self._sink.deliver(owed, now)
        await self._then()
        return result

    async def aclose(self) -> None:
        await self._sink.aclose()


def test_crash_before_settling(shop: Shop) -> None:
    """A crash between delivery and record leads to a second delivery with the same id, of one and the same row."""
    message_id = shop.owe(shop.payment())

    async def die() -> None:
        raise Killed

    async def crash() -> None:
        sink = Wrapped(shop.http_sink(), die)
        try:
            await shop.dispatcher({"shop": sink}).step()
        finally:
            await sink.aclose()

    with pytest.raises(Killed):
        asyncio.run(crash())
    assert shop.message(message_id).status == "pending"

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 0  # the dead worker's lease still holds
        shop.clock.advance(LEASE.total_seconds())
        assert await dispatcher.step() == 1

    shop.run(scenario)
    assert shop.received_ids() == [message_id] * 2
    with shop.database.read() as unit:
        assert [message.id for message in outbox.find(unit)] == [message_id]
    assert [a.outcome for a in shop.attempts(message_id)] == ["delivered"]


@pytest.mark.parametrize(("status", "expected"), [(200, "delivered"), (500, "pending"), (410, "dead")])
def test_lease_lost(shop: Shop, status: int, expected: str) -> None:
    """A worker whose lease ran out does not overwrite what the next holder recorded, and its step ends well."""
    message_id = shop.owe(shop.payment())
    shop.receiver.answers.extend([Response(), Response(status_code=status)])

    async def scenario() -> None:
        sink = shop.http_sink()
        next_holder = shop.dispatcher({"shop": sink})

        async def overtake() -> None:
            shop.clock.advance(LEASE.total_seconds())
            assert await next_holder.step() == 1

        overtaken = shop.dispatcher({"shop": Wrapped(sink, overtake)})
        assert await overtaken.step() == 1
        assert await overtaken.step() == 0
        await sink.aclose()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert shop.received_ids() == [message_id] * 2
    assert [(a.number, a.http_status) for a in shop.attempts(message_id)] == [(1, status)]
    assert shop.message(message_id).status == expected
    assert [log["outbox_id"] for log in logs if log["event"] == "effect.lease_lost"] == [message_id]


def test_two_workers(shop: Shop) -> None:
    """Two workers at the same time share the work: nothing is claimed by both."""
    owed = {shop.owe(shop.payment()) for _ in range(20)}

    async def scenario() -> None:
        sink = shop.http_sink()
        workers = [shop.dispatcher({"shop": sink}, concurrency=4) for _ in range(2)]
        while any(await asyncio.gather(*(worker.step() for worker in workers))):
            pass
        await sink.aclose()

    asyncio.run(scenario())
    assert len(shop.received_ids()) == len(owed)
    assert set(shop.received_ids()) == owed


def test_missing_sink(shop: Shop) -> None:
    """A message for a sink that is not configured stays pending and visible, and its tries are not used up."""
    message_id = shop.owe(shop.payment(), sink="gone")

    async def scenario(dispatcher: Dispatcher) -> None:
        for _ in range(5):
            assert await dispatcher.step() == 1
            assert await dispatcher.step() == 0
            shop.clock.advance(900)
        assert (shop.message(message_id).status, shop.message(message_id).last_error) == (
            "pending",
            "the sink is not configured",
        )
        sink = shop.http_sink()
        shop.receiver.answers.append(Response(status_code=500))
        configured = shop.dispatcher({"gone": sink})
        assert await configured.step() == 1
        shop.clock.advance(5)
        assert await configured.step() == 1
        await sink.aclose()

    with capture_logs() as logs:
        shop.run(scenario)
    assert shop.message(message_id).status == "delivered"
    assert [log["event"] for log in logs if log.get("error") == "the sink is not configured"] == ["effect.failed"] * 5


def test_no_sink_at_all(shop: Shop) -> None:
    """Without any sink what is owed stays pending with its reason."""
    message_id = shop.owe(shop.payment())

    async def scenario() -> None:
        assert await shop.dispatcher({}).step() == 1

    asyncio.run(scenario())
    assert shop.message(message_id).last_error == "the sink is not configured"


def test_slow_sink_does_not_stop_the_others(shop: Shop) -> None:
    """While one sink hangs, another goes on beyond its first claim, within the bound of each."""
    for _ in range(6):
        shop.owe(shop.payment(), sink="slow")
        shop.owe(shop.payment(), sink="shop")
    slow = Receiver(held=threading.Event())
    slow.start()

    def rule(_got: Received) -> Response:
        if len(shop.receiver.received) == 6:
            assert slow.held is not None
            slow.held.set()
        return Response()

    shop.receiver.rule = rule

    async def scenario() -> None:
        sinks = {
            "shop": shop.http_sink(),
            "slow": HttpSink("slow", slow.url, [KEY], allow_loopback=True, timeout=10),
        }
        assert await shop.dispatcher(sinks, concurrency=4).step() >= 8
        assert len(shop.receiver.received) == 6
        for sink in sinks.values():
            await sink.aclose()

    asyncio.run(scenario())
    slow.stop()
    assert all(attempt.outcome == "delivered" for attempt in shop.attempts(shop.received_ids()[0]))


def test_bound(shop: Shop) -> None:
    """No more deliveries run at a time than `concurrency` says."""
    for _ in range(9):
        shop.owe(shop.payment())
    running, most = 0, 0

    class Counting(Wrapped):
        async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await super().deliver(owed, now)
            finally:
                running -= 1

    async def nothing() -> None:
        return

    async def scenario() -> None:
        sink = Counting(shop.http_sink(), nothing)
        worker = shop.dispatcher({"shop": sink}, concurrency=3)
        while await worker.step():
            pass
        await sink.aclose()

    asyncio.run(scenario())
    assert len(shop.receiver.received) == 9
    assert most == 3


def test_broken_sink(shop: Shop) -> None:
    """A sink that raises, against its contract, has failed an attempt, and the message is not lost."""
    message_id = shop.owe(shop.payment())

    async def break_it() -> None:
        raise RuntimeError("card 4111")

    async def scenario() -> None:
        sink = Wrapped(shop.http_sink(), break_it)
        assert await shop.dispatcher({"shop": sink}).step() == 1
        await sink.aclose()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert shop.message(message_id).status == "pending"
    assert shop.message(message_id).last_error == "the sink broke its contract (RuntimeError)"
    assert not any("4111" in str(log) for log in logs)


def test_sink_that_outlasts_the_lease(shop: Shop) -> None:
    """A sink that answers after the lease has ended is abandoned, so that a step ends."""
    message_id = shop.owe(shop.payment())
    shop.receiver.held = threading.Event()

    async def scenario() -> None:
        sink = shop.http_sink()
        assert await shop.dispatcher({"shop": sink}, lease=timedelta(seconds=0.2)).step() == 1
        await sink.aclose()

    asyncio.run(scenario())
    assert shop.message(message_id).last_error == "the sink outlasted the lease"


def test_cancelled(shop: Shop) -> None:
    """A step that is cancelled ends at once; what was under way is delivered again when its lease has run out."""
    message_id = shop.owe(shop.payment())
    shop.receiver.held = threading.Event()

    async def scenario(dispatcher: Dispatcher) -> None:
        step = asyncio.create_task(dispatcher.step())
        async with asyncio.timeout(DEADLINE_S):
            while not shop.receiver.received:  # noqa: ASYNC110 - the receiver lives in another thread
                await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert (shop.message(message_id).status, shop.attempts(message_id)) == ("pending", [])
        assert shop.receiver.held is not None
        shop.receiver.held.set()
        shop.clock.advance(LEASE.total_seconds())
        assert await dispatcher.step() == 1

    shop.run(scenario)
    assert shop.received_ids() == [message_id] * 2


def test_storage_away(tmp_path: Path, shop: Shop) -> None:
    """A database that is away is the loop's matter: StorageUnavailable leaves the step, and nothing was sent."""
    shop.owe(shop.payment())
    away = Database(f"sqlite:///{tmp_path / 'nowhere' / 'receipted.sqlite'}")

    async def scenario() -> None:
        sink = shop.http_sink()
        await Dispatcher(away, {"shop": sink}, shop.clock, random.Random(7)).step()

    with pytest.raises(StorageUnavailable):
        asyncio.run(scenario())
    away.close()
    assert not shop.receiver.received


def test_storage_away_after_delivery(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be recorded while storage was away is recorded when it is back, and is not delivered again."""
    ids = [shop.owe(shop.payment()) for _ in range(3)]
    settle_all = outbox.settle_all
    faults = [StorageUnavailable(), StorageUnavailable()]

    def failing(unit: Unit, settlements: Sequence[Settlement]) -> None:
        settle_all(unit, settlements)
        if faults:
            raise faults.pop()

    monkeypatch.setattr(outbox, "settle_all", failing)

    async def scenario(dispatcher: Dispatcher) -> None:
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await dispatcher.step()
            assert {shop.message(message_id).status for message_id in ids} == {"pending"}
        assert await dispatcher.step() == 0
        assert {shop.message(message_id).status for message_id in ids} == {"delivered"}
        shop.clock.advance(LEASE.total_seconds())
        assert await dispatcher.step() == 0

    shop.run(scenario)
    assert sorted(shop.received_ids()) == sorted(ids)
    assert [len(shop.attempts(message_id)) for message_id in ids] == [1, 1, 1]


def test_one_that_cannot_be_recorded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug met by one result is seen; the others of its commit are recorded, and that one is delivered again."""
    ids = [shop.owe(shop.payment()) for _ in range(3)]
    settle_all = outbox.settle_all
    is_broken = True

    def failing(unit: Unit, settlements: Sequence[Settlement]) -> None:
        settle_all(unit, settlements)
        if is_broken and ids[1] in [each.message.id for each in settlements]:
            raise ValueError("a bug")

    monkeypatch.setattr(outbox, "settle_all", failing)

    async def scenario(dispatcher: Dispatcher) -> None:
        nonlocal is_broken
        with pytest.raises(ValueError, match="a bug"):
            await dispatcher.step()
        await dispatcher.step()
        assert [shop.message(message_id).status for message_id in ids] == ["delivered", "pending", "delivered"]
        is_broken = False
        shop.clock.advance(LEASE.total_seconds())
        assert await dispatcher.step() == 0, "it is put off, or it would be delivered anew with each lease"
        shop.clock.advance(15 * 60)
        assert await dispatcher.step() == 1

    shop.run(scenario)
    assert sorted(shop.received_ids()) == sorted([*ids, ids[1]])
    assert [len(shop.attempts(message_id)) for message_id in ids] == [1, 1, 1]


def test_many_in_one_commit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends while others are recorded is recorded together."""
    ids = [shop.owe(shop.payment()) for _ in range(16)]
    settle_all, sizes = outbox.settle_all, list[int]()

    def counting(unit: Unit, settlements: Sequence[Settlement]) -> None:
        if not sizes:  # the first commit lasts until all the others have come
            for _ in range(1000):
                if len(shop.receiver.received) == len(ids):
                    break
                threading.Event().wait(0.01)
        sizes.append(len(settlements))
        settle_all(unit, settlements)

    monkeypatch.setattr(outbox, "settle_all", counting)

    async def scenario(dispatcher: Dispatcher) -> None:
        assert await dispatcher.step() == 16

    shop.run(scenario)
    assert sum(sizes) == 16
    assert len(sizes) < 8
    assert {shop.message(message_id).status for message_id in ids} == {"delivered"}


def test_a_hanging_delivery_holds_up_no_other(shop: Shop) -> None:
    """What comes to be owed while a delivery hangs is handed over meanwhile, also to the same sink."""
    hanging = shop.owe(shop.payment())

    class Hanging(Wrapped):
        async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
            if owed.id == hanging:
                await self._then()
            return await self._sink.deliver(owed, now)

    async def scenario() -> None:
        ended, held = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            await held.wait()

        sink = Hanging(shop.http_sink(), hang)
        dispatcher = shop.dispatcher({"shop": sink}, on_end=ended.set)
        assert await dispatcher.start() == 1
        later = shop.owe(shop.payment())
        assert await dispatcher.start() == 1
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
        assert await dispatcher.start() == 0
        assert (shop.message(later).status, shop.message(hanging).status) == ("delivered", "pending")
        held.set()
        await dispatcher.step()
        assert shop.message(hanging).status == "delivered"
        await sink.aclose()

    asyncio.run(scenario())
    assert len(shop.received_ids()) == 2


def test_stopped_before_recording(shop: Shop) -> None:
    """An orderly stop records what has ended, so that it is not delivered again."""
    message_id = shop.owe(shop.payment())

    async def scenario() -> None:
        ended = asyncio.Event()
        sink = shop.http_sink()
        dispatcher = shop.dispatcher({"shop": sink}, on_end=ended.set)
        assert await dispatcher.start() == 1
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
        assert shop.message(message_id).status == "pending"
        await dispatcher.aclose()
        await dispatcher.aclose()
        await sink.aclose()

    asyncio.run(scenario())
    assert shop.message(message_id).status == "delivered"
    assert len(shop.attempts(message_id)) == 1


def test_claimed_ahead(shop: Shop) -> None:
    """Of a sink that is quicker than the commits more is claimed than can begin; a stop makes that due at once."""
    ids = [shop.owe(shop.payment()) for _ in range(14)]
    running = 0

    class Counting(Wrapped):
        async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
            nonlocal running
            running += 1
            if running > 4:
                await self._then()
            return await self._sink.deliver(owed, now)

    async def scenario() -> None:
        ended = asyncio.Event()

        async def hang() -> None:
            await asyncio.Event().wait()

        sink = Counting(shop.http_sink(), hang)
        dispatcher = shop.dispatcher({"shop": sink}, concurrency=4, on_end=ended.set)
        assert await dispatcher.start() == 4
        async with asyncio.timeout(DEADLINE_S):
            while len(shop.receiver.received) < 4 or not ended.is_set():  # noqa: ASYNC110 - in another thread
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        assert await dispatcher.start() == 8
        await asyncio.sleep(0)
        assert running == 8
        await dispatcher.aclose()
        await sink.aclose()
        assert [shop.message(message_id).status for message_id in ids[:4]] == ["delivered"] * 4
        other = shop.http_sink()
        assert await shop.dispatcher({"shop": other}).step() == 6  # and not the four that were under way
        await other.aclose()

    asyncio.run(scenario())
    assert sorted(shop.received_ids()) == sorted([*ids[:4], *ids[8:]])


def test_claimed_ahead_for_too_long(shop: Shop) -> None:
    """What has waited for half its lease is let go, and is not delivered under a lease that may end before it."""
    ids = [shop.owe(shop.payment()) for _ in range(6)]
    started: list[str] = []
    together = asyncio.Barrier(2)  # two that end at once make room for two ahead

    class Late(Wrapped):
        async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
            started.append(owed.id)
            is_first = len(started) <= 2
            if len(started) == 4:
                shop.clock.advance(LEASE.total_seconds() / 2 + 1)
            result = await self._sink.deliver(owed, now)
            if is_first:
                await together.wait()
            return result

    async def nothing() -> None:
        return

    async def scenario() -> None:
        sink = Late(shop.http_sink(), nothing)
        dispatcher = shop.dispatcher({"shop": sink}, concurrency=2)
        await dispatcher.step()
        assert len(started) == 4
        shop.clock.advance(LEASE.total_seconds() / 2)
        while await dispatcher.step():
            pass
        await sink.aclose()

    asyncio.run(scenario())
    assert sorted(started) == sorted(shop.received_ids()) == sorted(ids)


@pytest.mark.parametrize("jump", [timedelta(days=200), timedelta(days=-200), timedelta(days=36_500)])
def test_a_clock_that_jumps_during_a_delivery_changes_no_duration(shop: Shop, jump: timedelta) -> None:
    """What was delivered is recorded, with how long it took by a clock that nobody sets."""
    message_id = shop.owe(shop.payment())
    began, moments = shop.clock.now, iter((10.0, 10.25))

    class Jumping:
        name = "shop"

        async def deliver(self, _owed: OwedEffect, _now: datetime) -> Result:
            shop.clock.now += jump
            return Delivered(204)

        async def aclose(self) -> None:
            return

    asyncio.run(shop.dispatcher({"shop": Jumping()}, monotonic=lambda: next(moments)).step())

    assert shop.message(message_id).status == "delivered"
    assert [(a.started_at, a.duration_ms) for a in shop.attempts(message_id)] == [(began, 250)]


@pytest.mark.parametrize("seconds", [1e12, -1.0])
def test_a_duration_is_bounded_before_it_is_kept(shop: Shop, seconds: float) -> None:
    """Whatever a clock says, the column holds it: PostgreSQL's integer has 32 bits."""
    message_id = shop.owe(shop.payment())
    moments = iter((0.0, seconds))

    async def scenario(_dispatcher: Dispatcher) -> None:
        sink = shop.http_sink()
        await shop.dispatcher({"shop": sink}, monotonic=lambda: next(moments)).step()
        await sink.aclose()

    shop.run(scenario)

    assert shop.message(message_id).status == "delivered"
    assert 0 <= shop.attempts(message_id)[0].duration_ms < 2**31


class SometimesSilent:
    """Takes effects at once, but for those of some payments, which are never answered."""

    name = "shop"

    def __init__(self, silent: set[str]) -> None:
        self.silent, self.took = silent, list[str]()

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        if owed.id in self.silent:
            await asyncio.Event().wait()
        self.took.append(owed.id)
        return Delivered()

    async def aclose(self) -> None:
        pass


def test_deliveries_that_are_never_answered_do_not_take_the_places_of_others(shop: Shop) -> None:
    """As many as there are places, and more, come first; the rest is delivered long before their time is up."""
    silent = {shop.owe(shop.payment()) for _ in range(6)}
    quick = {shop.owe(shop.payment()) for _ in range(40)}
    sink = SometimesSilent(silent)

    async def scenario() -> None:
        ended = asyncio.Event()
        dispatcher = shop.dispatcher({"shop": sink}, concurrency=2, on_end=ended.set, stall_after=0.05)
        async with asyncio.timeout(DEADLINE_S):
            while len(sink.took) < len(quick):
                await dispatcher.start()
                await ended.wait()
                ended.clear()
        await dispatcher.aclose()

    asyncio.run(scenario())
    assert set(sink.took) == quick


def test_retries_that_are_never_answered_do_not_take_the_slots_of_new_effects(shop: Shop) -> None:
    """Their turn came before: all new effects are delivered while none of them has timed out."""
    silent = {shop.owe(shop.payment()) for _ in range(45)}  # more than slots and room beside them
    sink = SometimesSilent(silent)
    refusing = Refusing()

    async def scenario() -> set[str]:
        await shop.dispatcher({"shop": refusing}).step()
        shop.clock.advance(3600)
        quick = {shop.owe(shop.payment()) for _ in range(40)}
        ended = asyncio.Event()
        dispatcher = shop.dispatcher({"shop": sink}, concurrency=4, on_end=ended.set)
        async with asyncio.timeout(DEADLINE_S):
            while len(sink.took) < len(quick):
                await dispatcher.start()
                await ended.wait()
                ended.clear()
        await dispatcher.aclose()
        return quick

    quick = asyncio.run(scenario())
    assert set(sink.took) == quick


class Refusing:
    """Refuses every effect."""

    name = "shop"

    async def deliver(self, _owed: OwedEffect, _now: datetime) -> Result:
        return Failed("answered 500", 500)

    async def aclose(self) -> None:
        pass
