"""What one delivery came to, and how its effect stands after it: delivered, to be tried again, or dead."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from fulfilment.backoff import Backoff
from fulfilment.contract import Delivered, Failed, Result
from storage import outbox
from storage.database import Unit
from storage.outbox import Settlement
from storage.readable import Unreadable
from storage.tables import DeliveryAttempt, OutboxMessage
from storage.types import OutboxStatus

MISSING: Final = "the sink is not configured"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """One delivery that is over, and not recorded yet."""

    message: OutboxMessage
    attempt: DeliveryAttempt
    result: Result
    at: datetime
    is_missing: bool  #: there is no such sink


class Settling:
    """Says how an effect stands after a try, and keeps that."""

    def __init__(self, backoff: Backoff, rng: random.Random, missing_sink_delay: timedelta) -> None:
        self._backoff = backoff
        self._rng = rng
        self._missing_sink_delay = missing_sink_delay

    def settle(self, unit: Unit, ended: Sequence[Ended]) -> list[Settlement]:
        """The attempts are kept and their effects moved on; raises LeaseLost where another has claimed one since."""
        failed = [each.message.id for each in ended if not each.is_missing and isinstance(each.result, Failed)]
        before: dict[str, list[DeliveryAttempt]] = defaultdict(list)
        aside: list[Unreadable] = []  # a try that cannot be read counts for none, and keeps no other from being kept
        for attempt in outbox.attempts_of(unit, failed, aside) if failed else ():
            before[attempt.outbox_id].append(attempt)
        settlements = [self._settlement(each, before[each.message.id]) for each in ended]
        if settlements:
            outbox.settle_all(unit, settlements)
        return settlements

    def _settlement(self, ended: Ended, before: list[DeliveryAttempt]) -> Settlement:
        """How the message stands after this try, and those before it."""
        message, attempt, result, at = ended.message, ended.attempt, ended.result, ended.at
        if ended.is_missing:
            return Settlement(message, attempt, OutboxStatus.PENDING, at + self._missing_sink_delay)
        if isinstance(result, Delivered):
            return Settlement(message, attempt, OutboxStatus.DELIVERED, at)
        delay = None
        if not result.is_final:
            delay = self._backoff.next_delay(_tries(before) + 1, self._rng, result.retry_after)
        attempt.outcome = "dead" if delay is None else "failed"
        if delay is None:
            return Settlement(message, attempt, OutboxStatus.DEAD, at)
        return Settlement(message, attempt, OutboxStatus.PENDING, at + timedelta(seconds=delay))


def tell(settled: Settlement, sample: Callable[[str], int]) -> None:
    """The log says what became of the effect; call it after the commit. `sample`: see Dispatcher."""
    attempt, count = settled.attempt, 1
    if settled.status is OutboxStatus.DELIVERED:
        count = sample("effect.delivered")
        if not count:
            return
    said = {**about(settled.message), "http_status": attempt.http_status}
    if settled.status is OutboxStatus.DELIVERED:
        _log.info("effect.delivered", **said, sampled=count)
    elif settled.status is OutboxStatus.DEAD:
        _log.error("effect.dead", **said, error=attempt.error)
    else:
        _log.warning("effect.failed", **said, error=attempt.error)


def _tries(attempts: list[DeliveryAttempt]) -> int:
    """How many tries count towards the schedule: those since the last redrive, at which it starts anew."""
    tries = 0
    for attempt in sorted(attempts, key=lambda a: a.number):
        if attempt.outcome == "dead":
            tries = 0
        elif attempt.error != MISSING:
            tries += 1
    return tries


def about(message: OutboxMessage) -> dict[str, str | int | None]:
    """What every log line about an effect says."""
    return {
        "outbox_id": message.id,
        "account": message.account,
        "payment_id": message.payment_id,
        "sink": message.sink,
        "effect": message.effect,
        "attempt": message.attempts + 1,
    }
