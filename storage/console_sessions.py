"""Who is logged in to the console: found by the digest of what the browser keeps, ended at once when revoked."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, insert, select, update

from storage.engine import Unit, made, values
from storage.errors import NotFound
from storage.ids import is_id
from storage.tables_console import ConsolePerson, ConsoleSession

_table = ConsoleSession.__table__  # type: ignore[attr-defined]
_person = ConsolePerson.__table__  # type: ignore[attr-defined]

#: `last_seen_at` is written at most this often.
SEEN_EVERY: Final = timedelta(minutes=1)

#: For so long it is kept that somebody was logged in.
_KEPT_FOR: Final = timedelta(days=30)


def begin(unit: Unit, session: ConsoleSession) -> None:
    """The session is open; those that ended long ago are forgotten."""
    unit.execute(delete(_table).where(_table.c.expires_at < session.created_at - _KEPT_FOR))
    unit.execute(insert(_table), values(session))


def by_digest(unit: Unit, digest: str) -> tuple[ConsoleSession, ConsolePerson] | None:
    """The session of that digest and its person, whether or not either is still good."""
    query = select(_table, _person).join(_person, _person.c.id == _table.c.person_id).where(_table.c.digest == digest)
    row = unit.execute(query).first()  # every page asks: one question, and not two
    if row is None:
        return None
    columns = row._mapping  # noqa: SLF001 - the documented way to a row's columns, underscore and all
    return (
        made(ConsoleSession, {column.name: columns[column] for column in _table.c}),
        made(ConsolePerson, {column.name: columns[column] for column in _person.c}),
    )


def is_open(session: ConsoleSession, now: datetime, idle: timedelta) -> bool:
    """Whether the session opens anything at that instant, where it ends after so long without use."""
    return session.revoked_at is None and now < session.expires_at and now < session.last_seen_at + idle


def open_among(unit: Unit, session_ids: Sequence[str], now: datetime, idle: timedelta) -> frozenset[str]:
    """Those of the sessions that still open something, in one query."""
    query = (
        select(_table.c.id)
        .join(_person, _person.c.id == _table.c.person_id)
        .where(
            _table.c.id.in_(session_ids),
            _table.c.revoked_at.is_(None),
            _table.c.expires_at > now,
            _table.c.last_seen_at > now - idle,
            _person.c.disabled_at.is_(None),
        )
    )
    return frozenset(str(row[0]) for row in unit.execute(query))


def of_person(unit: Unit, person_id: str) -> list[ConsoleSession]:
    """The person's sessions, ended ones too, the newest first."""
    query = select(_table).where(_table.c.person_id == person_id).order_by(_table.c.id.desc())
    return unit.all(ConsoleSession, query.limit(200))


def get(unit: Unit, session_id: str) -> ConsoleSession:
    """One session; raises NotFound."""
    found = unit.first(ConsoleSession, select(_table).where(_table.c.id == session_id)) if is_id(session_id) else None
    if found is None:
        raise NotFound(f"no session {session_id}", param="session")
    return found


def revoke(unit: Unit, session_id: str, now: datetime) -> None:
    """The session opens nothing from now on; a repeat keeps the first instant."""
    unit.execute(update(_table).where(_table.c.id == session_id, _table.c.revoked_at.is_(None)).values(revoked_at=now))


def revoke_secret(unit: Unit, digest: str, now: datetime) -> None:
    """The session of that digest opens nothing from now on, if there is one."""
    is_open = (_table.c.digest == digest, _table.c.revoked_at.is_(None))
    unit.execute(update(_table).where(*is_open).values(revoked_at=now))


def revoke_all(unit: Unit, person_id: str, now: datetime, *, but: str | None = None) -> int:
    """None of the person's sessions opens anything from now on, but for the one that is named; how many ended."""
    ended = update(_table).where(_table.c.person_id == person_id, _table.c.revoked_at.is_(None))
    ended = ended.where(_table.c.expires_at > now)
    if but is not None:
        ended = ended.where(_table.c.id != but)
    return int(unit.execute(ended.values(revoked_at=now)).rowcount)


def is_use_due(session: ConsoleSession, now: datetime) -> bool:
    """Whether it is worth a write that the session is used."""
    return not session.last_seen_at <= now < session.last_seen_at + SEEN_EVERY


def note_use(unit: Unit, session_id: str, now: datetime) -> None:
    """The session was used now; of several requests, one writes it."""
    is_older = _table.c.last_seen_at <= now - SEEN_EVERY
    unit.execute(update(_table).where(_table.c.id == session_id, is_older).values(last_seen_at=now))
