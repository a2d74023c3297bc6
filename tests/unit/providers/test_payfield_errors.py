import json
from datetime import UTC, datetime, timedelta

import pytest

from providers.catalogue import Payfield
from providers.contract import HttpAnswer
from providers.engine.errors import namer

NAME_ERROR = namer(Payfield.with_options().page)
AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)


def error(status, body=b"", **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return NAME_ERROR(HttpAnswer(status, {name.replace("_", "-"): text for name, text in headers.items()}, raw, AT))


AUTH, INVALID, MISSING = "authentication_error", "invalid_request_error", "not_found_error"

#: Typed from the provider's error page: message, HTTP status, type, parameter, retry.
ROWS = [
    ("API key required", 401, AUTH, "X-API-Key", False),
    ("Invalid API key", 401, AUTH, "X-API-Key", False),
    ("Timestamp required", 401, AUTH, "X-Timestamp", False),
    ("Signature required", 401, AUTH, "X-Signature", False),
    ("Invalid timestamp format", 401, AUTH, "X-Timestamp", False),
    ("Timestamp window exceeded", 401, AUTH, "X-Timestamp", True),
    ("Invalid signature", 401, AUTH, "X-Signature", False),
    ("external_id is required", 422, INVALID, "external_id", False),
    ("amount must be a positive decimal string", 422, INVALID, "amount", False),
    ("amount must be a positive number", 422, INVALID, "amount", False),
    ("currency is required", 422, INVALID, "currency", False),
    ("card_number is required", 422, INVALID, "card_number", False),
    ("callback_url must be a valid URL", 422, INVALID, "callback_url", False),
    ("Invalid paymentData", 422, INVALID, "paymentData", False),
    ("Shop currency mismatch. Expected BDT.", 422, INVALID, "currency", False),
    ("Insufficient balance for this payout", 422, INVALID, "amount", False),
    ("Payout not found", 404, MISSING, "external_id", False),
    ("PayIn not found", 404, MISSING, "external_id", False),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("shape", ["new", "old", "nested only"])
def test_each_message_in_each_shape(row, shape):
    message, status, kind, param, may_retry = row
    nested = {"error": {"code": "a_code", "message": message}}
    body = {"new": {"message": message, "code": "a_code"} | nested, "old": {"message": message}, "nested only": nested}

    it = error(status, body[shape])

    assert (it.type, it.http_status, it.param, it.may_retry) == (kind, status, param, may_retry)
    assert it.provider_code == (None if shape == "old" else "a_code")
    assert it.message == f"Payfield answered {it.http_status}: {message}"


def test_the_documented_examples():
    standard = {
        "message": "Invalid API key",
        "code": "unauthorized",
        "error": {"code": "unauthorized", "message": "Invalid API key"},
    }
    told = "amount must be a positive decimal string"
    validation = {
        "message": told,
        "code": "validation_error",
        "errors": [{"field": "amount", "message": told}],
        "error": {"code": "validation_error", "message": told},
    }

    assert (error(401, standard).type, error(401, standard).provider_code) == (AUTH, "unauthorized")
    assert (error(422, validation).param, error(422, validation).provider_code) == ("amount", "validation_error")


def test_the_field_that_the_provider_names_wins():
    assert error(422, {"message": "Invalid paymentData", "errors": [{"field": "paymentData.holder"}]}).param == (
        "paymentData.holder"
    )


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422])
def test_a_client_error_of_an_unknown_kind_is_not_repeated(status):
    it = error(status, {"message": "Something new"})
    assert (it.may_retry, it.is_ambiguous) == (False, False)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_repeated_and_ambiguous(status):
    it = error(status, b"<html>Bad gateway</html>")
    assert (it.type, it.may_retry, it.is_ambiguous, it.message) == (
        "api_error",
        True,
        True,
        f"Payfield answered {status}",
    )


def test_a_429_waits_as_long_as_it_says():
    later = (AT + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    assert (error(429).type, error(429).may_retry, error(429).retry_after) == ("rate_limit_error", True, None)
    assert error(429, retry_after="7").retry_after == 7
    assert error(429, retry_after=later).retry_after == 90


def test_the_timestamp_is_not_blamed_in_another_status():
    assert not error(422, {"message": "Timestamp window exceeded"}).may_retry


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"message":7,"code":[],"error":"x","errors":{"a":1}}',
        b'{"message":{"a":1},"error":[1],"errors":[1]}',
        b'{"errors":[{"field":["a"]}]}',
        b'{"code":"' + b"x" * 100_000 + b'"}',
    ],
)
def test_an_unreadable_body_leaves_the_status(body):
    it = error(422, body)
    assert (it.type, it.provider_code, it.param, it.message) == (INVALID, None, None, "Payfield answered 422")


def test_a_message_is_fit_to_be_shown():
    it = error(422, {"message": "card 4000 0000 0000 0002\nof sk_live_abcdef refused " + "x" * 500})

    assert "4000" not in it.message
    assert "sk_live" not in it.message
    assert "\n" not in it.message
    assert it.message.startswith(f"Payfield answered {it.http_status}: card [number] of [secret] refused")
    assert len(it.message) <= 220
