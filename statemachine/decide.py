"""decide(): from a payment and an observation to a decision. Pure and total."""

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple

from msgspec.structs import replace

from statemachine.errors import InvalidAmount
from statemachine.lifecycle import Lifecycle
from statemachine.machine import moves_of
from statemachine.money import from_minor
from statemachine.observation import Decision, Observation, PaymentView
from statemachine.phases import (
    ANSWERED_BY_A_MOVE,
    ANSWERS,
    EFFECT_OF_PHASE,
    FULFILMENT_EFFECTS,
    STATE_EFFECTS,
    WITHHOLDING,
    ConflictPolicy,
    Effect,
    Outcome,
    Phase,
    Review,
    Source,
)

#: Points that contradict the payment's state; one that was accepted is forgotten when the provider moves the payment.
_CONFLICT: Final = "conflict:"


class _Doubt(NamedTuple):
    """One point that a person must accept before certain effects are owed."""

    review: Review
    words: str
    point: str  #: the same whenever the same is stated, so that it can be recorded as accepted
    withholds: frozenset[Effect] = FULFILMENT_EFFECTS


def decide(lifecycle: Lifecycle, payment: PaymentView, observation: Observation, now: datetime) -> Decision:
    """Decide what follows from one observation; pure and total.

    Returns exactly one decision for any observation; never raises, reads no clock and changes nothing.

    `payment.state` must be a state of the lifecycle or None. Money, reference or environment in doubt move the state
    and withhold fulfilment; what a person has accepted is in doubt no more. Only an operator, or the account's policy
    on an answer to our own question, can force a move.
    """
    if observation.source is Source.OPERATOR:
        return _resolve(lifecycle, payment, observation)
    observation = as_refund(lifecycle, observation)
    status = observation.status
    if status is None:
        # An answer to a question that says nothing is not asked for again at once: it would be given for ever.
        is_asked = observation.source is not Source.POLL
        decision = Decision(Outcome.UNCHANGED, "exists at the provider, state not told", ask=is_asked)
        return _withhold_doubtful(lifecycle, payment, observation, decision)
    if not lifecycle.knows(status):
        words = f"{status!r} is not a state that {lifecycle.name} is known to have"
        return _open_review(Decision(Outcome.PARKED, words), payment, Review.UNKNOWN_STATUS, (f"status:{status}",))
    if status == payment.state:
        decision = Decision(Outcome.UNCHANGED, f"already {status}", state_confirmed=True)
        return _withhold_doubtful(lifecycle, payment, observation, decision)
    moves = moves_of(lifecycle)
    ahead = moves.walk(payment.state, status)
    behind = payment.state is not None and moves.walk(status, payment.state) is not None
    if ahead is not None and behind and not _is_newer(payment, observation, now):
        return Decision(
            Outcome.STALE,
            f"{status} and {payment.state} can follow each other, and this statement is not the newer one",
            ask=observation.source not in ANSWERS,
        )
    if ahead is not None:
        return _advance(lifecycle, payment, observation, ahead)
    if behind:
        decision = Decision(Outcome.STALE, f"the payment has passed {status} and is {payment.state}")
        return _withhold_doubtful(lifecycle, payment, observation, decision)
    if _is_overtaken(payment, observation, now):
        return Decision(Outcome.STALE, f"{status} was asked for before the payment was {payment.state}", ask=True)
    return _conflict(lifecycle, payment, observation)


def as_refund(lifecycle: Lifecycle, observation: Observation) -> Observation:
    """Return the observation with the amount of a refund as `refunded_minor`.

    A repeat changes nothing. An amount that comes with a refunded state is the refund's, and says nothing about what
    was asked for, unless the refunded total is stated beside it. In a lifecycle of refunds it is so already.
    """
    amount, status = observation.amount_minor, observation.status
    if amount is None or observation.refunded_minor is not None or status is None or not lifecycle.is_paid_first:
        return observation
    if not lifecycle.knows(status) or lifecycle.phase(status) is not Phase.REFUNDED:
        return observation
    return replace(observation, amount_minor=None, refunded_minor=amount)


