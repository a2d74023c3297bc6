"""Idempotency keys: one call at a time is processed, repeats get its answer."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import table_of
from storage.database import Unit
from storage.errors import LeaseLost
from storage.tables_support import IdempotencyKey

_table = table_of(IdempotencyKey)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to the first call."""

    http_status: int
    answer: str


@dataclass(frozen=True, slots=True)
class CallState:
    """The status of a key: ours to process, answered, or in progress elsewhere."""

    token: int | None = None  #: ours: finish() and release() demand it
    answered: Answered | None = None  #: done, with this
    is_conflict: bool = False  #: it was used for something else


def begin(
    unit: Unit, scope: str, key: str, digest: str, now: datetime, *, lease: timedelta, keep: timedelta
) -> CallState:
    """Claim the key; return a token, the answer, or neither where it is in progress.

    A claim ends by itself with its lease, so that a crash leaves a key that can be repeated.
    """
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    new = {
        "scope": scope,
        "key": key,
        "digest": digest,
        "claim_token": 1,
        "lease_ends_at": now + lease,
        "created_at": now,
        "expires_at": now + keep,
    }
    done = unit.execute(
        dialect.insert(_table)
        .values(new)
        .on_conflict_do_nothing(index_elements=["scope", "key"])
        .returning(_table.c.key)
    )
    if done.first() is not None:
        return CallState(token=1)
    query = select(_table).where(_table.c.scope == scope, _table.c.key == key)
    kept = unit.first(IdempotencyKey, query.with_for_update() if unit.dialect == "postgresql" else query)
    if kept is None:
        return CallState()  # released this instant: the next look finds it free
    is_over = kept.expires_at <= now
    if not is_over and kept.digest != digest:
        return CallState(is_conflict=True)
    if not is_over and kept.answered_at is not None:
        return CallState(answered=Answered(kept.http_status or 500, kept.answer or ""))
    # Whoever claimed it may have looked at the clock after us; a claim of a clock that was wrong does not last.
    if not is_over and now < kept.lease_ends_at <= now + 2 * lease:
        return CallState()
    again = {**new, "claim_token": kept.claim_token + 1, "http_status": None, "answer": None, "answered_at": None}
    unit.execute(update(_table).where(_table.c.scope == scope, _table.c.key == key).values(again))
    return CallState(token=kept.claim_token + 1)


def finish(unit: Unit, scope: str, key: str, token: int, answered: Answered, now: datetime) -> None:
    """Store the answer for every repeat; raises LeaseLost after a takeover."""
    done = unit.execute(
        update(_table)
        .where(*_ours(scope, key, token))
        .values(http_status=answered.http_status, answer=answered.answer, answered_at=now)
    )
    if done.rowcount != 1:
        raise LeaseLost


def release(unit: Unit, scope: str, key: str, token: int) -> None:
    """Release the key, so that a repeat is processed anew.

    Nothing final was answered. The digest of the call is deleted too.
    """
    unit.execute(delete(_table).where(*_ours(scope, key, token)))


def sweep(unit: Unit, now: datetime, limit: int = 500) -> int:
    """Up to so many keys that have expired are forgotten; returns how many."""
    old = select(_table.c.key, _table.c.scope).where(_table.c.expires_at <= now).limit(limit)
    rows = unit.execute(old).all()
    if rows:
        one = or_(*((_table.c.key == key) & (_table.c.scope == scope) for key, scope in rows))
        unit.execute(delete(_table).where(one, _table.c.expires_at <= now))
    return len(rows)


def _ours(scope: str, key: str, token: int) -> tuple[ColumnElement[bool], ...]:
    return (
        _table.c.scope == scope,
        _table.c.key == key,
        _table.c.claim_token == token,
        _table.c.answered_at.is_(None),
    )
