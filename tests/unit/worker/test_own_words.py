"""The merchant's own words about a payment: kept with it, told with each effect as they were then, and audited."""

import json

import pytest

from statemachine import own_statements
from statemachine.phases import Source
from storage.ids import new_id
from tests.support.audit_case import Tampering

TICKETS = {"description": "2 tickets", "metadata": {"cart": "c-88"}}


def told(desk, payment_id):
    """The own words of each effect that is owed, in order."""
    data = [json.loads(each.payload)["data"] for each in desk.owed(payment_id)]
    return [{name: one[name] for name in ("description", "metadata")} for one in data]


def wish(desk, **own):
    payment_id = new_id()
    wanted = own_statements.CreateWanted("payment_intent", "order-1", 450, "USD", **own)
    desk.say(wanted, payment_id, delivery_key="create:order-1")
    desk.work()
    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()
    return payment_id


def describe(desk, payment_id, description, metadata):
    desk.say(own_statements.PaymentDescribed(description, metadata), payment_id)
    desk.work()


def test_an_effect_carries_them(desk):
    payment_id = wish(desk, **TICKETS)
    desk.told("confirmed")

    assert told(desk, payment_id) == [TICKETS]
    assert desk.world.audit().faults == []


def test_an_effect_of_a_payment_without_any_says_none(desk):
    payment_id = wish(desk)
    desk.told("confirmed")

    assert told(desk, payment_id) == [{"description": None, "metadata": {}}]


def test_words_that_change_change_no_effect_that_is_owed(desk):
    """The first effect keeps what was known then; the next carries what is known now; the audit finds both right."""
    payment_id = wish(desk, **TICKETS)
    desk.told("confirmed")
    describe(desk, payment_id, None, {"cart": "c-89"})
    desk.told("settled")

    assert told(desk, payment_id) == [TICKETS, {"description": None, "metadata": {"cart": "c-89"}}]
    assert desk.world.audit().faults == []


def test_a_described_payment_moves_nowhere(desk):
    """State, version, review and questions stay; the message stands in the payment's history."""
    payment_id = wish(desk)
    before = desk.get(payment_id)
    describe(desk, payment_id, *TICKETS.values())
    after = desk.get(payment_id)

    assert (after.description, after.merchant_metadata) == ("2 tickets", {"cart": "c-88"})
    assert (after.state, after.version, after.review) == (before.state, before.version, None)
    assert desk.owed(payment_id) == []


def test_words_about_a_payment_that_is_not_here_change_nothing(desk):
    describe(desk, new_id(), *TICKETS.values())

    assert desk.world.audit().faults == []


@pytest.mark.parametrize(
    ("column", "value"), [("description", "3 tickets"), ("description", None), ("merchant_metadata", {"cart": "c-1"})]
)
def test_other_words_in_the_row_are_found(desk, column, value):
    """Who changes a description or metadata in the database is found by the audit."""
    payment_id = wish(desk, **TICKETS)
    Tampering(desk.database).change("payment", payment_id, **{column: value})

    assert {(fault.table, fault.row) for fault in desk.world.audit().faults} == {("payment", payment_id)}
