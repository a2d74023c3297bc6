"""Alternative Payments without a network: its lifecycle, its bodies, its error table."""

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from providers.catalogue import AlternativePayments
from providers.contract import HttpAnswer, Statement
from providers.engine.errors import namer, token_namer
from statemachine.machine import moves_of
from statemachine.phases import Phase, Source

AT = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)
PROVIDER = AlternativePayments.with_options()
LIFECYCLE = AlternativePayments.lifecycles["payment_request"]
name_error, name_token_error = namer(PROVIDER.page), token_namer(PROVIDER.page)
VECTORS = Path(__file__).parents[3] / "providers" / "alternative_payments" / "samples"
REF = "0b0a3c5e-4d0f-4a2f-9d5e-0f3b8f0a6c11"

# The lifecycle, as docs.alternativepayments.io describes it.
PHASES = {
    "pending": (Phase.OPEN, False),
    "paid": (Phase.PAID, True),
    "expired": (Phase.EXPIRED, True),
    "cancelled": (Phase.CANCELLED, True),
}
MOVES = {("pending", "paid"), ("pending", "expired"), ("pending", "cancelled")}


@pytest.mark.parametrize("state", PHASES)
def test_each_state_has_its_phase_and_end(state):
    assert (LIFECYCLE.phase(state), LIFECYCLE.is_terminal(state)) == PHASES[state]


@pytest.mark.parametrize(("source", "target"), list(product(PHASES, PHASES)))
def test_each_pair_of_states_moves_exactly_as_documented(source, target):
    walk = moves_of(LIFECYCLE).walk(source, target) if source != target else None
    assert (walk == (target,)) == ((source, target) in MOVES)


def test_a_new_request_is_pending_and_all_states_are_known():
    assert LIFECYCLE.initial == ("pending",)
    assert {state.name for state in LIFECYCLE.states} == set(PHASES)


def read(name, source=Source.POLL, provider=PROVIDER, **more):
    return provider.parse(Statement(source, (VECTORS / f"{name}.json").read_bytes(), AT, **more))


@pytest.mark.parametrize(("name", "status"), [("request_pending", "pending"), ("request_paid", "paid")])
@pytest.mark.parametrize("source", [Source.CREATE, Source.POLL, Source.CANCEL])
def test_an_answer_is_read(name, status, source):
    (seen,) = read(name, source).observations
    assert (seen.kind, seen.provider_ref, seen.reference) == ("payment_request", REF, "order-1001")
    assert (seen.status, seen.amount_minor, seen.currency) == (status, None, None)
    assert (seen.as_of, seen.source) == (AT, source)
    assert seen.facts["url"] == "https://checkout.alternativepayments.io/0b0a3c5e"


@pytest.mark.parametrize(("unit", "minor"), [("minor", 100), ("major", 10_000)])
def test_an_amount_counts_what_the_account_says(unit, minor):
    provider = AlternativePayments.with_options(amount_unit=unit)
    (seen,) = read("request_with_money", provider=provider).observations
    assert (seen.amount_minor, seen.currency, seen.reference, seen.status) == (minor, "USD", None, "expired")


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("webhook_payment_succeeded", {"pay_71c9", "cus_22aa", "order-1001"}),
        ("webhook_payout_paid", {"po_1", "po_2", "pay_71c9"}),
        ("request_paid", {REF, "order-1001"}),
    ],
)
def test_a_webhook_is_only_a_hint(name, hints):
    reading = read(name, Source.WEBHOOK)
    assert set(reading.hints) == hints
    assert reading.hints_account
    assert reading.observations == ()


def parse(body, source=Source.WEBHOOK, **more):
    return PROVIDER.parse(Statement(source, body, AT, **more))


def test_hints_are_bounded():
    many = b'{"a":[' + b",".join(b'{"id":"x%d"}' % n for n in range(5000)) + b"]}"
    assert len(parse(many).hints) == 20
    assert parse(b'{"id":"' + b"x" * 201 + b'"}').hints == ()
    assert parse(b'{"a":' * 200 + b'{"id":"deep"}' + b"}" * 200).hints == ("deep",)


def test_ids_in_lists_are_hints():
    assert parse(b'{"payment_id":["a","b",3,null]}').hints == ("a", "b")


def test_a_webhook_without_ids_asks_about_the_account():
    reading = parse(b"{}")
    assert (reading.hints, reading.hints_account) == ((), True)