def effects_of(phase: Phase, passed: tuple[Phase, ...] = ()) -> tuple[Effect, ...]:
    """Return the effects owed for entering a phase, `passed` over on the way.

    They are the final phase's, and `paid` where `settled` implies it.

    A payment that went through paid to refunded unseen owes no fulfilment; one that is settled does (ADR 0009).
    """
    effect = EFFECT_OF_PHASE.get(phase)
    if effect is None:
        return ()
    if phase is Phase.SETTLED and (not passed or Phase.PAID in passed):
        return (Effect.PAID, effect)
    return (effect,)


def _advance(lifecycle: Lifecycle, payment: PaymentView, observation: Observation, walk: tuple[str, ...]) -> Decision:
    decision = _walk_decision(lifecycle, payment.state, walk)
    if payment.review in ANSWERED_BY_A_MOVE:
        decision = replace(decision, closes_review=True)
    if payment.accepted and any(point.startswith(_CONFLICT) for point in payment.accepted):
        left = tuple(point for point in payment.accepted if not point.startswith(_CONFLICT))
        decision = replace(decision, accepted=left)
    return _withhold_doubtful(lifecycle, payment, observation, decision)


@cache
def _walk_decision(lifecycle: Lifecycle, state: str | None, walk: tuple[str, ...]) -> Decision:
    """Return the decision for a legal walk with nothing in doubt.

    The cache holds no more decisions than the Machine has walks.
    """
    moves, here = moves_of(lifecycle), state
    for target in walk:  # the Machine itself permits each step, or IllegalMove says that our table is wrong
        here = moves.fire(here, target)
    phases = tuple(lifecycle.phase(name) for name in (state, *walk))
    effects = effects_of(phases[-1], phases[1:-1]) if phases[-1] is not phases[0] else ()
    via = walk[:-1]
    words = f"{state or 'new'} -> {walk[-1]}" + (f" (skipping {', '.join(via)})" if via else "")
    return Decision(Outcome.ADVANCED, words, to_state=walk[-1], via=via, effects=effects)


def _conflict(lifecycle: Lifecycle, payment: PaymentView, observation: Observation) -> Decision:
    status = observation.status
    assert status is not None  # noqa: S101 - decide() handles None before
    words, point = f"{status} cannot follow {payment.state}", _CONFLICT + status
    is_answer, is_accepted = observation.source in ANSWERS, point in payment.accepted
    if is_answer and payment.policy is ConflictPolicy.TRUST_PROVIDER and not is_accepted:
        decision = Decision(
            Outcome.ADVANCED,
            f"{words}; the provider, asked, confirms it, and the account trusts the provider",
            to_state=status,
            forced=True,
            effects=effects_of(lifecycle.phase(status)),
            closes_review=payment.review is Review.CONFLICT,
        )
        return _withhold_doubtful(lifecycle, payment, observation, decision)
    told = "the provider, asked, confirms it" if is_answer else "the provider is asked"
    told = told if is_answer or payment.can_ask else "the provider cannot be asked"
    conflict = Decision(Outcome.CONFLICT, f"{words}; {told}", ask=not is_answer)
    if is_accepted:
        conflict = Decision(Outcome.CONFLICT, words)
    return _open_review(conflict, payment, Review.CONFLICT, (point,))


def _resolve(lifecycle: Lifecycle, payment: PaymentView, observation: Observation) -> Decision:
    """Return the decision for a person's resolution.

    It accepts the points of the review that it closes, and that the provider goes on to say the state that is left by
    it. Where no review is open nobody was shown a contradiction, and the provider's word opens one.
    """
    status = observation.status
    if status is None or not lifecycle.knows(status):
        return Decision(Outcome.PARKED, f"{status!r} is not a state of {lifecycle.name}")
    by = f"resolved by {observation.actor}: {observation.note}"
    effects = effects_of(lifecycle.phase(status))
    is_left = payment.review is not None and payment.state not in (None, status)
    left = (f"{_CONFLICT}{payment.state}",) if is_left else ()
    accepted = tuple(dict.fromkeys((*payment.accepted, *payment.disputed, *left)))
    if status == payment.state:
        owed = effects if payment.review in WITHHOLDING else ()
        return Decision(Outcome.UNCHANGED, by, effects=owed, closes_review=True, accepted=accepted)
    walk = moves_of(lifecycle).walk(payment.state, status)
    return Decision(
        Outcome.ADVANCED,
        by,
        to_state=status,
        via=walk[:-1] if walk else (),
        forced=walk is None,
        effects=effects,
        closes_review=True,
        accepted=accepted,
    )


