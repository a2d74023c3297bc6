"""One step of the inbox: a batch is applied in one commit; what fails is retried alone and ends dead, visibly."""

from collections.abc import Sequence

import structlog

from statemachine.phases import Outcome
from storage import inbox
from storage.engine import Database, Unit
from storage.errors import LeaseLost, StorageUnavailable
from storage.inbox import Recorded
from storage.tables import InboxMessage
from storage.types import InboxStatus
from worker.accounts import Accounts, ApplySettings, Clock
from worker.message import Application

log = structlog.get_logger()


class InboxWorker:
    """Applies what waits in the inbox. Any number of them may run against one database."""

    def __init__(self, database: Database, accounts: Accounts, settings: ApplySettings, clock: Clock) -> None:
        self._database = database
        self._accounts = accounts
        self._settings = settings
        self._clock = clock

    def step(self, only: Sequence[str] | None = None) -> int:
        """Apply up to a batch of due messages in one commit; returns how many were claimed. Raises StorageUnavailable.

        A crash at any point leaves each message either applied and decided, or to be claimed again. Where one of the
        batch fails, each is claimed under a lease and applied alone.
        """
        try:
            with self._database.write() as unit:
                return self._apply_claimed(unit, only)
        except StorageUnavailable:
            raise
        except Exception as fault:  # noqa: BLE001 - one poison message must not fail its neighbours
            log.warning("message.retried", error=type(fault).__name__)
        settings = self._settings
        with self._database.write() as unit:
            claimed = inbox.claim(unit, self._clock(), settings.lease, settings.batch, only=only)
        for message in claimed:
            self._apply_alone(message.id, message.claim_token)
        return len(claimed)

    def take(self, message: InboxMessage) -> Recorded:
        """The message is recorded, and applied in the same commit unless that fails, or it was there already.

        Then it is recorded all the same, and applied later. Raises StorageUnavailable: nothing was kept.
        """
        try:
            with self._database.write() as unit:
                recorded = inbox.record(unit, [message])[0]
                self._apply_claimed(unit, [recorded.id])
                return recorded
        except StorageUnavailable:
            raise
        except Exception as fault:  # noqa: BLE001 - what cannot be applied must be kept and seen all the same
            log.warning("message.retried", message_id=message.id, error=type(fault).__name__)
        with self._database.write() as unit:
            return inbox.record(unit, [message])[0]

    def _apply_claimed(self, unit: Unit, only: Sequence[str] | None) -> int:
        settings = self._settings
        claimed = inbox.claim(unit, self._clock(), settings.lease, settings.batch, only=only)
        for message in claimed:
            Application(unit, message, self._accounts, settings, self._clock()).run()
        return len(claimed)

    def _apply_alone(self, message_id: str, token: int) -> None:
        try:
            with self._database.write() as unit:
                message = _still_ours(unit, message_id, token)
                Application(unit, message, self._accounts, self._settings, self._clock()).run()
        except StorageUnavailable:
            raise
        except LeaseLost:
            log.warning("message.lease_lost", message_id=message_id)
        except Exception as fault:
            log.exception("message.failed", message_id=message_id)
            self._put_off(message_id, token, f"{type(fault).__name__}: {fault}"[:500])

    def _put_off(self, message_id: str, token: int, error: str) -> None:
        now, settings = self._clock(), self._settings
        with self._database.write() as unit:
            try:
                message = _still_ours(unit, message_id, token)
            except LeaseLost:
                log.warning("message.lease_lost", message_id=message_id)
                return
            if message.attempts + 1 < settings.max_attempts:
                delay = min(settings.retry_first * 2**message.attempts, settings.retry_longest)
                inbox.retry(unit, message, now + delay, error, counts=True)
                return
            message.status, message.decision = InboxStatus.DEAD, Outcome.PARKED
            message.attempts += 1
            message.reason, message.decided_at = f"attempts exhausted: {error}", now
            inbox.finish(unit, message)
        log.error("message.dead", message_id=message_id, account=message.account, attempts=message.attempts)


def _still_ours(unit: Unit, message_id: str, token: int) -> InboxMessage:
    """The message as it is kept; raises LeaseLost where the claim of this token has ended."""
    message = inbox.get(unit, message_id)
    if (message.claim_token, message.status) != (token, InboxStatus.PENDING):
        raise LeaseLost
    return message
