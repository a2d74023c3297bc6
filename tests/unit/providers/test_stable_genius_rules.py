"""Stable Genius without a network: its lifecycle, its bodies, its error table."""

from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from providers.catalogue import StableGenius
from providers.contract import Delivery, HttpAnswer, Statement
from providers.engine.errors import namer
from statemachine.machine import moves_of
from statemachine.phases import Phase, Source

AT = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)
PROVIDER = StableGenius.with_options()
LIFECYCLE = StableGenius.lifecycles["payment_intent"]
name_error = namer(PROVIDER.page)
VECTORS = Path(__file__).parents[3] / "providers" / "stable_genius" / "samples"

# The lifecycle, as docs.stablegenius.co describes it.
PHASES = {
    "awaiting_payment": (Phase.OPEN, False),
    "confirmed": (Phase.PAID, False),
    "settled": (Phase.SETTLED, True),
    "expired": (Phase.EXPIRED, True),
    "cancelled": (Phase.CANCELLED, True),
}
MOVES = {
    ("awaiting_payment", "confirmed"),
    ("awaiting_payment", "expired"),
    ("awaiting_payment", "cancelled"),
    ("confirmed", "settled"),
}


@pytest.mark.parametrize("state", PHASES)
def test_each_state_has_its_phase_and_end(state):
    assert (LIFECYCLE.phase(state), LIFECYCLE.is_terminal(state)) == PHASES[state]


@pytest.mark.parametrize(("source", "target"), list(product(PHASES, PHASES)))
def test_each_pair_of_states_moves_exactly_as_documented(source, target):
    walk = moves_of(LIFECYCLE).walk(source, target) if source != target else None
    assert (walk == (target,)) == ((source, target) in MOVES)


def test_a_new_intent_awaits_payment_and_all_states_are_known():
    assert LIFECYCLE.initial == ("awaiting_payment",)
    assert {state.name for state in LIFECYCLE.states} == set(PHASES)


def read(name, source=Source.WEBHOOK, **more):
    return PROVIDER.parse(Statement(source, (VECTORS / f"{name}.json").read_bytes(), AT, **more))


def test_confirmed_is_read_whole_and_exact():
    (seen,) = read("event_confirmed").observations
    assert (seen.kind, seen.provider_ref, seen.reference) == ("payment_intent", "pi_8f14e45f", "order-1001")
    assert (seen.status, seen.amount_minor, seen.currency) == ("confirmed", 450, "USD")
    assert seen.as_of == AT
    assert seen.expires_at == AT + timedelta(minutes=4)
    assert seen.facts["fee"] == "0.045"
    assert seen.facts["net_amount"] == "4.455"
    assert seen.facts["fee_rate"] == "0.01"
    assert seen.facts["block_number"] == "12345678"
    assert seen.facts["tx_hash"].startswith("0x88df")
    assert seen.facts["confirmed_at"] == "2026-04-01T09:59:58Z"
    assert seen.facts["payment_address"] == "0x52908400098527886E0F7030069857D2E4169EE7"


@pytest.mark.parametrize(
    ("name", "ref", "status", "minor", "minutes", "fact"),
    [
        ("event_expired", "pi_c9f0f895", "expired", 1200, 5, "expired_at"),
        ("event_cancelled", "pi_45c48cce", "cancelled", 1, 1, "cancelled_at"),
    ],
)
def test_endings_are_read_with_their_time(name, ref, status, minor, minutes, fact):
    (seen,) = read(name).observations
    assert (seen.provider_ref, seen.status, seen.amount_minor) == (ref, status, minor)
    assert seen.as_of == AT + timedelta(minutes=minutes)
    assert fact in seen.facts


@pytest.mark.parametrize("name", ["event_settlement_completed", "event_settlement_failed"])
def test_a_settlement_asks_about_the_account(name):
    reading = read(name)
    assert reading.hints_account
    assert not reading.observations


def test_a_transfer_hints_at_the_intent_and_the_address_it_names():
    reading = read("event_transaction")
    assert set(reading.hints) == {"pi_c9f0f895", "0x52908400098527886E0F7030069857D2E4169EE7"}
    assert not reading.hints_account
    assert reading.hints_money
    assert not reading.observations


def test_a_transfer_that_names_nothing_is_noted():
    reading = parse(b'{"id":"evt_1","type":"transaction.created","data":{"amount":12.00}}')
    assert (reading.hints, reading.hints_account, reading.unreadable) == ((), False, "")
    assert reading.note


def test_unknown_events_are_noted():
    assert "merchant.updated" in parse(b'{"id":"evt_1","type":"merchant.updated","data":{}}').note


