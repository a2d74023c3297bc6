"""An account's budget and breaker: one row says who may send when, for all processes together.

On PostgreSQL the database's clock counts, since the clocks of hosts differ; `now` is the caller's, and counts on
SQLite, whose processes share a host. So whatever is answered is a duration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from sqlalchemy import ColumnElement, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.engine import Unit
from storage.slots import LONGEST, Booked, Rate, Slot, Wish, book
from storage.tables_asking import AccountBudget
from storage.types import UtcDateTime

_table = AccountBudget.__table__  # type: ignore[attr-defined]

#: What `storage.slots` reckons with, in the order of Booked.
_SLOTS: Final = tuple(
    _table.c[name] for name in ("next_free_at", "paused_until", "patient_at", "urgent_run", "kept_slots")
)

_URGENT: Final = Wish()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def hold(unit: Unit, account: str, now: datetime) -> None:
    """Nobody else reserves for the account until the unit of work ends: what is waited for, is waited for here."""
    _locked(unit, account, now)


def reserve(unit: Unit, account: str, now: datetime, rate: Rate, wish: Wish = _URGENT) -> Slot:
    """The right to send one request within a slot, and no two slots of an account are closer than the spacing.

    An urgent caller always gets one, ahead of now where it must be. A patient one gets one that has begun, or learns
    when to come again; it is then known to wait, and one slot in `rate.share` is left to it. A slot that is not used
    is lost and harms nobody.
    """
    kept, now = _locked(unit, account, now)
    booked = _booked(*(getattr(kept, column.name) for column in _SLOTS))
    slot, after = book(booked, now, rate, wish)
    if slot.is_granted or after.patient_at != booked.patient_at:
        _update(
            unit,
            account,
            next_free_at=after.next_free_at,
            patient_at=after.patient_at,
            urgent_run=after.urgent_run,
            kept_slots=[(at - _EPOCH) // _MICROSECOND for at in after.kept],
        )
    return slot


def worth_trying(unit: Unit, account: str, now: datetime, rate: Rate, wish: Wish) -> timedelta | None:
    """How long a patient caller has to wait before a reservation can succeed; None where it should reserve now.

    Reads only, so that many who wake at one instant do not queue for the right to write.
    """
    found = unit.execute(select(*_SLOTS, _clock(unit, now)).where(_table.c.account == account)).first()
    if found is None:
        return None
    *kept, now = found
    booked = _booked(*kept)
    slot, after = book(booked, now, rate, wish)
    return None if slot.is_granted or after.patient_at != booked.patient_at else slot.wait


def pause(unit: Unit, account: str, now: datetime, wait: timedelta) -> None:
    """No request is granted for so long, a day and an hour at most; a longer pause that stands already is kept."""
    kept, now = _locked(unit, account, now)
    until = now + min(wait, LONGEST)
    if kept.paused_until is None or not until < kept.paused_until <= now + LONGEST:
        _update(unit, account, paused_until=until)


def pause_left(unit: Unit, account: str, now: datetime) -> timedelta:
    """How long the provider wants no request from now on; zero where it wants them. Reads only."""
    found = unit.execute(select(_table.c.paused_until, _clock(unit, now)).where(_table.c.account == account)).first()
    if found is None or found[0] is None or not found[1] < found[0] <= found[1] + LONGEST:
        return timedelta(0)
    left: timedelta = found[0] - found[1]
    return left


def is_barred(unit: Unit, account: str, now: datetime) -> bool:
    """Whether nobody may be asked at all now: the provider wants no requests, or is away and no probe is due.

    Reads only, as a first look; `pause_left` and `gate` decide.
    """
    columns = (_table.c.paused_until, _table.c.broken_at, _table.c.probe_at)
    found = unit.execute(select(*columns, _clock(unit, now)).where(_table.c.account == account)).first()
    if found is None:
        return False
    paused_until, broken_at, probe_at, now = found
    return _is_ahead(paused_until, now) or (broken_at is not None and _is_ahead(probe_at, now))


def _is_ahead(at: datetime | None, now: datetime) -> bool:
    """Further ahead than LONGEST is what only a clock that was wrong can have set."""
    return at is not None and now < at <= now + LONGEST


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
    if kept.probe_at is not None and now < kept.probe_at <= now + LONGEST:
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


def _booked(
    next_free_at: datetime,
    paused_until: datetime | None,
    patient_at: datetime | None,
    urgent_run: int,
    kept_slots: list[int],
) -> Booked:
    kept = tuple(_EPOCH + at * _MICROSECOND for at in kept_slots)
    return Booked(next_free_at, paused_until, patient_at, urgent_run, kept)


def _update(unit: Unit, account: str, **changes: Any) -> None:
    unit.execute(update(_table).where(_table.c.account == account).values(**changes))


def _locked(unit: Unit, account: str, now: datetime) -> tuple[AccountBudget, datetime]:
    """The account's row, nobody else's to change until the unit ends, and the instant that counts."""
    query = select(_table).where(_table.c.account == account)
    if unit.dialect == "postgresql":
        query = query.with_for_update()
    found = unit.first(AccountBudget, query)
    if found is None:
        dialect = sqlite if unit.dialect == "sqlite" else postgresql
        row = {"account": account, "next_free_at": _EPOCH, "failures": 0, "urgent_run": 0, "kept_slots": []}
        unit.execute(dialect.insert(_table).values(row).on_conflict_do_nothing())
        found = unit.first(AccountBudget, query)
    if found is None:
        raise LookupError(account)
    if unit.dialect == "postgresql":  # read only now, since the lock may have been waited for
        now = unit.execute(select(_clock(unit, now))).scalar_one()
    return found, now


def _clock(unit: Unit, now: datetime) -> ColumnElement[datetime]:
    if unit.dialect == "postgresql":
        return func.clock_timestamp(type_=UtcDateTime())
    return literal(now, UtcDateTime())
