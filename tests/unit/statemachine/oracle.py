"""What decide() should answer, worked out from a lifecycle's plain data without statemachine.machine."""

from statemachine.lifecycle import NOT_CREATED, Lifecycle
from statemachine.phases import Effect, Outcome, Phase

EFFECTS = {
    Phase.OPEN: set(),
    Phase.PROCESSING: set(),
    Phase.PAID: {Effect.PAID},
    Phase.SETTLED: {Effect.PAID, Effect.SETTLED},  # settled implies paid; the outbox owes it once only
    Phase.FAILED: {Effect.FAILED},
    Phase.CANCELLED: {Effect.CANCELLED},
    Phase.EXPIRED: {Effect.EXPIRED},
    Phase.REFUNDED: {Effect.REFUNDED},
}


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
