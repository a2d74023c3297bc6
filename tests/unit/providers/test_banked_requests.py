import json

import pytest

from providers.banked.options import BankedOptions
from providers.banked.requests import body_of, events_of
from providers.contract import CreateRequest
from providers.errors import InsecureUrl, ProviderError

RETURN = "https://shop.example/return/t"


def body(kind="payment_session", *, reference="Order 1", return_url=RETURN, **extra):
    return json.loads(body_of(CreateRequest(kind, 400, "GBP", reference, "k", return_url=return_url, extra=extra)))


def test_a_session_by_amount():
    payee = {"name": "A Shop", "account_number": "12345678", "sort_code": "010203"}
    assert body(payee=payee) == {
        "payee": payee,
        "reference": "Order 1",
        "success_url": RETURN,
        "error_url": RETURN,
        "amount": 400,
        "currency": "GBP",
    }


def test_a_session_by_line_items_leaves_the_adding_to_the_provider():
    items = [{"name": "Candle", "amount": 100, "currency": "GBP", "quantity": 3}, {"amount": 100, "currency": "GBP"}]
    sent = body(line_items=items)
    assert sent["line_items"] == items
    assert not {"amount", "currency"} & set(sent)


def test_a_payin():
    assert body("payin", bank_account_id="ba", checkout_config={"locale": "en"}) == {
        "bank_account_id": "ba",
        "checkout_config": {"locale": "en", "redirect_url": RETURN},
        "payment_identification": {"end_to_end_identification": "Order 1"},
        "remittance_information": {"unstructured": "Order 1"},
        "amount": 400,
        "currency": "GBP",
    }


def test_a_refund_has_no_currency_of_its_own():
    sent = body("refund", payment_session_id="s-1", return_url=None)
    assert sent == {"payment_session_id": "s-1", "reference": "Order 1", "amount": 400}


@pytest.mark.parametrize(
    ("kind", "how", "param"),
    [
        ("payment_session", {"reference": "x" * 19}, "reference"),
        ("payment_session", {"reference": "order_1"}, "reference"),
        ("payment_session", {"reference": "Order 1\n"}, "reference"),
        ("refund", {"reference": "order-1", "payment_session_id": "s"}, "reference"),
        ("refund", {}, "payment_session_id"),
        ("payment_session", {"return_url": None}, "success_url"),
        ("payment_session", {"return_url": None, "success_url": RETURN}, "error_url"),
        ("payment_session", {"amount": 1}, "amount"),
        ("payin", {"currency": "AUD"}, "currency"),
        ("payin", {"checkout_config": "x"}, "checkout_config"),
        ("payin", {"payment_identification": []}, "payment_identification"),
        ("payment_session", {"line_items": []}, "line_items"),
        ("payment_session", {"line_items": "x"}, "line_items"),
        ("payment_session", {"line_items": [7]}, "line_items"),
        ("payment_session", {"line_items": [{"amount": 4.0, "currency": "GBP"}]}, "line_items"),
        ("payment_session", {"line_items": [{"amount": True, "currency": "GBP"}]}, "line_items"),
        ("payment_session", {"line_items": [{"amount": 400, "currency": "EUR"}]}, "line_items"),
        ("payment_session", {"line_items": [{"amount": 399, "currency": "GBP"}]}, "line_items"),
        ("payment_session", {"line_items": [{"amount": 400, "quantity": 0, "currency": "GBP"}]}, "line_items"),
    ],
)
def test_what_the_provider_would_refuse_is_refused_before_asking(kind, how, param):
    with pytest.raises(ProviderError) as caught:
        body(kind, **how)

    error = caught.value
    assert (error.type, error.status, error.param) == ("invalid_request_error", 400, param)
    assert (error.may_retry, error.is_ambiguous) == (False, False)


def test_our_own_url_is_https():
    with pytest.raises(InsecureUrl):
        body(return_url="http://shop.example/")


def test_events_are_those_of_the_generation_unless_configured():
    v2 = ("payment_initiated", "payment_pending", "payment_sent", "payment_failed")
    assert events_of(BankedOptions()) == v2
    assert events_of(BankedOptions(webhook_version="v3")) == (*v2, "payment_canceled")
    assert events_of(BankedOptions(events=("payout_sent",))) == ("payout_sent",)


def test_oauth_needs_a_scope():
    with pytest.raises(ValueError, match="scope"):
        BankedOptions(auth="oauth")
