"""The history of payments: numbered without gaps, chained and append-only."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from storage import hashing
from storage.columns import table_of
from storage.database import Unit, wrap_columns
from storage.ids import new_id
from storage.tables import InboxMessage, Payment, Transition

_table = table_of(Transition)


def link(
    sealer: hashing.Sealer | None,
    payment: Payment,
    cause: InboxMessage,
    to_state: str,
    phase: str,
    via: Sequence[str],
    forced: bool,
    actor: str | None,
    reason: str,
    as_of: datetime | None,
    recorded_at: datetime,
) -> Transition:
    """Build the payment's next transition, numbered and chained; move the payment.

    Without a sealer its hash stays empty: the link is compared with another, and not kept.
    """
    transition = wrap_columns(
        Transition,
        {
            "id": new_id(),
            "account": payment.account,
            "payment_id": payment.id,
            "number": payment.version + 1,
            "from_state": payment.state,
            "to_state": to_state,
            "phase": phase,
            "captured_minor": payment.captured_minor,
            "refunded_minor": payment.refunded_minor,
            "charged_back_minor": payment.charged_back_minor,
            "via": list(via),
            "forced": forced,
            "cause": cause.id,
            "evidence": cause.envelope_digest,
            "source": cause.source,
            "actor": actor,
            "reason": reason,
            "as_of": as_of,
            "recorded_at": recorded_at,
            "prev_hash": payment.head_hash,
            "hash": "",
        },
    )
    if sealer is not None:
        transition.hash = sealer.seal(hashing.transition(transition))
    payment.version, payment.head_hash = transition.number, transition.hash
    payment.state, payment.phase, payment.changed_at = to_state, phase, recorded_at
    return transition


def of_payment(unit: Unit, payment_id: str) -> list[Transition]:
    """Return the payment's transitions in order."""
    return unit.all(Transition, select(_table).where(_table.c.payment_id == payment_id).order_by(_table.c.number))


def of_payments(unit: Unit, payment_ids: Sequence[str]) -> dict[str, list[Transition]]:
    """Return the transitions of several payments, in order, by payment.

    A payment without any is not there.
    """
    query = select(_table).where(_table.c.payment_id.in_(payment_ids)).order_by(_table.c.payment_id, _table.c.number)
    found: dict[str, list[Transition]] = {}
    for transition in unit.all(Transition, query):
        found.setdefault(transition.payment_id, []).append(transition)
    return found


def caused_by(unit: Unit, message_ids: Sequence[str]) -> set[tuple[str, str, int]]:
    """(cause, payment, number) of every transition that rests on these inbox messages."""
    rows = unit.execute(
        select(_table.c.cause, _table.c.payment_id, _table.c.number).where(_table.c.cause.in_(message_ids))
    )
    return {(cause, payment_id, number) for cause, payment_id, number in rows}


def count(unit: Unit) -> int:
    """Count all transitions."""
    return int(unit.execute(select(func.count()).select_from(_table)).scalar_one())
