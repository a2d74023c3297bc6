"""Steps of the inbox: apply a batch in one commit; retry a failing message alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from statemachine.histograms import Counts, Histogram, counts
from statemachine.phases import Outcome, Source
from storage import batches, faults, inbox
from storage.batches import Key
from storage.database import Database, Unit
from storage.errors import LeaseLost, StorageUnavailable
from storage.inbox import Recorded
from storage.tables import InboxMessage
from storage.types import InboxStatus
from worker.accounts import Accounts, ApplySettings, Clock
from worker.payment_session import Session
from worker.process import MessageProcessor

log = structlog.get_logger()

Sample = Callable[[str], int]

#: Called with the messages of each commit.
Traced = Callable[[Sequence[InboxMessage]], None]

#: Under constant load, the interval at which messages are looked for that were put off, or arrived behind later ones.
_LOOK_BACK_INTERVAL: Final = timedelta(seconds=1)

#: Bounds of the seconds from the receipt of what a provider sent to the commit of its decision.
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

#: Seconds for which a message that is applied alone waits for a row which another session holds, how long it is put
#: off then, and after how many such in a row it is the database itself that cannot be written.
_HELD_LOCK_S: Final = 1.0
_HELD_DELAY: Final = timedelta(seconds=5)
_MAX_HELD_IN_A_ROW: Final = 3

_PENDING: Final = InboxStatus.PENDING.value
_PUSHED: Final = (Source.WEBHOOK.value, Source.CALLBACK.value)


class InboxWorker:
    """Applies pending inbox messages. Any number may run against one database."""

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        settings: ApplySettings,
        clock: Clock,
        sample: Sample = lambda _event: 1,
        traced: Traced = lambda _messages: None,
    ) -> None:
        """Take `sample`: the number of log lines that one stands for, 0 to omit it."""
        self._database = database
        self._accounts = accounts
        self._settings = settings
        self._clock = clock
        self._sample = sample
        self._traced = traced
        self._since = ""  #: an id before which everything was decided, put off or another's, when that was looked at
        self._looked_back_at: datetime | None = None
        self.held: dict[str, datetime] = {}  #: payments that another session held, and when that was last seen
        self.decisions: Counts = counts()  #: by account and outcome, or "dead"
        self.seconds = Histogram(SECONDS)

    def step(self, only: Sequence[str] | None = None) -> int:
        """Apply up to a batch of due messages in one commit; return how many were claimed.

        Raises StorageUnavailable. The messages are locked, and no lease is written; those about payments that another
        worker is busy with are left for later. A crash at any point leaves each message either applied and decided, or
        to be claimed again. Where one of the batch fails, nothing of it is kept, and each is claimed under a lease and
        applied alone; where another worker was quicker, the batch is tried once more before. Messages about a payment
        that another session holds, or that cannot be read, wait; the others do not wait for them.
        """
        if self.held:  # at once: each batch that names one would wait for it first
            self._postpone_held(only)
        for is_last in (False, True):
            try:
                with self._database.write() as unit:
                    applied = self._apply(unit, self._due(unit, only), is_alone=only is not None)
            except StorageUnavailable as fault:
                if fault.is_held:
                    if is_last or not self._postpone_held(only):
                        break
                elif is_last or not fault.is_rivalry:
                    raise
            except Exception as fault:  # noqa: BLE001 - one poison message must not fail its neighbours
                log.warning("message.retried", error=type(fault).__name__)
                if is_last or not faults.is_rivalry(fault):
                    break
            else:
                self._tell(applied)
                return len(applied)
        return self._apply_one_by_one(only)

    def _apply_one_by_one(self, only: Sequence[str] | None) -> int:
        """Claim a batch's messages and apply each alone.

        Raises StorageUnavailable, also where another session held the rows of several in a row. What was not tried is
        due at once then, unless the database is away: then when its lease ends.
        """
        settings, held = self._settings, 0
        with self._database.write() as unit:
            claimed = inbox.claim(unit, self._clock(), settings.lease, settings.batch, only=only)
        for at, message in enumerate(claimed):
            try:
                self._apply_alone(message.id, message.claim_token)
                held = 0
            except StorageUnavailable as fault:
                held += 1
                if not fault.is_held:
                    self._release(claimed[at:])
                    raise
                self._wait_for(claimed[at : at + 1] if held < _MAX_HELD_IN_A_ROW else claimed[at:], fault)
                if held == _MAX_HELD_IN_A_ROW:
                    raise
        return len(claimed)

    def _release(self, messages: Sequence[InboxMessage]) -> None:
        with suppress(StorageUnavailable), self._database.write() as unit:  # the caller raises why
            batches.release(unit, messages, self._clock())

    def _postpone_held(self, only: Sequence[str] | None) -> int:
        """Postpone due messages about payments that another session holds; count them."""
        now = self._clock()
        with self._database.write() as unit:
            batch = Session(unit, now)
            applications, refs, ids = self._applications(batch, self._due(unit, only))
            held = batches.held(unit, refs, ids)
            waiting = [each for each in applications if each.is_about_payment(held)]
            batches.postpone(
                unit, [(each.message, now + _HELD_DELAY, "its payment is held by another session") for each in waiting]
            )
        for payment in {*held.values()} - {*self.held}:
            log.warning("payment.waiting", payment_id=payment, messages=len(waiting), error="another session holds it")
        still = {payment: since for payment, since in self.held.items() if now - since < _HELD_DELAY}
        self.held = {**still, **dict.fromkeys(held.values(), now)}
        return len(waiting)

    def _wait_for(self, messages: Sequence[InboxMessage], fault: StorageUnavailable) -> None:
        """Postpone messages that met a locked row, without counting an attempt."""
        for message in messages:
            log.warning("message.waiting", message_id=message.id, account=message.account, error=fault.message)
        until = self._clock() + _HELD_DELAY
        with self._database.write() as unit, unit.locks_within(_HELD_LOCK_S):
            batches.postpone(unit, [(message, until, fault.message[:500]) for message in messages])

    def take(self, message: InboxMessage) -> Recorded:
        """Record the message, and apply it in the same commit if it is new.

        Where applying fails it is recorded all the same, and applied later. A deadlock is tried again. Raises
        StorageUnavailable: nothing was kept.
        """
        for is_last in (False, False, True):
            try:
                with self._database.write() as unit:
                    recorded = inbox.record(unit, [message])[0]
                    applied = self._apply(unit, self._due(unit, [recorded.id]))
            except StorageUnavailable as fault:
                if fault.is_held:
                    break  # it is recorded, and applied when the row is free
                if is_last or not fault.is_rivalry:
                    raise
            except Exception as fault:  # noqa: BLE001 - what cannot be applied must be kept and seen all the same
                log.warning("message.retried", message_id=message.id, error=type(fault).__name__)
                break
            else:
                self._tell(applied)
                return recorded
        with self._database.write() as unit:
            return inbox.record(unit, [message])[0]

    def _due(self, unit: Unit, only: Sequence[str] | None) -> list[InboxMessage]:
        """Lock and return a batch of due messages.

        While each batch is full, the next search begins at the first message of the last batch: before that lie dead
        index entries of decided messages, which PostgreSQL would scan each time.
        """
        now, limit = self._clock(), self._settings.batch
        if only is not None:
            return batches.due(unit, now, limit, only=only)
        looked_back_at = self._looked_back_at
        if looked_back_at is None or not timedelta(0) <= now - looked_back_at < _LOOK_BACK_INTERVAL:
            self._since, self._looked_back_at = "", now
        found = batches.due(unit, now, limit, since=self._since)
        if self._since and len(found) < limit:
            found = batches.due(unit, now, limit)  # these and whatever else there is; the locks are ours already
        self._since = found[0].id if len(found) == limit else ""
        return found

    def _apply(self, unit: Unit, messages: list[InboxMessage], *, is_alone: bool = True) -> list[InboxMessage]:
        """Decide the messages in order, after reading all that they name at once.

        Messages about payments in another worker's batch are left out, unless there are no others, or `is_alone`: then
        this waits for that batch.
        """
        if not messages:
            return messages
        batch = Session(unit, self._clock())
        applications, refs, ids = self._applications(batch, messages)
        references: dict[Key, None] = {}
        busy = batch.busy(refs) if not is_alone else set()
        if busy:
            free = [application for application in applications if not application.is_about(busy)]
            applications = free or applications
        batch.load(refs, ids)
        names: dict[Key, None] = {}
        for application in applications:
            application.foresee_further(names)
        batch.load_names(names)
        for application in applications:
            application.foresee_unnamed(references)
        batch.load_unbound(references)
        references = {}
        for application in applications:
            application.foresee_goods(references)
        batch.load_namesakes(references)
        for application in applications:
            application.run()
        batch.flush()
        return messages

    def _applications(
        self, batch: Session, messages: Sequence[InboxMessage]
    ) -> tuple[list[MessageProcessor], dict[Key, None], set[str]]:
        """Return processors of the messages, with the names and ids of their payments."""
        applications = [MessageProcessor(batch, message, self._accounts, self._settings) for message in messages]
        refs: dict[Key, None] = {}
        ids: set[str] = set()
        for application in applications:
            application.foresee(refs, ids)
        return applications, refs, ids

    def _count(self, messages: Sequence[InboxMessage]) -> None:
        """Count decided messages; postponed ones are counted when they are decided."""
        done = [m for m in messages if m.status != _PENDING]
        for pair, times in Counter([(m.account, m.decision or "") for m in done]).items():
            self.decisions[pair] += times
        pushed = [m.decided_at - m.received_at for m in done if m.source in _PUSHED and m.decided_at is not None]
        self.seconds.add_all([age.total_seconds() for age in pushed])

    def _tell(self, messages: Sequence[InboxMessage]) -> None:
        self._count(messages)
        self._traced(messages)
        for message in messages:
            if message.decision is not None and (count := self._sample("message.decided")):
                log.info(
                    "message.decided",
                    message_id=message.id,
                    account=message.account,
                    source=message.source,
                    outcome=message.decision,
                    payment_id=message.payment_id,
                    sampled=count,
                )

    def _apply_alone(self, message_id: str, token: int) -> None:
        try:
            with self._database.write() as unit, unit.locks_within(_HELD_LOCK_S):
                applied = self._apply(unit, [batches.claimed(unit, message_id, token)])
        except StorageUnavailable:
            raise
        except LeaseLost:
            log.warning("message.lease_lost", message_id=message_id)
        except Exception as fault:
            log.exception("message.failed", message_id=message_id)
            self._postpone(message_id, token, f"{type(fault).__name__}: {fault}"[:500])
        else:
            self._tell(applied)

    def _postpone(self, message_id: str, token: int, error: str) -> None:
        now, settings = self._clock(), self._settings
        with self._database.write() as unit:
            try:
                message = batches.claimed(unit, message_id, token)
            except LeaseLost:
                log.warning("message.lease_lost", message_id=message_id)
                return
            delay = _wait(settings, message.attempts)
            message.attempts += 1
            if message.attempts < settings.max_attempts:
                batches.postpone(unit, [(message, now + delay, error)])
                return
            message.status, message.decision = InboxStatus.DEAD.value, Outcome.PARKED.value
            message.last_error = error
            message.reason, message.decided_at = f"attempts exhausted: {error}", now
            message.outcomes = [{"outcome": message.decision, "reason": message.reason, "dead": True}]
            batches.finish(unit, [message])
        self.decisions[message.account, InboxStatus.DEAD.value] += 1
        self._traced([message])
        log.error("message.dead", message_id=message_id, account=message.account, attempts=message.attempts)


def _wait(settings: ApplySettings, attempts: int) -> timedelta:
    """Double the wait after each failed attempt, without overflow at the 46th."""
    doubled = settings.retry_first.total_seconds() * 2.0 ** min(attempts, 1000)
    return timedelta(seconds=min(doubled, settings.retry_longest.total_seconds()))
