"""Whether anything about a payment has changed since somebody looked: one mark for each, read for many at once."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import case, func, select

from storage.engine import Unit
from storage.tables import OutboxMessageTable, PaymentTable
from storage.types import OutboxStatus

_payment = PaymentTable.__table__  # type: ignore[attr-defined]
_outbox = OutboxMessageTable.__table__  # type: ignore[attr-defined]

#: Of a payment: what changes with every statement, transition, review and question.
_TOLD: Final = ("version", "statements", "reviews", "review", "heard_at", "asked_at", "next_poll_at", "poll_failures")


def payment_marks(unit: Unit, payment_ids: Sequence[str]) -> dict[str, str]:
    """A mark for each payment that exists, which is another after anything was heard, decided, asked, owed or sent."""
    told: dict[str, list[Any]] = {}
    columns = (_payment.c[name] for name in _TOLD)
    for payment_id, *values in unit.execute(select(_payment.c.id, *columns).where(_payment.c.id.in_(payment_ids))):
        told[payment_id] = values
    statuses = (func.sum(case((_outbox.c.status == status, 1), else_=0)) for status in OutboxStatus)
    owed = select(_outbox.c.payment_id, func.sum(_outbox.c.attempts), *statuses)
    for payment_id, *values in unit.execute(
        owed.where(_outbox.c.payment_id.in_(payment_ids)).group_by(_outbox.c.payment_id)
    ):
        if payment_id in told:
            told[payment_id] += (int(value) for value in values)
    return {payment_id: sha256(repr(values).encode()).hexdigest()[:16] for payment_id, values in told.items()}