def test_an_unknown_status_is_passed_on_for_the_rules_to_park():
    (seen,) = parse(b'{"type":"payment_intent.paused","data":{"id":"pi_1","status":"paused"}}').observations
    assert seen.status == "paused"


def test_an_event_without_a_status_says_only_that_the_intent_exists():
    (seen,) = parse(b'{"type":"payment_intent.confirmed","data":{"id":"pi_1"}}').observations
    assert seen.status is None


@pytest.mark.parametrize(
    ("name", "source", "status"),
    [
        ("intent_awaiting_payment", Source.CREATE, "awaiting_payment"),
        ("intent_settled", Source.POLL, "settled"),
        ("intent_cancelled", Source.CANCEL, "cancelled"),
    ],
)
def test_answers_are_true_of_the_instant_of_asking(name, source, status):
    (seen,) = read(name, source, http_status=200, kind="payment_intent").observations
    assert (seen.status, seen.as_of, seen.source) == (status, AT, source)


def parse(body, source=Source.WEBHOOK, **more):
    return PROVIDER.parse(Statement(source, body, AT, **more))


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"pi_1","status":"confirmed","amount":4.505,"currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":1e400,"currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":1e999999,"currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":1.0000000000000000000000000000000001,"currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":true,"currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":{},"currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":"NaN","currency":"usd"}',
        b'{"id":"pi_1","status":"confirmed","amount":4.50,"currency":"dollars"}',
        b'{"id":"pi_1","status":"confirmed","amount":4.50,"currency":840}',
        b'{"id":"pi_1","status":["confirmed"],"amount":4.50,"currency":"usd"}',
        b'{"id":"pi_1","status":"conf\\u0000irmed"}',
        b'{"id":1,"status":"confirmed"}',
        b'{"status":"confirmed"}',
        b"[]",
        b"null",
    ],
)
def test_what_cannot_be_understood_exactly_is_unreadable(data):
    assert parse(b'{"id":"evt_1","type":"payment_intent.confirmed","data":' + data + b"}").unreadable
    assert parse(data, Source.POLL, kind="payment_intent", ref="pi_1", http_status=200).unreadable


@pytest.mark.parametrize(
    ("amount", "minor"), [(b"4.50", 450), (b"4.5", 450), (b"10000", 1_000_000), (b'"4.50"', 450), (b"1e1", 1000)]
)
def test_amounts_are_exact(amount, minor):
    (seen,) = parse(b'{"id":"pi_1","amount":' + amount + b',"currency":"usd"}', Source.POLL).observations
    assert seen.amount_minor == minor


def test_an_answer_about_another_intent_is_unreadable():
    assert parse(b'{"id":"pi_2","status":"confirmed"}', Source.POLL, kind="payment_intent", ref="pi_1").unreadable


def test_an_error_answer_says_nothing_about_a_state():
    reading = parse(b'{"id":"pi_1","status":"confirmed"}', Source.POLL, ref="pi_1", http_status=404)
    assert reading.note
    assert not reading.observations


def test_the_reference_comes_from_the_configured_entry():
    provider = StableGenius.with_options(reference_key="order")
    body = b'{"id":"pi_1","metadata":{"order":"o-1","reference":"no"}}'
    assert provider.parse(Statement(Source.POLL, body, AT)).observations[0].reference == "o-1"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"id":"evt_1","data":{"id":"pi_1"}}', "evt_1"),
        (b'{"id":"pi_1"}', None),
        (b'{"id":"evt_' + b"x" * 300 + b'"}', None),
        (b'{"id":"evt_\\n"}', None),
        (b'{"id":7}', None),
        (b"evt_1", None),
    ],
)
def test_only_an_event_id_identifies_a_delivery(body, key):
    assert PROVIDER.delivery_key(Delivery(body, ())) == key


# Every row of "Error Codes": code, HTTP status, type, whether to retry.
ROWS = [
    ("amount_out_of_range", 400, "invalid_request_error", False),
    ("amount_too_small", 400, "invalid_request_error", False),
    ("invalid_currency", 400, "invalid_request_error", False),
    ("invalid_merchant", 400, "invalid_request_error", False),
    ("ttl_out_of_range", 400, "invalid_request_error", False),
    ("invalid_webhook_url", 400, "invalid_request_error", False),
    ("missing_api_key", 401, "authentication_error", False),
    ("invalid_api_key", 401, "authentication_error", False),
    ("revoked_api_key", 401, "authentication_error", False),
    ("environment_mismatch", 403, "authorization_error", False),
    ("merchant_not_found", 404, "not_found_error", False),
    ("intent_not_cancellable", 409, "conflict_error", False),
    ("idempotency_key_conflict", 409, "conflict_error", False),
    ("merchant_not_active", 422, "invalid_request_error", False),
    ("webhook_unreachable", 422, "invalid_request_error", False),
    ("rate_limit_exceeded", 429, "rate_limit_error", True),
    (None, 500, "api_error", True),
    (None, 502, "api_error", True),
    (None, 503, "api_error", True),
    (None, 504, "api_error", True),
]


