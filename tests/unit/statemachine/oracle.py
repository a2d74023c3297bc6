"""What decide() should answer, worked out from a lifecycle's plain data without statemachine.machine."""

from collections.abc import Sequence

from statemachine.lifecycle import NOT_CREATED, Lifecycle
from statemachine.observation import Decision
from statemachine.phases import Effect, Outcome, Phase

EFFECTS: dict[Phase, set[Effect]] = {
    Phase.OPEN: set(),
    Phase.PROCESSING: set(),
    Phase.AUTHORISED: {Effect.AUTHORISED},
    Phase.PAID: {Effect.PAID},
    Phase.SETTLED: {Effect.PAID, Effect.SETTLED},  # settled implies paid; the outbox owes it once only
    Phase.FAILED: {Effect.FAILED},
    Phase.CANCELLED: {Effect.CANCELLED},
    Phase.EXPIRED: {Effect.EXPIRED},
    Phase.REFUNDED: {Effect.REFUNDED},
}


#: Effects of captures, refunds and disputes.
OF_MONEY = {Effect.CAPTURED, Effect.REFUND_CHANGED, Effect.DISPUTED, Effect.DISPUTE_WON, Effect.DISPUTE_LOST}

_MONEY = (Phase.PAID, Phase.SETTLED)


def told(decision: Decision) -> tuple[Effect, ...]:
    """The effects of a decision, in order, without their occurrences."""
    return tuple(due.effect for due in decision.effects)


def effects_of_move(before: Phase, after: Phase) -> set[Effect]:
    """What a move of a payment that was seen at every step before makes due."""
    if before is after:
        return set()
    found = set(EFFECTS[after])
    if after not in _MONEY and (before in _MONEY or before is Phase.REFUNDED) and after is not Phase.REFUNDED:
        found = (found - {Effect.FAILED, Effect.CANCELLED, Effect.EXPIRED}) | {Effect.REVERSED}
    return found


def states_of(lifecycle: Lifecycle) -> list[str | None]:
    """Every state that a payment of this lifecycle can be in."""
    return [None, NOT_CREATED, *(state.name for state in lifecycle.states)]


def next_of(lifecycle: Lifecycle, state: str | None) -> tuple[str, ...]:
    """The states one legal move away."""
    if state is None:
        return (*lifecycle.initial, NOT_CREATED)
    return lifecycle.initial if state == NOT_CREATED else lifecycle.moves.get(state, ())


def can_reach(lifecycle: Lifecycle, start: str | None, end: str | None) -> bool:
    """Depth first: whether one or more legal moves lead there."""
    seen: set[str] = set()

    def visit(state: str | None) -> bool:
        for target in next_of(lifecycle, state):
            if target == end:
                return True
            if target not in seen:
                seen.add(target)
                if visit(target):
                    return True
        return False

    return visit(start)


def is_walk(lifecycle: Lifecycle, start: str | None, steps: tuple[str, ...]) -> bool:
    """Whether each step is one legal move from the one before."""
    here = start
    for step in steps:
        if step not in next_of(lifecycle, here):
            return False
        here = step
    return True


def outcome_of(lifecycle: Lifecycle, state: str | None, status: str | None, *, is_newer: bool) -> Outcome:
    """The outcome of a webhook's statement."""
    if status is None or status == state:
        return Outcome.UNCHANGED
    if status not in states_of(lifecycle):
        return Outcome.PARKED
    ahead, behind = can_reach(lifecycle, state, status), state is not None and can_reach(lifecycle, status, state)
    if ahead:
        return Outcome.ADVANCED if is_newer or not behind else Outcome.STALE
    return Outcome.STALE if behind else Outcome.CONFLICT


def words_of(phases: Sequence[Phase]) -> list[tuple[Effect, int]]:
    """What the money's way through phases makes due, in order, each with its occurrence; written as a story.

    Money that comes is paid the first time and restored after; money that goes is refunded or reversed; what never was
    there is authorised, failed, cancelled or expired.
    """
    told: list[Effect] = []
    here, has_been, is_given_back = Phase.OPEN, False, False
    for phase in phases:
        if phase is here:
            continue
        was_there, is_there = here in _MONEY, phase in _MONEY
        if is_there and not was_there:
            told.append(Effect.RESTORED if has_been else Effect.PAID)
        if phase is Phase.SETTLED:
            told.append(Effect.SETTLED)
        if phase is Phase.REFUNDED:
            told.append(Effect.REFUNDED)
        elif not is_there:
            is_lost = was_there or here is Phase.REFUNDED
            if is_lost:
                told.append(Effect.REVERSED)
            if phase is Phase.AUTHORISED:
                told.append(Effect.AUTHORISED)
            elif not is_lost and not has_been and not is_given_back:
                told += sorted(EFFECTS[phase])
        has_been = has_been or is_there
        is_given_back = is_given_back or phase is Phase.REFUNDED
        here = phase
    return [(effect, told[:at].count(effect)) for at, effect in enumerate(told)]
