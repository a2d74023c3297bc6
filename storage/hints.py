"""Ids that deliveries named and no payment here has, until the provider was asked.

Anybody may name ids at a URL whose deliveries are not signed: few of them wait at once, they are asked about one after
the other, and each once for all the deliveries that name it meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import table_of
from storage.database import Unit
from storage.tables_support import HintedId

#: Ids of one account that wait at once; what names more of them is not asked about.
MAX_WAITING_IDS: Final = 100

#: The time between two questions about ids of one account.
_QUESTION_INTERVAL: Final = timedelta(seconds=1)

_table: Any = table_of(HintedId)


@dataclass(frozen=True, slots=True)
class HintToAsk:
    """One id to ask about, leased to the caller."""

    account: str
    kind: str
    ref: str
    attempts: int  #: questions that failed before


def add(unit: Unit, account: str, kind: str, ref: str, now: datetime) -> bool:
    """Have the provider asked about the id; return False where too many are waiting.

    One that waits is asked about once; one named again while it is asked about is asked about again.
    """
    if unit.execute(update(_table).where(_place(account, kind, ref)).values(hinted_at=now)).rowcount:
        return True
    query = select(func.count(), func.max(_table.c.next_at)).where(_table.c.account == account)
    waiting, last_at = unit.execute(query).one()
    if waiting >= MAX_WAITING_IDS:
        return False
    next_at = now if last_at is None else max(now, last_at + _QUESTION_INTERVAL)
    row = {"account": account, "kind": kind, "ref": ref, "hinted_at": now, "next_at": next_at, "attempts": 0}
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    unit.execute(dialect.insert(_table).values(row).on_conflict_do_nothing())
    return True


def is_any_due(unit: Unit, account: str, now: datetime) -> bool:
    """Return whether the provider is to be asked about an id now."""
    query = select(_table.c.ref).where(_table.c.account == account, _table.c.next_at <= now).limit(1)
    return unit.execute(query).first() is not None


def claim(unit: Unit, account: str, now: datetime, lease: timedelta) -> HintToAsk | None:
    """Lease the id that has waited longest; None where none is due."""
    columns = (_table.c.account, _table.c.kind, _table.c.ref, _table.c.attempts)
    due = select(*columns).where(_table.c.account == account, _table.c.next_at <= now)
    due = due.order_by(_table.c.next_at).limit(1).with_for_update(skip_locked=True)
    found = unit.execute(due).first()
    if found is None:
        return None
    hint = HintToAsk(*found)
    unit.execute(update(_table).where(_of(hint)).values(next_at=now + lease))
    return hint


def finish(unit: Unit, hint: HintToAsk, asked_at: datetime) -> None:
    """Forget an id that was asked about, unless it was named again since then."""
    unit.execute(delete(_table).where(_of(hint), _table.c.hinted_at <= asked_at))
    unit.execute(update(_table).where(_of(hint)).values(next_at=_table.c.hinted_at, attempts=0))


def ask_again(unit: Unit, hint: HintToAsk, at: datetime) -> None:
    """Ask about the id again at this instant, after a question that failed."""
    unit.execute(update(_table).where(_of(hint)).values(next_at=at, attempts=hint.attempts + 1))


def waiting(unit: Unit, account: str) -> int:
    """Count the ids that are still to be asked about."""
    return int(unit.execute(select(func.count()).where(_table.c.account == account)).scalar_one())


def _of(hint: HintToAsk) -> ColumnElement[bool]:
    return _place(hint.account, hint.kind, hint.ref)


def _place(account: str, kind: str, ref: str) -> ColumnElement[bool]:
    return and_(_table.c.account == account, _table.c.kind == kind, _table.c.ref == ref)
