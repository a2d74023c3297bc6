import json
from datetime import UTC, datetime

import pytest

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.contract import Statement
from statemachine.phases import Source

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
ID = "a6941fd1-f5cb-4948-814d-df03540149fb"
SESSION = {
    "id": ID,
    "amount": 400,
    "currency": "GBP",
    "state": "sent",
    "reference": "Order 1001",
    "end_to_end_id": "E2E",
    "live": True,
    "url": "https://pay.example/checkout/1",
    "payee": {"name": "A Shop", "account_number": "12345678", "sort_code": "010203"},
    "webhook_event": "payment_sent",
    "webook_type": "payment_session",
}
PAYIN = {
    "id": "p-1",
    "amount": 400,
    "currency": "AUD",
    "payment_identification": {"end_to_end_identification": "order123"},
    "status_details": {"status": "SENT", "reason": None},
}


def reading(body, *, source=Source.WEBHOOK, kind=None, ref=None, **options):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Banked(BankedOptions(**options)).parse(Statement(source, raw, AT, kind, ref))


def seen(body, **how):
    found = reading(body, **how)
    assert len(found.observations) == 1, found
    return found.observations[0]


def without(*names, **changed):
    return {name: value for name, value in SESSION.items() if name not in names} | changed


def envelope(kind, data, **changed):
    return {"id": "e-1", "type": kind, "version": "v3", "data_version": 3, "data": data} | changed


def test_a_v2_webhook_is_read_whole():
    it = seen(SESSION)

    assert (it.kind, it.provider_ref, it.reference, it.status) == ("payment_session", ID, "Order 1001", "sent")
    assert (it.amount_minor, it.currency, it.as_of, it.failure_reason) == (400, "GBP", None, None)
    assert it.facts == {"payment_link": "https://pay.example/checkout/1", "end_to_end_id": "E2E", "live": "true"}


@pytest.mark.parametrize("field", ["webook_type", "webhook_type"])
def test_both_spellings_of_the_type_are_read(field):
    assert seen(without("webook_type", **{field: "payout", "webhook_event": "payout_sent"})).kind == "payout"


def test_the_event_tells_the_kind_where_there_is_no_type():
    for event, kind in (("payment_sent", "payment_session"), ("payout_sent", "payout"), ("refund_sent", "refund")):
        assert seen(without("webook_type", webhook_event=event)).kind == kind


def test_the_oldest_body_has_neither_event_nor_type():
    it = seen(without("webhook_event", "webook_type", state="awaiting_payer"))
    assert (it.kind, it.status) == ("payment_session", "awaiting_payer")


def test_a_body_without_a_state_takes_it_from_the_event():
    assert seen(without("state")).status == "sent"


def test_an_event_that_contradicts_the_state_is_a_reason_to_ask():
    assert seen(without(state="pending")).status is None
    assert seen(without(webhook_event="payment_failed")).status is None


def test_a_redacted_body_is_read_like_the_full_one():
    redacted = without("payee", "webook_type", webhook_type="payment_session")
    assert seen(redacted) == seen(SESSION)


@pytest.mark.parametrize(
    "body",
    [
        without(webook_type="mandate", webhook_event="mandate_active", state="active"),
        without("webook_type", webhook_event="mandate_cancelled"),
        without(webook_type="batch_payment_session", webhook_event="batch_payment_failed"),
        without(webook_type="something_new"),
        envelope("mandate_active", {"id": "m"}),
        envelope("active", {"id": "m"}),
        envelope("batch_payment_failed", {"id": "b"}),
        envelope("something_new", {"id": "b"}),
    ],
)
def test_what_is_not_tracked_is_noted(body):
    found = reading(body)
    assert found.note
    assert not found.observations


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("BANK_REJECTED", "BANK_REJECTED"),
        ("PAYMENTS_ERROR_CODE_UNKNOWN", "PAYMENTS_ERROR_CODE_UNKNOWN"),
        ({"code": "PAYER_ACCOUNT_BLOCKED", "title": "x"}, "PAYER_ACCOUNT_BLOCKED"),
        ({"anything": 1}, "an error without a code"),
        (None, None),
        (7, None),
    ],
)
def test_latest_error_is_a_fact_in_any_shape(value, kept):
    it = seen(without(state="pending", webhook_event="payment_pending", latest_error=value))
    assert (it.status, it.failure_reason, it.facts["latest_error"]) == ("pending", None, kept)


def test_latest_error_that_is_not_told_is_left_alone():
    assert "latest_error" not in seen(SESSION).facts


def test_the_reason_of_a_failure_and_of_nothing_else():
    failed = without(state="failed", webhook_event="payment_failed", state_reason="PAYMENT_EXPIRED")
    assert seen(failed).failure_reason == "PAYMENT_EXPIRED"
    assert seen(without(state_reason="PAYMENT_EXPIRED")).failure_reason is None


@pytest.mark.parametrize("state", ["CREATED", "AWAITING_AUTHORIZATION", "INITIATED", "PENDING", "SENT", "FAILED"])
def test_a_v3_payin_keeps_its_status_in_its_details(state):
    data = PAYIN | {"status_details": {"status": state}}
    assert seen(data, source=Source.POLL, kind="payin", ref="p-1").status == state
    assert seen({"data": data}, source=Source.POLL, kind="payin", ref="p-1").status == state