# -- what is in doubt


def _doubts(payment: PaymentView, said: Observation) -> Iterator[_Doubt]:
    """Yield what the statement says besides the state and contradicts what is known."""
    if None not in (said.is_live, payment.is_live) and said.is_live != payment.is_live:
        modes = ("test", "live")
        words = f"the money is {modes[bool(said.is_live)]}, and the account is {modes[bool(payment.is_live)]}"
        yield _Doubt(Review.WRONG_ENVIRONMENT, words, f"environment:{modes[bool(said.is_live)]}", STATE_EFFECTS)
    if said.currency is not None and payment.currency is not None and said.currency != payment.currency:
        words = f"the currency is {said.currency}, {payment.currency} was asked for"
        yield _Doubt(Review.CURRENCY_MISMATCH, words, f"currency:{said.currency}")
    asked = payment.amount_minor
    if asked is None:
        return
    currency = payment.currency or said.currency
    for amount, what, name in (
        (said.amount_minor, "amount", "amount"),
        (said.captured_minor, "amount captured", "captured"),
    ):
        if amount is not None and amount != asked:
            words = f"the {what} is {_money(amount, currency)}, {_money(asked, currency)} was asked for"
            yield _Doubt(Review.AMOUNT_MISMATCH, words, f"{name}:{amount}")
    if said.refunded_minor is not None and said.refunded_minor > asked:
        words = f"{_money(said.refunded_minor, currency)} were given back of {_money(asked, currency)}"
        yield _Doubt(Review.AMOUNT_MISMATCH, words, f"refunded:{said.refunded_minor}", _GOODS_AND_REFUNDS)


_GOODS_AND_REFUNDS: Final = FULFILMENT_EFFECTS | {Effect.REFUNDED}


def _unknowns(
    lifecycle: Lifecycle, payment: PaymentView, said: Observation, effects: tuple[Effect, ...]
) -> Iterator[_Doubt]:
    """Yield what is not known and must be before these effects are owed.

    That is an amount above zero, its currency, and that the reference is no other payment's.
    """
    gives_goods = not FULFILMENT_EFFECTS.isdisjoint(effects)
    refunds = Effect.REFUNDED in effects
    currency = payment.currency or said.currency
    if gives_goods or (refunds and not lifecycle.is_paid_first):
        amount = said.amount_minor if payment.amount_minor is None else payment.amount_minor
        if amount is None and gives_goods:
            yield _Doubt(Review.AMOUNT_UNKNOWN, "nobody has said the amount", "amount:unsaid", _GOODS_AND_REFUNDS)
        elif amount is not None and amount <= 0:
            words = f"the amount is {_money(amount, currency)}"
            yield _Doubt(Review.AMOUNT_UNKNOWN, words, f"amount:{amount}", _GOODS_AND_REFUNDS)
        if not currency and gives_goods:
            yield _Doubt(Review.AMOUNT_UNKNOWN, "nobody has said the currency", "currency:unsaid", _GOODS_AND_REFUNDS)
    elif refunds and said.refunded_minor is not None and said.refunded_minor <= 0:
        words = f"{_money(said.refunded_minor, currency)} were given back"
        yield _Doubt(Review.AMOUNT_UNKNOWN, words, f"refunded:{said.refunded_minor}", _GOODS_AND_REFUNDS)
    if gives_goods and payment.namesake is not None:
        words = f"the reference is that of payment {payment.namesake}"
        yield _Doubt(Review.REFERENCE_TAKEN, words, f"reference:{payment.namesake}")


