"""Cancelling a payment, whatever its provider answers."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from providers.errors import ProviderError, UnsupportedByProvider
from service.errors import CancelNotSent, CancelUnanswered, NotNamedYet, UnknownAccountName
from statemachine import own_statements
from statemachine.phases import Phase, Review, Source
from storage.ids import new_id
from tests.property.cancel_world import (
    ACCOUNT,
    AWAY,
    BROKEN,
    FORBIDDEN,
    KIND,
    LIMITED,
    NO_ANSWER,
    TOO_LATE,
    UNKNOWN,
    Till,
    after,
    crashing,
    failing,
    fine,
    lost,
    saying,
)
from tests.support.builders import PROVIDERS, Unaskable, our_message

NOW = timedelta(0)
SOON = timedelta(seconds=120)


@pytest.fixture
def till(template, tmp_path):
    made = Till(template, tmp_path)
    with capture_logs():
        yield made
    made.close()


def refused(till, payment, error):
    with pytest.raises(error) as raised:
        till.cancel(payment)
    return raised.value


def waits(till, payment):
    """How long until the payment is asked about."""
    return till.poll_of(payment.id).next_poll_at - till.clock()


# asked first


def test_the_provider_is_asked_and_then_told(till):
    payment = till.a_payment()

    cancelled = till.cancel(payment)

    assert till.genius.calls == ["fetch", "cancel"]
    assert (cancelled.state, cancelled.phase) == ("cancelled", Phase.CANCELLED)
    assert till.effects(payment) == ["payment.cancelled"]
    assert [link.source for link in till.chain(payment)] == ["poll", "cancel"]


@pytest.mark.parametrize(
    ("state", "effects"),
    [
        ("confirmed", ["payment.paid"]),
        ("settled", ["payment.paid", "payment.settled"]),
        ("expired", ["payment.expired"]),
        ("cancelled", ["payment.cancelled"]),
    ],
)
def test_nothing_is_sent_about_what_has_ended_at_the_provider(till, state, effects):
    payment = till.a_payment(state)

    assert till.cancel(payment).state == state
    assert till.genius.calls == ["fetch"]
    assert till.effects(payment) == effects


@pytest.mark.parametrize("state", ["confirmed", "settled", "expired", "cancelled"])
def test_nothing_is_asked_about_what_is_known_to_have_ended(till, state):
    payment = till.a_payment(state)
    till.run(till.commands().refresh(payment.id))
    till.genius.calls.clear()

    assert till.cancel(payment).state == state
    assert till.genius.calls == []


@pytest.mark.parametrize("error", [AWAY, NO_ANSWER, BROKEN, LIMITED, FORBIDDEN, UNKNOWN])
def test_nothing_is_sent_while_the_provider_cannot_be_asked(till, error):
    payment = till.a_payment()
    till.genius.turns = [failing(error)]

    raised = refused(till, payment, CancelNotSent)

    assert error.message in raised.message
    assert raised.retryable
    assert till.genius.calls == ["fetch"]
    assert till.told(payment) == []
    assert till.get(payment.id).state == "awaiting_payment"


def test_nothing_is_sent_on_an_answer_that_was_not_understood(till):
    payment = till.a_payment("partly_paid")

    raised = refused(till, payment, CancelNotSent)

    assert "partly_paid" in raised.message
    assert till.genius.calls == ["fetch"]
    assert till.get(payment.id).review == Review.UNKNOWN_STATUS


# too late


@pytest.mark.parametrize(("state", "effect"), [("confirmed", "payment.paid"), ("expired", "payment.expired")])
def test_what_moved_while_we_cancelled_is_what_it_became(till, state, effect):
    payment = till.a_payment()
    till.genius.turns = [fine, after(state)]

    assert till.cancel(payment).state == state
    assert till.genius.calls == ["fetch", "cancel", "fetch"]
    assert till.effects(payment) == [effect]
    (refusal,) = till.told(payment)
    assert "intent_not_cancellable" in refusal.reason


def test_a_refusal_that_the_provider_does_not_explain_is_no_error(till):
    """The provider says that it cannot be cancelled and that it still waits: both are its word, and it is asked on."""
    payment = till.a_payment()
    till.genius.turns = [fine, failing(TOO_LATE)]

    assert till.cancel(payment).state == "awaiting_payment"
    assert waits(till, payment) <= SOON


def test_a_refusal_without_a_word_on_the_state_is_not_guessed_at(till):
    payment = till.a_payment()
    till.genius.turns = [fine, after("confirmed"), failing(AWAY)]

    assert refused(till, payment, CancelUnanswered).retryable
    assert till.get(payment.id).state == "awaiting_payment"
    assert waits(till, payment) <= NOW
    till.poll()
    assert till.effects(payment) == ["payment.paid"]


# no answer


@pytest.mark.parametrize("error", [NO_ANSWER, BROKEN])
def test_an_answer_that_was_lost_is_asked_for(till, error):
    payment = till.a_payment()
    till.genius.turns = [fine, lost(error)]

    assert till.cancel(payment).state == "cancelled"
    assert till.genius.calls == ["fetch", "cancel", "fetch"]
    assert till.effects(payment) == ["payment.cancelled"]
    assert [link.source for link in till.chain(payment)] == ["poll", "poll"]


@pytest.mark.parametrize("error", [NO_ANSWER, BROKEN])
def test_a_call_that_may_still_work_leaves_the_payment_as_it_is(till, error):
    payment = till.a_payment()
    till.genius.turns = [fine, failing(error)]

    raised = refused(till, payment, CancelUnanswered)

    assert "awaiting_payment" in raised.message
    assert till.get(payment.id).state == "awaiting_payment"
    assert waits(till, payment) <= SOON
    assert till.effects(payment) == []


@pytest.mark.parametrize("how", [lost, failing])
def test_a_provider_that_is_away_afterwards_leaves_the_payment_as_it_is(till, how):
    """Never cancelled by our own wish (rule R6), and the next question is due at once."""
    payment = till.a_payment()
    till.genius.turns = [fine, how(NO_ANSWER), failing(AWAY)]

    refused(till, payment, CancelUnanswered)

    assert till.get(payment.id).state == "awaiting_payment"
    assert waits(till, payment) <= NOW
    assert till.effects(payment) == []
    till.poll()
    assert till.get(payment.id).state == till.genius.states[payment.provider_ref]


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff"])
def test_an_answer_that_does_not_tell_the_state_is_asked_about(till, body):
    payment = till.a_payment()
    till.genius.turns = [fine, saying(body)]

    assert till.cancel(payment).state == "cancelled"
    assert till.genius.calls == ["fetch", "cancel", "fetch"]


def test_an_answer_that_does_not_tell_the_state_and_no_other_leaves_it_as_it_is(till):
    payment = till.a_payment()
    till.genius.turns = [fine, saying(b""), failing(BROKEN)]

    refused(till, payment, CancelUnanswered)

    assert till.get(payment.id).state == "awaiting_payment"
    assert waits(till, payment) <= NOW


# refused


@pytest.mark.parametrize(("error", "asked"), [(AWAY, 1), (LIMITED, 1), (FORBIDDEN, 2), (UNKNOWN, 2)])
def test_what_was_refused_for_another_reason_is_an_error(till, error, asked):
    """The caller is told the reason; what was not looked at is not asked about again by the command itself."""
    payment = till.a_payment()
    till.genius.turns = [fine, failing(error)]

    assert refused(till, payment, ProviderError) is error
    assert till.genius.calls.count("fetch") == asked
    assert till.get(payment.id).state == "awaiting_payment"
    assert waits(till, payment) <= SOON


def test_a_refusal_is_told_although_the_provider_is_away_then(till):
    payment = till.a_payment()
    till.genius.turns = [fine, failing(FORBIDDEN), failing(AWAY)]

    assert refused(till, payment, ProviderError) is FORBIDDEN
    assert waits(till, payment) <= NOW


# what cannot be cancelled at all


def test_a_provider_without_such_a_call_is_not_asked(till):
    """The account's budget is not spent on what cannot be."""
    payment = till.a_payment()
    till.has_provider(PROVIDERS["payfield"])

    refused(till, payment, UnsupportedByProvider)
    assert till.genius.calls == []


