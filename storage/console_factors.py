"""Second factors of console users: sealed keys, used steps, recovery codes."""

from datetime import datetime

from sqlalchemy import delete, insert, select, update

from storage.columns import table_of
from storage.database import Unit, values
from storage.tables_support import ConsoleFactor

_table = table_of(ConsoleFactor)


def begin(unit: Unit, factor: ConsoleFactor) -> None:
    """Insert a factor that is to be confirmed, in place of an earlier unconfirmed one."""
    here = (_table.c.person_id == factor.person_id, _table.c.confirmed_at.is_(None))
    unit.execute(delete(_table).where(*here))
    unit.execute(insert(_table), values(factor))


def of_person(unit: Unit, person_id: str, *, is_locked: bool = False) -> ConsoleFactor | None:
    """Find the person's factor, confirmed or not; `is_locked` until the commit."""
    query = select(_table).where(_table.c.person_id == person_id)
    return unit.first(ConsoleFactor, query.with_for_update() if is_locked else query)


def confirmed(unit: Unit) -> frozenset[str]:
    """Return the ids of the people who have a confirmed factor."""
    query = select(_table.c.person_id).where(_table.c.confirmed_at.is_not(None))
    return frozenset(str(row[0]) for row in unit.execute(query))


def confirm(unit: Unit, person_id: str, step: int, recovery: list[str], now: datetime) -> None:
    """Confirm the factor by a first code, with the digests of its recovery codes."""
    unit.execute(
        update(_table)
        .where(_table.c.person_id == person_id)
        .values(confirmed_at=now, last_step=step, recovery_digests=recovery)
    )


def use_step(unit: Unit, person_id: str, step: int, sealed_key: str) -> None:
    """Record the step of a code, so that none of it or before is taken again."""
    unit.execute(update(_table).where(_table.c.person_id == person_id).values(last_step=step, sealed_key=sealed_key))


def keep_recovery(unit: Unit, person_id: str, recovery: list[str]) -> None:
    """Set the digests of the recovery codes that are left."""
    unit.execute(update(_table).where(_table.c.person_id == person_id).values(recovery_digests=recovery))


def remove(unit: Unit, person_id: str) -> bool:
    """Remove the person's factor; return False where there was none."""
    return bool(unit.execute(delete(_table).where(_table.c.person_id == person_id)).rowcount)
