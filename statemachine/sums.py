"""Sums of a payment: stated by the provider, or added up from parts."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from statemachine.phases import Phase


class PartKind(StrEnum):
    """Kind of a movement of money that has an id of its own at the provider."""

    CAPTURE = "capture"  #: money that was collected, or one receipt of several
    REFUND = "refund"  #: money that the merchant gives back
    DISPUTE = "dispute"  #: money that the payer's bank reclaims: a dispute, and the chargeback that it ends in


class PartStatus(StrEnum):
    """Place of a part in its own small lifecycle, in which any may follow any."""

    PENDING = "pending"  #: under way: a refund not yet paid out, a dispute not yet decided
    DONE = "done"  #: captured, refunded, or lost to the payer
    UNDONE = "undone"  #: failed, withdrawn, or won by the merchant


class Part(msgspec.Struct, frozen=True):
    """One capture, refund or dispute of a payment."""

    kind: PartKind
    name: str  #: the provider's id, unique within the payment and kind
    status: PartStatus
    amount_minor: int | None = None  #: None where it is not said; what was said before stays
    as_of: datetime | None = None  #: when that was true; None: as the observation


class Sums(msgspec.Struct, frozen=True):
    """Cumulative sums in minor units; None is unsaid, and 0 is said."""

    authorised_minor: int | None = None  #: guaranteed by the payer's bank
    captured_minor: int | None = None  #: collected, refunds not deducted
    refunded_minor: int | None = None  #: given back by the merchant
    charged_back_minor: int | None = None  #: taken back by the payer's bank
    disputed_minor: int | None = None  #: reclaimed, and not decided yet


#: What a statement without sums says.
UNSAID: Final = Sums()

SUM_NAMES: Final = Sums.__struct_fields__

#: The sums whose change is money that has moved.
MOVED_SUMS: Final = ("captured_minor", "refunded_minor", "charged_back_minor")

#: The sums to which a part's amount counts, by its kind and status.
_COUNTS_IN: Final = {
    (PartKind.CAPTURE, PartStatus.DONE): "captured_minor",
    (PartKind.REFUND, PartStatus.DONE): "refunded_minor",
    (PartKind.DISPUTE, PartStatus.DONE): "charged_back_minor",
    (PartKind.DISPUTE, PartStatus.PENDING): "disputed_minor",
}

_SUMS_OF_KIND: Final = {
    PartKind.CAPTURE: ("captured_minor",),
    PartKind.REFUND: ("refunded_minor",),
    PartKind.DISPUTE: ("charged_back_minor", "disputed_minor"),
}


class PartChange(NamedTuple):
    """A part as it is now and as it was; `is_news`: not only its time differs."""

    part: Part
    before: Part | None
    is_news: bool

    @property
    def change_minor(self) -> int:
        """By how much the part changes the sum of what is done."""
        return _done(self.part) - (0 if self.before is None else _done(self.before))


class MoneyNews(NamedTuple):
    """Sums and parts of a payment after a statement."""

    sums: Sums
    stated: Mapping[str, datetime | None]  #: sums that the provider states itself, and the time of its last word
    parts: tuple[PartChange, ...] = ()
    is_unclear: bool = False  #: a part is said to be otherwise, and nobody knows which word is the newer one


def learn_sums(
    sums: Sums,
    stated: Mapping[str, datetime | None],
    parts: tuple[Part, ...],
    said: Sums,
    said_parts: tuple[Part, ...],
    *,
    as_of: datetime | None,
    is_answer: bool,
    now: datetime,
) -> MoneyNews:
    """Take over stated sums and parts as far as they are newer; add up parts.

    A newer word may lower a sum, an older one changes nothing, and one of unknown age may only raise it. Where the
    provider states a sum itself, parts of that kind do not add to it: the same money would count twice.
    """
    changes = _newer_parts(parts, said_parts, as_of=as_of, is_answer=is_answer, now=now)
    values: dict[str, int | None] = {}
    times = dict(stated)
    if said is not UNSAID:
        for name in SUM_NAMES:
            value = getattr(said, name)
            if value is not None and value >= 0:
                _take_over(name, value, sums, values, times, None if as_of is None else min(as_of, now), is_answer)
    news = [change for change in changes if change is not None]
    if news:
        known = {(part.kind, part.name): part for part in parts}
        known.update({(each.part.kind, each.part.name): each.part for each in news})
        for kind in {each.part.kind for each in news}:
            of_kind = [part for part in known.values() if part.kind is kind]
            for name in _SUMS_OF_KIND[kind]:
                if name not in times:
                    values[name] = sum(part.amount_minor or 0 for part in of_kind if _counts_in(part) == name)
    return MoneyNews(
        replace(sums, **values) if values else sums, times, tuple(news), is_unclear=len(news) < len(changes)
    )


def phase_with_sums(phase: Phase, sums: Sums, amount_minor: int | None) -> Phase:
    """Return the phase of a payment whose state has this phase.

    Providers keep "paid" after a refund, and "authorised" after a capture: the sums say what became of the money.
    """
    if sums is UNSAID or phase not in _BEFORE_SUMS:
        return phase
    if phase is Phase.AUTHORISED:
        if not sums.captured_minor:
            return phase
        phase = Phase.PAID
    whole = sums.captured_minor or amount_minor
    refunded, charged_back = sums.refunded_minor or 0, sums.charged_back_minor or 0
    if not whole or whole < 0 or refunded + charged_back < whole:
        return phase
    return Phase.FAILED if charged_back else Phase.REFUNDED


def is_refund_of_part(sums: Sums, amount_minor: int | None) -> bool:
    """Return whether the sums say that less was given back than was paid."""
    whole, refunded = sums.captured_minor or amount_minor or 0, sums.refunded_minor or 0
    return refunded > 0 and refunded + (sums.charged_back_minor or 0) < whole


_BEFORE_SUMS: Final = frozenset({Phase.AUTHORISED, Phase.PAID, Phase.SETTLED})


def _take_over(
    name: str,
    value: int,
    sums: Sums,
    values: dict[str, int | None],
    times: dict[str, datetime | None],
    as_of: datetime | None,
    is_answer: bool,
) -> None:
    """Take over one stated sum, unless it is an older word than the known one."""
    known, before = getattr(sums, name), times.get(name)
    is_newer = name not in times or (as_of is not None and (before is None or as_of > before))
    if is_newer and (name not in times or before is not None or is_answer or value >= (known or 0)):
        values[name], times[name] = value, as_of
    elif (as_of is None or as_of == before) and value > (known or 0):
        values[name] = value


def _newer_parts(
    known: tuple[Part, ...],
    said: tuple[Part, ...],
    *,
    as_of: datetime | None,
    is_answer: bool,
    now: datetime,
) -> list[PartChange | None]:
    """Return the parts that a statement changes; None for each that is unclear."""
    changes: list[PartChange | None] = []
    found = {(part.kind, part.name): part for part in known}
    for part in said:
        at = part.as_of or as_of
        at = None if at is None else min(at, now)
        before = found.get((part.kind, part.name))
        amount = part.amount_minor if part.amount_minor is not None or before is None else before.amount_minor
        said_now = Part(part.kind, part.name, part.status, amount, at)
        if before is None:
            change = PartChange(said_now, None, is_news=True)
        elif (before.status, before.amount_minor) == (part.status, amount):
            if at is None or (before.as_of is not None and at <= before.as_of):
                continue
            change = PartChange(said_now, before, is_news=False)
        else:
            is_newer = _is_newer(before, said_now, is_answer)
            if is_newer is None:
                changes.append(None)
            if not is_newer:
                continue
            change = PartChange(said_now, before, is_news=True)
        found[part.kind, part.name] = said_now
        changes.append(change)
    return changes


def _is_newer(before: Part, said: Part, is_answer: bool) -> bool | None:
    """Return whether the word about a part is the newer one; None: nobody knows.

    Without times pending is the earlier word: the others follow it.
    """
    is_forward = before.status is PartStatus.PENDING and said.status is not PartStatus.PENDING
    is_back = said.status is PartStatus.PENDING and before.status is not PartStatus.PENDING
    if before.as_of is not None and said.as_of is not None:
        return said.as_of > before.as_of or (said.as_of == before.as_of and is_forward)
    if is_forward or (is_answer and before.as_of is None):
        return True
    return False if is_back else None


def _counts_in(part: Part) -> str | None:
    return _COUNTS_IN.get((part.kind, part.status))


def _done(part: Part) -> int:
    return (part.amount_minor or 0) if part.status is PartStatus.DONE else 0
