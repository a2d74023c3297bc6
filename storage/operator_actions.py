"""Operator actions: numbered and chained, so that a removal is noticed."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, insert, select

from storage import hashing
from storage.columns import table_of
from storage.database import Unit, values
from storage.ids import new_id
from storage.tables import OperatorAction

_table = table_of(OperatorAction)

#: Whoever adds to the chain holds this lock of PostgreSQL until its unit of work ends; on SQLite nobody else writes.
_CHAIN = int.from_bytes(b"operator")


def note(unit: Unit, *, account: str | None, at: datetime, actor: str, action: str, subject: str, reason: str) -> None:
    """Keep the action with who and why; `account` is the subject's, where it has one.

    Call it last in a unit of work: whoever notes an action meanwhile waits for its end.
    """
    if unit.dialect == "postgresql":
        unit.execute(select(func.pg_advisory_xact_lock(_CHAIN)))
    done = OperatorAction(
        id=new_id(), account=account, at=at, actor=actor, action=action, subject=subject, reason=reason
    )
    number, previous = _last(unit)
    done.number = number + 1
    done.seal = unit.sealer.seal(hashing.action(done, previous))
    unit.execute(insert(_table), values(done))


def _last(unit: Unit) -> tuple[int, str]:
    """Return number and seal of the newest action of the chain."""
    query = select(_table.c.number, _table.c.seal).where(_table.c.number.is_not(None))
    row = unit.execute(query.order_by(_table.c.number.desc()).limit(1)).first()
    return (0, "") if row is None else (row[0], row[1] or "")


def of_subjects(unit: Unit, subjects: Sequence[str]) -> list[OperatorAction]:
    """Return the actions on any of these subjects, in order."""
    return unit.all(OperatorAction, select(_table).where(_table.c.subject.in_(subjects)).order_by(_table.c.id))
