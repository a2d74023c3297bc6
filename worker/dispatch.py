"""Hands what the outbox owes to its sinks: at least once, per sink and payment in order, dead or delivered at the end.

No transaction is open while a sink is being talked to (rule R3). The loop that calls `step` lives elsewhere.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from fulfilment.backoff import Backoff
from fulfilment.contract import Delivered, Failed, OwedEffect, Result, Sink
from storage import outbox
from storage.engine import Database
from storage.errors import LeaseLost
from storage.tables import DeliveryAttempt, OutboxMessage
from storage.types import OutboxStatus

LEASE: Final = timedelta(seconds=90)
CONCURRENCY: Final = 16
#: How long a message waits for a sink that is not configured: long enough to be quiet, short enough for a deployment
#: in which one worker knows the new sink and another does not yet.
MISSING_SINK_DELAY: Final = timedelta(minutes=15)
_MISSING: Final = "the sink is not configured"

_log = structlog.get_logger()


class Dispatcher:
    """Delivers what is due. An effect may arrive more than once, with the same id; it is never given up silently.

    A crash, or a lease that ran out, after the sink took an effect and before that was recorded leads to another
    delivery. `lease` must be longer than any sink's own timeout; a sink that outlasts it is abandoned. At most
    `concurrency` deliveries run at a time, and each sink gets its share, so that a slow one does not stop the others.
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
    ) -> None:
        self._database = database
        self._sinks = dict(sinks)
        self._clock = clock
        self._rng = rng
        self._backoff = backoff or Backoff()
        self._lease = lease
        self._share = max(1, concurrency // max(1, len(self._sinks)))
        self._missing_sink_delay = missing_sink_delay

    async def step(self) -> int:
        """What was due has been tried and settled, as far as there was room; how many were tried.

        While some of the first claim are under way, sinks that have room are given more, so that a step takes at most
        about twice the longest delivery. Raises StorageUnavailable after what was under way has ended; what could not
        be settled comes again when its lease has run out. Cancelled, it abandons what is under way.
        """
        running: dict[asyncio.Task[None], str] = {}
        try:
            first = set(await self._claim(running))
            tried = len(first)
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del running[task]
                faults = [fault for task in done if (fault := task.exception()) is not None]
                if faults:
                    raise faults[0]
                if not first.isdisjoint(running):
                    tried += len(await self._claim(running))
        except BaseException as fault:
            if not isinstance(fault, Exception):
                for task in running:
                    task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            raise
        return tried

    async def _claim(self, running: dict[asyncio.Task[None], str]) -> list[asyncio.Task[None]]:
        under_way = list(running.values())
        room = {name: self._share - under_way.count(name) for name in self._sinks}
        # Half a share at least: a transaction for each single free place would cost more than it gains.
        wanted = {name: places for name, places in room.items() if places * 2 >= self._share}
        if self._sinks and not wanted:
            return []
        claimed = await asyncio.to_thread(self._claim_rows, wanted)
        started = {asyncio.create_task(self._handle(message)): message.sink for message in claimed}
        running.update(started)
        return list(started)

    def _claim_rows(self, wanted: Mapping[str, int]) -> list[OutboxMessage]:
        claimed: list[OutboxMessage] = []
        with self._database.write() as unit:
            now = self._clock()
            for name, places in wanted.items():
                others = [other for other in self._sinks if other != name]
                claimed += outbox.claim(unit, now, self._lease, places, busy=others)
            if not self._sinks:
                claimed += outbox.claim(unit, now, self._lease, self._share)
        return claimed

    async def _handle(self, message: OutboxMessage) -> None:
        started_at = self._clock()
        sink = self._sinks.get(message.sink)
        result = Failed(_MISSING) if sink is None else await self._deliver(sink, message, started_at)
        ended_at = max(self._clock(), started_at)
        attempt = DeliveryAttempt(
            id="",
            outbox_id=message.id,
            number=0,
            started_at=started_at,
            duration_ms=round((ended_at - started_at).total_seconds() * 1000),
            http_status=result.http_status,
            outcome="delivered" if isinstance(result, Delivered) else "failed",
            error=None if isinstance(result, Delivered) else result.error,
        )
        try:
            status = await asyncio.to_thread(self._settle, message, attempt, result, ended_at, is_missing=sink is None)
        except LeaseLost:
            # Delivered or not, whoever holds the lease now tries again and records that.
            _log.warning("effect.lease_lost", **_about(message), outcome=attempt.outcome)
            return
        if status is OutboxStatus.DELIVERED:
            _log.info("effect.delivered", **_about(message), http_status=attempt.http_status)
            return
        about = {**_about(message), "http_status": attempt.http_status, "error": attempt.error}
        if status is OutboxStatus.DEAD:
            _log.error("effect.dead", **about)
        else:
            _log.warning("effect.failed", **about)

    async def _deliver(self, sink: Sink, message: OutboxMessage, now: datetime) -> Result:
        owed = OwedEffect(
            id=message.id,
            effect=message.effect,
            payment_id=message.payment_id,
            attempt=message.attempts + 1,
            payload=message.payload,
            created_at=message.created_at,
        )
        limit = asyncio.timeout(self._lease.total_seconds())
        try:
            async with limit:
                return await sink.deliver(owed, now)
        except Exception as error:  # noqa: BLE001 - a sink that breaks its contract must not make an attempt disappear
            if isinstance(error, TimeoutError) and limit.expired():
                return Failed("the sink outlasted the lease")
            _log.error("sink.broken", **_about(message), exc_type=type(error).__qualname__)
            return Failed(f"the sink broke its contract ({type(error).__qualname__})")

    def _settle(
        self, message: OutboxMessage, attempt: DeliveryAttempt, result: Result, now: datetime, *, is_missing: bool
    ) -> OutboxStatus:
        with self._database.write() as unit:
            status, next_attempt_at = OutboxStatus.DELIVERED, now
            if is_missing:
                status, next_attempt_at = OutboxStatus.PENDING, now + self._missing_sink_delay
            elif isinstance(result, Failed):
                tries = _tries(outbox.attempts_of(unit, [message.id])) + 1
                delay = None if result.is_final else self._backoff.next_delay(tries, self._rng, result.retry_after)
                status = OutboxStatus.DEAD if delay is None else OutboxStatus.PENDING
                next_attempt_at = now if delay is None else now + timedelta(seconds=delay)
                attempt.outcome = "dead" if delay is None else "failed"
            outbox.settle(unit, message, attempt, status=status, next_attempt_at=next_attempt_at)
        return status


def _tries(attempts: list[DeliveryAttempt]) -> int:
    """How many tries count towards the schedule: those since the last redrive, at which it starts anew."""
    tries = 0
    for attempt in sorted(attempts, key=lambda a: a.number):
        if attempt.outcome == "dead":
            tries = 0
        elif attempt.error != _MISSING:
            tries += 1
    return tries


def _about(message: OutboxMessage) -> dict[str, str | int | None]:
    return {
        "outbox_id": message.id,
        "account": message.account,
        "payment_id": message.payment_id,
        "sink": message.sink,
        "effect": message.effect,
        "attempt": message.attempts + 1,
    }
