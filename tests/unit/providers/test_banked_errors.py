import json
from datetime import UTC, datetime

import pytest

from providers.banked.errors import PartialSuccess, name_error
from providers.contract import HttpAnswer

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)


def error(status, body=b"", **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return name_error(HttpAnswer(status, {name.replace("_", "-"): text for name, text in headers.items()}, raw, AT))


INVALID = "invalid_request_error"

#: Typed from the provider's error pages: code, type, whether a repeat may help (at a status that does not forbid it).
ROWS = [
    *(
        (code, INVALID, False)
        for code in ("bad_request", "decoding", "invalid", "invalid_request", "invalid_reference")
    ),
    *((code, INVALID, False) for code in ("invalid_description", "invalid_success_url", "invalid_error_url")),
    *((code, INVALID, False) for code in ("invalid_amount", "invalid_amount_cents", "invalid_currency")),
    *((code, INVALID, False) for code in ("invalid_line_items.amount_cents", "missing_amount_or_line_items")),
    *((code, INVALID, False) for code in ("missing_currency_or_line_items", "invalid_payee", "invalid_payee_name")),
    *((code, INVALID, False) for code in ("invalid_payee_account_identifier", "invalid_payer_email")),
    *((code, INVALID, False) for code in ("invalid_expiration", "invalid_expiration_format", "invalid_bank_account")),
    *((code, INVALID, False) for code in ("invalid_business", "method_not_allowed")),
    ("unauthorized", "authentication_error", False),
    ("forbidden", "authorization_error", False),
    ("not_found", "not_found_error", False),
    ("session_not_found", "not_found_error", False),
    ("invalid_action", "conflict_error", False),
    ("invalid_idempotency_key", "conflict_error", False),
    ("idempotency_conflict", "conflict_error", False),
    ("Processing", "conflict_error", True),
    ("processing", "conflict_error", True),
    ("rate_limit_exceeded", "rate_limit_error", True),
    ("internal", "api_error", True),
    ("internal_error", "api_error", True),
    ("service_unavailable", "api_error", True),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_code_in_both_shapes(row):
    code, kind, may_retry = row
    payment = {"errors": [{"code": code, "source": {"parameter": "a.field"}, "title": "In words"}]}
    refund = {"errors": [{"code": code, "message": "In words", "params": {"a.field": {"reason": "bad"}}}]}
    for body in (payment, refund):
        it = error(409, body)
        assert (it.type, it.provider_code, it.param, it.may_retry) == (kind, code, "a.field", may_retry)
        assert (it.message, it.http_status) == ("Banked: In words", 409)
        assert all(not error(status, body).may_retry for status in (400, 401, 403, 404))
        assert all(error(status, body).may_retry for status in (429, 500, 502, 503, 504))


def test_several_errors_are_repeated_only_if_each_may_be():
    both = [{"code": "internal"}, {"code": "invalid_amount"}]
    assert error(409, {"errors": both[:1] * 2}).may_retry
    assert not error(409, {"errors": both}).may_retry
    assert error(409, {"errors": both}).provider_code == "internal"


def test_a_code_of_tomorrow_leaves_the_status():
    it = error(422, {"errors": [{"code": "invalid_moon", "title": "Not a moon"}]})
    assert (it.type, it.provider_code, it.may_retry) == (INVALID, "invalid_moon", False)


def test_what_may_have_been_done_is_ambiguous():
    assert error(500).is_ambiguous
    assert error(409, {"errors": [{"code": "Processing"}]}).is_ambiguous
    assert not error(409, {"errors": [{"code": "idempotency_conflict"}]}).is_ambiguous
    assert not error(400).is_ambiguous


def test_a_429_waits_as_long_as_it_says():
    assert error(429, retry_after="12").retry_after == 12
    assert error(429, retry_after="Wed, 01 Apr 2026 10:01:00 GMT").retry_after == 60
    assert error(429).retry_after is None


def test_partial_success_keeps_the_id_and_the_answer():
    body = {
        "errors": [{"code": "internal", "title": "An action failed"}],
        "successes": [
            {"resource_type": "mandate", "resource_id": "m"},
            {"resource_type": "payment", "resource_id": "f1fde464-a8bc-4579-9f29-f21047316709"},
        ],
    }

    it = error(500, body)

    assert isinstance(it, PartialSuccess)
    assert it.created_ref == "f1fde464-a8bc-4579-9f29-f21047316709"
    assert json.loads(it.answer.body) == body
    assert (it.may_retry, it.is_ambiguous) == (False, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"errors":7}',
        b'{"errors":[7]}',
        b'{"errors":{"code":"internal"}}',
        b'{"errors":[{"code":7,"source":"x","title":{},"params":[]}]}',
        b'{"errors":[],"successes":[{"resource_type":["payment"],"resource_id":7}]}',
        b'{"errors":[],"successes":{"resource_type":"payment"}}',
    ],
)
def test_an_unreadable_body_leaves_the_status(body):
    it = error(403, body)
    assert (it.type, it.provider_code, it.param) == ("authorization_error", None, None)
    assert it.message == "Banked answered 403"


def test_a_message_is_fit_to_be_shown():
    it = error(
        400, {"errors": [{"code": "invalid_payee", "title": "Account 12345678, sort code 01-02-03 is wrong\x00"}]}
    )
    assert it.message == "Banked: Account [number], sort code [number] is wrong"
