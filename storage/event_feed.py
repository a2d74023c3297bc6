"""The feed of effects, each once, numbered without gaps in order of commit.

An id tells when a row was made, and not when it was committed: a reader who goes by ids passes over what is committed
late. So effects are numbered afterwards, by one writer at a time, and only what is committed gets a number. What a
reader sees is therefore always a beginning of the feed. Numbers are ours, and survive a dump, a restore and a failover,
which the database's own transaction numbers do not.

A restored backup gives numbers that were read already to other effects. So a mark is drawn with each number, and a
cursor is both: where the feed has another mark at that number, its reader has read what is not there any more.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import table_of
from storage.database import Database, Unit
from storage.tables import OutboxMessageTable
from storage.tables_support import Event, EventFeed

_table = table_of(Event)
_feed = table_of(EventFeed)

_NAME: Final = "effects"

#: How many are numbered in one commit.
BATCH: Final = 1000

_MARK_BYTES: Final = 6

_CURSOR: Final = re.compile(r"0|([1-9][0-9]{0,17})(?:-([0-9a-f]{12}))?", re.ASCII)

#: Of one look, so that the first reader of a long history has an answer in time; the next looks go on.
_BATCHES: Final = 10


class Cursor(NamedTuple):
    """A reader's position: `1042-5f0c2b9a1d3e`, or `0` at the beginning."""

    number: int = 0
    mark: str = ""  #: of the number; none where a reader has kept the number alone, which nothing can check

    def __str__(self) -> str:
        return f"{self.number}-{self.mark}" if self.number else "0"


def read_cursor(text: str) -> Cursor | None:
    """Parse a cursor; None where the text is none."""
    found = _CURSOR.fullmatch(text)
    return None if found is None else Cursor(int(found[1] or 0), found[2] or "")


@dataclass(frozen=True, slots=True)
class Told:
    """One effect with its place in the feed."""

    cursor: Cursor
    effect: str
    account: str
    payment_id: str | None
    created_at: datetime
    payload: str | None  #: JSON, as it was sent to the sinks; None where retention took it


def is_unnumbered(unit: Unit) -> bool:
    """Return whether a committed effect has no number yet."""
    return unit.execute(select(_table.c.outbox_id).where(_table.c.number.is_(None)).limit(1)).first() is not None


def number(unit: Unit, limit: int = BATCH) -> int:
    """Assign numbers to up to `limit` committed effects, and to earlier ones.

    The earlier ones are those of the same payments.

    Returns how many. Whoever else numbers waits until this unit of work has ended, so that a smaller number is never
    seen later.
    """
    last, mark = _locked(unit), secrets.token_hex(_MARK_BYTES)
    waiting = _in_order(unit, limit)
    if not waiting:
        return 0
    unit.execute(
        update(_table)
        .where(
            _table.c.subject == bindparam("of_subject"),
            _table.c.effect == bindparam("of_effect"),
            _table.c.occurrence == bindparam("of_occurrence"),
        )
        .values(number=bindparam("as_number"), mark=mark),
        [
            {"of_subject": subject, "of_effect": effect, "of_occurrence": occurrence, "as_number": last + nth}
            for nth, (subject, effect, occurrence) in enumerate(waiting, start=1)
        ],
    )
    unit.execute(update(_feed).where(_feed.c.name == _NAME).values(last_number=last + len(waiting)))
    return len(waiting)


def _in_order(unit: Unit, limit: int) -> list[tuple[str, str, int]]:
    """Subject, effect and occurrence of effects without a number, in order.

    Those of one payment are in the order of its own numbers.

    An id tells the time by the clock of the process that made it, and so orders effects of different payments alone.
    """
    oldest = select(_table.c.subject).where(_table.c.number.is_(None)).order_by(_table.c.outbox_id).limit(limit)
    owed = table_of(OutboxMessageTable)
    found = unit.execute(
        select(_table.c.subject, _table.c.effect, _table.c.occurrence, _table.c.outbox_id, owed.c.number)
        .select_from(_table.outerjoin(owed, owed.c.id == _table.c.outbox_id))
        .where(_table.c.number.is_(None), _table.c.subject.in_(oldest))
        .order_by(func.coalesce(owed.c.number, 0), _table.c.outbox_id)
    )
    latest: dict[str, str] = {}
    placed: list[tuple[str, int, tuple[str, str, int]]] = []
    for subject, effect, occurrence, outbox_id, nth in found:
        latest[subject] = max(latest.get(subject, ""), outbox_id)
        placed.append((latest[subject], nth or 0, (subject, effect, occurrence)))
    return [each for _, _, each in sorted(placed)]


def caught_up(database: Database) -> int:
    """Assign numbers to committed effects within a bounded time; return the last one."""
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
    """Return the number of the newest numbered effect; 0 where there is none.

    Every effect up to it is visible.
    """
    found = unit.execute(select(_feed.c.last_number).where(_feed.c.name == _NAME)).scalar()
    return int(found or 0)


def end(unit: Unit) -> Cursor:
    """Return the cursor behind everything that is numbered."""
    last = last_number(unit)
    return Cursor(last, _mark_of(unit, last) or "")


def holds(unit: Unit, cursor: Cursor) -> bool:
    """Return whether the feed still has the event that the cursor was read at.

    Not where the database is older than its reader.
    """
    return cursor.number == 0 or (cursor.mark != "" and _mark_of(unit, cursor.number) == cursor.mark)


def _mark_of(unit: Unit, number: int) -> str | None:
    query = select(_table.c.mark, _table.c.outbox_id).where(_table.c.number == number)
    found = unit.execute(query).first()
    return None if found is None else _mark(*found)


def _mark(mark: str | None, outbox_id: str) -> str:
    """Return the mark of a number; for an event without one, a part of its id."""
    return mark or outbox_id.replace("-", "")[-2 * _MARK_BYTES :]


def find(
    unit: Unit,
    accounts: Sequence[str],
    *,
    after: int,
    limit: int,
    effects: Sequence[str] = (),
    payment_id: str | None = None,
) -> list[Told]:
    """Return the effects of these accounts after a number, in order."""
    owed = table_of(OutboxMessageTable)
    query = (
        select(
            _table.c.number,
            _table.c.mark,
            _table.c.outbox_id,
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
    return [
        Told(Cursor(number, _mark(mark, outbox_id)), *about) for number, mark, outbox_id, *about in unit.execute(query)
    ]


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
