"""Who may send when: the arithmetic of an account's budget. Pure; `storage.budget` keeps what it reckons with."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

#: No queue and no pause is longer (a provider's longest pause is a day): what lies beyond was set by a wrong clock.
LONGEST: Final = timedelta(days=1, hours=1)

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
        """The slots of so many requests in any window of so many seconds."""
        tolerance = min(max(_TOLERANCE * seconds, _LEAST_TOLERANCE), _MOST_TOLERANCE)
        return cls(timedelta(seconds=(seconds + tolerance) / requests), timedelta(seconds=tolerance / 2), share)

    @property
    def grace(self) -> timedelta:
        """A slot may be taken so long after it began; what is left of `lateness` is for sending."""
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
class Wish:
    """How somebody wants a slot."""

    is_patient: bool = False  #: only one that has begun, and behind all who are not
    are_more: bool = False  #: others wait patiently behind this one
    lead: timedelta = timedelta(0)  #: how long the answer takes to arrive, so that it is not too late already
    extra: timedelta = timedelta(0)  #: how much later than others it may send; the next slot is put off by as much
    unused: Slot | None = None  #: that it was too late for: given back, where nobody has taken one since


@dataclass(frozen=True, slots=True)
class Booked:
    """What is known of an account's slots."""

    next_free_at: datetime  #: no slot that was given away lies at or after it
    paused_until: datetime | None = None  #: the provider said so
    patient_at: datetime | None = None  #: a patient caller waits, and will have come by then
    urgent_run: int = 0  #: slots that urgent callers had in a row
    kept: tuple[datetime, ...] = ()  #: slots before `next_free_at` that are left to patient callers, in order


def book(booked: Booked, now: datetime, rate: Rate, wish: Wish) -> tuple[Slot, Booked]:
    """A slot, and what is known afterwards; no two slots that were granted are closer than the spacing.

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


_Chosen = tuple[datetime, datetime | None, Booked]


def _urgent(booked: Booked, now: datetime, rate: Rate, wish: Wish) -> _Chosen:
    are_waited_for = booked.patient_at is not None
    if booked.kept and not are_waited_for and not wish.extra:
        return _from_kept(booked)
    slot = _next(booked, now, rate)
    if are_waited_for and booked.urgent_run >= rate.share - 1:
        booked = replace(booked, kept=(*booked.kept, slot), urgent_run=0)
        slot += rate.spacing
    return _from_end(replace(booked, urgent_run=booked.urgent_run + 1), slot, rate, wish)


def _patient(booked: Booked, now: datetime, rate: Rate, wish: Wish) -> _Chosen | datetime:
    """A slot, or when one may be had."""
    slot = _next(booked, now, rate)
    if wish.are_more:
        booked = replace(booked, patient_at=max(slot, now) + rate.spacing + _COMES_WITHIN)
    if booked.kept and booked.kept[0] <= now:
        return _from_kept(booked)
    if slot <= now:
        return _from_end(replace(booked, urgent_run=0), slot, rate, wish)
    return min((slot, *booked.kept))


def _wait_until(at: datetime, booked: Booked, now: datetime) -> tuple[Slot, Booked]:
    if booked.patient_at is None or booked.patient_at < at + _COMES_WITHIN / 2:
        booked = replace(booked, patient_at=at + _COMES_WITHIN)
    return Slot(is_granted=False, wait=at - now), booked


def _from_kept(booked: Booked) -> _Chosen:
    slot, *kept = booked.kept
    return slot, None, replace(booked, kept=tuple(kept))


def _from_end(booked: Booked, slot: datetime, rate: Rate, wish: Wish) -> _Chosen:
    next_free_at = slot + rate.spacing + wish.extra
    return slot, next_free_at, replace(booked, next_free_at=next_free_at)


def _next(booked: Booked, now: datetime, rate: Rate) -> datetime:
    """The next slot that nobody has. One that has just begun is not lost: whoever takes it has less time to send."""
    earliest = max(now - rate.grace, booked.paused_until or now - rate.grace)
    if booked.next_free_at >= earliest:
        return booked.next_free_at
    return max(now, booked.paused_until or now)


def _believed(booked: Booked, now: datetime, rate: Rate) -> Booked:
    """Without what has passed, and without what only a clock that was wrong can have set."""
    latest = now + LONGEST
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
