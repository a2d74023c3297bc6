"""Delivery of outbox messages to sinks: at least once, in order per payment.

Each ends delivered or dead.

No transaction is open while a sink is being talked to (rule R3). The loop that calls `start` lives elsewhere.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from fulfilment.backoff import Backoff
from fulfilment.contract import Delivered, Failed, OwedEffect, Result, Sink
from statemachine.histograms import Counts, counts
from storage import outbox
from storage.database import Database, Unit, build_record
from storage.errors import LeaseLost, StorageUnavailable
from storage.outbox import ClaimLimits, Settlement
from storage.tables import DeliveryAttempt, OutboxMessage
from storage.types import OutboxStatus
from storage.unreadable_rows import UnreadableRecord
from worker.delivery_slots import MAX_STALL_AFTER_S, DeliverySlot, DeliverySlots


class DeliveryTracer(Protocol):
    """Trace of effects to their sinks.

    Any thread may call it; it never waits, and raises nothing.
    """

    def traceparent(self, message: OutboxMessage) -> str | None:
        """Return the traceparent of the next attempt (W3C Trace Context).

        None where the effect is not traced.
        """
        ...

    def delivered(self, settled: Settlement) -> None:
        """Trace an attempt that is over and recorded."""
        ...


class NoDeliveryTracer:
    """Trace of nothing."""

    def traceparent(self, message: OutboxMessage) -> str | None:
        """Return None."""
        return None

    def delivered(self, settled: Settlement) -> None:
        """Do nothing."""


MISSING_SINK: Final = "the sink is not configured"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class EndedDelivery:
    """One delivery that is over, and not recorded yet."""

    message: OutboxMessage
    attempt: DeliveryAttempt
    result: Result
    at: datetime
    is_missing: bool  #: there is no such sink


class Settler:
    """Settle effects after an attempt: delivered, pending again, or dead."""

    def __init__(self, backoff: Backoff, rng: random.Random, missing_sink_delay: timedelta) -> None:
        self._backoff = backoff
        self._rng = rng
        self._missing_sink_delay = missing_sink_delay

    def settle(self, unit: Unit, ended: Sequence[EndedDelivery]) -> list[Settlement]:
        """Record the attempts and settle their effects.

        Raises LeaseLost where another worker has claimed one since.
        """
        failed = [
            each.message.id
            for each in ended
            if each.message.attempts and not each.is_missing and isinstance(each.result, Failed)
        ]
        before: dict[str, list[DeliveryAttempt]] = defaultdict(list)
        aside: list[
            UnreadableRecord
        ] = []  # a try that cannot be read counts for none, and keeps no other from being kept
        for attempt in outbox.attempts_of(unit, failed, aside) if failed else ():
            before[attempt.outbox_id].append(attempt)
        settlements = [self._settlement(each, before[each.message.id]) for each in ended]
        if settlements:
            outbox.settle_all(unit, settlements)
        return settlements

    def _settlement(self, ended: EndedDelivery, before: list[DeliveryAttempt]) -> Settlement:
        """Decide the message's next status by this attempt and those before it."""
        message, attempt, result, at = ended.message, ended.attempt, ended.result, ended.at
        if ended.is_missing:
            return Settlement(message, attempt, OutboxStatus.PENDING, at + self._missing_sink_delay)
        if isinstance(result, Delivered):
            return Settlement(message, attempt, OutboxStatus.DELIVERED, at)
        delay = None
        if not result.is_final:
            delay = self._backoff.next_delay(_count_tries(before) + 1, self._rng, result.retry_after)
        attempt.outcome = "dead" if delay is None else "failed"
        if delay is None:
            return Settlement(message, attempt, OutboxStatus.DEAD, at)
        return Settlement(message, attempt, OutboxStatus.PENDING, at + timedelta(seconds=delay))


def log_settlement(settled: Settlement, sample: Callable[[str], int]) -> None:
    """Log a settled effect, after the commit. `sample`: see Dispatcher."""
    attempt, count = settled.attempt, 1
    if settled.status is OutboxStatus.DELIVERED:
        count = sample("effect.delivered")
        if not count:
            return
    said = {**log_fields(settled.message), "http_status": attempt.http_status}
    if settled.status is OutboxStatus.DELIVERED:
        _log.info("effect.delivered", **said, sampled=count)
    elif settled.status is OutboxStatus.DEAD:
        _log.error("effect.dead", **said, error=attempt.error)
    else:
        _log.warning("effect.failed", **said, error=attempt.error)