def test_a_v3_webhook_is_read_whole():
    it = seen(envelope("payment_sent", PAYIN))

    assert (it.kind, it.provider_ref, it.reference, it.status) == ("payin", "p-1", "order123", "SENT")
    assert (it.amount_minor, it.currency, it.as_of) == (400, "AUD", None)


def test_a_v3_failure_says_why():
    for event, status in (("payment_failed", "FAILED"), ("payment_canceled", "CANCELED")):
        data = PAYIN | {"status_details": {"status": status, "reason": "BANK_REJECTED"}}
        it = seen(envelope(event, data))
        assert (it.status, it.failure_reason) == (status, "BANK_REJECTED")


def test_a_v3_event_that_contradicts_the_status_is_a_reason_to_ask():
    assert seen(envelope("payment_pending", PAYIN)).status is None


@pytest.mark.parametrize(
    ("event", "data", "status"),
    [
        ("refund_pending", {"status_details": {"status": "PENDING"}}, "pending"),
        ("refund_pending", {"state": "awaiting_payment"}, "awaiting_payment"),
        ("refund_sent", {"state": "externally processed"}, "externally processed"),
        ("refund_sent", {"state": "sent"}, "sent"),
        ("refund_failed", {}, "failed"),
        ("refund_canceled", {"status": "CANCELED"}, "canceled"),
        ("refund_sent", {"state": "awaiting_payment"}, None),
    ],
)
def test_refunds_in_either_vocabulary(event, data, status):
    it = seen(envelope(event, {"id": "r-1", "amount": 150} | data, data_version=1))

    assert (it.kind, it.provider_ref, it.status, it.amount_minor) == ("refund", "r-1", status, 150)
    assert status is None or Banked.lifecycles["refund"].knows(status)


@pytest.mark.parametrize("state", ["pending", "sent", "failed", "canceled"])
def test_payouts(state):
    it = seen(without(state=state, webook_type="payout", webhook_event=f"payout_{state}"))
    assert (it.kind, it.status) == ("payout", state)


def test_a_whole_number_may_be_written_with_a_point():
    assert seen(without(amount=400.0)).amount_minor == 400


@pytest.mark.parametrize("amount", [True, "400", 4.5, -1, 10**16, [], {}])
def test_an_amount_that_is_no_whole_number_makes_the_body_unreadable(amount):
    assert reading(without(amount=amount)).unreadable
    assert reading(envelope("payment_sent", PAYIN | {"amount": amount})).unreadable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"id":NaN}',
        b'{"id":"a"}',
        b'{"state":"sent"}',
        b'{"id":7,"state":"sent"}',
        b'{"id":"a\\u0000","state":"sent"}',
        b'{"version":"v3"}',
        b'{"version":"v3","type":"payment_sent","data":[]}',
        b'{"version":"v3","data":{"id":"x"}}',
        b'{"version":"v3","type":"payment_sent","data":{}}',
    ],
)
def test_an_unreadable_webhook_says_so(body):
    assert reading(body).unreadable


def test_a_partial_success_is_a_payment_to_ask_about():
    body = {
        "errors": [{"code": "invalid_action", "source": {"parameter": "actions"}, "title": "no"}],
        "successes": [{"resource_type": "payment", "resource_id": ID, "message": "created"}],
    }
    for source, count in ((Source.CREATE, 1), (Source.POLL, 0), (Source.WEBHOOK, 0)):
        assert len(reading(body, source=source, kind="payment_session").observations) == count
    it = seen(body, source=Source.CREATE, kind="payment_session")
    assert (it.provider_ref, it.status, it.facts) == (ID, None, {"create_errors": "invalid_action"})


@pytest.mark.parametrize("state", ["deleted", "failed"])
def test_an_empty_answer_to_a_cancel_is_the_configured_state(state):
    it = seen(b"", source=Source.CANCEL, kind="payment_session", ref=ID, deleted_state=state)
    assert (it.kind, it.provider_ref, it.status, it.as_of) == ("payment_session", ID, state, AT)
    assert reading(b"", source=Source.POLL, kind="payment_session", ref=ID).unreadable


def test_an_answer_is_about_what_was_asked():
    assert reading(SESSION, source=Source.POLL, kind="payment_session", ref="another").unreadable
    it = seen(without("id", "webhook_event"), source=Source.POLL, kind="payment_session", ref=ID)
    assert (it.provider_ref, it.status, it.as_of) == (ID, "sent", AT)


@pytest.mark.parametrize("live", [True, False])
def test_test_and_live_are_told_apart(live):
    for body in (SESSION | {"live": live}, envelope("payment_sent", PAYIN | {"live": live})):
        assert seen(body).is_live is live
    assert seen(without("live")).is_live is None


def test_a_body_that_says_live_and_test_at_once_is_unreadable():
    assert reading(envelope("payment_sent", PAYIN | {"live": True}) | {"live": False}).unreadable
