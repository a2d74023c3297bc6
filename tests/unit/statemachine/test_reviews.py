"""Reviews that the provider's next word answers are closed by it; those about money are not."""

from datetime import UTC, datetime

import pytest

from providers.catalogue import StableGenius
from statemachine.decide import decide
from statemachine.observation import Observation, PaymentView
from statemachine.phases import Outcome, Review, Source

LIFECYCLE = StableGenius.lifecycles["payment_intent"]

NOW = datetime(2026, 4, 1, tzinfo=UTC)


def moved(review):
    payment = PaymentView("awaiting_payment", 450, "USD", review=review)
    return decide(LIFECYCLE, payment, Observation(Source.POLL, status="confirmed", amount_minor=450), NOW)


@pytest.mark.parametrize("review", [Review.GAVE_UP, Review.UNKNOWN_STATUS, Review.CREATE_UNKNOWN])
def test_a_move_closes_a_review_that_it_answers(review):
    """Nobody has to close by hand what the provider has answered."""
    decision = moved(review)

    assert (decision.outcome, decision.closes_review) == (Outcome.ADVANCED, True)


@pytest.mark.parametrize("review", [Review.AMOUNT_MISMATCH, Review.CURRENCY_MISMATCH, Review.CONFLICT, None])
def test_a_move_leaves_a_review_of_money_to_a_person(review):
    """Doubt about money ends by a person's word alone."""
    decision = moved(review)

    assert (decision.outcome, decision.closes_review) == (Outcome.ADVANCED, False)
