"""Every state of every lifecycle against every statement, held to an oracle of plain graph search."""

from datetime import timedelta

import pytest

from statemachine.decide import decide
from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import ConflictPolicy, Outcome, Phase, Review, Source
from tests.support.builders import LIFECYCLES, a_view, an_observation
from tests.support.clock import START
from tests.unit.statemachine.oracle import can_reach, effects_of_move, is_walk, next_of, outcome_of, states_of, told

UNKNOWN = "a word that nobody has told us about"


def cases():
    return [
        pytest.param(life, state, status, id=f"{life.name}: {state} then {status}")
        for life in LIFECYCLES
        for state in states_of(life)
        for status in (*states_of(life), UNKNOWN)
    ]


@pytest.mark.parametrize(("life", "state", "status"), cases())
@pytest.mark.parametrize("is_newer", [True, False], ids=["newer", "of unknown age"])
def test_decides_as_the_graph_says(life, state, status, is_newer):
    """Outcome, walk, effects, review and question follow from the lifecycle's moves alone."""
    as_of = START if is_newer else None
    payment = a_view(state=state, state_as_of=START - timedelta(seconds=1) if state else None)

    decision = decide(life, payment, an_observation(status, as_of=as_of), START)

    expected = outcome_of(life, state, status, is_newer=is_newer)
    assert expected is decision.outcome
    assert (status if expected is Outcome.ADVANCED else None) == decision.to_state
    assert not decision.forced
    if expected is Outcome.ADVANCED:
        assert is_walk(life, state, (*decision.via, status))
        assert effects_of_move(life.phase(state), life.phase(status)) == set(told(decision))
        assert len(told(decision)) == len(set(told(decision)))
    wanted_review = {Outcome.CONFLICT: Review.CONFLICT, Outcome.PARKED: Review.UNKNOWN_STATUS}.get(expected)
    assert wanted_review is decision.review
    is_loop = expected is Outcome.STALE and can_reach(life, state, status)
    assert (status is None or expected is Outcome.CONFLICT or is_loop) == decision.ask


@pytest.mark.parametrize(("life", "state", "status"), cases())
@pytest.mark.parametrize("policy", list(ConflictPolicy))
def test_nothing_but_force_leaves_a_terminal_state(life, state, status, policy):
    """A terminal state is left by an answer under trust_provider alone, and then the transition is marked forced."""
    answer = an_observation(status, source=Source.POLL, as_of=START)

    decision = decide(life, a_view(state=state, policy=policy), answer, START)

    if state is not None and state != NOT_CREATED and not next_of(life, state):
        is_forced = outcome_of(life, state, status, is_newer=True) is Outcome.CONFLICT
        assert (is_forced and policy is ConflictPolicy.TRUST_PROVIDER) == (decision.to_state is not None)
        assert decision.forced == (decision.to_state is not None)
    assert decision.forced <= (policy is ConflictPolicy.TRUST_PROVIDER)
    assert not (decision.ask and status is not None)


@pytest.mark.parametrize("life", LIFECYCLES, ids=lambda life: life.name)
def test_every_lifecycle_begins_open_and_ends(life):
    """A payment begins unpaid, and from every state some terminal state can be reached."""
    assert all(life.phase(first) in (Phase.OPEN, Phase.PROCESSING) for first in life.initial)
    for state in life.states:
        ends = [other.name for other in life.states if other.terminal]
        assert state.terminal or any(can_reach(life, state.name, end) for end in ends)
        assert state.terminal == (not life.moves.get(state.name))
        assert can_reach(life, None, state.name)