def _count_tries(attempts: list[DeliveryAttempt]) -> int:
    """Count the attempts of the current schedule, which a redrive starts anew."""
    tries = 0
    for attempt in sorted(attempts, key=lambda a: a.number):
        if attempt.outcome == "dead":
            tries = 0
        elif attempt.error != MISSING_SINK:
            tries += 1
    return tries


def log_fields(message: OutboxMessage) -> dict[str, str | int | None]:
    """Return the fields of every log line about an effect."""
    return {
        "outbox_id": message.id,
        "account": message.account,
        "payment_id": message.payment_id,
        "sink": message.sink,
        "effect": message.effect,
        "attempt": message.attempts + 1,
    }


LEASE: Final = timedelta(seconds=90)
CONCURRENCY: Final = 32
#: How long a message waits for a sink that is not configured: long enough to be quiet, short enough for a deployment
#: in which one worker knows the new sink and another does not yet.
MISSING_SINK_DELAY: Final = timedelta(minutes=15)
#: Seconds that recording one delivery waits for a row which another session holds, and until it is tried again.
_HELD_LOCK_S: Final = 0.5
_HELD_RETRY_S: Final = 5.0
#: Seconds that a sink has to end its deliveries when the process stops.
_CANCEL_S: Final = 5.0
#: How long an effect waits whose delivery met a bug in being recorded: it was delivered, and will be again.
_UNRECORDED_DELAY: Final = timedelta(minutes=15)
#: The longest duration that an attempt's column holds; a clock never makes one longer.
_MAX_DURATION_MS: Final = 2**31 - 1
#: At most so many times a sink's slots are claimed ahead.
_MAX_AHEAD_PER_SLOT: Final = 3
#: How often the outbox is looked through for messages that wait for an earlier one, and for sinks that are not known.
_CHECK_INTERVAL: Final = timedelta(seconds=1)


class _ClaimedAhead:
    """Messages of one sink that are claimed and not begun."""

    def __init__(self) -> None:
        self.first = deque[OutboxMessage]()
        self.again = deque[OutboxMessage]()

    def __bool__(self) -> bool:
        return bool(self.first or self.again)

    def all(self) -> list[OutboxMessage]:
        """Return every one of them."""
        return [*self.first, *self.again]

    def add(self, message: OutboxMessage) -> None:
        """Queue the message behind those of its kind."""
        (self.again if _is_retry(message) else self.first).append(message)

    def next(self, slots: DeliverySlots, sink: str) -> OutboxMessage | None:
        """Take the message for the next free slot of the sink; None where none may."""
        if self.again and slots.free_for_retries(sink, is_alone=not self.first) > 0:
            return self.again.popleft()
        return self.first.popleft() if self.first and slots.free(sink) > 0 else None


def _is_retry(message: OutboxMessage) -> bool:
    """Tell whether the message had been claimed or put off before."""
    return message.claim_token > 1


