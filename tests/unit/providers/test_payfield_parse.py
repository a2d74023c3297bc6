import json
from datetime import UTC, datetime

import pytest

from providers.catalogue import Payfield
from providers.contract import Statement
from statemachine.phases import Source

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
CALLBACK = {
    "id": 12345,
    "external_id": "PAY-BDT-001",
    "shop_code": "shop_bdt",
    "status": "success",
    "amount": "5000.00",
    "currency": "BDT",
    "updated_at": "2025-12-05T10:15:00.123456Z",
}


def reading(body, *, source=Source.WEBHOOK, kind=None, ref=None, **options):
    options = {"default_kind": "payin"} | options
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Payfield.with_options(**options).parse(Statement(source, raw, AT, kind, ref))


def seen(body, **how):
    found = reading(body, **how)
    assert len(found.observations) == 1, found
    return found.observations[0]


def without(*names, **changed):
    return {name: value for name, value in CALLBACK.items() if name not in names} | changed


def test_a_callback_is_read_whole():
    it = seen(CALLBACK)

    assert (it.source, it.kind, it.status) == (Source.WEBHOOK, "payin", "success")
    assert (it.provider_ref, it.reference) == ("PAY-BDT-001", "PAY-BDT-001")
    assert (it.amount_minor, it.currency) == (500_000, "BDT")
    assert it.as_of == datetime(2025, 12, 5, 10, 15, 0, 123456, tzinfo=UTC)
    assert it.facts == {"operation_id": "12345", "shop_code": "shop_bdt"}


@pytest.mark.parametrize("status", ["pending", "success", "failed", "canceled", "refunded", "expired"])
def test_every_documented_status_is_known(status):
    assert Payfield.lifecycles["payin"].knows(status)
    assert Payfield.lifecycles["payout"].knows(status)
    assert seen(without(status=status)).status == status


def test_a_status_of_tomorrow_is_passed_on():
    assert seen(without(status="on_hold")).status == "on_hold"


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        (b'"5000.00"', "BDT", 500_000),
        (b"5000", "BDT", 500_000),
        (b"5000.0", "BDT", 500_000),
        (b"5e3", "BDT", 500_000),
        (b"10.10", "INR", 1010),
        (b"0.1", "INR", 10),
        (b'"0.29"', "INR", 29),
        (b'"1.005"', "KWD", 1005),
        (b'"700"', "JPY", 700),
        (b"4.35", "ARS", 435),
        (b'"9999999999999.99"', "BDT", 999_999_999_999_999),
    ],
)
def test_amounts_are_exact(text, currency, minor):
    body = b'{"external_id":"P","status":"success","currency":"%s","amount":%s}' % (currency.encode(), text)
    assert seen(body).amount_minor == minor


@pytest.mark.parametrize(
    "text",
    [
        b'"1.005"',
        b"1.005",
        b'"1_000"',
        '"١٢"'.encode(),
        b'" 5"',
        b'"5 "',
        b'"+5"',
        b'"-5"',
        b"-5",
        b'"5e3"',
        b'"NaN"',
        b'"Infinity"',
        b'""',
        b"true",
        b"[]",
        b"{}",
        b"1e400",
        b"1e999999999",
        b"9" * 400,
        b"1.0000000000000000000000000000001",
        b'"' + b"1" * 60 + b'"',
    ],
)
def test_an_amount_that_is_not_exact_makes_the_body_unreadable(text):
    body = b'{"external_id":"P","status":"success","currency":"BDT","amount":%s}' % text
    assert reading(body).unreadable
    assert not reading(body).observations


def test_money_that_is_not_told_is_not_guessed():
    it = seen(without("amount", "currency"))
    assert (it.amount_minor, it.currency) == (None, None)
    assert reading(without("currency")).unreadable
    assert reading(without(currency="taka")).unreadable
    assert reading(without(currency=7)).unreadable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"external_id":"P"}',
        b'{"status":"success"}',
        b'{"external_id":7,"status":"success"}',
        b'{"external_id":"a\\u0000b","status":"success"}',
        b'{"external_id":"P","status":null}',
        b'{"external_id":"P","status":["success"]}',
        b"[" * 100_000,
    ],
)
def test_an_unreadable_callback_says_so(body):
    assert reading(body).unreadable


def test_an_unknown_transaction_type_is_noted():
    assert reading(without(transaction_type="settlement")).note
    assert reading(without(transaction_type=["payin"])).note


def test_an_answer_is_about_what_was_asked():
    it = seen(without("external_id", "updated_at"), source=Source.POLL, kind="payout", ref="OUT-1")
    assert (it.kind, it.provider_ref, it.as_of) == ("payout", "OUT-1", AT)
    assert reading(CALLBACK, source=Source.POLL, kind="payin", ref="OTHER").unreadable


def test_an_answer_without_a_status_says_that_it_exists():
    it = seen(without("status"), source=Source.CREATE, kind="payin")
    assert (it.provider_ref, it.status) == ("PAY-BDT-001", None)


def test_an_answer_to_a_create_has_the_page_and_its_end():
    link = "https://api.payfield.io/public/payin-pages/pay_12345"
    it = seen(
        without(payment_page_url=link, payment_page_expires_at="2025-12-05T10:30:00.000000Z"),
        source=Source.CREATE,
        kind="payin",
    )
    assert it.facts["payment_link"] == link
    assert it.expires_at == datetime(2025, 12, 5, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize("link", ["javascript:alert(1)", "http://pay.example/1", "https://u:p@pay.example/", 7, ""])
def test_a_link_that_is_no_https_page_is_not_kept(link):
    assert "payment_link" not in seen(without(paymentData={"payment_link": link})).facts


def test_card_and_person_are_not_kept_as_facts():
    kept = seen(without(card_number="4000000000000002", merchant_user_ip="203.0.113.7", finalization_date="2025-12-05"))
    assert kept.facts == {"operation_id": "12345", "shop_code": "shop_bdt", "finalization_date": "2025-12-05"}


def test_old_answers_with_nulls_are_read():
    it = seen(
        without(amount=5000, card_number=None, callback_url=None, paymentData={}, finalization_date=None),
        source=Source.POLL,
        kind="payin",
        ref="PAY-BDT-001",
    )
    assert (it.amount_minor, it.status) == (500_000, "success")


def test_a_callback_that_may_be_of_either_kind_says_only_that_it_is_there():
    it = seen(CALLBACK, default_kind="ask")
    assert (it.kind, it.status, it.amount_minor) == ("payin", None, None)
    assert (it.provider_ref, it.reference) == ("PAY-BDT-001", "PAY-BDT-001")
    assert reading({"status": "success"}, default_kind="ask").unreadable
    assert seen(CALLBACK, kind="payout", default_kind="ask").kind == "payout"
    assert seen(without(transaction_type="payout"), default_kind="ask").kind == "payout"
