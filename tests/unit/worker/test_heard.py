"""In which way a payment was first heard of to be paid."""

import pytest

from providers.contract import Answer
from statemachine import own_statements
from statemachine.phases import Source
from storage import totals
from tests.support.builders import a_message
from tests.support.worker_desk import KIND


def ways(desk):
    with desk.database.read() as unit:
        return {account: dict(counter) for account, counter in totals.first_paid(unit).items()}


def pay(desk, source):
    desk.answer(source, "confirmed")
    desk.work()


def test_nothing_is_counted_before_it_is_paid(desk):
    desk.told("awaiting_payment")

    assert ways(desk) == {}


@pytest.mark.parametrize("state", ["confirmed", "settled"])
def test_a_webhook_is_a_push(desk, state):
    desk.told("awaiting_payment")
    desk.told(state)

    assert ways(desk) == {"acme": {"pushed": 1}}


def test_the_first_word_counts_and_no_later_one(desk):
    desk.told("awaiting_payment")
    pay(desk, Source.POLL)
    desk.told("settled")

    assert ways(desk) == {"acme": {"asked": 1}}


@pytest.mark.parametrize(
    ("source", "way"),
    [(Source.POLL, "asked"), (Source.CANCEL, "told"), (Source.CREATE, "told")],
)
def test_an_answer_is_told_by_what_was_asked(desk, source, way):
    desk.told("awaiting_payment")
    desk.answer(source, "confirmed", about=desk.payment().id)
    desk.work()

    assert ways(desk) == {"acme": {way: 1}}


def test_a_page_of_the_provider_s_list_is_reconciliation(desk):
    desk.told("awaiting_payment")
    page = b'{"object":"list","data":[{"id":"pi_1","status":"confirmed","amount":4.5,"currency":"usd"}]}'
    desk.keep(desk.world.answered("acme", Source.LIST, Answer(200, page, desk.clock(), KIND), None))
    desk.work()

    assert ways(desk) == {"acme": {"listed": 1}}


def test_a_person_s_word_is_one(desk):
    desk.told("awaiting_payment")
    desk.say(own_statements.Resolution("confirmed", "seen", "ann"), desk.payment().id)
    desk.work()

    assert ways(desk) == {"acme": {"resolved": 1}}


def returns(desk):
    """The payer comes back from the checkout."""
    desk.keep(a_message(source="return", about=desk.payment().id, received_at=desk.clock()))
    desk.work()


def test_a_returning_payer_is_why_it_was_asked(desk):
    desk.told("awaiting_payment")
    returns(desk)
    desk.clock.advance(1)
    pay(desk, Source.POLL)

    assert ways(desk) == {"acme": {"returned": 1}}


def test_an_answer_in_between_uses_the_hint_up(desk):
    desk.told("awaiting_payment")
    returns(desk)
    desk.clock.advance(1)
    desk.answer(Source.POLL, "awaiting_payment")
    desk.work()
    desk.clock.advance(60)
    pay(desk, Source.POLL)

    assert ways(desk) == {"acme": {"asked": 1}}


def test_a_webhook_that_is_only_a_hint_is_told_apart(desk):
    """Money that reached the address is no word on the state: the provider is asked, because of it."""
    desk.told("awaiting_payment")
    body = b'{"id":"evt_1","type":"transaction.created","data":{"payment_intent":"pi_1"}}'
    desk.keep(a_message(body=body, received_at=desk.clock()))
    desk.work()
    desk.clock.advance(1)
    pay(desk, Source.POLL)

    assert ways(desk) == {"acme": {"hinted": 1}}
