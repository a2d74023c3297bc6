"""How payments were first heard of to be paid is counted alike on every database."""

from datetime import timedelta

import pytest

from storage import inbox, totals
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START


@pytest.mark.parametrize(
    ("before", "source", "way"),
    [
        (None, "webhook", "pushed"),
        (None, "poll", "asked"),
        ("callback", "poll", "hinted"),
        ("return", "poll", "returned"),
        ("return", "webhook", "pushed"),
    ],
)
def test_the_way_is_that_of_the_first_word(database, before, source, way):
    """What moved the payment, and where that was an answer, what it was asked for."""
    with database.write() as unit:
        for number in range(3):
            payment = a_payment()
            keeping.keep(unit, payment)
            messages = [a_message(source=source, received_at=START)]
            if before is not None:
                at = START - timedelta(seconds=1 + number)
                messages.insert(0, a_message(source=before, received_at=at))
            inbox.record(unit, messages)
            for message in messages:
                message.payment_id, message.status, message.decision = payment.id, "decided", "noted"
                message.reason, message.decided_at = "a test", START
                keeping.decide(unit, [message])
            keeping.moved_to_paid(unit, payment, messages[-1])
            keeping.change(unit, payment)

    with database.read() as unit:
        assert totals.first_paid(unit) == {"acme": {way: 3}}
