"""decide(): from a payment and an observation to a decision. Pure and total."""

from datetime import datetime
from functools import cache
from typing import NamedTuple

from msgspec.structs import replace

from statemachine.errors import InvalidAmount
from statemachine.lifecycle import Lifecycle
from statemachine.machine import moves_of
from statemachine.money import from_minor
from statemachine.observation import Decision, Observation, Payment
from statemachine.phases import (
    ANSWERED_BY_A_MOVE,
    ANSWERS,
    EFFECT_OF_PHASE,
    FULFILMENT_EFFECTS,
    WITHHOLDING,
    ConflictPolicy,
    Effect,
    Outcome,
    Phase,
    Review,
    Source,
)


class _Doubt(NamedTuple):
    """That the money is not what was asked for: which review that is, and how so in words."""

    review: Review
    words: str


def decide(lifecycle: Lifecycle, payment: Payment, observation: Observation, now: datetime) -> Decision:
    """Exactly one decision for any observation; never raises, reads no clock and changes nothing.

    `payment.state` must be a state of the lifecycle or None. Amount and currency in doubt move the state and withhold
    fulfilment. Only an operator, or the account's policy on an answer to our own question, can force a move.
    """
    if observation.source is Source.OPERATOR:
        return _resolved(lifecycle, payment, observation)
    doubt = _doubt(payment, observation)
    status = observation.status
    if status is None:
        return _with_doubt(
            Decision(Outcome.UNCHANGED, "exists at the provider, state not told", ask=True), payment, doubt
        )
    if not lifecycle.knows(status):
        return _opening(
            Decision(Outcome.PARKED, f"{status!r} is not a state that {lifecycle.name} is known to have"),
            payment,
            Review.UNKNOWN_STATUS,
        )
    if status == payment.state:
        return _with_doubt(Decision(Outcome.UNCHANGED, f"already {status}"), payment, doubt)
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
        return _advanced(lifecycle, payment, ahead, doubt)
    if behind:
        return _with_doubt(
            Decision(Outcome.STALE, f"the payment has passed {status} and is {payment.state}"), payment, doubt
        )
    if _is_overtaken(payment, observation, now):
        return Decision(Outcome.STALE, f"{status} was asked for before the payment was {payment.state}", ask=True)
    return _conflict(lifecycle, payment, observation, doubt)


def effects_of(phase: Phase, passed: tuple[Phase, ...] = ()) -> tuple[Effect, ...]:
    """The effects owed for entering a phase over others: the final phase's, and `paid` where `settled` implies it.

    A payment that went through paid to refunded unseen owes no fulfilment; one that is settled does (ADR 0009).
    """
    effect = EFFECT_OF_PHASE.get(phase)
    if effect is None:
        return ()
    if phase is Phase.SETTLED and (not passed or Phase.PAID in passed):
        return (Effect.PAID, effect)
    return (effect,)


def _advanced(lifecycle: Lifecycle, payment: Payment, walk: tuple[str, ...], doubt: _Doubt | None) -> Decision:
    decision = _walked(lifecycle, payment.state, walk)
    if payment.review is None and doubt is None:
        return decision
    if payment.review in ANSWERED_BY_A_MOVE:
        decision = replace(decision, closes_review=True)
    return _with_doubt(decision, payment, doubt)


@cache
def _walked(lifecycle: Lifecycle, state: str | None, walk: tuple[str, ...]) -> Decision:
    """That a payment of that state goes this walk, with nothing in doubt: no more than the Machine has walks."""
    moves, here = moves_of(lifecycle), state
    for target in walk:  # the Machine itself permits each step, or IllegalMove says that our table is wrong
        here = moves.fire(here, target)
    phases = tuple(lifecycle.phase(name) for name in (state, *walk))
    effects = effects_of(phases[-1], phases[1:-1]) if phases[-1] is not phases[0] else ()
    via = walk[:-1]
    words = f"{state or 'new'} -> {walk[-1]}" + (f" (skipping {', '.join(via)})" if via else "")
    return Decision(Outcome.ADVANCED, words, to_state=walk[-1], via=via, effects=effects)


