"""Each row of the design's table, and what amounts, reviews, policies and operators change about it."""

from datetime import timedelta

import pytest

from statemachine.decide import decide
from statemachine.lifecycle import NOT_CREATED, State
from statemachine.phases import ConflictPolicy, Effect, Outcome, Phase, Review, Source
from statemachine.sums import Sums
from tests.support.builders import PROVIDERS, a_lifecycle, a_view, an_observation
from tests.support.clock import START
from tests.unit.statemachine.oracle import told

INTENT = PROVIDERS["stable_genius"].lifecycles["payment_intent"]
SESSION = PROVIDERS["banked"].lifecycles["payment_session"]
PAYIN = PROVIDERS["payfield"].lifecycles["payin"]


def resolve(state, **changes):
    return an_observation(state, source=Source.OPERATOR, actor="ada", note="saw the bank statement", **changes)


# the table


def test_the_current_state_is_unchanged():
    """The state that the payment is in already is told to nobody."""
    decision = decide(INTENT, a_view(state="confirmed"), an_observation("confirmed"), START)

    assert (decision.outcome, decision.to_state, told(decision)) == (Outcome.UNCHANGED, None, ())
    assert decision.state_confirmed


def test_one_legal_move_away_is_advanced():
    """A legal move is taken, and the effects of the phase entered are owed."""
    decision = decide(INTENT, a_view(state="awaiting_payment"), an_observation("confirmed"), START)

    assert (
        decision.outcome,
        decision.to_state,
        decision.via,
        told(decision),
    ) == (Outcome.ADVANCED, "confirmed", (), (Effect.PAID,))


def test_lost_events_are_named_in_via():
    """Reachable over several moves: advanced, with the skipped states named and the final phase's effects once."""
    decision = decide(INTENT, a_view(state="awaiting_payment"), an_observation("settled"), START)

    assert (decision.outcome, decision.via) == (Outcome.ADVANCED, ("confirmed",))
    assert told(decision) == (Effect.PAID, Effect.SETTLED)


def test_a_passed_state_is_stale():
    """A late statement about a state that the payment has passed changes nothing."""
    decision = decide(INTENT, a_view(state="settled"), an_observation("confirmed"), START)

    assert (decision.outcome, decision.to_state, told(decision), decision.ask) == (Outcome.STALE, None, (), False)
    assert not decision.state_confirmed


def test_cancelled_then_paid_is_a_conflict():
    """No legal order: a person must decide, and the provider is asked at once."""
    decision = decide(INTENT, a_view(state="cancelled"), an_observation("confirmed"), START)

    assert (
        decision.outcome,
        decision.to_state,
        decision.review,
        decision.ask,
    ) == (Outcome.CONFLICT, None, Review.CONFLICT, True)
    assert told(decision) == (Effect.REVIEW_REQUIRED,)


def test_an_unknown_status_is_parked():
    """A new word of the provider's moves nothing and raises an alarm."""
    decision = decide(INTENT, a_view(state="awaiting_payment"), an_observation("blessed"), START)

    assert (decision.outcome, decision.to_state, decision.review) == (Outcome.PARKED, None, Review.UNKNOWN_STATUS)
    assert told(decision) == (Effect.REVIEW_REQUIRED,)


def test_existence_without_a_state_is_a_question():
    """A payment that exists in an untold state is asked about."""
    decision = decide(INTENT, a_view(), an_observation(None), START)

    assert (decision.outcome, decision.ask) == (Outcome.UNCHANGED, True)


# loops


@pytest.mark.parametrize(
    ("state_as_of", "as_of", "outcome"),
    [
        (0, 1, Outcome.ADVANCED),
        (0, 0, Outcome.STALE),
        (1, 0, Outcome.STALE),
        (None, 0, Outcome.ADVANCED),
        (0, None, Outcome.STALE),
        (None, None, Outcome.STALE),
        (10, 11, Outcome.STALE),  # both ahead of our clock count as now
    ],
)
def test_in_a_loop_the_provider_s_time_decides(state_as_of, as_of, outcome):
    """Only a statement that is known to be newer moves back along a loop; a webhook's doubt is asked about."""
    at = [None if s is None else START + timedelta(seconds=s) for s in (state_as_of, as_of)]
    payment = a_view(state="awaiting_payment_consent", state_as_of=at[0])

    decision = decide(SESSION, payment, an_observation("awaiting_provider", as_of=at[1]), START + timedelta(seconds=5))

    assert outcome is decision.outcome
    assert (outcome is Outcome.STALE) == decision.ask


def test_a_stale_answer_in_a_loop_asks_no_further():
    """An answer that is not newer is not asked about again at once, or asking would never end."""
    payment = a_view(state="awaiting_payment_consent", state_as_of=START)

    decision = decide(SESSION, payment, an_observation("awaiting_provider", source=Source.POLL, as_of=START), START)

    assert (decision.outcome, decision.ask) == (Outcome.STALE, False)


