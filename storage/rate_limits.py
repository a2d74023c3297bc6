"""Request budget and circuit breaker of an account: one row for all processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Self

from sqlalchemy import ColumnElement, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import table_of
from storage.database import Unit
from storage.tables_support import AccountBudget
from storage.types import UtcDateTime

#: No queue and no pause is longer (a provider's longest pause is a day): what lies beyond was set by a wrong clock.
MAX_DELAY: Final = timedelta(days=1, hours=1)

#: Of the window, what is given up so that late senders and a network's jitter cannot make one request too many of it.
_TOLERANCE: Final = 0.1
_LEAST_TOLERANCE: Final = 0.02
_MOST_TOLERANCE: Final = 0.25

#: How long after its time a patient caller is still believed to come: it sleeps, and is held up by a database.
_COMES_WITHIN: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Rate:
    """An account's budget as slots: one request in each, no two closer than `spacing`.

    Whoever has the slot at s sends within [s, s + lateness], or not at all. Of requests + 1 slots in a row the first
    is used at s + lateness at the latest and the last at s + requests * spacing at the earliest: the budget's window
    lies between them, and the other half of the tolerance is left to the network.
    """

    spacing: timedelta
    lateness: timedelta
    share: int = 5  #: one slot in so many stays the patient callers', while any of them waits

    @classmethod
    def of(cls, requests: int, seconds: float, share: int = 5) -> Self:
        """Derive the slots of so many requests in any window of so many seconds."""
        tolerance = min(max(_TOLERANCE * seconds, _LEAST_TOLERANCE), _MOST_TOLERANCE)
        return cls(timedelta(seconds=(seconds + tolerance) / requests), timedelta(seconds=tolerance / 2), share)

    @property
    def grace(self) -> timedelta:
        """Time after its begin in which a slot may be taken.

        What is left of `lateness` is for sending.
        """
        return self.lateness / 2


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to send one request, or when to come again."""

    is_granted: bool
    wait: timedelta  #: until it begins, less than nothing where it has; not granted: until it is worth trying again
    good_for: timedelta = timedelta(0)  #: until it is too late to send
    at: datetime | None = None  #: the slot itself, by the clock that counts
    next_free_at: datetime | None = None  #: what was left to the next one; None where it cannot be given back


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A request for a slot."""

    is_patient: bool = False  #: only one that has begun, and behind all who are not
    are_more: bool = False  #: others wait patiently behind this one
    lead: timedelta = timedelta(0)  #: how long the answer takes to arrive, so that it is not too late already
    extra: timedelta = timedelta(0)  #: how much later than others it may send; the next slot is put off by as much
    unused: Slot | None = None  #: that it was too late for: given back, where nobody has taken one since


@dataclass(frozen=True, slots=True)
class SlotState:
    """The state of an account's slots."""

    next_free_at: datetime  #: no slot that was given away lies at or after it
    paused_until: datetime | None = None  #: the provider said so
    patient_at: datetime | None = None  #: a patient caller waits, and will have come by then
    urgent_run: int = 0  #: slots that urgent callers had in a row
    kept: tuple[datetime, ...] = ()  #: slots before `next_free_at` that are left to patient callers, in order


def book(booked: SlotState, now: datetime, rate: Rate, wish: SlotRequest) -> tuple[Slot, SlotState]:
    """Book a slot; granted slots are never closer than the spacing.

    An urgent caller always gets one, ahead of now where it must be. A patient one gets one that has begun when the
    answer arrives or none, and is known to wait.
    """
    if wish.unused is not None and wish.unused.next_free_at == booked.next_free_at:
        booked = replace(booked, next_free_at=wish.unused.at or booked.next_free_at)
    then = now + wish.lead
    believed = _believed(booked, then, rate)
    chosen = (_patient if wish.is_patient else _urgent)(believed, then, rate, wish)
    if isinstance(chosen, datetime):
        return _wait_until(chosen, believed, then)
    slot, next_free_at, after = chosen
    good_for = slot + rate.lateness - now + (timedelta(0) if next_free_at is None else wish.extra)
    return Slot(True, slot - now, good_for, slot, next_free_at), after


