"""decide(): from a payment and an observation to a decision. Pure and total."""

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.structs import astuple, replace

from statemachine.effects import DueEffect, enter_phase, standing_effects, sum_effects
from statemachine.lifecycle import LatePolicy, Lifecycle
from statemachine.machine import moves_of
from statemachine.money import amount_text
from statemachine.observation import Decision, Observation, PaymentView
from statemachine.phases import (
    ANSWERED_BY_A_MOVE,
    ANSWERS,
    FULFILMENT_EFFECTS,
    FULFILMENT_PHASES,
    MONEY_PHASES,
    STATE_EFFECTS,
    WITHHOLDING,
    ConflictPolicy,
    Effect,
    Outcome,
    PartialCapture,
    Phase,
    Review,
    Source,
)
from statemachine.sums import (
    MOVED_SUMS,
    SUM_NAMES,
    UNSAID,
    MoneyNews,
    Sums,
    is_refund_of_part,
    learn_sums,
    phase_with_sums,
)

#: Points that contradict the payment's state; one that was accepted is forgotten when the provider moves the payment.
_CONFLICT_POINT: Final = "conflict:"

#: Points of late moves, forgotten likewise.
_LATE_POINT: Final = "late:"

#: Outcomes of which the sums are taken over; of a conflict or an unknown state nothing is.
_BELIEVED: Final = frozenset({Outcome.ADVANCED, Outcome.UNCHANGED, Outcome.STALE})

#: Decisions without sums that are kept, of walks by what was due before.
_MAX_WALKS: Final = 4096


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
    if observation.sums is UNSAID and not observation.parts:
        decision = _decide_state(lifecycle, payment, observation, now)
    else:
        decision = _decide_with_sums(lifecycle, payment, observation, now)
    if decision.outcome not in _BELIEVED:
        return decision
    late = _late_doubt(lifecycle, payment, observation, decision, now) if lifecycle.late_moves else None
    return _withhold_doubtful(lifecycle, payment, observation, decision, late)


def _decide_state(lifecycle: Lifecycle, payment: PaymentView, observation: Observation, now: datetime) -> Decision:
    """Decide what the stated state makes of the payment's."""
    status = observation.status
    if status is None:
        # An answer to a question that says nothing is not asked for again at once: it would be given for ever.
        is_asked = observation.source is not Source.POLL
        return Decision(Outcome.UNCHANGED, "exists at the provider, state not told", ask=is_asked)
    if not lifecycle.knows(status):
        words = f"{status!r} is not a state that {lifecycle.name} is known to have"
        return open_review(Decision(Outcome.PARKED, words), payment, Review.UNKNOWN_STATUS, (f"status:{status}",))
    if status == payment.state:
        if status in lifecycle.returning and _is_newer(payment, observation, now):
            as_of = observation.as_of
            return Decision(Outcome.UNCHANGED, f"already {status}", state_confirmed=True, confirmed_as_of=as_of)
        return Decision(Outcome.UNCHANGED, f"already {status}", state_confirmed=True)
    moves = moves_of(lifecycle)
    ahead = moves.walk(payment.state, status)
    behind = payment.state is not None and moves.walk(status, payment.state) is not None
    if ahead is not None and behind and _is_maybe_older(lifecycle, payment, observation, status, now):
        words = f"{status} and {payment.state} can follow each other, and this statement is not the newer one"
        return Decision(Outcome.STALE, words, ask=observation.source not in ANSWERS)
    if ahead is not None:
        return _advance(lifecycle, payment, ahead)
    if behind:
        return Decision(Outcome.STALE, f"the payment has passed {status} and is {payment.state}")
    if _is_overtaken(payment, observation, now):
        return Decision(Outcome.STALE, f"{status} was asked for before the payment was {payment.state}", ask=True)
    return _conflict(lifecycle, payment, observation)


