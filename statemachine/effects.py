"""Effects by count: what a change of money and phase makes due, in order."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from statemachine.phases import EFFECT_OF_PHASE, MONEY_PHASES, Effect, Phase
from statemachine.sums import MoneyNews, Part, PartChange, PartKind, PartStatus, Sums

#: Effects which say that the money was there, or is another's again.
_WAS_PAID: Final = (Effect.PAID, Effect.SETTLED, Effect.REFUNDED)

_OF_DISPUTE: Final = {
    PartStatus.PENDING: Effect.DISPUTED,
    PartStatus.DONE: Effect.DISPUTE_LOST,
    PartStatus.UNDONE: Effect.DISPUTE_WON,
}

Counts = Mapping[str, int]  #: how often each effect was due, by its value; only those that were


class DueEffect(NamedTuple):
    """An effect with its occurrence: 0 for the first of its name and payment, then 1.

    A decision may name one that was due before, where it may have been withheld: it is owed once.
    """

    effect: Effect
    occurrence: int = 0
    part: Part | None = None  #: what an effect of a part is about
    change_minor: int | None = None  #: by how much it changed its sum


def enter_phase(
    before: Phase, after: Phase, counts: Counts, passed: tuple[Phase, ...] = ()
) -> tuple[tuple[DueEffect, ...], Counts]:
    """Return what entering a phase makes due, and the counts with it.

    `passed` are the phases in between.

    Money that is there again is `restored`, never `paid` a second time: `paid` hands over goods. Money that was there
    and is not is `reversed`, whatever the state is called. What was passed unseen makes nothing due, but for `paid`
    where `settled` implies it (ADR 0009).
    """
    if after is before:
        return (), counts
    had_money, has_money = before in MONEY_PHASES, after in MONEY_PHASES
    new = dict(counts)
    due: list[DueEffect] = []
    if has_money:
        if not had_money and (Effect.PAID in counts or Effect.SETTLED in counts):
            _count(new, Effect.RESTORED)
        elif Effect.PAID not in counts and (Phase.PAID in (before, after, *passed) or not passed):
            _count(new, Effect.PAID)
        if after is Phase.SETTLED:
            _count(new, Effect.SETTLED)
        return standing_effects(after, new), new
    if (had_money or before is Phase.REFUNDED) and after is not Phase.REFUNDED:
        due.append(DueEffect(Effect.REVERSED, _count(new, Effect.REVERSED)))
    effect = EFFECT_OF_PHASE.get(after)
    if effect is not None and (effect not in _NEVER_PAID or not (due or _was_paid(counts))):
        due.append(DueEffect(effect, _count(new, effect)))
    return tuple(due), new


#: Effects that say that the payment was never paid.
_NEVER_PAID: Final = frozenset({Effect.FAILED, Effect.CANCELLED, Effect.EXPIRED})


def standing_effects(phase: Phase, counts: Counts) -> tuple[DueEffect, ...]:
    """Return the effects that tell where the money is now, as they were due last.

    They are owed again where they were withheld.
    """
    if phase in MONEY_PHASES:
        is_paid = Effect.PAID in counts or Effect.SETTLED not in counts
        due = [DueEffect(Effect.PAID)] if is_paid else []
        if Effect.RESTORED in counts:
            due.append(DueEffect(Effect.RESTORED, counts[Effect.RESTORED] - 1))
        if phase is Phase.SETTLED:
            due.append(DueEffect(Effect.SETTLED, counts.get(Effect.SETTLED, 1) - 1))
        return tuple(due)
    effect = EFFECT_OF_PHASE.get(phase)
    if effect is None or (effect in _NEVER_PAID and _was_paid(counts)):
        effect = Effect.REVERSED if Effect.REVERSED in counts else None
    return () if effect is None else (DueEffect(effect, counts.get(effect, 1) - 1),)


def sum_effects(
    before: Sums, news: MoneyNews, counts: Counts, phase: Phase, *, is_refund_said: bool, asked_minor: int | None
) -> tuple[tuple[DueEffect, ...], Counts]:
    """Return what changed sums and parts make due, one for each part and change.

    `phase` is the payment's before. Where the provider states a sum itself, the sum speaks and its parts are details.
    `is_refund_said`: the state itself says so, and `refunded` tells it.
    """
    new = dict(counts)
    due: list[DueEffect] = []
    for change in news.parts:
        effect = _effect_of_part(change, news.stated)
        if effect is not None and change.is_news:
            due.append(DueEffect(effect, _count(new, effect), change.part, change.change_minor))
    for effect, change_minor in _stated_changes(before, news, phase, asked_minor):
        if not (is_refund_said and effect is Effect.REFUND_CHANGED):
            due.append(DueEffect(effect, _count(new, effect), None, change_minor))
    return tuple(due), new


def _effect_of_part(change: PartChange, stated: Mapping[str, object]) -> Effect | None:
    kind, status = change.part.kind, change.part.status
    if kind is PartKind.DISPUTE:
        return _OF_DISPUTE[status]
    if kind is PartKind.REFUND:
        return None if "refunded_minor" in stated else Effect.REFUND_CHANGED
    return None if "captured_minor" in stated or not change.change_minor else Effect.CAPTURED


def _stated_changes(
    before: Sums, news: MoneyNews, phase: Phase, asked_minor: int | None
) -> Iterator[tuple[Effect, int]]:
    """Yield the effects of sums that the provider states, with what they change."""
    after, has_money = news.sums, phase in MONEY_PHASES
    if "captured_minor" in news.stated and (has_money or phase is Phase.AUTHORISED):
        # a paid payment of which no sum was said was captured as asked
        known = before.captured_minor
        if known is None:
            known = (asked_minor if has_money else 0) or 0
        if change := (after.captured_minor or 0) - known:
            yield Effect.CAPTURED, change
    if "refunded_minor" in news.stated and (change := _change(before.refunded_minor, after.refunded_minor)):
        yield Effect.REFUND_CHANGED, change
    if any(each.part.kind is PartKind.DISPUTE for each in news.parts):
        return
    taken = _change(before.charged_back_minor, after.charged_back_minor)
    if taken and "charged_back_minor" in news.stated:
        yield Effect.DISPUTE_LOST if taken > 0 else Effect.DISPUTE_WON, taken
    if "disputed_minor" in news.stated and (change := _change(before.disputed_minor, after.disputed_minor)):
        if change > 0:
            yield Effect.DISPUTED, 0
        elif taken <= 0:
            yield Effect.DISPUTE_WON, 0


def _change(before: int | None, after: int | None) -> int:
    return (after or 0) - (before or 0)


def _was_paid(counts: Counts) -> bool:
    return any(effect in counts for effect in _WAS_PAID)


def _count(counts: dict[str, int], effect: Effect) -> int:
    """Count one more of the effect; return its occurrence."""
    counts[effect.value] = counts.get(effect, 0) + 1
    return counts[effect] - 1
