"""What stands in a payment's way, in words."""

from datetime import timedelta

import pytest

from service.blockers import REMEDIES, find_blockers, times
from statemachine.phases import Review
from storage.outbox import new_message
from storage.rate_limits import Breaker
from storage.tables import DeliveryAttempt
from tests.support.builders import a_message, a_payment, a_poll
from tests.support.clock import START


def told(payment=None, owed=(), attempts=(), waiting=(), breaker=None, asked=None, **changes):
    """`asked` is when the payment is asked about; at once unless it says otherwise."""
    payment = payment or a_payment()
    poll = a_poll(payment, **({"next_poll_at": START} if asked is None else asked))
    given = {"is_terminal": False, **changes}
    found = find_blockers(payment, poll, owed, attempts, waiting, breaker or Breaker(), START, **given)
    return [each.text for each in found]


def owing(effect="payment.paid", sink="shop", **changes):
    message = new_message(
        payment_id="p",
        account="acme",
        effect=effect,
        sink=sink,
        occurrence=0,
        cause="m",
        payload="{}",
        now=START,
        webhook_id=None,
        number=1,
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def tried(message, number, http_status, outcome="failed"):
    return DeliveryAttempt(
        id=str(number),
        outbox_id=message.id,
        number=number,
        started_at=START,
        duration_ms=1,
        http_status=http_status,
        outcome=outcome,
        error="no route",
    )


@pytest.mark.parametrize("review", list(Review))
def test_every_review_has_a_remedy(review):
    assert REMEDIES[review].meaning
    assert REMEDIES[review].do.endswith(".")


def test_where_all_is_well_nothing_is_told():
    assert told() == []
    assert told(a_payment(state="sent", phase="paid"), is_terminal=True) == []


@pytest.mark.parametrize("review", ["amount_mismatch", "currency_mismatch"])
def test_fulfilment_that_is_withheld_is_told_with_its_reason(review):
    payment = a_payment(review=review, review_note="the amount is 1, 2 was asked for")

    assert told(payment) == ["no fulfilment: the amount is 1, 2 was asked for"]
    assert told(payment, [owing(status="delivered")]) == []  # it was handed over before the doubt
    assert told(a_payment(review="conflict", review_note="so")) == []


def test_a_breaker_says_until_when():
    breaker = Breaker(4, START, START + timedelta(minutes=1))

    (words,) = told(breaker=breaker)

    assert words == (
        f"not asked: the account's breaker is open until {START + timedelta(minutes=1):%Y-%m-%d %H:%M:%S}Z, "
        "since the provider has not answered four times"
    )
    assert told(a_payment(state="x", phase="paid"), breaker=breaker, is_terminal=True) == []


def test_other_reasons_not_to_ask():
    assert told(a_payment(provider_ref=None)) == ["not asked: the provider has not named the payment yet"]
    assert told(asked={}) == ["not asked: asking has ended without a last word; ask now, or resolve"]
    assert told(a_payment(phase="paid"), asked={}) == []
    (paused,) = told(pause=timedelta(seconds=30))
    assert paused.startswith("not asked: the provider wants no question until ")
    failed = {"next_poll_at": START, "poll_error": "no such id", "poll_failures": 3}
    assert told(asked=failed) == ["no answer to the last question (three times in a row): no such id"]


def test_a_sink_that_fails_is_told_with_how_often_it_said_the_same():
    owed = owing(attempts=5, next_attempt_at=START + timedelta(hours=1))
    attempts = [tried(owed, 1, 503), *(tried(owed, number, 500) for number in (2, 3, 4, 5))]

    (words,) = told(owed=[owed], attempts=attempts)

    at = f"{START + timedelta(hours=1):%Y-%m-%d %H:%M:%S}Z"
    assert words == f"no payment.paid at shop yet: sink shop has answered 500 four times, next attempt at {at}"
    (silent,) = told(owed=[owed], attempts=[tried(owed, 5, None)])
    assert "sink shop has not answered once (no route)" in silent
    (forgotten,) = told(owed=[owing(attempts=5, last_error="http 500")])
    assert "sink shop has failed five times: http 500, next attempt now" in forgotten


def test_what_is_dead_comes_first_and_what_waits_says_for_what():
    first = owing("payment.failed")
    waits, dead = owing("payment.paid"), owing("payment.paid", "queue", status="dead", attempts=1, last_error="gone")

    words = told(owed=[first, waits, dead])

    why = "sink queue has failed once: gone, and was given up; redrive it when the sink is mended"
    assert words == [
        f"no payment.paid at queue: {why}",
        "no payment.failed at shop yet: the first attempt is due",
        "no payment.paid at shop yet: it goes out after payment.failed",
    ]


def test_messages_that_are_not_decided_are_told():
    def message(status, **changes):
        found = a_message()
        for name, value in {"status": status, **changes}.items():
            setattr(found, name, value)
        return found

    words = told(
        waiting=[
            message("pending", last_error="locked"),
            message("parked", reason="'x' is no state"),
            message("dead", last_error="a bug"),
        ]
    )

    at = f"{START:%Y-%m-%d %H:%M:%S}Z"
    assert words == [
        f"not decided: a webhook of {at} was given up: a bug; replay it when the fault is mended",
        f"not applied: a webhook of {at} is parked: 'x' is no state",
        f"not decided: a webhook of {at}, the last try failed: locked",
    ]


def test_how_often_in_words():
    assert [times(count) for count in (0, 1, 2, 6, 7)] == ["0 times", "once", "twice", "six times", "7 times"]
