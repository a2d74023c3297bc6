"""Walks agree with the library's own Machine, and its three shapes of failure are one."""

import pytest

from statemachine.errors import IllegalMove
from statemachine.machine import Moves, moves_of
from tests.support.builders import LIFECYCLES, a_lifecycle
from tests.unit.statemachine.oracle import can_reach, is_walk, next_of, states_of

PAIRS = [
    pytest.param(life, start, end, id=f"{life.name}: {start} to {end}")
    for life in LIFECYCLES
    for start in states_of(life)
    for end in states_of(life)
    if end is not None
]


@pytest.mark.parametrize(("life", "start", "end"), PAIRS)
def test_the_machine_permits_exactly_the_table(life, start, end):
    """A single move is fired where the data lists it and refused everywhere else."""
    moves = moves_of(life)

    if end in next_of(life, start):
        assert end == moves.fire(start, end)
    else:
        with pytest.raises(IllegalMove):
            moves.fire(start, end)


@pytest.mark.parametrize(("life", "start", "end"), PAIRS)
def test_a_walk_is_there_exactly_where_one_is_legal(life, start, end):
    """A walk is a chain of legal moves, as short as any, and missing where there is none."""
    walk = moves_of(life).walk(start, end)

    if start == end:
        assert walk is None
        return
    assert can_reach(life, start, end) == (walk is not None)
    if walk is not None:
        assert end == walk[-1]
        assert is_walk(life, start, walk)
        assert len(set(walk)) == len(walk)
        assert (end in next_of(life, start)) == (len(walk) == 1)


def test_an_unknown_word_is_an_illegal_move():
    """The library's AttributeError and KeyError for unknown words never come out."""
    moves = Moves(a_lifecycle())
    for start, end in (("new", "nowhere"), ("nowhere", "paid"), (None, "(start)"), ("new", "(start)")):
        with pytest.raises(IllegalMove):
            moves.fire(start, end)


def test_a_walk_leaves_nothing_behind():
    """The shared machine owns no model, so that threads and refusals cannot disturb each other."""
    moves = moves_of(a_lifecycle())
    with pytest.raises(IllegalMove):
        moves.fire("settled", "new")

    assert moves.fire("new", "paid") == "paid"
    assert moves._machine.models == []