# conflicts, when the provider was asked


@pytest.mark.parametrize("source", [Source.POLL, Source.CREATE, Source.CANCEL])
def test_review_leaves_a_confirmed_conflict_to_a_person(source):
    """Under `review` the provider's own confirmation changes nothing, and it is not asked over and over."""
    payment = a_view(state="cancelled", review=Review.CONFLICT)

    decision = decide(INTENT, payment, an_observation("confirmed", source=source, as_of=START), START)

    assert (
        decision.outcome,
        decision.review,
        told(decision),
        decision.ask,
    ) == (Outcome.CONFLICT, None, (), False)


@pytest.mark.parametrize("source", [Source.POLL, Source.CREATE, Source.CANCEL])
def test_trust_provider_forces_a_confirmed_conflict(source):
    """Under `trust_provider` an answer moves the payment, marked forced, with its effects, and closes the review."""
    payment = a_view(state="cancelled", review=Review.CONFLICT, policy=ConflictPolicy.TRUST_PROVIDER)

    decision = decide(INTENT, payment, an_observation("confirmed", source=source, as_of=START), START)

    assert (
        decision.outcome,
        decision.to_state,
        decision.forced,
        decision.closes_review,
    ) == (Outcome.ADVANCED, "confirmed", True, True)
    assert told(decision) == (Effect.PAID,)


def test_trust_provider_does_not_trust_a_webhook():
    """A webhook alone never forces: it may be old, and is asked about."""
    payment = a_view(state="cancelled", policy=ConflictPolicy.TRUST_PROVIDER)

    decision = decide(INTENT, payment, an_observation("confirmed", as_of=START), START)

    assert (decision.outcome, decision.ask, decision.forced) == (Outcome.CONFLICT, True, False)


def test_trust_provider_still_withholds_doubtful_money():
    """A forced move to paid with another amount hands over nothing."""
    payment = a_view(state="cancelled", policy=ConflictPolicy.TRUST_PROVIDER)

    decision = decide(INTENT, payment, an_observation("confirmed", source=Source.POLL, amount_minor=1), START)

    assert (
        decision.forced,
        decision.review,
        told(decision),
    ) == (True, Review.AMOUNT_MISMATCH, (Effect.REVIEW_REQUIRED,))


# money in doubt


@pytest.mark.parametrize(
    ("said", "review"),
    [
        ({"amount_minor": 449}, Review.AMOUNT_MISMATCH),
        ({"sums": Sums(captured_minor=449)}, Review.AMOUNT_MISMATCH),
        ({"currency": "EUR"}, Review.CURRENCY_MISMATCH),
        ({"amount_minor": 449, "currency": "EUR"}, Review.CURRENCY_MISMATCH),
        ({"amount_minor": 450, "currency": "USD", "sums": Sums(captured_minor=450)}, None),
        ({}, None),
    ],
)
def test_doubtful_money_moves_the_state_and_withholds_fulfilment(said, review):
    """The state is the provider's; goods are handed over only for what was asked for."""
    decision = decide(INTENT, a_view(state="awaiting_payment"), an_observation("settled", **said), START)

    assert (Outcome.ADVANCED, "settled", review) == (decision.outcome, decision.to_state, decision.review)
    owed = {Effect.PAID, Effect.SETTLED} if review is None else {Effect.REVIEW_REQUIRED}
    assert owed == set(told(decision))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"amount_minor": 449}, "the amount is 4.49 USD, 4.50 USD was asked for"),
        ({"sums": Sums(captured_minor=1)}, "the amount captured is 0.01 USD, 4.50 USD was asked for"),
        ({"currency": "EUR"}, "the currency is EUR, USD was asked for"),
    ],
)
def test_doubt_and_what_it_withholds_are_told_in_words(said, words):
    """Who reads the timeline sees both amounts, and that nothing was handed over."""
    decision = decide(INTENT, a_view(state="awaiting_payment"), an_observation("confirmed", **said), START)

    assert decision.reason == f"awaiting_payment -> confirmed; no fulfilment: {words}"
    assert decision.withheld_reason == words


@pytest.mark.parametrize("currency", ["", "??", None])
def test_doubt_has_words_in_whatever_currency(currency):
    """What is no currency is written in minor units, and never an error."""
    payment = a_view(state="confirmed", currency=currency)

    assert "1 minor units" in decide(INTENT, payment, an_observation("confirmed", amount_minor=1), START).reason


def test_fulfilment_stays_withheld_while_the_review_is_open():
    """The right amount in a later message does not release what an earlier one put in doubt."""
    payment = a_view(state="awaiting_payment", review=Review.AMOUNT_MISMATCH)

    decision = decide(INTENT, payment, an_observation("confirmed", amount_minor=450), START)

    assert (decision.outcome, told(decision)) == (Outcome.ADVANCED, ())
    assert decision.reason.endswith("; no fulfilment: the review of amount_mismatch is open")
    assert decision.withheld_reason == "the review of amount_mismatch is open"