def _decide_with_sums(lifecycle: Lifecycle, payment: PaymentView, observation: Observation, now: datetime) -> Decision:
    """Decide a statement that tells of money.

    Of a conflict or an unknown state nothing is taken over, and of a state that was passed only the parts, which have
    ids and times of their own. Money that has moved is a transition of its own where the state stays. An answer is true
    of when it was asked for.
    """
    decision = _decide_state(lifecycle, payment, observation, now)
    if decision.outcome not in _BELIEVED:
        return decision
    is_answer = observation.source in ANSWERS
    news = learn_sums(
        payment.sums,
        payment.stated,
        payment.parts,
        UNSAID if decision.outcome is Outcome.STALE else observation.sums,
        observation.parts,
        as_of=(observation.asked_at or observation.as_of) if is_answer else observation.as_of,
        is_answer=is_answer,
        now=now,
    )
    if observation.status is None and payment.state is not None:
        decision = replace(decision, reason="state not told", ask=False)
    if news.is_unclear and not is_answer:
        decision = replace(decision, ask=True)
    return _with_sums(lifecycle, payment, observation, news, decision)


def _with_sums(
    lifecycle: Lifecycle, payment: PaymentView, observation: Observation, news: MoneyNews, decision: Decision
) -> Decision:
    """Add changed sums and parts to a decision, with the effects that are due."""
    asked = payment.amount_minor if payment.amount_minor is not None else observation.amount_minor
    state = decision.to_state or payment.state
    before = _phase_now(lifecycle, payment)
    after = phase_with_sums(lifecycle.phase(state), news.sums, asked)
    if after is lifecycle.phase(state) is Phase.REFUNDED and is_refund_of_part(news.sums, asked):
        is_moved = decision.to_state not in (None, payment.state)
        if _is_called_refunded(lifecycle, observation) and observation.sums.refunded_minor is not None:
            after = before if before in MONEY_PHASES else Phase.PAID
        elif not is_moved:
            after = before
    is_refund_said = after is lifecycle.phase(state) is Phase.REFUNDED
    of_sums, counts = sum_effects(
        payment.sums, news, payment.counts, before, is_refund_said=is_refund_said, asked_minor=asked
    )
    passed = tuple(lifecycle.phase(name) for name in decision.via)
    of_phase, counts = enter_phase(before, after, counts, passed)
    is_first = after in MONEY_PHASES and Effect.PAID not in payment.counts and Effect.CAPTURED not in counts
    is_moved = after is not before or any(
        (getattr(news.sums, name) or 0) != (getattr(payment.sums, name) or 0) for name in MOVED_SUMS
    )
    if decision.to_state is None and state is not None and is_moved:
        words = f"{decision.reason}; {_sums_in_words(payment, news.sums, payment.currency or observation.currency)}"
        decision = replace(decision, outcome=Outcome.ADVANCED, reason=words, to_state=state)
    return replace(
        decision,
        effects=(*of_phase, *of_sums) if is_first else (*of_sums, *of_phase),
        counts=counts if counts != payment.counts else None,
        phase=after,
        sums=news.sums if news.sums != payment.sums else None,
        stated=news.stated if news.stated != payment.stated else None,
        parts=news.parts,
    )


def _phase_now(lifecycle: Lifecycle, payment: PaymentView, sums: Sums | None = None) -> Phase:
    """Return the phase by state and sums.

    A "refunded" that was decided to be of a part leaves the rest paid.
    """
    sums = payment.sums if sums is None else sums
    phase = phase_with_sums(lifecycle.phase(payment.state), sums, payment.amount_minor)
    if phase is lifecycle.phase(payment.state) is Phase.REFUNDED and payment.phase in MONEY_PHASES:
        return payment.phase
    return phase


def _sums_in_words(payment: PaymentView, sums: Sums, currency: str | None) -> str:
    changed = [
        f"{name.removesuffix('_minor').replace('_', ' ')} {amount_text(new or 0, currency)}"
        for name, new, old in zip(SUM_NAMES, astuple(sums), astuple(payment.sums), strict=True)
        if (new or 0) != (old or 0)
    ]
    return ", ".join(changed)


