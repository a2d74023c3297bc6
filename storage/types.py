"""Column types and the words of a row's status."""

from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final

from sqlalchemy import DateTime
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

#: Nothing is put off for longer: a row that waits beyond was put off by a clock that was wrong, and is due.
CLOCK_WAS_WRONG: Final = timedelta(days=400)


class UtcDateTime(TypeDecorator[datetime]):
    """A column of aware UTC instants on both databases; refuses naive values."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the instant in UTC, without its zone where the database has none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone must not be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the aware instant."""
        if value is None:
            return None
        found: datetime = value
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class InboxStatus(StrEnum):
    """Statuses of an inbox message."""

    PENDING = "pending"  #: to be decided; the worker's apply moves it out
    DECIDED = "decided"  #: final; only a named operator's replay re-opens it
    PARKED = "parked"  #: authentic, not applicable now; re-opened by binding its payment, or by replay
    DEAD = "dead"  #: attempts exhausted; re-opened by replay


class OutboxStatus(StrEnum):
    """Statuses of an outbox message."""

    PENDING = "pending"  #: owed; the worker's dispatch moves it out
    DELIVERED = "delivered"  #: the sink took it; final
    DEAD = "dead"  #: attempts exhausted or refused for good; re-opened by redrive


class PollPriority(IntEnum):
    """Priorities of the next question about a payment; the smallest goes first.

    Asking sets it back to SCHEDULE.
    """

    PAYER = 0  #: a payer has just come back, and waits
    DOUBT = 1  #: a statement that only the provider can confirm
    PERSON = 2  #: an operator or the merchant
    HINT = 3  #: something changed somewhere in the account
    SCHEDULE = 4  #: nobody: its time has come


class ReconciliationStatus(StrEnum):
    """Statuses of a reconciliation."""

    RUNNING = "running"  #: whoever holds its lease goes on with it
    DONE = "done"  #: final; its drift is kept
    FAILED = "failed"  #: left unfinished when another was begun; final


class RetentionRule(StrEnum):
    """Rules of retention; each has a setting of its own, and is off by default."""

    BODIES = "bodies"  #: of messages: the bytes go, their digest stays
    ATTEMPTS = "attempts"  #: delivery attempts
    INBOX = "inbox"  #: whole messages, by partition
    HISTORY = "history"  #: transitions, by partition
    KNOWN = "known"  #: which delivery keys are known
    REJECTED = "rejected"  #: deliveries that were not authentic
    RECONCILIATIONS = "reconciliations"  #: the reports


class RetentionStatus(StrEnum):
    """Statuses of a run of retention."""

    RUNNING = "running"  #: the next batch goes on with it; of a partition: it is looked through, and still there
    HELD = "held"  #: nothing went: something in the partition is not over yet; final
    DETACHED = "detached"  #: the partition is detached, and is being counted
    DONE = "done"  #: final
