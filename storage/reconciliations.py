"""Reconciliations: at most one unfinished run per account, under a lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from statemachine.phases import ANSWERS, Source
from storage import inbox
from storage.columns import table_of
from storage.database import Unit, build_record, values
from storage.errors import LeaseLost, NotFound
from storage.ids import is_id, new_id
from storage.tables import InboxMessage, Payment, Transition
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.tables_support import Reconciliation
from storage.types import CLOCK_WAS_WRONG, InboxStatus, ReconciliationStatus

_table = table_of(Reconciliation)

_RUNNING = text(f"status = '{ReconciliationStatus.RUNNING.value}'")


@dataclass(frozen=True, slots=True)
class ReconciliationRequest:
    """A requested run: of one account, over what was created or changed in a range.

    The range is [since, until).
    """

    account: str
    since: datetime
    until: datetime
    asked_by: str


def begin(
    unit: Unit, wanted: ReconciliationRequest, holder: str, now: datetime, lease: timedelta
) -> Reconciliation | None:
    """Begin a run under a lease; None where one of the account is unfinished."""
    row = Reconciliation(
        id=new_id(),
        account=wanted.account,
        since=wanted.since,
        until=wanted.until,
        asked_by=wanted.asked_by,
        began_at=now,
        held_by=holder,
        held_at=now,
        lease_ends_at=now + lease,
        resume_at=now,
        claim_token=1,
    )
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    insert = dialect.insert(_table).on_conflict_do_nothing(index_elements=["account"], index_where=_RUNNING)
    done = unit.execute(insert.returning(_table.c.id), values(row)).scalar()
    return None if done is None else row


def unfinished(unit: Unit, account: str, *, lock: bool = False) -> Reconciliation | None:
    """Return the account's run that is neither done nor failed.

    With `lock`, nobody else may claim it until the unit of work ends.
    """
    query = select(_table).where(_table.c.account == account, _table.c.status == ReconciliationStatus.RUNNING)
    return unit.first(Reconciliation, query.with_for_update() if lock and unit.dialect == "postgresql" else query)


def is_held(row: Reconciliation, now: datetime) -> bool:
    """Return whether the lease is valid now, and not set far ahead by a wrong clock."""
    return now < row.lease_ends_at <= now + CLOCK_WAS_WRONG


def claim(unit: Unit, row: Reconciliation, holder: str, now: datetime, lease: timedelta) -> Reconciliation:
    """Take over the run for `holder`; raises LeaseLost if another process came first."""
    return _updated(
        unit,
        row,
        held_by=holder,
        held_at=now,
        lease_ends_at=now + lease,
        claim_token=row.claim_token + 1,
        last_error=None,
    )


def keep(unit: Unit, row: Reconciliation, now: datetime, lease: timedelta, **changes: Any) -> Reconciliation:
    """Store the run's progress and extend its lease; raises LeaseLost."""
    return _updated(unit, row, lease_ends_at=now + lease, **changes)


def release(
    unit: Unit, row: Reconciliation, now: datetime, *, resume_at: datetime, error: str | None = None
) -> Reconciliation:
    """Give the lease up; the schedule continues from `resume_at` on. Raises LeaseLost."""
    return _updated(unit, row, lease_ends_at=now, resume_at=resume_at, last_error=error)


def finish(
    unit: Unit, row: Reconciliation, now: datetime, status: ReconciliationStatus, **changes: Any
) -> Reconciliation:
    """End the run; raises LeaseLost after a takeover."""
    return _updated(unit, row, status=status.value, lease_ends_at=now, finished_at=now, **changes)


def _updated(unit: Unit, row: Reconciliation, **changes: Any) -> Reconciliation:
    """Return a copy of the row as updated.

    The one given is unchanged, since the unit of work may yet fail.
    """
    done = unit.execute(
        update(_table)
        .where(
            _table.c.id == row.id,
            _table.c.claim_token == row.claim_token,
            _table.c.status == ReconciliationStatus.RUNNING,
        )
        .values(**changes)
    )
    if done.rowcount != 1:
        raise LeaseLost("another process goes on with this reconciliation")
    return build_record(Reconciliation, {**values(row), **changes})


