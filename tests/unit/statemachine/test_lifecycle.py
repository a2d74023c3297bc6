"""A lifecycle whose data contradicts itself is refused, fault by fault."""

import pytest

from statemachine.errors import InvalidLifecycle
from statemachine.lifecycle import NOT_CREATED, LateMove, State
from statemachine.phases import Phase
from tests.support.builders import a_lifecycle

NEW, PAID = State("new", Phase.OPEN), State("paid", Phase.PAID, terminal=True)

FAULTS = {
    "'new' is listed twice": {"states": (NEW, NEW, PAID), "moves": {"new": ("paid",)}},
    "'not_created' is ours": {
        "states": (NEW, PAID, State(NOT_CREATED, Phase.FAILED, terminal=True)),
        "moves": {"new": ("paid",)},
    },
    "'gone' is no state": {"states": (NEW, PAID), "moves": {"new": ("paid", "gone")}},
    "'first' is no state": {"states": (NEW, PAID), "moves": {"new": ("paid",)}, "initial": ("first",)},
    "'other' is no state": {"states": (NEW, PAID), "moves": {"new": ("paid",), "other": ("paid",)}},
    "'paid' is terminal and has moves": {"states": (NEW, PAID), "moves": {"new": ("paid",), "paid": ("new",)}},
    "'new' has no moves and is not terminal": {"states": (NEW, PAID), "moves": {}},
    "'new' is terminal in phase open": {
        "states": (State("new", Phase.OPEN, terminal=True), PAID),
        "moves": {},
    },
    "'new' is terminal in phase processing": {
        "states": (State("new", Phase.PROCESSING, terminal=True), PAID),
        "moves": {},
    },
    "new -> paid is a move and a late move": {
        "states": (NEW, PAID),
        "moves": {"new": ("paid",)},
        "late_moves": {"new": (LateMove("paid"),)},
    },
    "'gone' is no state, late": {
        "states": (NEW, PAID),
        "moves": {"new": ("paid",)},
        "late_moves": {"paid": (LateMove("gone"),)},
    },
    "there is no initial state": {"states": (NEW, PAID), "moves": {"new": ("paid",)}, "initial": ()},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_is_refused_when(fault):
    """The message names the fault, so that the program does not start with it."""
    with pytest.raises(InvalidLifecycle, match=fault.partition(",")[0]):
        a_lifecycle(**FAULTS[fault])


def test_names_every_fault_at_once():
    """One look is enough to mend a lifecycle."""
    with pytest.raises(InvalidLifecycle) as raised:
        a_lifecycle(initial=(), moves={"new": ("gone",)})

    assert raised.value.message.count(";") >= 2


def test_knows_its_states_and_ours():
    """not_created belongs to every lifecycle, means failed and ends asking; no state is open."""
    life = a_lifecycle()

    assert life.knows(NOT_CREATED)
    assert not life.knows("gone")
    assert Phase.FAILED is life.phase(NOT_CREATED)
    assert Phase.OPEN is life.phase(None)
    assert life.is_terminal(NOT_CREATED)
    assert life.is_terminal("settled")
    assert not life.is_terminal("paid")
    assert not life.is_terminal(None)
