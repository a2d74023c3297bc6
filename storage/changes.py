"""Changes since a position: new rows as they appear, one mark for each payment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import case, func, select

from storage import inbox
from storage.columns import table_of
from storage.database import Database, Unit
from storage.ids import first_id
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OutboxMessage,
    Payment,
    PaymentPoll,
    RejectedDelivery,
    Transition,
)
from storage.types import InboxStatus, OutboxStatus

#: A row may be committed so much later than its id was made.
_OVERLAP: Final = timedelta(seconds=5)

#: Rows of one look at one table.
_LIMIT: Final = 50_000

#: Rows whose end is waited for. Whoever is further behind is told of the newest only.
_WATCHED: Final = 5000

_SETTLED: Final = {OutboxStatus.DELIVERED, OutboxStatus.DEAD}


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """One thing that happened, with the row that tells of it."""

    what: str  #: received, rejected, decided, moved, owed, attempted
    at: datetime
    row: Any


class Follower:
    """Tells each thing once, from an instant on. Not for two threads at once."""

    def __init__(self, database: Database, since: datetime, account: str | None = None) -> None:
        self._database = database
        self._since = since
        self._account = account
        self._seen: dict[str, None] = {}
        self._undecided: dict[str, None] = {}
        self._unsettled: dict[str, int] = {}  #: attempts that were told, by the effect's id

    def news(self, now: datetime) -> list[ChangeEvent]:
        """Return the events since the last call, in order of time.

        Raises StorageUnavailable.
        """
        with self._database.read() as unit:
            found = [
                *self._received(unit),
                *self._rejected(unit),
                *self._decided(unit),
                *self._moved(unit),
                *self._owed(unit),
                *self._attempted(unit),
            ]
        self._since = max(self._since, now - _OVERLAP)
        start = first_id(self._since)
        self._seen = {each: None for each in self._seen if each >= start}
        return sorted(found, key=lambda event: event.at)

    def _new(self, unit: Unit, model: type[Any]) -> list[Any]:
        table = table_of(model)
        query = select(table.c.id).where(table.c.id >= first_id(self._since)).order_by(table.c.id).limit(_LIMIT)
        if self._account is not None:
            query = query.where(table.c.account == self._account)
        fresh = [each for each in unit.execute(query).scalars() if each not in self._seen]
        self._seen.update(dict.fromkeys(fresh))
        return [row for ids in _chunks(fresh) for row in unit.all(model, select(table).where(table.c.id.in_(ids)))]

    def _received(self, unit: Unit) -> Iterator[ChangeEvent]:
        for message in self._new(unit, InboxMessage):
            _watch(self._undecided, message.id, None)
            yield ChangeEvent("received", message.received_at, message)

    def _rejected(self, unit: Unit) -> Iterator[ChangeEvent]:
        for rejected in self._new(unit, RejectedDelivery):
            yield ChangeEvent("rejected", rejected.received_at, rejected)

    def _decided(self, unit: Unit) -> Iterator[ChangeEvent]:
        for ids in _chunks(list(self._undecided)):
            for message in inbox.get_many(unit, ids).values():
                if message.status == InboxStatus.PENDING:
                    continue
                del self._undecided[message.id]
                yield ChangeEvent("decided", message.decided_at or message.received_at, message)

    def _moved(self, unit: Unit) -> Iterator[ChangeEvent]:
        for transition in self._new(unit, Transition):
            yield ChangeEvent("moved", transition.recorded_at, transition)

    def _owed(self, unit: Unit) -> Iterator[ChangeEvent]:
        for owed in self._new(unit, OutboxMessage):
            _watch(self._unsettled, owed.id, 0)
            yield ChangeEvent("owed", owed.created_at, owed)

    def _attempted(self, unit: Unit) -> Iterator[ChangeEvent]:
        table, attempts = table_of(OutboxMessage), table_of(DeliveryAttempt)
        for ids in _chunks(list(self._unsettled)):
            rows = unit.all(DeliveryAttempt, select(attempts).where(attempts.c.outbox_id.in_(ids)))
            for row in sorted(rows, key=lambda each: each.number):
                if row.number > self._unsettled[row.outbox_id]:
                    self._unsettled[row.outbox_id] = row.number
                    yield ChangeEvent("attempted", row.started_at + timedelta(milliseconds=row.duration_ms), row)
            settled = select(table.c.id).where(table.c.id.in_(ids), table.c.status.in_(_SETTLED))
            for each in unit.execute(settled).scalars():
                del self._unsettled[each]


def _watch(watched: dict[str, Any], an_id: str, value: Any) -> None:
    watched[an_id] = value
    while len(watched) > _WATCHED:
        del watched[next(iter(watched))]


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


_payment = table_of(Payment)
_poll = table_of(PaymentPoll)
_outbox = table_of(OutboxMessage)

#: Of a payment: what changes with every transition and review, and with every statement and question.
_TOLD: Final = (
    *(_payment.c[name] for name in ("version", "reviews", "review")),
    *(_poll.c[name] for name in ("statements", "heard_at", "asked_at", "next_poll_at", "poll_failures")),
)


def payment_marks(unit: Unit, payment_ids: Sequence[str]) -> dict[str, str]:
    """Return a mark for each existing payment, which differs after any change to it.

    A change is anything recorded, decided, asked, owed or sent about it.
    """
    told: dict[str, list[Any]] = {}
    both = _payment.outerjoin(_poll, _poll.c.payment_id == _payment.c.id)
    query = select(_payment.c.id, *_TOLD).select_from(both).where(_payment.c.id.in_(payment_ids))
    for payment_id, *values in unit.execute(query):
        told[payment_id] = values
    statuses = (func.sum(case((_outbox.c.status == status, 1), else_=0)) for status in OutboxStatus)
    owed = select(_outbox.c.payment_id, func.sum(_outbox.c.attempts), *statuses)
    for payment_id, *values in unit.execute(
        owed.where(_outbox.c.payment_id.in_(payment_ids)).group_by(_outbox.c.payment_id)
    ):
        if payment_id in told:
            told[payment_id] += (int(value) for value in values)
    return {payment_id: sha256(repr(values).encode()).hexdigest()[:16] for payment_id, values in told.items()}
