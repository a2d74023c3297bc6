"""Attempts at one wish: which of them leads, and what the wish owes for it. Pure.

A wish, such as an order that is to be paid, may have several attempts at the provider, each with an id and a state of
its own. The payment shows the attempt that leads: the one that is nearest to money. Another takes the lead where it
comes nearer, or where the leading one ends without money.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from statemachine.decide import open_review
from statemachine.effects import Counts, enter_phase
from statemachine.observation import Decision, PaymentView
from statemachine.phases import (
    ANSWERED_BY_A_MOVE,
    EFFECT_OF_PHASE,
    FULFILMENT_EFFECTS,
    MONEY_PHASES,
    STATE_EFFECTS,
    WITHHOLDING,
    Effect,
    Outcome,
    Phase,
    Review,
)

#: Points of attempts that are paid besides the leading one.
_ATTEMPT_POINT: Final = "attempt:"

#: How near to money a phase is. What was given back stays so until another attempt has money.
_NEARNESS: Final[Mapping[Phase, int]] = {
    Phase.FAILED: 0,
    Phase.CANCELLED: 0,
    Phase.EXPIRED: 0,
    Phase.OPEN: 1,
    Phase.PROCESSING: 2,
    Phase.AUTHORISED: 3,
    Phase.REFUNDED: 4,
    Phase.PAID: 5,
    Phase.SETTLED: 5,
}

#: Effects that tell where a wish's money is; all others are about parts or reviews.
_OF_POSITION: Final = frozenset({*EFFECT_OF_PHASE.values(), Effect.REVERSED, Effect.RESTORED})

_OF_REVIEWS: Final = frozenset({Effect.REVIEW_REQUIRED, Effect.REVIEW_CLOSED})


class Attempt(msgspec.Struct, frozen=True):
    """An attempt that does not lead, as it stands."""

    name: str
    state: str | None
    phase: Phase


def is_nearer(phase: Phase, other: Phase) -> bool:
    """Return whether the first phase is nearer to money than the other."""
    return _NEARNESS[phase] > _NEARNESS[other]


def counts_of_parts(counts: Counts) -> dict[str, int]:
    """Return the counts of effects that are not about where the wish's money is."""
    return {name: count for name, count in counts.items() if name not in _OF_POSITION}


def take_lead(
    before: Phase, counts: Counts, decision: Decision, attempt: Attempt, passed: tuple[Phase, ...] = ()
) -> Decision:
    """Return the decision by which another attempt leads, and what is owed then.

    `decision` is about the attempt that speaks; `before` and `counts` are the wish's. The move leads from one attempt's
    state to another's, which the lifecycle need not permit; nothing is passed on the way.
    """
    known = {**counts, **counts_of_parts(decision.counts or {})}
    due, new = enter_phase(before, attempt.phase, known, passed)
    withheld = _withheld(decision)
    kept = tuple(each for each in due if each.effect not in withheld)
    others = tuple(each for each in decision.effects if each.effect not in _OF_POSITION)
    return replace(
        decision,
        outcome=Outcome.ADVANCED,
        to_state=attempt.state,
        via=(),
        phase=attempt.phase,
        effects=(*kept, *others),
        counts=new if new != counts else None,
        reason=f"{decision.reason}; attempt {attempt.name} is {attempt.state}, and leads now",
    )


def stand_aside(decision: Decision, attempt: Attempt) -> Decision:
    """Return the decision about an attempt that does not lead: the wish stays."""
    words = f"attempt {attempt.name}: {decision.reason}"
    outcome = Outcome.UNCHANGED if decision.outcome is Outcome.ADVANCED else decision.outcome
    return Decision(
        outcome,
        words,
        effects=tuple(each for each in decision.effects if each.effect in _OF_REVIEWS),
        review=decision.review,
        disputed=decision.disputed,
        closes_review=decision.closes_review,
        accepted=decision.accepted,
        withheld_reason=decision.withheld_reason,
        ask=decision.ask,
    )


def nearest(attempts: Sequence[Attempt], phase: Phase) -> Attempt | None:
    """Return the attempt that is nearest to money, if it is nearer than the phase."""
    best = max(attempts, key=lambda each: _NEARNESS[each.phase], default=None)
    return best if best is not None and is_nearer(best.phase, phase) else None


def doubt_second_payment(
    payment: PaymentView, phase: Phase, decision: Decision, attempts: Sequence[Attempt]
) -> Decision:
    """Open the review of a wish that was paid more than once.

    It waits for another review that stands, and is opened when that one is closed.
    """
    if phase not in MONEY_PHASES or decision.review is not None:
        return decision
    if payment.review not in (None, *ANSWERED_BY_A_MOVE) and not decision.closes_review:
        return decision
    accepted = payment.accepted if decision.accepted is None else decision.accepted
    paid = [each for each in attempts if each.phase in MONEY_PHASES and _ATTEMPT_POINT + each.name not in accepted]
    if not paid:
        return decision
    words = f"{decision.reason}; attempt {paid[0].name} is {paid[0].state} too: the wish was paid twice"
    view = replace(payment, review=None, accepted=accepted)
    points = tuple(_ATTEMPT_POINT + each.name for each in paid)
    return open_review(replace(decision, reason=words), view, Review.PAID_TWICE, points)


def _withheld(decision: Decision) -> frozenset[Effect]:
    if decision.withheld_reason is None and decision.review not in WITHHOLDING:
        return frozenset()
    return STATE_EFFECTS if decision.review is Review.WRONG_ENVIRONMENT else FULFILMENT_EFFECTS
