"""The history: transitions are appended, numbered without gaps and chained; never changed."""

from sqlalchemy import insert, select

from storage.engine import Unit, values
from storage.ids import new_id
from storage.seals import transition_hash
from storage.tables import Payment, Transition

_table = Transition.__table__  # type: ignore[attr-defined]


def append(unit: Unit, payment: Payment, transition: Transition) -> Transition:
    """The transition is the payment's next link; sets its number and hashes, and the payment's version and head.

    The caller saves the payment in the same unit of work. IntegrityError where another worker took the number.
    """
    transition.id = new_id()
    transition.payment_id = payment.id
    transition.number = payment.version + 1
    transition.prev_hash = payment.head_hash
    transition.hash = transition_hash(transition)
    unit.execute(insert(_table), values(transition))
    payment.version, payment.head_hash = transition.number, transition.hash
    return transition


def of_payment(unit: Unit, payment_id: str) -> list[Transition]:
    """The payment's transitions in order."""
    return unit.all(Transition, select(_table).where(_table.c.payment_id == payment_id).order_by(_table.c.number))