_Chosen = tuple[datetime, datetime | None, SlotState]


def _urgent(booked: SlotState, now: datetime, rate: Rate, wish: SlotRequest) -> _Chosen:
    are_waited_for = booked.patient_at is not None
    if booked.kept and not are_waited_for and not wish.extra:
        return _from_kept(booked)
    slot = _next(booked, now, rate)
    if are_waited_for and booked.urgent_run >= rate.share - 1:
        booked = replace(booked, kept=(*booked.kept, slot), urgent_run=0)
        slot += rate.spacing
    return _from_end(replace(booked, urgent_run=booked.urgent_run + 1), slot, rate, wish)


def _patient(booked: SlotState, now: datetime, rate: Rate, wish: SlotRequest) -> _Chosen | datetime:
    """Book a slot that has begun, or tell when to ask again."""
    slot = _next(booked, now, rate)
    if wish.are_more:
        booked = replace(booked, patient_at=max(slot, now) + rate.spacing + _COMES_WITHIN)
    if booked.kept and booked.kept[0] <= now:
        return _from_kept(booked)
    if slot <= now:
        return _from_end(replace(booked, urgent_run=0), slot, rate, wish)
    return min((slot, *booked.kept))


def _wait_until(at: datetime, booked: SlotState, now: datetime) -> tuple[Slot, SlotState]:
    if booked.patient_at is None or booked.patient_at < at + _COMES_WITHIN / 2:
        booked = replace(booked, patient_at=at + _COMES_WITHIN)
    return Slot(is_granted=False, wait=at - now), booked


def _from_kept(booked: SlotState) -> _Chosen:
    slot, *kept = booked.kept
    return slot, None, replace(booked, kept=tuple(kept))


def _from_end(booked: SlotState, slot: datetime, rate: Rate, wish: SlotRequest) -> _Chosen:
    next_free_at = slot + rate.spacing + wish.extra
    return slot, next_free_at, replace(booked, next_free_at=next_free_at)


def _next(booked: SlotState, now: datetime, rate: Rate) -> datetime:
    """Return the next free slot.

    One that has just begun may still be taken, with less time for sending.
    """
    earliest = max(now - rate.grace, booked.paused_until or now - rate.grace)
    if booked.next_free_at >= earliest:
        return booked.next_free_at
    return max(now, booked.paused_until or now)


def _believed(booked: SlotState, now: datetime, rate: Rate) -> SlotState:
    """Drop what has passed, and what only a wrong clock can have set."""
    latest = now + MAX_DELAY
    if booked.next_free_at > latest:
        booked = replace(booked, next_free_at=now, kept=())
    paused = booked.paused_until
    paused = None if paused is None or not now < paused <= latest else paused
    waited = booked.patient_at
    earliest = paused or now - rate.grace
    return replace(
        booked,
        paused_until=paused,
        patient_at=waited if waited is not None and now <= waited <= latest else None,
        kept=tuple(slot for slot in booked.kept if slot >= earliest),
    )


_table = table_of(AccountBudget)

#: What `storage.rate_limits` reckons with, in the order of SlotState.
_SLOTS: Final = tuple(
    _table.c[name] for name in ("next_free_at", "paused_until", "patient_at", "urgent_run", "kept_slots")
)

_URGENT: Final = SlotRequest()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def hold(unit: Unit, account: str, now: datetime) -> None:
    """Lock the account's row until the unit of work ends, waiting for its holder."""
    _locked(unit, account, now)


