"""Banked's error tables, in the two shapes that its pages use."""

from collections.abc import Sequence
from typing import Any

from sandbox.web import ApiError, Call, json_reply

#: code -> (HTTP status, title). S4 gives no statuses, so they are inferred.
ERRORS: dict[str, tuple[int, str]] = {
    "invalid_action": (409, "The action is not valid for the current state"),
    "unauthorized": (401, "Authentication credentials are missing or invalid"),
    "bad_request": (400, "The request is malformed or contains invalid parameters"),
    "invalid_error_url": (400, "The error URL is not valid"),
    "invalid_success_url": (400, "The success URL is not valid"),
    "invalid_reference": (400, "The reference has at most 18 letters, digits and spaces"),
    "invalid_description": (400, "The description is not valid"),
    "invalid_request": (400, "The request is invalid or malformed"),
    "invalid": (400, "The request is invalid"),
    "invalid_payee_account_identifier": (400, "The payee account identifier is not valid"),
    "invalid_payer_email": (400, "The payer email is not valid"),
    "invalid_amount": (400, "The amount is not valid"),
    "invalid_currency": (400, "The currency is not valid"),
    "invalid_line_items.amount_cents": (400, "The amount of a line item is not valid"),
    "missing_amount_or_line_items": (400, "Give an amount or line items"),
    "missing_currency_or_line_items": (400, "Give a currency or line items"),
    "invalid_amount_cents": (400, "The amount_cents is not valid"),
    "invalid_bank_account": (400, "The bank account is not valid"),
    "invalid_payee_name": (400, "The payee name is not valid"),
    "not_found": (404, "The resource does not exist or has been deleted"),
    "session_not_found": (404, "The payment session does not exist or has been deleted"),
    "invalid_payee": (400, "The payee is not valid"),
    "invalid_expiration": (400, "The expiration is not in the future"),
    "invalid_expiration_format": (400, "The expiration is not an ISO 8601 time"),
    "invalid_business": (400, "The business is not configured for this"),
    "invalid_idempotency_key": (409, "The idempotency key was used for a different request"),
    "decoding": (400, "The body could not be decoded"),
    "internal": (500, "An internal error occurred"),
    "method_not_allowed": (405, "The HTTP method is not allowed here"),
    "forbidden": (403, "Access is denied"),
    "idempotency_conflict": (409, "The idempotency key was used for a different request"),
    "Processing": (409, "A request with this idempotency key is being processed"),
    "rate_limit_exceeded": (429, "Too many requests"),
    "internal_error": (500, "An internal error occurred"),
    "bad_gateway": (502, "Bad gateway"),
    "service_unavailable": (503, "The service is unavailable"),
    "gateway_timeout": (504, "Gateway timeout"),
}

#: What fits into Banked's 18 characters: `sandbox e1` asks for the first row, and so on.
CODE_BY_SHORT_NAME = {f"e{number}": code for number, code in enumerate(ERRORS, 1)}
BY_STATUS = {
    "400": "bad_request",
    "401": "unauthorized",
    "403": "forbidden",
    "404": "not_found",
    "409": "Processing",
    "429": "rate_limit_exceeded",
    "500": "internal",
    "502": "bad_gateway",
    "503": "service_unavailable",
    "504": "gateway_timeout",
}


def row_of(code: str) -> str:
    """Return the error code that a magic code names; empty for none.

    It is named by itself, by number or by status.
    """
    code = CODE_BY_SHORT_NAME.get(code, BY_STATUS.get(code, code))
    return code if code in ERRORS else ""


def is_newer_shape(call: Call) -> bool:
    """Return whether errors are written as the payin and refund pages show them."""
    return call.path.startswith("/v3/") or "/refunds" in call.path


def refuse(
    call: Call,
    problems: Sequence[tuple[str, str]],
    *,
    successes: Sequence[dict[str, str]] = (),
    status: int = 0,
) -> ApiError:
    """Build an exception of errors, each a code and a parameter.

    The first decides the status.
    """
    newer = is_newer_shape(call)
    renamed = {"internal": "internal_error", "invalid_idempotency_key": "idempotency_conflict"} if newer else {}
    problems = [(renamed.get(code, code), parameter) for code, parameter in problems]
    errors: list[dict[str, Any]] = [
        {"code": code, "message": ERRORS[code][1], "params": {parameter: {"reason": "invalid"}} if parameter else {}}
        if newer
        else {"code": code, "source": {"parameter": parameter}, "title": ERRORS[code][1]}
        for code, parameter in problems
    ]
    body: dict[str, Any] = {"errors": errors}
    if successes:
        body["successes"] = list(successes)
    return ApiError(json_reply(status or ERRORS[problems[0][0]][0], body))
