"""An account's budget and breaker: one row says when the next request may leave, for all processes together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.engine import Unit
from storage.tables_asking import AccountBudget
from storage.types import UtcDateTime

#: No queue and no pause is longer (a provider's longest pause is a day): what lies beyond was set by a wrong clock.
_LONGEST = timedelta(days=1, hours=1)

_table = AccountBudget.__table__  # type: ignore[attr-defined]


def reserve(unit: Unit, account: str, now: datetime, interval: timedelta) -> datetime:
    """The instant at which the caller may send one request; no two callers get instants closer than the interval."""
    kept = _row(unit, account, now)
    slot = max([now, *_believable(now, kept.next_free_at, kept.paused_until)])
    unit.execute(update(_table).where(_table.c.account == account).values(next_free_at=slot + interval))
    return slot


def paused_until(unit: Unit, account: str, now: datetime) -> datetime | None:
    """Until when the provider wants no request; may lie in the past. None where it never said so."""
    found: datetime | None = unit.execute(select(_table.c.paused_until).where(_table.c.account == account)).scalar()
    return next(_believable(now, found), None)


def pause(unit: Unit, account: str, now: datetime, until: datetime) -> None:
    """No request is granted before that instant; a longer pause that stands already is kept."""
    kept = _row(unit, account, now)
    unit.execute(
        update(_table)
        .where(_table.c.account == account)
        .values(paused_until=max([until, *_believable(now, kept.paused_until)]))
    )


def _believable(now: datetime, *instants: datetime | None) -> Iterator[datetime]:
    return (at for at in instants if at is not None and at <= now + _LONGEST)


def _row(unit: Unit, account: str, now: datetime) -> AccountBudget:
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    unit.execute(dialect.insert(_table).values(account=account, next_free_at=now, failures=0).on_conflict_do_nothing())
    query = select(_table).where(_table.c.account == account)
    found = unit.first(AccountBudget, query.with_for_update() if unit.dialect == "postgresql" else query)
    if found is None:
        raise LookupError(account)
    return found


class Gate(Enum):
    """What the account's breaker says to somebody who wants to ask."""

    CLOSED = "closed"  #: ask
    OPEN = "open"  #: do not ask: the provider is away
    PROBE = "probe"  #: ask one question, and say what became of it; nobody else may meanwhile


@dataclass(frozen=True, slots=True)
class Breaker:
    """How an account's breaker stands."""

    failures: int = 0  #: outages in a row
    broken_at: datetime | None = None  #: since when it is open; None: closed
    probe_at: datetime | None = None  #: when the next question may try again


def gate(unit: Unit, account: str, now: datetime, lease: timedelta) -> Gate:
    """Whether the account may be asked; of all processes exactly one gets PROBE, for one question, until the lease
    ends.

    Writes only where it answers PROBE, so that it costs one SELECT while all is well; call it in `write()`. Whoever
    got PROBE reports by `note_answer`, or by `note_outage(..., was_probe=True)`; one who dies, or learns nothing, has
    lost the probe to the next caller when the lease ends. On PostgreSQL the database's clock counts, not `now`.
    """
    if breaker(unit, account).broken_at is None:
        return Gate.CLOSED
    kept, now = _locked(unit, account, now)
    if kept.broken_at is None:
        return Gate.CLOSED
    if kept.probe_at is not None and now < kept.probe_at <= now + _LONGEST:
        return Gate.OPEN
    _update(unit, account, probe_at=now + lease)
    return Gate.PROBE


def note_outage(
    unit: Unit,
    account: str,
    now: datetime,
    wait_after: Callable[[int], timedelta | None],
    *,
    was_probe: bool = False,
) -> timedelta | None:
    """One more outage in a row is counted; how long the breaker is open from now on, or None where that is as before.

    `wait_after` (poller.breaker) says how long it is open after so many outages, None where it stays closed. While
    it is open only the probe's outage counts: what else was under way when it opened says nothing new.
    """
    kept, now = _locked(unit, account, now)
    if kept.broken_at is not None and not was_probe:
        return None
    failures = kept.failures + 1
    wait = wait_after(failures)
    if wait is None:
        _update(unit, account, failures=failures)
        return None
    _update(unit, account, failures=failures, broken_at=kept.broken_at or now, probe_at=now + wait)
    return wait


def note_answer(unit: Unit, account: str) -> bool:
    """The account's outages are forgotten and its breaker is closed; True where it was open.

    Writes nothing where there was no outage to forget, so that it may be called after every answer.
    """
    if not breaker(unit, account).failures:
        return False
    done = unit.execute(
        update(_table)
        .where(_table.c.account == account, _table.c.broken_at.is_not(None))
        .values(failures=0, broken_at=None, probe_at=None)
    )
    if done.rowcount:
        return True
    _update(unit, account, failures=0)
    return False


def breaker(unit: Unit, account: str) -> Breaker:
    """How the account's breaker stands; for people, and as a first look. Writes nothing."""
    found = unit.execute(
        select(_table.c.failures, _table.c.broken_at, _table.c.probe_at).where(_table.c.account == account)
    ).first()
    return Breaker() if found is None else Breaker(*found)


def _update(unit: Unit, account: str, **changes: Any) -> None:
    unit.execute(update(_table).where(_table.c.account == account).values(**changes))


def _locked(unit: Unit, account: str, now: datetime) -> tuple[AccountBudget, datetime]:
    """The account's row, nobody else's to change until the unit ends, and the instant that counts."""
    kept = _row(unit, account, now)
    if unit.dialect == "postgresql":  # hosts' clocks differ; read only now, since the lock may have been waited for
        now = unit.execute(select(func.clock_timestamp(type_=UtcDateTime()))).scalar_one()
    return kept, now