def _late_doubt(
    lifecycle: Lifecycle, payment: PaymentView, observation: Observation, decision: Decision, now: datetime
) -> _Doubt | None:
    """Return the doubt of a late move that a person must see."""
    if decision.forced or decision.to_state in (None, payment.state):
        return None
    late = moves_of(lifecycle).late_moves(payment.state, (*decision.via, decision.to_state))
    began = payment.state_as_of or payment.changed_at
    at = now if observation.as_of is None else min(observation.as_of, now)
    for move in late:
        is_too_late = move.within is not None and began is not None and at - began > move.within
        if move.policy is LatePolicy.REVIEW or is_too_late:
            words = f"{payment.state} had ended the payment, and now it is {observation.status}"
            return _Doubt(Review.LATE_MOVE, words, f"{_LATE_POINT}{move.target}")
    return None


def as_refund(lifecycle: Lifecycle, observation: Observation) -> Observation:
    """Return the observation with the amount of a refund as its refunded sum.

    A repeat changes nothing. An amount that comes with a refunded state is the refund's, and says nothing about what
    was asked for, unless the refunded total is stated beside it. In a lifecycle of refunds it is so already.
    """
    amount, status = observation.amount_minor, observation.status
    if amount is None or status is None or not lifecycle.is_paid_first or observation.sums.refunded_minor is not None:
        return observation
    if not lifecycle.knows(status) or lifecycle.phase(status) is not Phase.REFUNDED:
        return observation
    return replace(observation, amount_minor=None, sums=replace(observation.sums, refunded_minor=amount))


def _advance(lifecycle: Lifecycle, payment: PaymentView, walk: tuple[str, ...]) -> Decision:
    counts = tuple(payment.counts.items()) if payment.counts else ()
    if payment.sums is UNSAID:
        decision = _walk_decision(lifecycle, payment.state, walk, counts)
    else:
        before = _phase_now(lifecycle, payment)
        after = phase_with_sums(lifecycle.phase(walk[-1]), payment.sums, payment.amount_minor)
        decision = _walk_decision(lifecycle, payment.state, walk, counts, (before, after))
    if payment.review in ANSWERED_BY_A_MOVE:
        decision = replace(decision, closes_review=True)
    if payment.accepted and any(point.startswith((_CONFLICT_POINT, _LATE_POINT)) for point in payment.accepted):
        left = tuple(point for point in payment.accepted if not point.startswith((_CONFLICT_POINT, _LATE_POINT)))
        decision = replace(decision, accepted=left)
    return decision


@lru_cache(maxsize=_MAX_WALKS)
def _walk_decision(
    lifecycle: Lifecycle,
    state: str | None,
    walk: tuple[str, ...],
    counts: tuple[tuple[str, int], ...],
    ends: tuple[Phase, Phase] | None = None,
) -> Decision:
    """Return the decision for a legal walk with nothing in doubt.

    `ends` are the phases from and to which it leads, where sums have changed them.
    """
    moves, here = moves_of(lifecycle), state
    for target in walk:  # the Machine itself permits each step, or IllegalMove says that our table is wrong
        here = moves.fire(here, target)
    before, after = ends or (lifecycle.phase(state), lifecycle.phase(walk[-1]))
    via = walk[:-1]
    known = dict(counts)
    effects, new = enter_phase(before, after, known, tuple(lifecycle.phase(name) for name in via))
    words = f"{state or 'new'} -> {walk[-1]}" + (f" (skipping {', '.join(via)})" if via else "")
    return Decision(
        Outcome.ADVANCED,
        words,
        to_state=walk[-1],
        via=via,
        effects=effects,
        counts=new if new != known else None,
        phase=after,
    )