def get(unit: Unit, reconciliation_id: str) -> Reconciliation:
    """One reconciliation; raises NotFound."""
    found = (
        unit.first(Reconciliation, select(_table).where(_table.c.id == reconciliation_id))
        if is_id(reconciliation_id)
        else None
    )
    if found is None:
        raise NotFound(f"no reconciliation {reconciliation_id}", param="reconciliation")
    return found


def find(unit: Unit, *, account: str | None = None, after: str = "", limit: int = 100) -> list[Reconciliation]:
    """Reconciliations, the newest first, after (so before in time) a given id."""
    query = select(_table).order_by(_table.c.id.desc()).limit(limit)
    if after:
        query = query.where(_table.c.id < after)
    if account is not None:
        query = query.where(_table.c.account == account)
    return unit.all(Reconciliation, query)


def last_begun(unit: Unit, account: str, asked_by: str) -> datetime | None:
    """Return when the newest run that `asked_by` wanted began, however it ended."""
    query = select(func.max(_table.c.began_at)).where(_table.c.account == account, _table.c.asked_by == asked_by)
    found: datetime | None = unit.execute(query).scalar()
    return found


def covered_to(unit: Unit, account: str, asked_by: str) -> datetime | None:
    """Up to when the walks of this one that were finished have looked."""
    query = select(func.max(_table.c.until)).where(
        _table.c.account == account,
        _table.c.asked_by == asked_by,
        _table.c.status == ReconciliationStatus.DONE,
    )
    found: datetime | None = unit.execute(query).scalar()
    return found


_inbox = table_of(InboxMessage)
_queue = table_of(QueuedMessage)
_decision = table_of(RecordedDecision)
_payment = table_of(Payment)
_transition = table_of(Transition)

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
    """Return the delivery key of a message of this run."""
    return f"{_prefix(reconciliation_id)}{part}"


def _prefix(reconciliation_id: str) -> str:
    return f"reconcile:{reconciliation_id}:"


def _of_walk(unit: Unit, row: Reconciliation) -> ColumnElement[bool]:
    """Return the condition of the run's messages by delivery key prefix, as indexed."""
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
    """Return the run's messages in order after a given id."""
    query = select(_inbox.c.id).where(_of_walk(unit, row)).order_by(_inbox.c.id).limit(limit)
    if after:
        query = query.where(_inbox.c.id > after)
    found = inbox.get_many(unit, list(unit.execute(query).scalars()))
    return [Heard(m.id, m.source, m.status, m.about, m.provider_time, m.outcomes) for _, m in sorted(found.items())]


def pending(unit: Unit, row: Reconciliation, *, limit: int = 200) -> list[str]:
    """Up to so many ids of the walk's messages that are not applied yet."""
    query = select(_inbox.c.id).join(_queue, _queue.c.message_id == _inbox.c.id)
    query = query.where(_of_walk(unit, row), _queue.c.status == InboxStatus.PENDING)
    return list(unit.execute(query.order_by(_inbox.c.id).limit(limit)).scalars())


def transitions(unit: Unit, message_ids: Sequence[str]) -> list[Transition]:
    """Every transition that rests on these messages, in order, by payment."""
    query = select(_transition).where(_transition.c.cause.in_(message_ids))
    return unit.all(Transition, query.order_by(_transition.c.payment_id, _transition.c.number))


def transition_before(unit: Unit, transition: Transition) -> Transition | None:
    """Return the payment's transition before that one."""
    query = select(_transition).where(
        _transition.c.payment_id == transition.payment_id, _transition.c.number == transition.number - 1
    )
    return unit.first(Transition, query)


def last_answered(unit: Unit, payment_id: str, before: str) -> datetime | None:
    """Return when the payment's last answer before that message was asked for."""
    query = select(func.max(_inbox.c.provider_time)).where(
        _inbox.c.id.in_(select(_decision.c.message_id).where(_decision.c.payment_id == payment_id)),
        _inbox.c.source.in_([source.value for source in ANSWERS - {Source.LIST}]),
        ~select(_queue.c.message_id).where(_queue.c.message_id == _inbox.c.id).exists(),
        _inbox.c.id < before,
    )
    found: datetime | None = unit.execute(query).scalar()
    return found


def candidates(unit: Unit, row: Reconciliation) -> list[Candidate]:
    """Return the account's payments created or changed in the range, by creation."""
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
