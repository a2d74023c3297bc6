"""Everything that is kept about one payment: whole, or by page, the newest first.

One snapshot.
A page takes as long with ten thousand messages as with ten.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, String, cast, func, or_, select, union

from storage import inbox, outbox, payment_polls, payments
from storage import transitions as storage_transitions
from storage.columns import table_of
from storage.database import Unit
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OperatorAction,
    OutboxMessage,
    Payment,
    PaymentPoll,
    RejectedDelivery,
    Transition,
)
from storage.tables_inbox import QueuedMessage, RecordedDecision

_inbox = table_of(InboxMessage)
_queue = table_of(QueuedMessage)
_decision = table_of(RecordedDecision)
_outbox = table_of(OutboxMessage)
_attempts = table_of(DeliveryAttempt)
_actions = table_of(OperatorAction)
_rejected = table_of(RejectedDelivery)

#: Rows of the timeline: each has an id that grows with the time at which it was recorded.
HistoryRow = InboxMessage | DeliveryAttempt | OperatorAction | RejectedDelivery


@dataclass(frozen=True, slots=True)
class PaymentHistory:
    """A payment, its transitions and effects, and one page of its timeline's rows."""

    payment: Payment
    poll: PaymentPoll  #: when it was heard of and is asked about
    transitions: list[Transition]  #: all, in order
    owed: list[OutboxMessage]  #: all, in order
    attempts: list[DeliveryAttempt]  #: the last of what is owed, in order
    waiting: list[InboxMessage]  #: messages that are not decided; those of some hundred at most
    rows: list[HistoryRow]  #: of this page, the newest first
    older: str | None  #: where the next page begins; None at the end

    @property
    def messages(self) -> list[InboxMessage]:
        """Inbox messages of this page, the oldest first."""
        return [row for row in reversed(self.rows) if isinstance(row, InboxMessage)]

    @property
    def tries(self) -> list[DeliveryAttempt]:
        """Delivery attempts of this page, the oldest first."""
        return [row for row in reversed(self.rows) if isinstance(row, DeliveryAttempt)]

    @property
    def actions(self) -> list[OperatorAction]:
        """Operator actions of this page, the oldest first."""
        return [row for row in reversed(self.rows) if isinstance(row, OperatorAction)]


def read(unit: Unit, payment_id: str, *, before: str | None = None, limit: int | None = None) -> PaymentHistory:
    """Read the payment with the rows before that id; all without a limit.

    Raises NotFound.
    """
    payment = payments.get(unit, payment_id)
    owed = outbox.of_payment(unit, payment_id)
    queries: tuple[tuple[Any, Any, Select[Any]], ...] = (
        (InboxMessage, _inbox, _messages(payment_id)),
        (DeliveryAttempt, _attempts, _attempts_of(payment_id)),
        (OperatorAction, _actions, _actions_about(unit, payment_id, owed)),
        (RejectedDelivery, _rejected, _rejected_of(payment)),
    )
    ids: list[tuple[str, int]] = []
    for kind, (_, table, query) in enumerate(queries):
        place = query if before is None else query.where(table.c.id < before)
        newest = place.order_by(table.c.id.desc()).limit(None if limit is None else limit + 1)
        ids += ((row[0], kind) for row in unit.execute(newest))
    ids.sort(reverse=True)
    chosen = ids[:limit]
    found: dict[str, HistoryRow] = {}
    for kind, (record, table, _) in enumerate(queries):
        wanted = [row_id for row_id, of in chosen if of == kind]
        for at in range(0, len(wanted), _IDS_PER_STATEMENT):
            part = wanted[at : at + _IDS_PER_STATEMENT]
            found |= {row.id: row for row in _rows(unit, record, table, part)}
    return PaymentHistory(
        payment=payment,
        poll=payment_polls.of(unit, [payment])[payment.id],
        transitions=storage_transitions.of_payment(unit, payment_id),
        owed=owed,
        attempts=_last_attempts(unit, owed),
        waiting=_waiting(unit, payment_id),
        rows=[found[row_id] for row_id, _ in chosen],
        older=chosen[-1][0] if len(ids) > len(chosen) else None,
    )


def _rows(unit: Unit, record: type[Any], table: Any, ids: Sequence[str]) -> Iterable[Any]:
    if record is InboxMessage:
        return inbox.get_many(unit, ids).values()
    return unit.all(record, select(table).where(table.c.id.in_(ids)))


#: Attempts that are read with their effect; the timeline has the others.
_ATTEMPTS_PER_EFFECT = 20

#: Undecided messages that are read, the oldest first.
_WAITING_LIMIT = 20

#: Rows that one statement reads by their ids: PostgreSQL and SQLite both bound its parameters.
_IDS_PER_STATEMENT = 1_000


def _messages(payment_id: str) -> Select[Any]:
    """Select ids of messages decided about the payment, changing or naming it."""
    return select(_inbox.c.id).where(_inbox.c.id.in_(union(*inbox.about(payment_id))))


def _attempts_of(payment_id: str) -> Select[Any]:
    return select(_attempts.c.id).where(_attempts.c.outbox_id.in_(_owed(payment_id)))


def _owed(payment_id: str) -> Select[Any]:
    return select(_outbox.c.id).where(_outbox.c.payment_id == payment_id)


def _actions_about(unit: Unit, payment_id: str, owed: Sequence[OutboxMessage]) -> Select[Any]:
    """Select ids of what people did about the payment, its messages and its effects."""
    decided = _decision.c.message_id
    named: Any = cast(decided, String)
    if unit.dialect == "sqlite":  # an id is kept without its dashes there, and a subject as it is written
        digits = (func.substr(decided, *group) for group in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12)))
        named = func.printf("%s-%s-%s-%s-%s", *digits, type_=String)
    of_messages = select(named).where(_decision.c.payment_id == payment_id)
    subject = _actions.c.subject
    ids = union(
        select(_actions.c.id).where(subject.in_([payment_id, *(message.id for message in owed)])),
        select(_actions.c.id).where(subject.in_(of_messages)),
    )
    return select(_actions.c.id).where(_actions.c.id.in_(ids))


def _rejected_of(payment: Payment) -> Select[Any]:
    return select(_rejected.c.id).where(_rejected.c.account == payment.account, _rejected.c.about == payment.id)


def _last_attempts(unit: Unit, owed: Iterable[OutboxMessage]) -> list[DeliveryAttempt]:
    """Read the last attempts of each effect, in order of their numbers."""
    wanted: Sequence[Any] = [
        (_attempts.c.outbox_id == message.id) & (_attempts.c.number > message.attempts - _ATTEMPTS_PER_EFFECT)
        for message in owed
        if message.attempts
    ]
    if not wanted:
        return []
    query = select(_attempts).where(or_(*wanted)).order_by(_attempts.c.outbox_id, _attempts.c.number)
    return unit.all(DeliveryAttempt, query)


def _waiting(unit: Unit, payment_id: str) -> list[InboxMessage]:
    ids = select(_queue.c.message_id).where(_queue.c.message_id.in_(_messages(payment_id)))
    waiting = list(unit.execute(ids.order_by(_queue.c.message_id).limit(_WAITING_LIMIT)).scalars())
    return [message for _, message in sorted(inbox.get_many(unit, waiting).items())]
