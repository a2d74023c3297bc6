"""When the history was last proved, for whoever watches."""

from typing import Any

from sqlalchemy import insert, select

from storage.engine import Unit, values
from storage.tables_audit import AuditRun

_table: Any = AuditRun.__table__  # type: ignore[attr-defined]


def note(unit: Unit, run: AuditRun) -> None:
    """The run is kept."""
    unit.execute(insert(_table), values(run))


def last(unit: Unit) -> AuditRun | None:
    """The run that ended last; None where nothing was ever proved."""
    return unit.first(AuditRun, select(_table).order_by(_table.c.id.desc()).limit(1))


def find(unit: Unit, *, after: str | None = None, limit: int = 100) -> list[AuditRun]:
    """The runs that ended before a given one, or all, the newest first."""
    query = select(_table).order_by(_table.c.id.desc()).limit(limit)
    return unit.all(AuditRun, query if after is None else query.where(_table.c.id < after))