def _conflict(lifecycle: Lifecycle, payment: Payment, observation: Observation, doubt: _Doubt | None) -> Decision:
    status = observation.status
    assert status is not None  # noqa: S101 - decide() handles None before
    words = f"{status} cannot follow {payment.state}"
    is_answer = observation.source in ANSWERS
    if is_answer and payment.policy is ConflictPolicy.TRUST_PROVIDER:
        decision = Decision(
            Outcome.ADVANCED,
            f"{words}; the provider, asked, confirms it, and the account trusts the provider",
            to_state=status,
            forced=True,
            effects=effects_of(lifecycle.phase(status)),
            closes_review=payment.review is Review.CONFLICT,
        )
        return _with_doubt(decision, payment, doubt)
    told = "the provider, asked, confirms it" if is_answer else "the provider is asked"
    return _opening(Decision(Outcome.CONFLICT, f"{words}; {told}", ask=not is_answer), payment, Review.CONFLICT)


def _resolved(lifecycle: Lifecycle, payment: Payment, observation: Observation) -> Decision:
    status = observation.status
    if status is None or not lifecycle.knows(status):
        return Decision(Outcome.PARKED, f"{status!r} is not a state of {lifecycle.name}")
    by = f"resolved by {observation.actor}: {observation.note}"
    effects = effects_of(lifecycle.phase(status))
    if status == payment.state:
        owed = effects if payment.review in WITHHOLDING else ()
        return Decision(Outcome.UNCHANGED, by, effects=owed, closes_review=True)
    walk = moves_of(lifecycle).walk(payment.state, status)
    return Decision(
        Outcome.ADVANCED,
        by,
        to_state=status,
        via=walk[:-1] if walk else (),
        forced=walk is None,
        effects=effects,
        closes_review=True,
    )


def _doubt(payment: Payment, observation: Observation) -> _Doubt | None:
    said, asked = observation.currency, payment.currency
    if said is not None and asked is not None and said != asked:
        return _Doubt(Review.CURRENCY_MISMATCH, f"the currency is {said}, {asked} was asked for")
    for amount, what in ((observation.amount_minor, "amount"), (observation.captured_minor, "amount captured")):
        if payment.amount_minor is not None and amount is not None and amount != payment.amount_minor:
            currency = asked or said
            words = f"the {what} is {_money(amount, currency)}, {_money(payment.amount_minor, currency)} was asked for"
            return _Doubt(Review.AMOUNT_MISMATCH, words)
    return None


def _money(minor: int, currency: str | None) -> str:
    try:
        return f"{minor} minor units" if currency is None else f"{from_minor(minor, currency)} {currency}"
    except InvalidAmount:  # the provider may write what is no currency
        return f"{minor} minor units of {currency}"


def _with_doubt(decision: Decision, payment: Payment, doubt: _Doubt | None) -> Decision:
    """The same decision, opening a review for money in doubt and withholding fulfilment while one is open."""
    if doubt is None and (payment.review not in WITHHOLDING or decision.closes_review):
        return decision
    kept = tuple(effect for effect in decision.effects if effect not in FULFILMENT_EFFECTS)
    why = f"the review of {payment.review} is open" if doubt is None else doubt.words
    if len(kept) < len(decision.effects):
        why = f"no fulfilment: {why}"
    elif doubt is None:
        return decision
    decision = replace(decision, reason=f"{decision.reason}; {why}", effects=kept)
    return decision if doubt is None else _opening(decision, payment, doubt.review)


def _opening(decision: Decision, payment: Payment, review: Review) -> Decision:
    if payment.review is review or payment.review in WITHHOLDING:
        return decision  # open already, or one that withholds fulfilment stands and must not be replaced
    return replace(decision, review=review, effects=(*decision.effects, Effect.REVIEW_REQUIRED))


def _is_newer(payment: Payment, observation: Observation, now: datetime) -> bool:
    """Whether the statement is later than the one that the state rests on; a time ahead of ours counts as now."""
    if observation.as_of is None:
        return False
    return payment.state_as_of is None or min(observation.as_of, now) > payment.state_as_of


def _is_overtaken(payment: Payment, observation: Observation, now: datetime) -> bool:
    """Whether the payment has moved since the question was sent, so that the answer cannot contradict the move.

    A move in the future is one of a clock that was put back, and proves nothing.
    """
    if observation.asked_at is None or payment.changed_at is None:
        return False
    return observation.asked_at < payment.changed_at <= now