def test_other_effects_are_not_withheld():
    """That a payment failed is told even while its amount is in doubt."""
    decision = decide(PAYIN, a_view(state="pending"), an_observation("failed", amount_minor=1), START)

    assert {Effect.FAILED, Effect.REVIEW_REQUIRED} == set(told(decision))


def test_doubt_is_raised_by_an_unchanged_state_too():
    """An amount that changes without the state is seen."""
    decision = decide(INTENT, a_view(state="confirmed"), an_observation("confirmed", amount_minor=1), START)

    assert (decision.outcome, decision.review) == (Outcome.UNCHANGED, Review.AMOUNT_MISMATCH)


@pytest.mark.parametrize("standing", [Review.AMOUNT_MISMATCH, Review.CURRENCY_MISMATCH])
def test_a_withholding_review_is_not_replaced_by_another(standing):
    """A later conflict must not turn a review that withholds fulfilment into one that does not."""
    decision = decide(INTENT, a_view(state="cancelled", review=standing), an_observation("confirmed"), START)

    assert (decision.outcome, decision.review, told(decision)) == (Outcome.CONFLICT, None, ())


def test_a_payment_whose_amount_nobody_asked_for_has_no_doubt():
    """An adopted payment is worth what the provider says."""
    payment = a_view(amount_minor=None, currency=None)

    decision = decide(INTENT, payment, an_observation("confirmed", amount_minor=1, currency="EUR"), START)

    assert (decision.review, told(decision)) == (None, (Effect.PAID,))


# an operator resolves


def test_resolving_the_present_state_releases_withheld_fulfilment():
    """A person says that the amount is right: now the goods are handed over."""
    decision = decide(INTENT, a_view(state="settled", review=Review.AMOUNT_MISMATCH), resolve("settled"), START)

    assert (
        decision.outcome,
        told(decision),
        decision.closes_review,
    ) == (Outcome.UNCHANGED, (Effect.PAID, Effect.SETTLED), True)


def test_resolving_the_present_state_of_another_review_owes_nothing():
    """What was not withheld is not owed again."""
    decision = decide(INTENT, a_view(state="confirmed", review=Review.CONFLICT), resolve("confirmed"), START)

    assert (told(decision), decision.closes_review) == ((), True)


def test_resolving_to_another_state_is_forced_where_it_is_no_legal_walk():
    """An operator may say what the lifecycle cannot, and the transition says so."""
    forced = decide(INTENT, a_view(state="cancelled", review=Review.CONFLICT), resolve("confirmed"), START)
    legal = decide(INTENT, a_view(state="awaiting_payment"), resolve("settled"), START)

    assert (
        forced.outcome,
        forced.forced,
        told(forced),
        forced.closes_review,
    ) == (Outcome.ADVANCED, True, (Effect.PAID,), True)
    assert (legal.forced, legal.via) == (False, ("confirmed",))
    assert "ada: saw the bank statement" in forced.reason


@pytest.mark.parametrize("state", [None, "blessed"])
def test_resolving_to_no_state_is_parked(state):
    """A mistyped state resolves nothing."""
    decision = decide(INTENT, a_view(state="cancelled", review=Review.CONFLICT), resolve(state), START)

    assert (decision.outcome, decision.to_state, decision.closes_review) == (Outcome.PARKED, None, False)


# effects


def test_refunded_does_not_imply_paid():
    """Money that went back unseen hands over nothing."""
    decision = decide(PAYIN, a_view(state="pending"), an_observation("refunded"), START)

    assert (decision.via, told(decision)) == (("success",), (Effect.REFUNDED,))


def test_moving_within_a_phase_owes_nothing():
    """Two states that mean the same to a merchant are told once."""
    life = a_lifecycle(
        states=(
            State("new", Phase.OPEN),
            State("paid", Phase.PAID),
            State("booked", Phase.PAID, terminal=True),
            State("failed", Phase.FAILED, terminal=True),
        ),
        moves={"new": ("paid", "failed"), "paid": ("booked",)},
    )

    decision = decide(life, a_view(state="paid"), an_observation("booked"), START)

    assert (decision.outcome, told(decision)) == (Outcome.ADVANCED, ())


# not created


def test_a_refused_create_fails_the_payment_and_a_later_success_revives_it():
    """`not_created` is left when the provider has the payment after all."""
    refused = decide(INTENT, a_view(), an_observation(NOT_CREATED, source=Source.CREATE), START)
    revived = decide(INTENT, a_view(state=NOT_CREATED), an_observation("confirmed"), START)

    assert (refused.to_state, told(refused)) == (NOT_CREATED, (Effect.FAILED,))
    assert (revived.to_state, revived.via, told(revived)) == ("confirmed", ("awaiting_payment",), (Effect.PAID,))
