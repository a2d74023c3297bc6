"""Reconciliations: at most one unfinished walk per account, held under a lease; what it found is kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.engine import Unit, made, values
from storage.errors import LeaseLost, NotFound
from storage.ids import is_id, new_id
from storage.tables_asking import Reconciliation
from storage.types import CLOCK_WAS_WRONG, ReconciliationStatus

_table = Reconciliation.__table__  # type: ignore[attr-defined]

_RUNNING = text(f"status = '{ReconciliationStatus.RUNNING.value}'")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A walk that somebody wants: of one account, over what was created or changed in [since, until)."""

    account: str
    since: datetime
    until: datetime
    asked_by: str


def begin(unit: Unit, wanted: Wanted, holder: str, now: datetime, lease: timedelta) -> Reconciliation | None:
    """A new walk that `holder` has the lease of; None where the account has an unfinished one already."""
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
    """The account's walk that is neither done nor failed.

    With `lock`, nobody else may claim it until the unit of work ends.
    """
    query = select(_table).where(_table.c.account == account, _table.c.status == ReconciliationStatus.RUNNING)
    return unit.first(Reconciliation, query.with_for_update() if lock and unit.dialect == "postgresql" else query)


def is_held(row: Reconciliation, now: datetime) -> bool:
    """Whether somebody walks it now; a lease that a wrong clock set far ahead is none."""
    return now < row.lease_ends_at <= now + CLOCK_WAS_WRONG


def claim(unit: Unit, row: Reconciliation, holder: str, now: datetime, lease: timedelta) -> Reconciliation:
    """`holder` goes on with the walk, and whoever had it no longer can; raises LeaseLost if another came first."""
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
    """The walk is as far as these columns say, and held for another lease; raises LeaseLost when it is another's."""
    return _updated(unit, row, lease_ends_at=now + lease, **changes)


def release(
    unit: Unit, row: Reconciliation, now: datetime, *, resume_at: datetime, error: str | None = None
) -> Reconciliation:
    """Anybody may go on with the walk at once, and the schedule does from `resume_at` on; raises LeaseLost."""
    return _updated(unit, row, lease_ends_at=now, resume_at=resume_at, last_error=error)


def finish(
    unit: Unit, row: Reconciliation, now: datetime, status: ReconciliationStatus, **changes: Any
) -> Reconciliation:
    """The walk is at its end for good; raises LeaseLost when it is another's by now."""
    return _updated(unit, row, status=status.value, lease_ends_at=now, finished_at=now, **changes)


def _updated(unit: Unit, row: Reconciliation, **changes: Any) -> Reconciliation:
    """The row as it is then; the one that was given stays as it is, since the unit of work may yet fail."""
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
    return made(Reconciliation, {**values(row), **changes})


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
    """When the newest walk that was wanted by this one began, however it ended."""
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
