"""Sums and parts between a payment's row and the rules."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from statemachine.observation import Decision
from statemachine.sums import SUM_NAMES, UNSAID, Part, PartKind, PartStatus, Sums
from storage.tables import Payment


def sums_of(payment: Payment) -> Sums:
    """Return the payment's sums; `UNSAID` itself where nothing was ever said."""
    if payment.stated is None and payment.parts is None:
        return UNSAID
    columns = payment.__dict__
    return Sums(*(columns[name] for name in SUM_NAMES))


def stated_of(payment: Payment) -> Mapping[str, datetime | None]:
    """Return the sums that the provider states itself, with the time of its last word."""
    return {name: _instant(at) for name, at in (payment.stated or {}).items()}


def parts_of(payment: Payment) -> tuple[Part, ...]:
    """Return the payment's captures, refunds and disputes, the first known first."""
    return tuple(
        Part(
            PartKind(kept["kind"]),
            kept["name"],
            PartStatus(kept["status"]),
            kept["amount_minor"],
            _instant(kept["as_of"]),
        )
        for kept in payment.parts or ()
    )


def as_kept(part: Part) -> dict[str, Any]:
    """Return a part as the row and payloads hold it."""
    return {
        "kind": part.kind.value,
        "name": part.name,
        "status": part.status.value,
        "amount_minor": part.amount_minor,
        "as_of": None if part.as_of is None else part.as_of.isoformat(),
    }


def keep_sums(payment: Payment, decision: Decision) -> None:
    """Take over the decision's sums, parts and counts."""
    if decision.counts is not None:
        payment.counts = dict(decision.counts) or None
    if decision.sums is not None:
        for name in SUM_NAMES:
            setattr(payment, name, getattr(decision.sums, name))
    if decision.stated is not None:
        stated = {name: None if at is None else at.isoformat() for name, at in decision.stated.items()}
        payment.stated = stated or None
    if decision.parts:
        known = {(kept["kind"], kept["name"]): kept for kept in payment.parts or ()}
        for change in decision.parts:
            known[change.part.kind.value, change.part.name] = as_kept(change.part)
        payment.parts = list(known.values())


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
