"""Console sessions, found by digest, and login attempts of all processes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from storage.columns import table_of
from storage.database import Unit, build_record, values
from storage.errors import NotFound
from storage.ids import is_id
from storage.tables_support import ConsoleAttempt, ConsolePerson, ConsoleSession

_sessions = table_of(ConsoleSession)
_person = table_of(ConsolePerson)

#: `last_seen_at` is written at most this often.
LAST_SEEN_INTERVAL: Final = timedelta(minutes=1)

#: For so long it is kept that somebody was logged in.
_KEPT_FOR: Final = timedelta(days=30)


def begin(unit: Unit, session: ConsoleSession) -> None:
    """Insert the session, and delete those that ended long ago."""
    unit.execute(delete(_sessions).where(_sessions.c.expires_at < session.created_at - _KEPT_FOR))
    unit.execute(insert(_sessions), values(session))


def by_digest(unit: Unit, digest: str) -> tuple[ConsoleSession, ConsolePerson] | None:
    """Find the session of that digest and its person, valid or not."""
    query = (
        select(_sessions, _person)
        .join(_person, _person.c.id == _sessions.c.person_id)
        .where(_sessions.c.digest == digest)
    )
    row = unit.execute(query).first()  # every page asks: one question, and not two
    if row is None:
        return None
    columns = row._mapping  # noqa: SLF001 - the documented way to a row's columns, underscore and all
    return (
        build_record(ConsoleSession, {column.name: columns[column] for column in _sessions.c}),
        build_record(ConsolePerson, {column.name: columns[column] for column in _person.c}),
    )


def is_open(session: ConsoleSession, now: datetime, idle: timedelta) -> bool:
    """Return whether the session is valid at that instant, given its idle timeout."""
    return session.revoked_at is None and now < session.expires_at and now < session.last_seen_at + idle


def open_among(unit: Unit, session_ids: Sequence[str], now: datetime, idle: timedelta) -> frozenset[str]:
    """Those of the sessions that still open something, in one query."""
    query = (
        select(_sessions.c.id)
        .join(_person, _person.c.id == _sessions.c.person_id)
        .where(
            _sessions.c.id.in_(session_ids),
            _sessions.c.revoked_at.is_(None),
            _sessions.c.expires_at > now,
            _sessions.c.last_seen_at > now - idle,
            _person.c.disabled_at.is_(None),
        )
    )
    return frozenset(str(row[0]) for row in unit.execute(query))


def of_person(unit: Unit, person_id: str) -> list[ConsoleSession]:
    """Return the person's sessions, ended ones too, the newest first."""
    query = select(_sessions).where(_sessions.c.person_id == person_id).order_by(_sessions.c.id.desc())
    return unit.all(ConsoleSession, query.limit(200))


def get(unit: Unit, session_id: str) -> ConsoleSession:
    """One session; raises NotFound."""
    found = (
        unit.first(ConsoleSession, select(_sessions).where(_sessions.c.id == session_id)) if is_id(session_id) else None
    )
    if found is None:
        raise NotFound(f"no session {session_id}", param="session")
    return found


def revoke(unit: Unit, session_id: str, now: datetime) -> None:
    """Revoke the session; a repeat keeps the first instant."""
    unit.execute(
        update(_sessions).where(_sessions.c.id == session_id, _sessions.c.revoked_at.is_(None)).values(revoked_at=now)
    )


def revoke_secret(unit: Unit, digest: str, now: datetime) -> None:
    """Revoke the session of that digest, if there is one."""
    is_open = (_sessions.c.digest == digest, _sessions.c.revoked_at.is_(None))
    unit.execute(update(_sessions).where(*is_open).values(revoked_at=now))


def revoke_all(unit: Unit, person_id: str, now: datetime, *, but: str | None = None) -> int:
    """Revoke the person's sessions except the one named; return how many ended."""
    ended = update(_sessions).where(_sessions.c.person_id == person_id, _sessions.c.revoked_at.is_(None))
    ended = ended.where(_sessions.c.expires_at > now)
    if but is not None:
        ended = ended.where(_sessions.c.id != but)
    return int(unit.execute(ended.values(revoked_at=now)).rowcount)


def is_use_due(session: ConsoleSession, now: datetime) -> bool:
    """Return whether the last recorded use is old enough to write another."""
    return not session.last_seen_at <= now < session.last_seen_at + LAST_SEEN_INTERVAL


def note_use(unit: Unit, session_id: str, now: datetime) -> None:
    """Record that the session is used now; of several requests, one writes it."""
    is_older = _sessions.c.last_seen_at <= now - LAST_SEEN_INTERVAL
    unit.execute(update(_sessions).where(_sessions.c.id == session_id, is_older).values(last_seen_at=now))


_attempts = table_of(ConsoleAttempt)


def take(unit: Unit, subject: str, now: datetime, *, at_most: int, window: timedelta) -> timedelta | None:
    """Count one attempt; return how long to wait where `at_most` were in the window.

    None where the attempt is counted.

    Two that come together count as two: the row is locked until the commit. A clock that was set back begins anew.
    """
    insert = insert_postgresql if unit.dialect == "postgresql" else insert_sqlite
    unit.execute(insert(_attempts).values(subject=subject, tried=0, began_at=now).on_conflict_do_nothing())
    query = select(_attempts.c.tried, _attempts.c.began_at).where(_attempts.c.subject == subject).with_for_update()
    tried, began_at = unit.execute(query).one()
    if not began_at <= now < began_at + window:
        tried, began_at = 0, now
    if tried >= at_most:
        return began_at + window - now  # type: ignore[no-any-return]
    here = update(_attempts).where(_attempts.c.subject == subject)
    unit.execute(here.values(tried=tried + 1, began_at=began_at))
    return None


def give_back(unit: Unit, subject: str) -> None:
    """Uncount the last attempt, which succeeded."""
    here = update(_attempts).where(_attempts.c.subject == subject, _attempts.c.tried > 0)
    unit.execute(here.values(tried=_attempts.c.tried - 1))


def forget(unit: Unit, subject: str) -> None:
    """Forget the attempts of the subject."""
    unit.execute(delete(_attempts).where(_attempts.c.subject == subject))


def forget_before(unit: Unit, instant: datetime) -> None:
    """Windows that began before then are forgotten."""
    unit.execute(delete(_attempts).where(_attempts.c.began_at < instant))