def _conflict(lifecycle: Lifecycle, payment: PaymentView, observation: Observation) -> Decision:
    status = observation.status
    assert status is not None  # noqa: S101 - decide() handles None before
    words, point = f"{status} cannot follow {payment.state}", _CONFLICT_POINT + status
    is_answer, is_accepted = observation.source in ANSWERS, point in payment.accepted
    if is_answer and payment.policy is ConflictPolicy.TRUST_PROVIDER and not is_accepted:
        reason = f"{words}; the provider, asked, confirms it, and the account trusts the provider"
        decision = _force(lifecycle, payment, status, reason)
        return replace(decision, closes_review=payment.review is Review.CONFLICT)
    told = "the provider, asked, confirms it" if is_answer else "the provider is asked"
    told = told if is_answer or payment.can_ask else "the provider cannot be asked"
    conflict = Decision(Outcome.CONFLICT, f"{words}; {told}", ask=not is_answer)
    if is_accepted:
        conflict = Decision(Outcome.CONFLICT, words)
    return open_review(conflict, payment, Review.CONFLICT, (point,))


def _force(lifecycle: Lifecycle, payment: PaymentView, state: str, reason: str, walk: tuple[str, ...] = ()) -> Decision:
    """Return the decision that moves the payment, even against the lifecycle."""
    before = _phase_now(lifecycle, payment)
    after = phase_with_sums(lifecycle.phase(state), payment.sums, payment.amount_minor)
    effects, counts = enter_phase(before, after, payment.counts)
    return Decision(
        Outcome.ADVANCED,
        reason,
        to_state=state,
        via=walk[:-1],
        forced=not walk,
        effects=effects or standing_effects(after, counts),
        counts=counts if counts != payment.counts else None,
        phase=after,
    )


def _resolve(lifecycle: Lifecycle, payment: PaymentView, observation: Observation) -> Decision:
    """Return the decision for a person's resolution.

    It accepts the points of the review that it closes, and that the provider goes on to say the state that is left by
    it. Where no review is open nobody was shown a contradiction, and the provider's word opens one.
    """
    status = observation.status
    if status is None or not lifecycle.knows(status):
        return Decision(Outcome.PARKED, f"{status!r} is not a state of {lifecycle.name}")
    by = f"resolved by {observation.actor}: {observation.note}"
    is_left = payment.review is not None and payment.state not in (None, status)
    left = (f"{_CONFLICT_POINT}{payment.state}",) if is_left else ()
    accepted = tuple(dict.fromkeys((*payment.accepted, *payment.disputed, *left)))
    if status == payment.state:
        phase = _phase_now(lifecycle, payment)
        owed = standing_effects(phase, payment.counts) if payment.review in WITHHOLDING else ()
        return Decision(Outcome.UNCHANGED, by, effects=owed, closes_review=True, accepted=accepted)
    walk = moves_of(lifecycle).walk(payment.state, status)
    return replace(_force(lifecycle, payment, status, by, walk or ()), closes_review=True, accepted=accepted)


# -- what is in doubt


def _is_as_asked(payment: PaymentView, said: Observation) -> bool:
    """Return whether nothing can be in doubt, without looking further."""
    amount, said_amount = payment.amount_minor, said.amount_minor
    if amount is None or amount <= 0 or (said_amount is not None and said_amount != amount):
        return False
    currency, said_currency = payment.currency, said.currency
    if not currency or (said_currency is not None and said_currency != currency):
        return False
    if said.is_live is not None and said.is_live is not payment.is_live:
        return False
    return payment.sums is UNSAID and said.sums is UNSAID and not said.parts and payment.namesake is None


def _doubts(payment: PaymentView, said: Observation, sums: Sums, phase: Phase) -> Iterator[_Doubt]:
    """Yield what is said besides the state and contradicts what was asked for."""
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
    if said.amount_minor is not None and abs(said.amount_minor - asked) > payment.tolerance_minor:
        yield _amount_doubt("amount", said.amount_minor, asked, currency)
    if sums is UNSAID:
        return
    captured, authorised, refunded = sums.captured_minor, sums.authorised_minor, sums.refunded_minor
    if captured is not None and _is_captured_wrong(captured, asked, phase, payment):
        yield _amount_doubt("captured", captured, asked, currency)
    if authorised is not None and phase is Phase.AUTHORISED and asked - authorised > payment.tolerance_minor:
        yield _amount_doubt("authorised", authorised, asked, currency)
    if refunded is not None and refunded > max(asked, captured or 0):
        words = f"{amount_text(refunded, currency)} were given back of {amount_text(asked, currency)}"
        yield _Doubt(Review.AMOUNT_MISMATCH, words, f"refunded:{refunded}", _GOODS_AND_REFUNDS)


