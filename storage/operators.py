"""What named people did."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select

from storage.engine import Unit, values
from storage.ids import new_id
from storage.tables import OperatorAction

_table = OperatorAction.__table__  # type: ignore[attr-defined]


def note(unit: Unit, *, account: str | None, at: datetime, actor: str, action: str, subject: str, reason: str) -> None:
    """The action is kept with who and why; `account` is the subject's, where it has one."""
    done = OperatorAction(
        id=new_id(), account=account, at=at, actor=actor, action=action, subject=subject, reason=reason
    )
    unit.execute(insert(_table), values(done))


def of_subjects(unit: Unit, subjects: Sequence[str]) -> list[OperatorAction]:
    """What was done to any of these, in order."""
    return unit.all(OperatorAction, select(_table).where(_table.c.subject.in_(subjects)).order_by(_table.c.id))
