"""A provider's "refunded" with a sum: all of the money, or a part of it."""

import pytest
from msgspec.structs import replace

from statemachine.decide import decide
from statemachine.phases import MONEY_PHASES, Effect, Phase, Review
from statemachine.sums import Sums
from tests.support.builders import PROVIDERS, a_view, an_observation
from tests.support.clock import START
from tests.unit.statemachine.oracle import told

#: Every state of every provider that means that what was paid was given back, with a state before it.
REFUNDED = [
    pytest.param(life, before.name, state.name, id=f"{life.name}-{before.name}-{state.name}")
    for provider in PROVIDERS.values()
    for life in provider.lifecycles.values()
    if life.is_paid_first
    for state in life.states
    if state.phase is Phase.REFUNDED
    for before in life.states
    if before.phase in MONEY_PHASES and state.name in life.moves.get(before.name, ())
]


def paid(state):
    return a_view(state=state, amount_minor=500, currency="USD", counts={Effect.PAID.value: 1})


def test_there_are_such_states():
    """The cases below are not none."""
    assert {case.values[0].name for case in REFUNDED} >= {"payfield.payin", "payfield.payout"}


@pytest.mark.parametrize(("life", "before", "state"), REFUNDED)
@pytest.mark.parametrize(
    "said", [{"amount_minor": 200}, {"sums": Sums(refunded_minor=200)}], ids=["amount", "stated_sum"]
)
def test_a_part_is_a_changed_refund(life, before, state, said):
    """Less than all is never `refunded`: the rest of the money is there."""
    decision = decide(life, paid(before), an_observation(state, currency="USD", **said), START)

    assert [(due.effect, due.change_minor) for due in decision.effects] == [(Effect.REFUND_CHANGED, 200)]
    assert (decision.to_state, decision.phase, decision.sums) == (state, Phase.PAID, Sums(refunded_minor=200))
    assert decision.review is None


@pytest.mark.parametrize(("life", "before", "state"), REFUNDED)
@pytest.mark.parametrize("amount", [None, 500])
def test_all_of_it_or_an_unsaid_sum_is_refunded(life, before, state, amount):
    """The provider's word counts where no sum says less."""
    decision = decide(life, paid(before), an_observation(state, amount_minor=amount, currency="USD"), START)

    assert (told(decision), decision.phase) == ((Effect.REFUNDED,), Phase.REFUNDED)


@pytest.mark.parametrize(("life", "before", "state"), REFUNDED)
def test_the_rest_given_back_is_refunded(life, before, state):
    """A part first, then all."""
    payment = a_view(
        state=state,
        phase=Phase.PAID,
        amount_minor=500,
        currency="USD",
        counts={Effect.PAID.value: 1, Effect.REFUND_CHANGED.value: 1},
        sums=Sums(refunded_minor=200),
        stated={"refunded_minor": None},
    )

    decision = decide(life, payment, an_observation(state, amount_minor=500, currency="USD"), START)

    assert (told(decision), decision.phase) == ((Effect.REFUNDED,), Phase.REFUNDED)
    assert decision.sums == Sums(refunded_minor=500)


@pytest.mark.parametrize(("life", "before", "state"), REFUNDED)
def test_a_part_of_what_was_never_seen_paid_hands_over_nothing(life, before, state):
    """200 of 500 may be all that the payer has sent."""
    payment = a_view(state=life.initial[0], amount_minor=500, currency="USD")

    decision = decide(life, payment, an_observation(state, amount_minor=200, currency="USD"), START)

    assert Effect.PAID not in told(decision)
    assert decision.review is Review.AMOUNT_MISMATCH


@pytest.mark.parametrize(("life", "before", "state"), REFUNDED)
def test_a_part_that_is_said_again_without_a_sum_changes_nothing(life, before, state):
    """The state is known, and so is what it is about."""
    payment = replace(paid(state), phase=Phase.PAID, sums=Sums(refunded_minor=200), stated={"refunded_minor": None})

    decision = decide(life, payment, an_observation(state, currency="USD"), START)

    assert (decision.effects, decision.to_state, decision.review) == ((), None, None)


@pytest.mark.parametrize(("life", "before", "state"), REFUNDED)
def test_refunded_without_a_sum_is_all_whatever_was_given_back_before(life, before, state):
    """A part was given back while the state said that it is paid; then the state itself says refunded."""
    payment = replace(paid(before), phase=Phase.PAID, sums=Sums(refunded_minor=200), stated={"refunded_minor": None})

    decision = decide(life, payment, an_observation(state, currency="USD"), START)

    assert (told(decision), decision.phase) == ((Effect.REFUNDED,), Phase.REFUNDED)