def answer(status, body=b"", **headers):
    return HttpAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, AT)


@pytest.mark.parametrize(("code", "status", "kind", "may_retry"), ROWS)
def test_each_row_of_the_error_table(code, status, kind, may_retry):
    text = f'"{code}"' if code else "null"
    body = f'{{"error":{{"type":"{kind}","message":"No.","param":"amount","code":{text}}}}}'.encode()
    error = name_error(answer(status, body))
    assert (error.type, error.provider_code, error.http_status) == (kind, code, status)
    assert (error.may_retry, error.param, error.retry_after) == (may_retry, "amount", None)
    assert error.is_ambiguous == (status >= 500)
    assert name_error(answer(status)).type == kind, "the status alone must do"
    assert name_error(answer(status)).may_retry == may_retry


def test_the_table_holds_the_documented_codes_and_no_others():
    documented = PROVIDER.page.errors.codes
    assert {(code, row.status, row.type) for code, row in documented.items()} == {row[:3] for row in ROWS if row[0]}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_our_own_faults_are_never_retried(status):
    error = name_error(answer(status, b'{"error":{"type":"api_error","code":"new_code"}}', retry_after="1"))
    assert not error.may_retry
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("unit", "reset", "seconds"),
    [
        ("auto", "1775037630", 30.0),
        ("auto", "1775037630.5", 30.5),
        ("auto", "30", 30.0),
        ("auto", "0", 0.0),
        ("auto", "1775037590", 0.0),
        ("unix", "1775037630", 30.0),
        ("unix", "30", 0.0),
        ("delta", "30", 30.0),
        ("delta", "1775037630", None),
        ("auto", "soon", None),
        ("auto", "-5", None),
        ("auto", "9" * 300, None),
        ("auto", "1775137630", None),
    ],
)
def test_the_reset_header_says_how_long_to_wait(unit, reset, seconds):
    error = namer(StableGenius.with_options(reset_unit=unit).page)(answer(429, x_ratelimit_reset=reset))
    assert error.may_retry
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("Wed, 01 Apr 2026 10:00:20 GMT", 20.0), ("Wed, 01 Apr 2026 09:00:00 GMT", 0.0), ("later", None)],
)
def test_retry_after_is_understood_too(text, seconds):
    assert name_error(answer(503, retry_after=text)).retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"\xff",
            b"<html>",
            b"[]",
            b"null",
            b'{"error":"x"}',
            b'{"error":[]}',
            b'{"error":{"type":7,"code":[]}}',
        ),
        b"[" * 100_000,
    ],
)
def test_an_unreadable_error_is_named_by_its_status(body):
    error = name_error(answer(409, body))
    assert (error.type, error.provider_code, error.message) == ("conflict_error", None, "Stable Genius answered 409")


def test_the_providers_words_are_cut_and_cleaned():
    words = "a\\u0000b\\n" + "word " * 200
    error = name_error(answer(400, f'{{"error":{{"message":"{words}"}}}}'.encode()))
    assert error.message.isprintable()
    assert len(error.message) <= 240


def test_a_key_that_the_provider_repeats_is_not_repeated_by_us():
    error = name_error(answer(401, b'{"error":{"message":"Unknown key sk_live_abcdefghijklmnop1234567890"}}'))
    assert "abcdefghijklmnop" not in error.message


@pytest.mark.parametrize(
    "wrong", [{"ttl": 59}, {"ttl": 3601}, {"webhook_path": "webhooks"}, {"reset_unit": "hours"}, {"unknown": 1}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        StableGenius.with_options(**wrong)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"evt_1","data":{"id":"pi_1"}}',
        b'\xef\xbb\xbf{"data":[1.5,{}],"id":"evt_1"}',
        b'{"id":"pi_1","id":"evt_1"}',
        b'{"id":["evt_1"],"data":1e400,"id":"evt_1"}',
    ],
)
def test_an_event_is_known_by_its_id_whatever_else_is_in_it(body):
    """No more of the body is decoded for it than the id."""
    assert PROVIDER.delivery_key(Delivery(body, ())) == "evt_1"


@pytest.mark.parametrize("body", [b'["evt_1"]', b'{"id":"evt_1"', b"{}", b"", b"[" * 9000])
def test_what_has_no_id_of_an_event_has_no_key(body):
    """It is known by its bytes, for a while."""
    assert PROVIDER.delivery_key(Delivery(body, ())) is None
