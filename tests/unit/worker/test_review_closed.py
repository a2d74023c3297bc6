"""Whoever was told that a review is required is told that it is over: once for each review, with how."""

import json

import pytest

from statemachine import own_statements
from statemachine.phases import Review
from storage import outbox
from tests.unit.worker.test_account_alarm import alarm, owed

REQUIRED, CLOSED = "payment.review_required", "payment.review_closed"


def told(desk, payment_id, sink="shop"):
    """Effects about reviews in order: name, occurrence, the review, its number and the reason."""
    with desk.database.read() as unit:
        rows = [row for row in outbox.of_payment(unit, payment_id) if row.sink == sink and "review" in row.effect]
    data = [json.loads(row.payload)["data"] for row in rows]
    return [
        (row.effect, row.occurrence, each["review"], each["review_number"], each["reason"])
        for row, each in zip(rows, data, strict=True)
    ]


def doubtful(desk):
    payment_id = desk.wish()
    desk.told("confirmed", amount=4.49, metadata={"reference": "order-1"})
    assert desk.get(payment_id).review == Review.AMOUNT_MISMATCH
    return payment_id


def resolve(desk, payment_id, reason="a cent is fine"):
    desk.say(own_statements.Resolution("confirmed", reason, "ada"), payment_id)
    desk.work()


@pytest.mark.parametrize("sink", ["shop", "ledger"])
def test_a_person_closes_it(desk, sink):
    payment_id = doubtful(desk)
    assert [entry[0] for entry in told(desk, payment_id, sink)] == [REQUIRED]
    resolve(desk, payment_id)
    assert told(desk, payment_id, sink)[1] == (
        CLOSED,
        1,
        "amount_mismatch",
        1,
        "resolved by ada: a cent is fine",
    )
    assert desk.effects(payment_id)[-2:] == ["payment.paid", CLOSED]
    assert desk.world.audit().faults == []


def test_it_is_told_once_and_nothing_is_told_where_none_was_open(desk):
    payment_id = doubtful(desk)
    resolve(desk, payment_id)
    resolve(desk, payment_id, "again")
    assert [entry[0] for entry in told(desk, payment_id)] == [REQUIRED, CLOSED]


def test_another_review_in_its_place_closes_it_first(desk):
    """Two reviews, two beginnings and, when a person has spoken, two ends: each with its own number."""
    payment_id = desk.wish()
    desk.say(own_statements.GaveUp(Review.CREATE_UNKNOWN.value, "no answer"), payment_id)
    desk.work()
    desk.told("confirmed", amount=4.49, metadata={"reference": "order-1"})
    assert [entry[:4] for entry in told(desk, payment_id)] == [
        (REQUIRED, 1, "create_unknown", 1),
        (CLOSED, 1, "create_unknown", 1),
        (REQUIRED, 2, "amount_mismatch", 2),
    ]
    resolve(desk, payment_id)
    assert told(desk, payment_id)[-1][:4] == (CLOSED, 2, "amount_mismatch", 2)
    assert desk.world.audit().faults == []


def test_what_a_sink_does_not_take_is_not_owed_to_it(desk):
    """And the audit, which rests on what was decided to be owed, finds nothing missing."""
    desk.set(takes=lambda sink, effect: sink == "shop" or "review" in effect)
    payment_id = doubtful(desk)
    resolve(desk, payment_id)
    with desk.database.read() as unit:
        owed = [(row.sink, row.effect) for row in outbox.of_payment(unit, payment_id)]
    assert sorted(effect for sink, effect in owed if sink == "ledger") == [CLOSED, REQUIRED]
    assert sorted(effect for sink, effect in owed if sink == "shop") == ["payment.paid", CLOSED, REQUIRED]
    assert desk.world.audit().faults == []


def test_an_alarm_is_not_owed_to_a_sink_that_does_not_take_it(desk):
    desk.set(takes=lambda sink, _effect: sink == "shop")
    alarm(desk)
    assert [row.sink for row in owed(desk)] == ["shop"]
    desk.set(takes=lambda _sink, _effect: False)
    alarm(desk, is_over=True)
    assert len(owed(desk)) == 1
    assert desk.world.audit().faults == []


def test_what_a_person_accepted_withholds_nothing_later(desk):
    """The same amount in the next answers is in doubt no more, and its goods are owed."""
    payment_id = doubtful(desk)
    resolve(desk, payment_id)
    desk.told("settled", amount=4.49, metadata={"reference": "order-1"})

    assert desk.get(payment_id).review is None
    assert "payment.settled" in desk.effects(payment_id)