def _amount_doubt(name: str, minor: int, asked: int, currency: str | None) -> _Doubt:
    what = "amount" if name == "amount" else f"amount {name}"
    words = f"the {what} is {amount_text(minor, currency)}, {amount_text(asked, currency)} was asked for"
    return _Doubt(Review.AMOUNT_MISMATCH, words, f"{name}:{minor}")


def _is_captured_wrong(captured: int, asked: int, phase: Phase, payment: PaymentView) -> bool:
    """Return whether the captured sum needs a person.

    Less than was asked for does only once it counts as paid.
    """
    if captured > asked:
        return captured - asked > payment.tolerance_minor
    is_partial_fine = phase not in MONEY_PHASES or payment.partial_capture is PartialCapture.ACCEPT
    return asked - captured > payment.tolerance_minor and not is_partial_fine


_GOODS_AND_REFUNDS: Final = FULFILMENT_EFFECTS | {Effect.REFUNDED}


def _unknowns(
    lifecycle: Lifecycle, payment: PaymentView, said: Observation, sums: Sums, due: tuple[DueEffect, ...]
) -> Iterator[_Doubt]:
    """Yield what is not known and must be before these effects are owed.

    That is an amount above zero, its currency, and that the reference is no other payment's.
    """
    effects = {each.effect for each in due}
    gives_goods = not FULFILMENT_EFFECTS.isdisjoint(effects)
    refunds = Effect.REFUNDED in effects
    currency = payment.currency or said.currency
    if gives_goods or (refunds and not lifecycle.is_paid_first):
        amount = said.amount_minor if payment.amount_minor is None else payment.amount_minor
        amount = sums.captured_minor if amount is None else amount
        if amount is None and gives_goods:
            yield _Doubt(Review.AMOUNT_UNKNOWN, "nobody has said the amount", "amount:unsaid", _GOODS_AND_REFUNDS)
        elif amount is not None and amount <= 0:
            words = f"the amount is {amount_text(amount, currency)}"
            yield _Doubt(Review.AMOUNT_UNKNOWN, words, f"amount:{amount}", _GOODS_AND_REFUNDS)
        if not currency and gives_goods:
            yield _Doubt(Review.AMOUNT_UNKNOWN, "nobody has said the currency", "currency:unsaid", _GOODS_AND_REFUNDS)
    elif refunds and _is_called_refunded(lifecycle, said):
        refunded = said.sums.refunded_minor
        if refunded is not None and refunded <= 0:
            words = f"{amount_text(refunded, currency)} were given back"
            yield _Doubt(Review.AMOUNT_UNKNOWN, words, f"refunded:{refunded}", _GOODS_AND_REFUNDS)
    if gives_goods and sums.captured_minor is None and sums.refunded_minor and _is_called_refunded(lifecycle, said):
        words = f"{amount_text(sums.refunded_minor, currency)} were given back, and nobody has said how much was paid"
        yield _Doubt(Review.AMOUNT_MISMATCH, words, f"refunded:{sums.refunded_minor}")
    if gives_goods and payment.namesake is not None:
        words = f"the reference is that of payment {payment.namesake}"
        yield _Doubt(Review.REFERENCE_TAKEN, words, f"reference:{payment.namesake}")


def _is_called_refunded(lifecycle: Lifecycle, said: Observation) -> bool:
    return said.status is not None and lifecycle.phase(said.status) is Phase.REFUNDED


def _says_money(said: Observation) -> bool:
    return said.sums.refunded_minor is not None or said.amount_minor is not None