@pytest.mark.parametrize("body", [b"", b"id=1", b"\xff", b'{"id":', b"[" * 100_000])
def test_a_webhook_that_is_not_json_is_unreadable(body):
    assert parse(body).unreadable


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"%s","status":"paid","amount":"1.5"}' % REF.encode(),
        b'{"id":"%s","status":"paid","amount":1e400}' % REF.encode(),
        b'{"id":"%s","status":"paid","amount":[]}' % REF.encode(),
        b'{"id":"%s","status":"paid","amount":"100","currency":"$"}' % REF.encode(),
        b'{"id":"%s","status":"paid","amount":"100","currency":1}' % REF.encode(),
        b'{"id":"%s","status":{"paid":true}}' % REF.encode(),
        b'{"id":7,"status":"paid"}',
        b'{"id":"another","status":"paid"}',
        b"[]",
    ],
)
def test_what_cannot_be_understood_exactly_is_unreadable(body):
    assert parse(body, Source.POLL, kind="payment_request", ref=REF, http_status=200).unreadable


def test_an_unknown_status_is_passed_on_for_the_rules_to_park():
    (seen,) = parse(b'{"id":"r1","status":"under_review"}', Source.POLL).observations
    assert seen.status == "under_review"


def test_an_error_answer_says_nothing_about_a_state():
    reading = parse(b'{"code":"x","message":"y"}', Source.CREATE, kind="payment_request", http_status=422)
    assert reading.note
    assert not reading.unreadable


# Every row of "Troubleshooting", and a gateway's own: status, type, whether to retry.
ROWS = [
    (400, "invalid_request_error", False),
    (401, "authentication_error", False),
    (403, "authorization_error", False),
    (404, "not_found_error", False),
    (422, "invalid_request_error", False),
    (429, "rate_limit_error", True),
    (500, "api_error", True),
    (502, "api_error", True),
    (503, "api_error", True),
    (504, "api_error", True),
]
SHAPES = {
    "flat": b'{"code":"c1","message":"Amount is wrong","validation_errors":{"amount":"must be positive"}}',
    "nested": b'{"error":{"code":"c1","message":"Amount is wrong","validation_errors":{"amount":"must be positive"}}}',
}


def answer(status, body=b"", **headers):
    return HttpAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, AT)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("status", "kind", "may_retry"), ROWS)
def test_each_row_of_the_error_table_in_both_shapes(status, kind, may_retry, shape):
    error = name_error(answer(status, SHAPES[shape]))
    assert (error.type, error.http_status, error.may_retry) == (kind, status, may_retry)
    assert (error.provider_code, error.param, error.retry_after) == ("c1", "amount", None)
    assert error.message == f"Alternative Payments answered {status}: Amount is wrong"
    assert error.is_ambiguous == (status >= 500)


def test_the_table_holds_the_documented_statuses_and_no_others():
    assert {
        (int(status), kind) for status, kind in AlternativePayments.with_options().page.errors.statuses.items()
    } == {row[:2] for row in ROWS}


@pytest.mark.parametrize(("status", "kind"), [(405, "invalid_request_error"), (418, "invalid_request_error")])
def test_other_statuses_are_not_retried(status, kind):
    assert (name_error(answer(status)).type, name_error(answer(status)).may_retry) == (kind, False)


def test_wrong_credentials_are_an_authentication_error_that_is_not_retried():
    error = name_token_error(answer(403, SHAPES["flat"]))
    assert (error.type, error.may_retry, error.is_ambiguous) == ("authentication_error", False, False)


def test_a_failure_of_the_token_call_leaves_nothing_in_doubt():
    assert not name_token_error(answer(500)).is_ambiguous


@pytest.mark.parametrize(("text", "seconds"), [("3", 3.0), ("Wed, 01 Apr 2026 10:00:20 GMT", 20.0), ("x", None)])
def test_retry_after_is_honoured_although_undocumented(text, seconds):
    assert name_error(answer(429, retry_after=text)).retry_after == seconds


@pytest.mark.parametrize("body", [b"", b"\xff", b"<html>", b"[]", b'{"error":"x"}', b'{"message":7}', b"[" * 100_000])
def test_an_unreadable_error_is_named_by_its_status(body):
    error = name_error(answer(422, body))
    assert (error.provider_code, error.param, error.message) == (None, None, "Alternative Payments answered 422")


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_unit": "cents"},
        {"payment_request_path": "payment/request"},
        {"payment_request_path": "/payment/request/"},
        {"cancel_path": "/payment/request/cancel"},
        {"unknown": 1},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        AlternativePayments.with_options(**wrong)
