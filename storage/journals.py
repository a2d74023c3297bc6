"""Positions in the accounts' journals, and what the events showed of pushes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from statemachine.phases import Source
from storage.columns import table_of
from storage.database import Unit
from storage.tables import InboxMessage
from storage.tables_inbox import Redelivery
from storage.tables_support import Journal

_table: Any = table_of(Journal)
_messages: Any = table_of(InboxMessage)
_redelivery: Any = table_of(Redelivery)

_COLUMNS: Final = ("account", "since", "position", "read_at", "events", "unpushed", "failures", "last_error")


@dataclass(frozen=True, slots=True)
class JournalState:
    """Position in one account's journal."""

    account: str
    since: datetime  #: events before that are not of interest
    position: str | None  #: the provider's; None before the first event
    read_at: datetime | None  #: the last answer
    events: int  #: that were read
    unpushed: int  #: of those, the ones that no webhook had brought by then
    failures: int  #: in a row
    last_error: str | None


def claim(unit: Unit, account: str, now: datetime, lease: timedelta) -> JournalState | None:
    """Lease the account's journal; None where it is not due or another reads it.

    An account that was never read begins now: what was before is for a reconciliation.
    """
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    first = {"account": account, "since": now, "next_at": now, "events": 0, "unpushed": 0, "failures": 0}
    unit.execute(dialect.insert(_table).values(first).on_conflict_do_nothing())
    due = update(_table).where(_table.c.account == account, _table.c.next_at <= now).values(next_at=now + lease)
    row = unit.execute(due.returning(*(_table.c[name] for name in _COLUMNS))).first()
    return None if row is None else JournalState(*row)


def advance(
    unit: Unit, account: str, position: str | None, *, events: int, unpushed: int, read_at: datetime, next_at: datetime
) -> None:
    """Keep the position after a page, in the commit of the events that it showed."""
    changes = {
        "position": position,
        "events": _table.c.events + events,
        "unpushed": _table.c.unpushed + unpushed,
        "read_at": read_at,
        "next_at": next_at,
        "failures": 0,
        "last_error": None,
    }
    unit.execute(update(_table).where(_table.c.account == account).values(changes))


def note_failure(unit: Unit, account: str, error: str, next_at: datetime) -> None:
    """Keep the position, and read again at this instant."""
    changes = {"failures": _table.c.failures + 1, "last_error": error[:500], "next_at": next_at}
    unit.execute(update(_table).where(_table.c.account == account).values(changes))


def late(unit: Unit, account: str) -> int:
    """Count the journal's events whose webhook came after they were read.

    Exact for the messages that are kept: with them, those in `unpushed` that are left were lost.
    """
    redelivered = _redelivery.join(_messages, _messages.c.id == _redelivery.c.message_id)
    ours = (_redelivery.c.account == account, _messages.c.source == Source.JOURNAL.value)
    return int(unit.execute(select(func.count()).select_from(redelivered).where(*ours)).scalar_one())


def states(unit: Unit) -> dict[str, JournalState]:
    """Return the position in each journal, by account."""
    rows = unit.execute(select(*(_table.c[name] for name in _COLUMNS)))
    return {row[0]: JournalState(*row) for row in rows}