def reserve(unit: Unit, account: str, now: datetime, rate: Rate, wish: SlotRequest = _URGENT) -> Slot:
    """Reserve a slot for one request; slots of an account keep the spacing.

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


def worth_trying(unit: Unit, account: str, now: datetime, rate: Rate, wish: SlotRequest) -> timedelta | None:
    """Return how long a patient caller must wait to reserve; None where it may now.

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
    """Grant no request for so long, at most a day and an hour; keep a longer pause."""
    kept, now = _locked(unit, account, now)
    until = now + min(wait, MAX_DELAY)
    if kept.paused_until is None or not until < kept.paused_until <= now + MAX_DELAY:
        _update(unit, account, paused_until=until)


def pause_left(unit: Unit, account: str, now: datetime) -> timedelta:
    """Return how long the provider's pause lasts; zero for none. Reads only."""
    found = unit.execute(select(_table.c.paused_until, _clock(unit, now)).where(_table.c.account == account)).first()
    if found is None or found[0] is None or not found[1] < found[0] <= found[1] + MAX_DELAY:
        return timedelta(0)
    left: timedelta = found[0] - found[1]
    return left


def is_barred(unit: Unit, account: str, now: datetime) -> bool:
    """Return whether no request may be sent: a pause, or an outage with no probe due.

    Reads only, as a first look; `pause_left` and `gate` decide.
    """
    columns = (_table.c.paused_until, _table.c.broken_at, _table.c.probe_at)
    found = unit.execute(select(*columns, _clock(unit, now)).where(_table.c.account == account)).first()
    if found is None:
        return False
    paused_until, broken_at, probe_at, now = found
    return _is_ahead(paused_until, now) or (broken_at is not None and _is_ahead(probe_at, now))


def _is_ahead(at: datetime | None, now: datetime) -> bool:
    """Further ahead than MAX_DELAY is what only a clock that was wrong can have set."""
    return at is not None and now < at <= now + MAX_DELAY


class Gate(Enum):
    """The answer of the account's breaker to a caller that wants to ask."""

    CLOSED = "closed"  #: ask
    OPEN = "open"  #: do not ask: the provider is away
    PROBE = "probe"  #: ask one question, and say what became of it; nobody else may meanwhile


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of an account's breaker."""

    failures: int = 0  #: outages in a row
    broken_at: datetime | None = None  #: since when it is open; None: closed
    probe_at: datetime | None = None  #: when the next question may try again


def gate(unit: Unit, account: str, now: datetime, lease: timedelta) -> Gate:
    """Return whether the account may be asked.

    Of all processes exactly one gets PROBE, for one question, until the lease ends.

    Writes only where it answers PROBE, so that it costs one SELECT while all is well; call it in `write()`. Whoever
    got PROBE reports by `note_answer`, or by `note_outage(..., was_probe=True)`; one who dies, or learns nothing, has
    lost the probe to the next caller when the lease ends. On PostgreSQL the database's clock counts, not `now`.
    """
    if breaker(unit, account).broken_at is None:
        return Gate.CLOSED
    kept, now = _locked(unit, account, now)
    if kept.broken_at is None:
        return Gate.CLOSED
    if kept.probe_at is not None and now < kept.probe_at <= now + MAX_DELAY:
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
    """Count one more outage in a row; return how long the breaker opens.

    None where that is as before.

    `wait_after` (poller.circuit_breaker) says how long it is open after so many outages, None where it stays closed.
    While it is open only the probe's outage counts: what else was under way when it opened says nothing new.
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
    """Forget the account's outages and close its breaker; return whether it was open.

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
    """Return the state of the account's breaker, for people and first looks.

    Writes nothing.
    """
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
) -> SlotState:
    kept = tuple(_EPOCH + at * _MICROSECOND for at in kept_slots)
    return SlotState(next_free_at, paused_until, patient_at, urgent_run, kept)


def _update(unit: Unit, account: str, **changes: Any) -> None:
    unit.execute(update(_table).where(_table.c.account == account).values(**changes))


def _locked(unit: Unit, account: str, now: datetime) -> tuple[AccountBudget, datetime]:
    """Lock the account's row until the unit ends; return it and the database's time."""
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
