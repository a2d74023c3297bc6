"""What one reconciliation is about: the messages that it recorded, what they changed, and the payments in its range."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from statemachine.phases import Source
from storage.engine import Unit
from storage.tables import InboxMessageTable, Payment, PaymentTable, Transition, TransitionTable
from storage.tables_asking import Reconciliation
from storage.types import InboxStatus

_inbox = InboxMessageTable.__table__  # type: ignore[attr-defined]
_payment = PaymentTable.__table__  # type: ignore[attr-defined]
_transition = TransitionTable.__table__  # type: ignore[attr-defined]

#: By how much the clocks of processes that take turns in one walk may differ.
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of the walk, without its body."""

    id: str
    source: str  #: statemachine.phases.Source
    status: str  #: storage.types.InboxStatus
    about: str | None  #: the payment that we asked about; None of a page
    provider_time: datetime | None  #: when we asked
    outcomes: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A payment in the range, as far as it matters for whether to ask."""

    id: str
    kind: str
    provider_ref: str | None
    state: str | None
    phase: str


def key(reconciliation_id: str, part: str) -> str:
    """The delivery key of a message of this walk."""
    return f"{_prefix(reconciliation_id)}{part}"


def _prefix(reconciliation_id: str) -> str:
    return f"reconcile:{reconciliation_id}:"


def _of_walk(unit: Unit, row: Reconciliation) -> ColumnElement[bool]:
    """Its messages, by the beginning of their delivery keys, each database in a way that an index serves."""
    prefix = _prefix(row.id)
    is_account = _inbox.c.account == row.account
    if unit.dialect == "sqlite":  # compares bytes, so that a prefix is a range
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return and_(is_account, _inbox.c.delivery_key >= prefix, _inbox.c.delivery_key < after)
    return and_(is_account, _inbox.c.id >= _first_id(row.began_at), func.starts_with(_inbox.c.delivery_key, prefix))


def _first_id(began_at: datetime) -> str:
    """No UUIDv7 that was made since then, on a clock of ours, is smaller."""
    digits = f"{int((began_at - _CLOCKS_DIFFER).timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def messages(unit: Unit, row: Reconciliation, *, after: str = "", limit: int = 500) -> list[Heard]:
    """The walk's messages in order after a given id."""
    names = ("id", "source", "status", "about", "provider_time", "outcomes")
    query = select(*(_inbox.c[name] for name in names)).where(_of_walk(unit, row)).order_by(_inbox.c.id).limit(limit)
    if after:
        query = query.where(_inbox.c.id > after)
    return [Heard(*found) for found in unit.execute(query)]


def pending(unit: Unit, row: Reconciliation, *, limit: int = 200) -> list[str]:
    """Up to so many ids of the walk's messages that are not applied yet."""
    query = select(_inbox.c.id).where(_of_walk(unit, row), _inbox.c.status == InboxStatus.PENDING)
    return list(unit.execute(query.order_by(_inbox.c.id).limit(limit)).scalars())


def transitions(unit: Unit, message_ids: Sequence[str]) -> list[Transition]:
    """Every transition that rests on these messages, in order, by payment."""
    query = select(_transition).where(_transition.c.cause.in_(message_ids))
    return unit.all(Transition, query.order_by(_transition.c.payment_id, _transition.c.number))


def transition_before(unit: Unit, transition: Transition) -> Transition | None:
    """The payment's transition before that one."""
    query = select(_transition).where(
        _transition.c.payment_id == transition.payment_id, _transition.c.number == transition.number - 1
    )
    return unit.first(Transition, query)


def last_answered(unit: Unit, payment_id: str, before: str) -> datetime | None:
    """When the provider was asked for its last answer about the payment that came before that message."""
    query = select(func.max(_inbox.c.provider_time)).where(
        _inbox.c.payment_id == payment_id,
        _inbox.c.source.in_((Source.POLL.value, Source.CREATE.value, Source.CANCEL.value)),
        _inbox.c.status == InboxStatus.DECIDED,
        _inbox.c.id < before,
    )
    found: datetime | None = unit.execute(query).scalar()
    return found


def note_answered(unit: Unit, payment_id: str, asked_at: datetime) -> None:
    """The payment's schedule knows of the answer, so that it does not ask for the same again at once."""
    is_later = or_(_payment.c.asked_at.is_(None), _payment.c.asked_at < asked_at)
    unit.execute(update(_payment).where(_payment.c.id == payment_id, is_later).values(asked_at=asked_at))


def candidates(unit: Unit, row: Reconciliation) -> list[Candidate]:
    """The account's payments that were created or changed in the walk's range, in order of creation."""
    is_in_range = or_(
        and_(_payment.c.created_at >= row.since, _payment.c.created_at < row.until),
        and_(_payment.c.changed_at >= row.since, _payment.c.changed_at < row.until),
    )
    return _candidates(unit, and_(_payment.c.account == row.account, is_in_range))


def these(unit: Unit, payment_ids: Sequence[str]) -> list[Candidate]:
    """Those of the payments that exist, in order of creation."""
    return _candidates(unit, _payment.c.id.in_(payment_ids))


def _candidates(unit: Unit, condition: ColumnElement[bool]) -> list[Candidate]:
    columns = (_payment.c.id, _payment.c.kind, _payment.c.provider_ref, _payment.c.state, _payment.c.phase)
    query = select(*columns).where(condition).order_by(_payment.c.id)
    return [Candidate(*found) for found in unit.execute(query)]


def payments(unit: Unit, payment_ids: Sequence[str]) -> dict[str, Payment]:
    """Those of the payments that exist, by id."""
    found = unit.all(Payment, select(_payment).where(_payment.c.id.in_(payment_ids)))
    return {payment.id: payment for payment in found}
