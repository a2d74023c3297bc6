"""What a channel says is not signed: it never outvotes what the signed body says."""

import json

import pytest

from providers.contract import Reading
from statemachine import own_statements
from statemachine.observation import Observation
from statemachine.phases import Review, Source
from storage.ids import new_id
from tests.support.builders import PROVIDERS, a_message

MONEY = {"amount": "500.00", "currency": "BDT"}


@pytest.fixture
def order(desk):
    """A payin R of 500.00 at Payfield, which has named it; returns its id."""
    desk.world.join("payfield", PROVIDERS["payfield"])
    return wish(desk, "R", is_named=True)


def wish(desk, reference, *, is_named):
    payment_id = new_id()
    desk.say(own_statements.CreateWanted("payin", reference, 50_000, "BDT"), payment_id, account="payfield")
    desk.work()
    if is_named:
        tell(desk, reference, "pending", source="create", kind="payin", about=payment_id)
    return payment_id


def tell(desk, ref, status, *, source="callback", kind=None, about=None, **more):
    """A signed body is recorded as of that channel and applied; returns the message."""
    body = {key: value for key, value in ({"external_id": ref, "status": status} | MONEY | more).items() if value}
    message_id = desk.keep(
        a_message(
            account="payfield",
            source=source,
            body=json.dumps(body).encode(),
            kind=kind,
            about=about,
            received_at=desk.clock(),
        )
    )
    desk.work()
    return desk.message(message_id)


def payin(desk, payment_id):
    payment = desk.get(payment_id)
    return payment.state, payment.provider_ref, payment.review


def test_a_payout_s_success_at_a_payin_s_callback_url_pays_nothing(desk, order):
    """The same id and the same sum; the body says that it is a payout."""
    desk.clock.advance(1)
    message = tell(desk, "R", "success", kind="payin", about=order, transaction_type="payout")

    assert payin(desk, order) == ("pending", "R", None)
    assert desk.effects(order) == []
    assert desk.poll_of(order).next_poll_at == desk.clock(), "it is a hint all the same"
    (payout,) = [payment for payment in desk.payments() if payment.kind == "payout"]
    assert (payout.state, payout.provider_ref, desk.effects(payout.id)) == ("success", "R", ["payout.paid"])
    assert {entry["payment"] for entry in message.outcomes} == {order, payout.id}
    assert desk.world.audit().first is None


@pytest.mark.parametrize("kind", [None, "payin"], ids=["account-url", "kind-in-the-url"])
def test_a_payout_s_success_at_the_account_s_url_pays_no_payin(desk, order, kind):
    """Nor does the path's word for the kind outvote the body's."""
    tell(desk, "R", "success", source="webhook", kind=kind, transaction_type="payout")

    assert payin(desk, order) == ("pending", "R", None)
    assert desk.effects(order) == []


def test_a_body_without_a_kind_decides_none_of_two(desk, order):
    """Both kinds have the id; the URL at which a body came does not say which of them it means."""
    tell(desk, "R", "pending", source="webhook", transaction_type="payout")
    tell(desk, "R", "success", kind="payin", about=order)

    assert [payment.state for payment in desk.payments()] == ["pending", "pending"]
    assert {poll.next_poll_at for poll in desk.polls()} == {desk.clock()}


def test_another_payment_s_success_at_an_order_s_callback_url_pays_that_other(desk, order):
    message = tell(desk, "OTHER", "success", kind="payin", about=order, transaction_type="payin")

    assert payin(desk, order) == ("pending", "R", None)
    assert desk.payment("OTHER").state == "success"
    assert message.payment_id == desk.payment("OTHER").id


@pytest.mark.parametrize(
    ("said", "is_meant"),
    [
        ({}, True),
        ({"amount": 4.5}, True),
        ({"amount": 0.01}, False),
        ({"currency": "eur"}, False),
        ({"metadata": {"reference": "order-2"}}, False),
        ({"metadata": {"reference": "order-1"}, "amount": 0.01}, True),  # named by what is signed: money in doubt
    ],
)
def test_a_token_names_an_unnamed_payment_only_where_the_body_says_nothing_else(desk, said, is_meant):
    """The provider's id is not known here yet; the token alone would bind it to the order."""
    order = desk.wish()
    desk.clock.advance(200)
    body = {"id": "pi_9", "status": "confirmed"} | said
    event = {"id": new_id(), "type": "payment_intent.confirmed", "data": body}
    desk.keep(a_message(source="callback", about=order, body=json.dumps(event).encode(), received_at=desk.clock()))
    desk.work()

    assert desk.get(order).provider_ref == ("pi_9" if is_meant else None)
    if said.get("amount") == 0.01 and is_meant:
        assert desk.get(order).review == Review.AMOUNT_MISMATCH


def test_a_named_payment_is_not_meant_under_another_reference(desk):
    """The body gives no id of the provider's, and a reference that is not the callback's payment's."""
    order = desk.wish()
    desk.answer(Source.CREATE, "awaiting_payment", about=order)
    desk.work()

    def reference_alone(_statement, _parse):
        told = {"kind": "payment_intent", "status": "confirmed", "reference": "order-2", "amount_minor": 450}
        return Reading(observations=(Observation(Source.CALLBACK, **told),))

    desk.read_as(reference_alone)
    message_id = desk.keep(a_message(source="callback", about=order, received_at=desk.clock()))
    desk.work()

    assert (desk.get(order).state, desk.message(message_id).status) == ("awaiting_payment", "parked")


def test_a_callback_for_a_payment_that_is_not_here_is_read_as_a_webhook(desk, order):
    """As after a restored backup: what is signed names the payment, or makes it known."""
    gone = new_id()
    known = tell(desk, "R", "success", kind="payin", about=gone, transaction_type="payin")
    new = tell(desk, "NEW", "success", kind="payin", about=gone)

    assert (known.status, known.payment_id, known.attempts) == ("decided", order, 0)
    assert (new.status, desk.payment("NEW").state) == ("decided", "success")


def test_a_return_for_a_payment_that_is_not_here_is_parked(desk):
    message_id = desk.keep(a_message(source="return", body=b"", about=new_id(), received_at=desk.clock()))
    desk.work()

    assert (desk.message(message_id).status, desk.message(message_id).attempts) == ("parked", 0)


def test_an_answer_about_another_kind_than_was_asked_about_is_not_believed(desk, order):
    message = tell(desk, "R", "success", source="poll", kind="payin", transaction_type="payout")

    assert (message.status, payin(desk, order)) == ("parked", ("pending", "R", None))