def test_a_provider_that_cannot_be_asked_is_told_to_cancel_and_not_asked(till):
    """What the answer to the cancel call says is all that can be known, and a refresh is refused."""
    payment = till.a_payment()
    till.has_provider(Unaskable.with_options())

    with pytest.raises(UnsupportedByProvider):
        till.run(till.commands().refresh(payment.id))
    with pytest.raises(UnsupportedByProvider):
        till.run(till.commands().track(ACCOUNT, "pi_9"))
    assert till.cancel(payment).state == "cancelled"
    assert till.genius.calls == ["cancel"]


def test_a_cancel_without_an_answer_is_unanswered_where_nobody_can_ask(till):
    """It may have been heard: the payment stays as it is, and nothing is asked."""
    payment = till.a_payment()
    till.has_provider(Unaskable.with_options())
    till.genius.turns = [lost(NO_ANSWER)]

    refused(till, payment, CancelUnanswered)
    assert till.genius.calls == ["cancel"]
    assert till.get(payment.id).state == "awaiting_payment"


def wish(till):
    """A payment that the merchant wants and that the provider has not named."""
    payment_id = new_id()
    wanted = own_statements.CreateWanted(KIND, "order-1", 450, "USD")
    message = our_message(wanted, about=payment_id, at=till.clock(), account=ACCOUNT)
    till.service.inbox_worker().take(message)
    return till.get(payment_id)


