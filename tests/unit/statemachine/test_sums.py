"""Sums that are stated, and sums that parts add up to: which word counts, and what a person must see."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from statemachine.decide import decide
from statemachine.lifecycle import LateMove, LatePolicy, State
from statemachine.phases import Effect, Outcome, PartialCapture, Phase, Review, Source
from statemachine.sums import Part, PartKind, PartStatus, Sums
from tests.support.builders import a_lifecycle, a_view, an_observation
from tests.support.clock import START
from tests.support.lifecycles import CARD, DEBIT
from tests.unit.statemachine.oracle import told

LATER = START + timedelta(minutes=1)
NOW = START + timedelta(hours=1)


def refund(amount, status=PartStatus.DONE, name="r1", as_of=None):
    return Part(PartKind.REFUND, name, status, amount, as_of)


def paid(**changes):
    return a_view(**({"state": "captured", "counts": {Effect.PAID.value: 1}} | changes))


# which word counts


@pytest.mark.parametrize(
    ("as_of", "source", "refunded"),
    [
        (LATER, Source.WEBHOOK, 100),  # newer: a refund that failed lowers it
        (START, Source.WEBHOOK, 300),
        (START - timedelta(minutes=1), Source.WEBHOOK, 300),
        (None, Source.WEBHOOK, 300),
        (LATER, Source.POLL, 100),
    ],
)
def test_a_newer_word_may_lower_a_stated_sum_and_an_older_one_may_not(as_of, source, refunded):
    """Of unknown age, a smaller sum is an old one."""
    payment = paid(sums=Sums(refunded_minor=300), stated={"refunded_minor": START})

    decision = decide(CARD, payment, an_observation(sums=Sums(refunded_minor=100), as_of=as_of, source=source), NOW)

    assert (decision.sums or payment.sums).refunded_minor == refunded
    assert (Effect.REFUND_CHANGED in told(decision)) == (refunded == 100)


def test_a_sum_of_unknown_age_may_be_raised():
    """What was given back once was given back."""
    payment = paid(sums=Sums(refunded_minor=100), stated={"refunded_minor": None})

    decision = decide(CARD, payment, an_observation(sums=Sums(refunded_minor=300)), NOW)

    assert decision.sums == Sums(refunded_minor=300)
    assert [(due.effect, due.change_minor) for due in decision.effects] == [(Effect.REFUND_CHANGED, 200)]


def test_parts_add_up_and_one_that_fails_no_longer_counts():
    """Two refunds of which one fails at the bank: the sum falls, and each change is told with its part."""
    two = (refund(100, as_of=START), refund(200, name="r2", as_of=START))
    first = decide(CARD, paid(), an_observation(parts=two), NOW)
    assert first.sums == Sums(refunded_minor=300)
    payment = paid(sums=first.sums, parts=two, counts=first.counts)

    failed = decide(CARD, payment, an_observation(parts=(refund(200, PartStatus.UNDONE, "r2", LATER),)), NOW)

    assert (failed.outcome, failed.to_state, failed.sums) == (Outcome.ADVANCED, "captured", Sums(refunded_minor=100))
    (due,) = failed.effects
    assert (due.effect, due.occurrence, due.part.name, due.change_minor) == (Effect.REFUND_CHANGED, 2, "r2", -200)


@pytest.mark.parametrize(
    ("known", "said", "is_taken", "is_asked"),
    [
        ((PartStatus.PENDING, None), (PartStatus.DONE, None), True, False),
        ((PartStatus.DONE, None), (PartStatus.PENDING, None), False, False),
        ((PartStatus.DONE, None), (PartStatus.UNDONE, None), False, True),
        ((PartStatus.DONE, START), (PartStatus.UNDONE, LATER), True, False),
        ((PartStatus.DONE, LATER), (PartStatus.UNDONE, START), False, False),
        ((PartStatus.PENDING, START), (PartStatus.DONE, START), True, False),
    ],
)
def test_the_newer_word_about_a_part_counts(known, said, is_taken, is_asked):
    """Without times pending comes first; where that does not tell, the provider is asked."""
    payment = paid(parts=(refund(100, known[0], as_of=known[1]),))

    decision = decide(CARD, payment, an_observation(parts=(refund(100, said[0], as_of=said[1]),)), NOW)

    assert bool(decision.parts) == is_taken
    assert decision.ask == is_asked


def test_where_the_provider_states_the_sum_parts_do_not_count_twice():
    """The refund is in the total that was stated: one effect, of the total."""
    payment = paid(sums=Sums(refunded_minor=0), stated={"refunded_minor": START})
    said = an_observation(parts=(refund(100),), sums=Sums(refunded_minor=100), as_of=LATER)

    decision = decide(CARD, payment, said, NOW)

    assert (decision.sums, told(decision)) == (Sums(refunded_minor=100), (Effect.REFUND_CHANGED,))


def test_all_given_back_is_refunded_and_a_failed_refund_is_restored():
    """The state stays "captured": the phase follows the sum, there and back."""
    gone = decide(CARD, paid(), an_observation(parts=(refund(450, as_of=START),)), NOW)
    assert (gone.to_state, gone.phase) == ("captured", Phase.REFUNDED)
    assert told(gone) == (Effect.REFUND_CHANGED, Effect.REFUNDED)
    payment = paid(sums=gone.sums, parts=(refund(450, as_of=START),), counts=gone.counts)

    back = decide(CARD, payment, an_observation(parts=(refund(450, PartStatus.UNDONE, as_of=LATER),)), NOW)

    assert (back.phase, told(back)) == (Phase.PAID, (Effect.REFUND_CHANGED, Effect.PAID, Effect.RESTORED))


def test_a_dispute_that_is_lost_reverses_and_one_that_is_won_restores():
    """Opened, lost, and won in the second instance."""
    words, payment = [], paid()
    for status, at in ((PartStatus.PENDING, 1), (PartStatus.DONE, 2), (PartStatus.UNDONE, 3)):
        part = Part(PartKind.DISPUTE, "d1", status, 450, START + timedelta(minutes=at))
        decision = decide(CARD, payment, an_observation(parts=(part,)), NOW)
        words.append((told(decision), decision.sums.disputed_minor, decision.sums.charged_back_minor))
        payment = paid(sums=decision.sums, parts=(part,), counts=decision.counts)

    assert words == [
        ((Effect.DISPUTED,), 450, 0),
        ((Effect.DISPUTE_LOST, Effect.REVERSED), 0, 450),
        ((Effect.DISPUTE_WON, Effect.PAID, Effect.RESTORED), 0, 0),
    ]


# captures


@pytest.mark.parametrize(
    ("captured", "policy", "review"),
    [
        (450, PartialCapture.REVIEW, None),
        (300, PartialCapture.REVIEW, Review.AMOUNT_MISMATCH),
        (300, PartialCapture.ACCEPT, None),
        (451, PartialCapture.ACCEPT, Review.AMOUNT_MISMATCH),
    ],
)
def test_less_captured_is_paid_where_the_account_says_so_and_more_never_is(captured, policy, review):
    """Goods for less are handed over by the account's word, for more by a person's."""
    payment = a_view(state="authorised", partial_capture=policy)

    decision = decide(CARD, payment, an_observation("captured", sums=Sums(captured_minor=captured)), NOW)

    assert (decision.phase, decision.review) == (Phase.PAID, review)
    assert (Effect.PAID in told(decision)) == (review is None)


def test_an_accepted_partial_capture_opens_nothing_again():
    """The same sum, said daily, was accepted; another one is another."""
    payment = paid(accepted=("captured:300",), sums=Sums(captured_minor=300), stated={"captured_minor": START})
    same = an_observation("captured", sums=Sums(captured_minor=300), as_of=LATER, source=Source.POLL)
    other = an_observation("captured", sums=Sums(captured_minor=200), as_of=LATER, source=Source.POLL)

    assert decide(CARD, payment, same, NOW).review is None
    assert decide(CARD, payment, other, NOW).disputed == ("captured:200",)


def test_zero_captured_before_it_is_paid_is_no_doubt():
    """0 is an amount that providers state from the beginning."""
    decision = decide(CARD, a_view(), an_observation("created", sums=Sums(captured_minor=0)), NOW)

    assert (decision.outcome, decision.review, decision.sums) == (Outcome.ADVANCED, None, Sums(captured_minor=0))


@pytest.mark.parametrize(("tolerance", "is_owed"), [(0, False), (5, True)])
@pytest.mark.parametrize("last", [-5, 5])
def test_several_receipts_add_up_within_the_account_s_tolerance(tolerance, is_owed, last):
    """Two transfers to one address, of a little too much or too little together."""
    receipts = tuple(
        Part(PartKind.CAPTURE, name, PartStatus.DONE, minor) for name, minor in (("a", 200), ("b", 250 + last))
    )
    payment = a_view(state="created", tolerance_minor=tolerance)

    decision = decide(CARD, payment, an_observation("captured", parts=receipts), NOW)

    assert decision.sums == Sums(captured_minor=450 + last)
    assert (Effect.PAID in told(decision)) == is_owed


def test_less_authorised_than_asked_for_needs_a_person():
    """Goods are sent on a guarantee; it must be of all of it."""
    said = an_observation("authorised", sums=Sums(authorised_minor=130))

    decision = decide(CARD, a_view(state="created"), said, NOW)

    assert (decision.phase, decision.review) == (Phase.AUTHORISED, Review.AMOUNT_MISMATCH)
    assert told(decision) == (Effect.REVIEW_REQUIRED,)


# coming back, and late


def test_a_debit_that_fails_after_payout_and_is_paid_again_ends_restored():
    """Failed is not the last word, and goods are not due twice."""
    words, payment = [], a_view()
    for at, status in enumerate(("paid_out", "failed", "pending", "submitted", "confirmed", "paid_out")):
        as_of = START + timedelta(minutes=at)
        decision = decide(DEBIT, payment, an_observation(status, as_of=as_of), NOW)
        words += [due[:2] for due in decision.effects if due[:2] not in words]
        payment = replace(payment, state=decision.to_state, state_as_of=as_of, counts=decision.counts or payment.counts)

    assert words == [
        *((Effect.PAID, 0), (Effect.SETTLED, 0), (Effect.REVERSED, 0)),
        *((Effect.RESTORED, 0), (Effect.SETTLED, 1)),
    ]


def test_a_confirmed_state_of_a_loop_takes_over_the_newer_time():
    """Else a word from between would seem newer than the state that was confirmed after it."""
    payment = a_view(state="paid_out", state_as_of=START)

    confirmed = decide(DEBIT, payment, an_observation("paid_out", as_of=LATER), NOW)

    assert (confirmed.outcome, confirmed.confirmed_as_of) == (Outcome.UNCHANGED, LATER)


@pytest.mark.parametrize(
    ("policy", "days", "review"),
    [
        (LatePolicy.ACCEPT, 1, None),
        (LatePolicy.ACCEPT, 4, Review.LATE_MOVE),
        (LatePolicy.REVIEW, 1, Review.LATE_MOVE),
    ],
)
def test_a_late_move_follows_its_policy(policy, days, review):
    """The state is the provider's; goods wait for a person where the lifecycle or the time says so."""
    life = a_lifecycle(
        states=(
            State("new", Phase.OPEN),
            State("paid", Phase.PAID, terminal=True),
            State("expired", Phase.EXPIRED, terminal=True),
        ),
        moves={"new": ("paid", "expired")},
        late_moves={"expired": (LateMove("paid", policy, within=timedelta(days=3)),)},
    )
    payment = a_view(state="expired", state_as_of=START)
    said = an_observation("paid", as_of=START + timedelta(days=days))

    decision = decide(life, payment, said, START + timedelta(days=9))

    assert (decision.to_state, decision.forced, decision.review) == ("paid", False, review)
    assert told(decision) == ((Effect.PAID,) if review is None else (Effect.REVIEW_REQUIRED,))


def test_a_late_failure_is_told_even_where_a_person_must_look():
    """What is gone is gone: only goods wait."""
    late = {"settled": (LateMove("failed", LatePolicy.REVIEW),)}
    life = a_lifecycle(late_moves=late)

    decision = decide(life, a_view(state="settled"), an_observation("failed"), NOW)

    assert told(decision) == (Effect.REVERSED, Effect.REVIEW_REQUIRED)


def test_an_early_word_of_what_has_moved_on_late_is_stale():
    """Expired, then paid late: the expiry that comes after it is an old one."""
    decision = decide(CARD, paid(), an_observation("lapsed", as_of=None), NOW)

    assert decision.outcome is Outcome.STALE
