"""The feed of effects: each once, numbered without gaps, so that whoever reads on after a number misses nothing.

An id tells when a row was made, and not when it was committed: a reader who goes by ids passes over what is committed
late. So effects are numbered afterwards, by one writer at a time, and only what is committed gets a number. What a
reader sees is therefore always a beginning of the feed. Numbers are ours, and survive a dump, a restore and a failover,
which the database's own transaction numbers do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import table_of
from storage.engine import Database, Unit
from storage.tables import OutboxMessage
from storage.tables_api import Event, EventFeed

_table = Event.__table__  # type: ignore[attr-defined]
_feed = EventFeed.__table__  # type: ignore[attr-defined]

_NAME: Final = "effects"

#: How many are numbered in one commit.
BATCH: Final = 1000

#: Of one look, so that the first reader of a long history has an answer in time; the next looks go on.
_BATCHES: Final = 10


@dataclass(frozen=True, slots=True)
class Told:
    """One effect with its place in the feed."""

    number: int
    effect: str
    account: str
    payment_id: str | None
    created_at: datetime
    payload: str | None  #: JSON, as it was sent to the sinks; None where retention took it


def is_unnumbered(unit: Unit) -> bool:
    """Whether an effect waits for its number."""
    return unit.execute(select(_table.c.outbox_id).where(_table.c.number.is_(None)).limit(1)).first() is not None


def number(unit: Unit, limit: int = BATCH) -> int:
    """Up to so many committed effects get the numbers that follow; returns how many.

    Whoever else numbers waits until this unit of work has ended, so that a smaller number is never seen later.
    """
    last = _locked(unit)
    waiting = unit.execute(
        select(_table.c.subject, _table.c.effect, _table.c.occurrence)
        .where(_table.c.number.is_(None))
        .order_by(_table.c.outbox_id)
        .limit(limit)
    ).all()
    if not waiting:
        return 0
    unit.execute(
        update(_table)
        .where(
            _table.c.subject == bindparam("of_subject"),
            _table.c.effect == bindparam("of_effect"),
            _table.c.occurrence == bindparam("of_occurrence"),
        )
        .values(number=bindparam("as_number")),
        [
            {"of_subject": subject, "of_effect": effect, "of_occurrence": occurrence, "as_number": last + nth}
            for nth, (subject, effect, occurrence) in enumerate(waiting, start=1)
        ],
    )
    unit.execute(update(_feed).where(_feed.c.name == _NAME).values(last_number=last + len(waiting)))
    return len(waiting)


def caught_up(database: Database) -> int:
    """The number of the newest effect, after what is committed now was numbered, as far as that takes no long time."""
    with database.read() as unit:
        is_behind, last = is_unnumbered(unit), last_number(unit)
    for _ in range(_BATCHES if is_behind else 0):
        with database.write() as unit:
            count = number(unit)
            last = last_number(unit)
        if count < BATCH:
            break
    return last


def last_number(unit: Unit) -> int:
    """The number of the newest numbered effect; 0 where there is none. Everything up to it is to be seen."""
    found = unit.execute(select(_feed.c.last_number).where(_feed.c.name == _NAME)).scalar()
    return int(found or 0)


def find(
    unit: Unit,
    accounts: Sequence[str],
    *,
    after: int,
    limit: int,
    effects: Sequence[str] = (),
    payment_id: str | None = None,
) -> list[Told]:
    """The effects of these accounts that follow a number, in order."""
    owed = table_of(OutboxMessage)
    query = (
        select(
            _table.c.number,
            _table.c.effect,
            _table.c.account,
            _table.c.payment_id,
            _table.c.created_at,
            owed.c.payload,
        )
        .select_from(_table.outerjoin(owed, owed.c.id == _table.c.outbox_id))
        .where(_table.c.number > after, _table.c.account.in_(accounts))
        .order_by(_table.c.number)
        .limit(limit)
    )
    if effects:
        query = query.where(_table.c.effect.in_(effects))
    if payment_id is not None:
        query = query.where(_table.c.subject == payment_id)
    return [Told(*row) for row in unit.execute(query)]


def _locked(unit: Unit) -> int:
    query = select(_feed.c.last_number).where(_feed.c.name == _NAME)
    if unit.dialect == "postgresql":
        query = query.with_for_update()
    found = unit.execute(query).scalar()
    if found is None:
        dialect = sqlite if unit.dialect == "sqlite" else postgresql
        unit.execute(dialect.insert(_feed).values(name=_NAME, last_number=0).on_conflict_do_nothing())
        found = unit.execute(query).scalar()
    return int(found or 0)