def _withhold_doubtful(
    lifecycle: Lifecycle, payment: PaymentView, said: Observation, decision: Decision, late: _Doubt | None
) -> Decision:
    """Withhold the effects that are in doubt, and open a review of the doubt.

    The one guard before goods: every decision on a provider's word passes here. An amount that was unknown and is
    known now closes its review, and what was withheld is owed.
    """
    effects, is_learnt, doubts = decision.effects, False, list[_Doubt]()
    if late is not None or payment.review is Review.AMOUNT_UNKNOWN or not _is_as_asked(payment, said):
        sums = payment.sums if decision.sums is None else decision.sums
        phase = decision.phase or _phase_now(lifecycle, payment, sums)
        is_new_word = decision.outcome is not Outcome.STALE and said.status is not None
        if payment.review is Review.AMOUNT_UNKNOWN and is_new_word:
            standing = standing_effects(phase, decision.counts or payment.counts)
            is_learnt = phase in FULFILMENT_PHASES or (phase is Phase.REFUNDED and _says_money(said))
            effects = tuple(dict.fromkeys((*standing, *effects)))
        doubts = [each for each in _doubts(payment, said, sums, phase) if each.point not in payment.accepted]
        if effects:
            unknown = _unknowns(lifecycle, payment, said, sums, effects)
            doubts += [each for each in unknown if each.point not in payment.accepted]
        if late is not None and late.point not in payment.accepted:
            doubts.append(late)
    if is_learnt and not doubts:
        reason = f"{decision.reason}; the amount is known now"
        return replace(decision, reason=reason, effects=effects, closes_review=True)
    stands = payment.review in WITHHOLDING and not decision.closes_review
    if not doubts and not (stands and decision.effects):
        return decision
    withheld = frozenset[Effect]().union(*(doubt.withholds for doubt in doubts))
    if stands:
        withheld |= STATE_EFFECTS if payment.review is Review.WRONG_ENVIRONMENT else FULFILMENT_EFFECTS
    kept = tuple(due for due in decision.effects if due.effect not in withheld)
    why = withheld_reason = doubts[0].words if doubts else f"the review of {payment.review} is open"
    if len(kept) < len(decision.effects):
        gone = {due.effect for due in decision.effects if due.effect in withheld}
        why = f"{'no fulfilment' if gone & FULFILMENT_EFFECTS else 'withheld'}: {why}"
    elif not doubts:
        return decision
    decision = replace(decision, reason=f"{decision.reason}; {why}", withheld_reason=withheld_reason, effects=kept)
    if not doubts:
        return decision
    review = doubts[0].review
    if review is Review.AMOUNT_UNKNOWN and said.source not in ANSWERS:
        decision = replace(decision, ask=True)  # the answer may say it
    return open_review(decision, payment, review, tuple(doubt.point for doubt in doubts))


def open_review(decision: Decision, payment: PaymentView, review: Review, points: tuple[str, ...]) -> Decision:
    """Open a review, unless one stands or a person has accepted all its points."""
    if all(point in payment.accepted for point in points):
        return replace(decision, reason=f"{decision.reason}; accepted by a person before")
    if payment.review is review or payment.review in WITHHOLDING:
        return decision  # open already, or one that withholds fulfilment stands and must not be replaced
    effects = (*decision.effects, DueEffect(Effect.REVIEW_REQUIRED))
    return replace(decision, review=review, disputed=points, effects=effects)


def _is_maybe_older(
    lifecycle: Lifecycle, payment: PaymentView, observation: Observation, status: str, now: datetime
) -> bool:
    """Return whether a state of a loop may be one that the payment has left.

    Where moves lead ahead and only late ones back, it is ahead unless it is known to be older.
    """
    moves, state = moves_of(lifecycle), payment.state
    if state is not None and moves.is_late(status, state) and not moves.is_late(state, status):
        as_of, state_as_of = observation.as_of, payment.state_as_of
        return as_of is not None and state_as_of is not None and min(as_of, now) < state_as_of
    return not _is_newer(payment, observation, now)


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