def test_what_the_provider_has_not_named_cannot_be_cancelled_yet(till):
    assert refused(till, wish(till), NotNamedYet).retryable
    assert till.genius.calls == []


def test_what_was_never_created_needs_no_cancelling(till):
    payment = wish(till)
    failed = own_statements.CallFailed("create", "no", "no", 400, is_ambiguous=False)
    till.service.inbox_worker().take(our_message(failed, about=payment.id, at=till.clock(), account=ACCOUNT))

    assert till.cancel(payment).state == "not_created"
    assert till.genius.calls == []


def test_an_account_that_is_gone_from_the_settings_is_named(till):
    payment = till.a_payment()
    del till.service.accounts[ACCOUNT]

    assert ACCOUNT in refused(till, payment, UnknownAccountName).message


# repeats and races


def test_two_cancels_at_once_are_one(till):
    payment = till.a_payment()

    async def both():
        till.genius.meeting = asyncio.Barrier(2)
        return await asyncio.gather(*(till.commands().cancel(payment.id) for _ in range(2)))

    assert [each.state for each in till.run(both())] == ["cancelled", "cancelled"]
    assert sorted(till.genius.calls) == ["cancel", "cancel", "fetch", "fetch", "fetch"]
    assert till.effects(payment) == ["payment.cancelled"]


def test_a_repeat_is_answered_from_what_is_known(till):
    payment = till.a_payment()
    till.cancel(payment)
    till.genius.calls.clear()

    assert till.cancel(payment).state == "cancelled"
    assert till.genius.calls == []


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "between"])
def test_a_paid_webhook_that_waits_in_the_inbox_is_not_overruled(till, is_first):
    """The provider knows of the money already: it says so when asked, or refuses; the shop hears of it once."""
    payment = till.a_payment("confirmed" if is_first else "awaiting_payment")
    till.webhook(payment.provider_ref, "confirmed")
    till.genius.turns = [fine] if is_first else [fine, after("confirmed")]

    assert till.cancel(payment).state == "confirmed"
    till.work()
    assert till.effects(payment) == ["payment.paid"]
    assert len(till.chain(payment)) == 2


def test_money_after_the_provider_s_cancel_needs_a_person(till):
    """The provider cancelled, and says later that it was paid: that is nobody's to decide but a person's."""
    payment = till.a_payment()
    till.cancel(payment)
    till.webhook(payment.provider_ref, "confirmed")
    till.work()

    assert (till.get(payment.id).state, till.get(payment.id).review) == ("cancelled", Review.CONFLICT)
    assert till.effects(payment) == ["payment.cancelled", "payment.review_required"]


# crashes


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param([], id="cancelled"),
        pytest.param([fine, after("confirmed")], id="paid"),
        pytest.param([fine, lost(NO_ANSWER)], id="lost", marks=pytest.mark.slow),
        pytest.param([fine, failing(BROKEN)], id="broken", marks=pytest.mark.slow),
    ],
)
def test_wherever_the_process_ends_the_poller_finds_out(till, turns):
    """A crash at each write in turn: two minutes later our state is the provider's, and its effect is owed once."""
    crashes = 0
    for at in range(1, 100):
        payment = till.a_payment()
        till.genius.turns = list(turns)
        is_crashed = crashing(till, at, lambda payment=payment: quietly(till, payment))
        till.genius.turns = []
        was_told = "cancel" in till.genius.calls
        till.clock.advance(130)
        till.work()
        till.poll()

        now, truth = till.get(payment.id), till.genius.states[payment.provider_ref]
        assert now.state == truth, f"after a crash at write {at}"
        expected = {"cancelled": ["payment.cancelled"], "confirmed": ["payment.paid"], "awaiting_payment": []}
        assert till.effects(payment) == expected[truth]
        assert till.poll_of(payment.id).next_poll_at is not None or truth != "awaiting_payment"
        till.forget(payment)
        if not is_crashed:
            break
        crashes += 1
    assert crashes > 8
    assert was_told
    assert till.audit().faults == []


def quietly(till, payment):
    """Cancel, whatever comes of it."""
    try:
        till.cancel(payment)
    except CancelUnanswered:
        return


def test_every_call_that_failed_is_kept(till):
    payment = till.a_payment()
    till.genius.turns = [fine, lost(BROKEN)]
    till.cancel(payment)

    (kept,) = till.told(payment, Source.CANCEL)
    assert own_statements.decode(kept.body) == own_statements.CallFailed(
        "cancel", "provider_error", "answered 502", 502, True
    )
