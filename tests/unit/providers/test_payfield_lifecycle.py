import pytest

from providers.catalogue import Payfield
from statemachine.machine import moves_of
from statemachine.phases import Phase

#: Typed from the provider's status tables.
PHASES = {
    "success": Phase.PAID,
    "failed": Phase.FAILED,
    "canceled": Phase.CANCELLED,
    "refunded": Phase.REFUNDED,
    "expired": Phase.EXPIRED,
}
MOVES = {
    ("pending", "success"),
    ("pending", "failed"),
    ("pending", "canceled"),
    ("pending", "expired"),
    ("success", "refunded"),
}


@pytest.mark.parametrize(("kind", "pending"), [("payin", Phase.OPEN), ("payout", Phase.PROCESSING)])
def test_states_and_phases(kind, pending):
    lifecycle = Payfield.lifecycles[kind]

    assert {state.name: state.phase for state in lifecycle.states} == PHASES | {"pending": pending}
    assert {s.name for s in lifecycle.states if s.terminal} == {"failed", "canceled", "refunded", "expired"}
    assert lifecycle.initial == ("pending",)


@pytest.mark.parametrize("kind", ["payin", "payout"])
def test_every_pair_of_states_is_a_move_or_is_not(kind):
    lifecycle = Payfield.lifecycles[kind]
    names = [state.name for state in lifecycle.states]

    single = {(a, b) for a in names for b in names if len(moves_of(lifecycle).walk(a, b) or ()) == 1}

    assert single == MOVES
    assert moves_of(lifecycle).walk(None, "refunded") == ("pending", "success", "refunded")
    assert moves_of(lifecycle).walk("expired", "success") is None