class Dispatcher:
    """Deliver due effects; none is given up silently.

    An effect may arrive more than once, with the same id.

    A crash, or a lease that ran out, after the sink took an effect and before that was recorded leads to another
    delivery. `lease` must be longer than any sink's own timeout; a sink that outlasts it is abandoned. Each sink has
    `concurrency` places for deliveries, so that a slow one does not stop the others, and those that it keeps waiting
    make room for those that it may take (worker/delivery_slots.py).
    What has ended is recorded together, in the commit that claims what goes next: load makes batches. Of a sink that
    takes effects faster than they are claimed, some more are claimed ahead.
    """

    def __init__(
        self,
        database: Database,
        sinks: Mapping[str, Sink],
        clock: Callable[[], datetime],
        rng: random.Random,
        *,
        backoff: Backoff | None = None,
        lease: timedelta = LEASE,
        concurrency: int = CONCURRENCY,
        missing_sink_delay: timedelta = MISSING_SINK_DELAY,
        work_clock: Callable[[], datetime] | None = None,
        on_end: Callable[[], None] = lambda: None,
        sample: Callable[[str], int] = lambda _event: 1,
        traced: DeliveryTracer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        stall_after: float = MAX_STALL_AFTER_S,
        redact_answer: Callable[[bytes], str | None] = lambda _answer: None,
    ) -> None:
        """Prepare to deliver to these sinks.

        `clock` dates what goes out; by `work_clock` effects are due and leases end, for all who share the database.

        `on_end` is called after each delivery: `start` has something to record, and room for more.

        `sample` says for how many lines of an event the next one stands; 0 where it is left out.

        `redact_answer` makes what is kept of a sink's answer; by default nothing is.
        """
        self._redact_answer = redact_answer
        self._database = database
        self._sinks = dict(sinks)
        self._clock = clock
        self._work_clock = work_clock or clock
        self._lease = lease
        threads = {name: most for name, sink in self._sinks.items() if (most := getattr(sink, "threads", 0))}
        self._slots = DeliverySlots(concurrency, threads, self._use_freed_slot, stall_after=stall_after)
        self._settling = Settler(backoff or Backoff(), rng, missing_sink_delay)
        self._on_end = on_end
        self._sample = sample
        self._traced = traced or NoDeliveryTracer()
        self._monotonic = monotonic  #: for durations: the wall clock may jump by months during a delivery
        self.attempts: Counts = counts()  #: by sink and outcome: delivered, failed, dead, missing
        self._under_way: dict[asyncio.Task[EndedDelivery], DeliverySlot] = {}
        self._ended: list[EndedDelivery] = []  #: what is added in the event loop, the thread that records it takes out
        self._held: list[
            tuple[float, EndedDelivery]
        ] = []  #: not recorded, since another session holds the row; till when
        self._waiting: dict[str, _ClaimedAhead] = {}  #: claimed ahead, by sink
        self._checked_at: datetime | None = None  #: when the outbox was looked through for what claims pass over
        self._faults: list[BaseException] = []  #: bugs that a delivery met; the next call raises them
        self._recording: asyncio.Task[list[OutboxMessage]] | None = None

    async def step(self) -> int:
        """Attempt and settle everything that is due; return how many attempts.

        Raises StorageUnavailable after what was under way has ended. Cancelled, it abandons what is under way.
        """
        try:
            tried = await self.start()
            while self._under_way or self._ended:
                if not self._ended:
                    await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                tried += await self.start()
        except Exception:
            while self._under_way:
                await asyncio.wait(self._under_way)
            raise
        except BaseException:
            await self.aclose()
            raise
        return tried

    async def start(self) -> int:
        """Record what has ended, start what is due, and return how many were claimed.

        More can be begun only after `on_end` was called, or more is owed. Does not wait for a sink, so that a slow
        one holds up no other. Raises StorageUnavailable: then a later call records what has ended, unless its lease
        has run out by then and it was claimed again.
        """
        if self._faults:
            raise self._faults.pop()
        room = {name: limits for name, limits in self._room().items() if limits.total > 0}
        if self._sinks and not room and not self._ended and not self._held:
            return 0
        # Shielded: a commit that has begun ends, and `_ended` says what it was.
        self._recording = asyncio.create_task(asyncio.to_thread(self._record, list(self._ended), room))
        claimed = await asyncio.shield(self._recording)
        for message in claimed:
            self._waiting.setdefault(message.sink, _ClaimedAhead()).add(message)
        for sink in list(self._waiting):
            self._begin(sink)
        return len(claimed)

    async def aclose(self) -> None:
        """Abandon deliveries that run, and record those that have ended.

        What is abandoned comes again when its lease has run out.

        What was claimed ahead is due at once. Where storage is away, all of that comes again when its lease ends.
        """
        waiting, self._waiting = [message for each in self._waiting.values() for message in each.all()], {}
        for task in self._under_way:
            task.cancel()
        if self._under_way:  # a handler may hold on to its task for ever
            await asyncio.wait(self._under_way, timeout=_CANCEL_S)
        if self._recording is not None:
            await asyncio.gather(self._recording, return_exceptions=True)
        if self._under_way:
            _log.warning("effect.abandoned", effects=len(self._under_way), error="the sink does not end")
        try:
            if waiting:
                await asyncio.to_thread(self._release, waiting)
            if self._ended or self._held:
                self._held = [(0.0, each) for _, each in self._held]
                await asyncio.to_thread(self._record, list(self._ended), {})
        except StorageUnavailable as fault:
            _log.warning("effect.abandoned", effects=len(self._ended), error=fault.code)

    def _room(self) -> dict[str, ClaimLimits]:
        """Return the limits of the next claim by sink.

        They are the free slots, and ahead of them as many as have ended since the last commit.
        """
        ended = Counter(each.message.sink for each in self._ended)
        return {
            name: self._limits(name, ahead=min(ended[name], _MAX_AHEAD_PER_SLOT * self._slots.number(name)))
            for name in self._sinks
        }

    def _limits(self, sink: str, *, ahead: int) -> ClaimLimits:
        slots, waiting = self._slots, self._waiting.get(sink) or _ClaimedAhead()
        return ClaimLimits(
            total=slots.free(sink) + ahead - len(waiting.first) - len(waiting.again),
            retries=slots.free_for_retries(sink, is_alone=False) - len(waiting.again),
            retries_alone=slots.free_for_retries(sink, is_alone=True) + ahead - len(waiting.again),
        )

    def _begin(self, sink: str) -> None:
        """Start what was claimed for the sink as far as slots are free.

        What has waited for half of its lease is let go, and comes again.
        """
        waiting = self._waiting.get(sink)
        if not waiting:
            return
        latest = self._work_clock() + self._lease / 2
        while (message := waiting.next(self._slots, sink)) is not None:
            if message.next_attempt_at < latest:  # where its lease ends; too little of it is left
                continue
            task = asyncio.create_task(self._hand_over(message))
            task.add_done_callback(self._finish)
            self._under_way[task] = self._slots.take(sink, is_retry=_is_retry(message))

    def _finish(self, task: asyncio.Task[EndedDelivery]) -> None:
        slot = self._under_way.pop(task)
        self._slots.give_back(slot)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._faults.append(fault)
        elif not task.cancelled():
            self._ended.append(task.result())
        self._begin(slot.sink)
        self._on_end()

    def _use_freed_slot(self) -> None:
        """Use the slot that a stalled delivery has left."""
        for sink in list(self._waiting):
            self._begin(sink)
        self._on_end()

    def _release(self, claimed: Sequence[OutboxMessage]) -> None:
        with self._database.write() as unit:
            outbox.release(unit, claimed)

    def _record(self, ended: Sequence[EndedDelivery], room: Mapping[str, ClaimLimits]) -> list[OutboxMessage]:
        """Settle what has ended and claim what goes next, in one commit.

        Where that cannot be, each is settled alone.

        After it those are tried again, alone, whose rows another session held.
        """
        claimed = self._record_ended(ended, room)
        now = self._monotonic() if self._held else 0.0
        for entry in [entry for entry in self._held if entry[0] <= now]:
            self._held.remove(entry)
            self._ended.append(entry[1])
            self._settle_alone(entry[1])
        return claimed

    def _record_ended(self, ended: Sequence[EndedDelivery], room: Mapping[str, ClaimLimits]) -> list[OutboxMessage]:
        try:
            with self._database.write() as unit:
                settlements = self._settling.settle(unit, ended)
                claimed = self._claim(unit, room)
        except StorageUnavailable as unavailable:
            if not ended or not unavailable.is_held:
                raise
        except Exception:
            if not ended:
                raise
        else:
            for each, settlement in zip(ended, settlements, strict=True):
                self._ended.remove(each)
                self._report(settlement)
            return claimed
        faults = [fault for each in ended if (fault := self._settle_alone(each)) is not None]
        if faults:
            raise faults[0]
        with self._database.write() as unit:
            return self._claim(unit, room)

    def _settle_alone(self, ended: EndedDelivery) -> Exception | None:
        """Settle one delivery; return the bug that prevents it, if there is one.

        A message that a bug keeps from being recorded is put off.

        One whose row another session holds is recorded later, and keeps no other from being recorded.
        """
        fault: Exception | None = None
        try:
            with self._database.write() as unit, unit.locks_within(_HELD_LOCK_S):
                (settlement,) = self._settling.settle(unit, [ended])
        except StorageUnavailable as unavailable:
            if not unavailable.is_held:
                raise
            _log.warning("effect.waiting", **log_fields(ended.message), error="another session holds the effect's row")
            self._held.append((self._monotonic() + _HELD_RETRY_S, ended))
        except LeaseLost:
            # Delivered or not, whoever holds the lease now tries again and records that.
            _log.warning("effect.lease_lost", **log_fields(ended.message), outcome=ended.attempt.outcome)
        except Exception as found:  # noqa: BLE001 - the others are recorded before it is raised
            fault = found
            self._postpone(ended, found)
        else:
            self._report(settlement)
        self._ended.remove(ended)
        return fault

    def _postpone(self, ended: EndedDelivery, fault: Exception) -> None:
        """Put off an effect that would be delivered anew as often as its lease ends."""
        _log.warning("effect.unrecorded", **log_fields(ended.message), error=type(fault).__name__)
        try:
            with self._database.write() as unit, unit.locks_within(_HELD_LOCK_S):
                outbox.postpone(unit, ended.message, self._clock() + _UNRECORDED_DELAY)
        except Exception as met:  # noqa: BLE001 - then it comes again when its lease ends; the bug itself is raised
            _log.warning("effect.abandoned", **log_fields(ended.message), error=type(met).__name__)

    def _report(self, settled: Settlement) -> None:
        sink = settled.message.sink
        outcome = settled.attempt.outcome if sink in self._sinks else "missing"
        self.attempts[sink, outcome] += 1
        log_settlement(settled, self._sample)
        self._traced.delivered(settled)

    def _claim(self, unit: Unit, room: Mapping[str, ClaimLimits]) -> list[OutboxMessage]:
        now, claimed = self._work_clock(), list[OutboxMessage]()
        for name, limits in room.items():
            claimed += outbox.claim(unit, now, self._lease, name, limits)
        is_time = self._checked_at is None or abs(now - self._checked_at) >= _CHECK_INTERVAL
        if is_time:
            deferred = [outbox.defer_followers(unit, now, self._lease, name) for name in room]
            # At once again where there may be more.
            self._checked_at = now if max(deferred, default=0) < outbox.FOLLOWERS_BATCH_SIZE else None
        if is_time or not claimed:
            waiting = sum(len(each.all()) for name, each in self._waiting.items() if name not in self._sinks)
            limit = self._slots.number("") - waiting
            claimed += outbox.claim_of_others(unit, now, self._lease, list(self._sinks), limit)
        return claimed

    async def _hand_over(self, message: OutboxMessage) -> EndedDelivery:
        started_at, began = self._clock(), self._monotonic()
        sink = self._sinks.get(message.sink)
        result = Failed(MISSING_SINK) if sink is None else await self._deliver(sink, message, started_at)
        duration_ms = round((self._monotonic() - began) * 1000)
        attempt = build_record(  # `settle_all` says the rest of it
            DeliveryAttempt,
            {
                "outbox_id": message.id,
                "started_at": started_at,
                "duration_ms": min(max(duration_ms, 0), _MAX_DURATION_MS),
                "http_status": result.http_status,
                "outcome": "delivered" if isinstance(result, Delivered) else "failed",
                "error": None if isinstance(result, Delivered) else result.error,
                "answer": self._redact_answer(result.answer) if result.answer else None,
            },
        )
        return EndedDelivery(message, attempt, result, self._work_clock(), is_missing=sink is None)

    async def _deliver(self, sink: Sink, message: OutboxMessage, now: datetime) -> Result:
        owed = OwedEffect(
            id=message.travels_as,
            effect=message.effect,
            payment_id=message.payment_id,
            attempt=message.attempts + 1,
            payload=message.payload,
            created_at=message.created_at,
            traceparent=self._traced.traceparent(message),
        )
        # Not beyond the lease: another worker would hand it over beside us, and what follows it before us.
        limit = asyncio.timeout(max((message.next_attempt_at - self._work_clock()).total_seconds(), 0))
        try:
            async with limit:
                return await sink.deliver(owed, now)
        except Exception as error:  # noqa: BLE001 - a sink that breaks its contract must not make an attempt disappear
            if isinstance(error, TimeoutError) and limit.expired():
                return Failed("the sink outlasted the lease")
            _log.error("sink.broken", **log_fields(message), exc_type=type(error).__qualname__)
            return Failed(f"the sink broke its contract ({type(error).__qualname__})")
