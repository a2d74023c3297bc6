"""Log-ins that were tried, counted before the password is looked at, so that the limit holds over all processes."""

from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from storage.engine import Unit
from storage.tables_console import ConsoleAttempt

_table = ConsoleAttempt.__table__  # type: ignore[attr-defined]


def take(unit: Unit, subject: str, now: datetime, *, at_most: int, window: timedelta) -> timedelta | None:
    """One try is counted and None returned, or, where `at_most` were in this window, how long to wait for the next.

    Two that come together count as two: the row is locked until the commit. A clock that was set back begins anew.
    """
    insert = insert_postgresql if unit.dialect == "postgresql" else insert_sqlite
    unit.execute(insert(_table).values(subject=subject, tried=0, began_at=now).on_conflict_do_nothing())
    query = select(_table.c.tried, _table.c.began_at).where(_table.c.subject == subject).with_for_update()
    tried, began_at = unit.execute(query).one()
    if not began_at <= now < began_at + window:
        tried, began_at = 0, now
    if tried >= at_most:
        return began_at + window - now  # type: ignore[no-any-return]
    here = update(_table).where(_table.c.subject == subject)
    unit.execute(here.values(tried=tried + 1, began_at=began_at))
    return None


def give_back(unit: Unit, subject: str) -> None:
    """The last try succeeded, and counts for nothing."""
    here = update(_table).where(_table.c.subject == subject, _table.c.tried > 0)
    unit.execute(here.values(tried=_table.c.tried - 1))


def forget(unit: Unit, subject: str) -> None:
    """Nothing is counted of this one any more."""
    unit.execute(delete(_table).where(_table.c.subject == subject))


def forget_before(unit: Unit, instant: datetime) -> None:
    """Windows that began before then are forgotten."""
    unit.execute(delete(_table).where(_table.c.began_at < instant))
