"""What is authentic and says nothing to us: a hint that something happened, seen where it belongs; on a real file."""

import json
from codecs import BOM_UTF8
from datetime import timedelta

import pytest

from statemachine.phases import Review, Source
from storage import inbox, payment_polls
from storage.ids import new_id
from storage.types import PollPriority
from tests.support.builders import a_message

SAYS = {"id": "evt_1", "type": "payment_intent.confirmed", "data": {"id": "pi_1", "status": "confirmed"}}
TEXT = json.dumps(SAYS)
UNREADABLE = {
    "utf-16": TEXT.encode("utf-16"),
    "in an array": f"[{TEXT}]".encode(),
    "packed": b"\x1f\x8b\x08\x00" + TEXT.encode(),
    "cut": TEXT[:-1].encode(),
    "nothing": b"",
    "a form": b"id=pi_1&status=confirmed",
    "other names": json.dumps({"payment": SAYS}).encode(),
}


def delivered(desk, body, *, source=Source.WEBHOOK, about=None, **changes):
    message = a_message(body=body, source=source.value, about=about, received_at=desk.clock(), **changes)
    message_id = desk.keep(message)
    desk.work()
    return desk.message(message_id)


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_at_a_payment_s_own_url_it_is_asked_about_now_and_shown_there(desk, body):
    desk.a_quiet_payment()
    payment = desk.payment()
    message = delivered(desk, body, source=Source.CALLBACK, about=payment.id)

    assert (message.status, message.payment_id) == ("parked", payment.id)
    assert message.reason.startswith("unreadable: ")
    assert (desk.poll().next_poll_at, desk.poll().poll_priority) == (desk.clock(), PollPriority.DOUBT)
    assert desk.payment().state == payment.state
    with desk.database.read() as unit:
        assert message.id in [each.id for each in inbox.concerning(unit, payment.id)]
    assert desk.world.audit().first is None


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_at_the_account_s_url_the_newest_open_ones_are_asked_about(desk, body):
    desk.set(hint_asks=2)
    for ref in ("pi_1", "pi_2", "pi_3"):
        desk.told("awaiting_payment", ref)
        with desk.database.write() as unit:
            payment_polls.set_next(unit, desk.payment(ref).id, desk.clock() + timedelta(hours=1))
    message = delivered(desk, body)

    asked = [ref for ref in ("pi_1", "pi_2", "pi_3") if desk.poll(ref).next_poll_at == desk.clock()]
    assert asked == ["pi_2", "pi_3"], "as many as a hint asks about, the newest"
    assert all(desk.poll(ref).poll_priority <= PollPriority.HINT for ref in asked)
    assert (message.status, message.payment_id) == ("parked", None)
    assert "the provider is asked about 2 payments" in message.reason


def test_a_url_of_a_payment_that_is_not_here_is_the_account_s(desk):
    desk.a_quiet_payment()
    message = delivered(desk, b"<html>", source=Source.CALLBACK, about=new_id())

    assert message.status == "parked"
    assert desk.poll().next_poll_at == desk.clock()


@pytest.mark.parametrize("source", [Source.POLL, Source.LIST])
def test_an_answer_to_a_question_asks_no_other(desk, source):
    """The next question has its time; else a provider that answers nonsense would be asked without a pause."""
    desk.a_quiet_payment()
    payment, before = desk.payment(), desk.poll()
    about = payment.id if source is Source.POLL else None
    message = delivered(desk, b"<html>", source=source, about=about, kind=payment.kind, http_status=200)

    assert (message.status, message.payment_id) == ("parked", about)
    assert desk.poll().next_poll_at == before.next_poll_at


def test_an_answer_that_tells_no_state_asks_no_other(desk):
    desk.a_quiet_payment()
    payment, before = desk.payment(), desk.poll()
    body = json.dumps({"id": "pi_1"}).encode()
    delivered(desk, body, source=Source.POLL, about=payment.id, kind=payment.kind, ref="pi_1", http_status=200)

    assert desk.poll().next_poll_at == before.next_poll_at


def test_a_byte_order_mark_is_read_over(desk):
    desk.a_quiet_payment()
    message = delivered(desk, BOM_UTF8 + TEXT.encode())

    assert message.status == "decided"
    assert desk.payment().state == "confirmed"


def test_an_answer_to_a_create_call_that_is_read_after_a_webhook_named_the_payment_opens_nothing(desk):
    payment_id = desk.wish()
    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()
    message = delivered(desk, b"<html>", source=Source.CREATE, about=payment_id, kind="payment_intent", http_status=200)

    assert (message.status, message.payment_id, desk.get(payment_id).review) == ("parked", payment_id, None)


def test_an_answer_to_a_create_call_that_names_nothing_is_reviewed_with_its_cause(desk):
    payment_id = desk.wish()
    message = delivered(desk, b"<html>", source=Source.CREATE, about=payment_id, kind="payment_intent", http_status=200)

    payment = desk.get(payment_id)
    assert (payment.review, payment.review_note) == (Review.CREATE_UNKNOWN, message.reason)
    assert "answered with HTTP 200, and the answer is unreadable: the body is not JSON" in message.reason
    assert desk.effects(payment_id) == ["payment.review_required"]
    assert desk.world.audit().first is None

    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()
    assert desk.get(payment_id).review is None


@pytest.mark.parametrize(("http_status", "body"), [(302, b""), (200, b'{"data":{}}')])
def test_an_answer_to_a_create_call_that_names_no_payment_needs_a_review(desk, http_status, body):
    """Whatever else it says: the provider may hold a payment that nobody here will hear of."""
    payment_id = desk.wish()
    message = delivered(
        desk, body, source=Source.CREATE, about=payment_id, kind="payment_intent", http_status=http_status
    )

    assert (message.status, message.payment_id) == ("parked", payment_id)
    assert desk.get(payment_id).review == Review.CREATE_UNKNOWN