def _says_money(said: Observation) -> bool:
    return said.refunded_minor is not None or said.amount_minor is not None


def _money(minor: int, currency: str | None) -> str:
    try:
        return f"{minor} minor units" if currency is None else f"{from_minor(minor, currency)} {currency}"
    except InvalidAmount:  # the provider may write what is no currency
        return f"{minor} minor units of {currency}"


def _withhold_doubtful(lifecycle: Lifecycle, payment: PaymentView, said: Observation, decision: Decision) -> Decision:
    """Withhold the effects that are in doubt, and open a review of the doubt.

    The one guard before goods: every decision on a provider's word passes here. An amount that was unknown and is
    known now closes its review, and what was withheld is owed.
    """
    effects, is_learnt = decision.effects, False
    is_new_word = decision.outcome in (Outcome.ADVANCED, Outcome.UNCHANGED) and said.status is not None
    if payment.review is Review.AMOUNT_UNKNOWN and is_new_word:
        owed = effects_of(lifecycle.phase(said.status))
        is_learnt = not FULFILMENT_EFFECTS.isdisjoint(owed) or (Effect.REFUNDED in owed and _says_money(said))
        effects = tuple(dict.fromkeys((*owed, *effects)))
    found = (*_doubts(payment, said), *(_unknowns(lifecycle, payment, said, effects) if effects else ()))
    doubts = [doubt for doubt in found if doubt.point not in payment.accepted] if found else []
    if is_learnt and not doubts:
        reason = f"{decision.reason}; the amount is known now"
        return replace(decision, reason=reason, effects=effects, closes_review=True)
    stands = payment.review in WITHHOLDING and not decision.closes_review
    if not doubts and not (stands and decision.effects):
        return decision
    withheld = frozenset[Effect]().union(*(doubt.withholds for doubt in doubts))
    if stands:
        withheld |= STATE_EFFECTS if payment.review is Review.WRONG_ENVIRONMENT else FULFILMENT_EFFECTS
    kept = tuple(effect for effect in decision.effects if effect not in withheld)
    why = withheld_reason = doubts[0].words if doubts else f"the review of {payment.review} is open"
    if len(kept) < len(decision.effects):
        gone = set(decision.effects) - set(kept)
        why = f"{'no fulfilment' if gone & FULFILMENT_EFFECTS else 'withheld'}: {why}"
    elif not doubts:
        return decision
    decision = replace(decision, reason=f"{decision.reason}; {why}", withheld_reason=withheld_reason, effects=kept)
    if not doubts:
        return decision
    review = doubts[0].review
    if review is Review.AMOUNT_UNKNOWN and said.source not in ANSWERS:
        decision = replace(decision, ask=True)  # the answer may say it
    return _open_review(decision, payment, review, tuple(doubt.point for doubt in doubts))


def _open_review(decision: Decision, payment: PaymentView, review: Review, points: tuple[str, ...]) -> Decision:
    """Open a review, unless one stands or a person has accepted all its points."""
    if all(point in payment.accepted for point in points):
        return replace(decision, reason=f"{decision.reason}; accepted by a person before")
    if payment.review is review or payment.review in WITHHOLDING:
        return decision  # open already, or one that withholds fulfilment stands and must not be replaced
    return replace(decision, review=review, disputed=points, effects=(*decision.effects, Effect.REVIEW_REQUIRED))


def _is_newer(payment: PaymentView, observation: Observation, now: datetime) -> bool:
    """Return whether the statement is later than the one that the state rests on.

    A time ahead of ours counts as now.
    """
    if observation.as_of is None:
        return False
    return payment.state_as_of is None or min(observation.as_of, now) > payment.state_as_of


def _is_overtaken(payment: PaymentView, observation: Observation, now: datetime) -> bool:
    """Return whether the payment has moved since the question was sent.

    Such an answer cannot contradict the move.

    A move in the future is one of a clock that was put back, and proves nothing.
    """
    if observation.asked_at is None or payment.changed_at is None:
        return False
    return observation.asked_at < payment.changed_at <= now
