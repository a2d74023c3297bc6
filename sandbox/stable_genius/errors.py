"""Stable Genius' error table: every code with its type, status and message."""

from sandbox.web import ApiError, json_reply

_INVALID, _AUTH, _MISSING, _CONFLICT = (
    "invalid_request_error",
    "authentication_error",
    "not_found_error",
    "conflict_error",
)

#: code -> (HTTP status, type, message). Codes that the provider's tables do not list are marked ours.
ERRORS: dict[str, tuple[int, str, str]] = {
    "amount_out_of_range": (400, _INVALID, "Amount must be between $0.01 and $10,000."),
    "amount_too_small": (400, _INVALID, "Amount must be greater than 0."),
    "invalid_currency": (400, _INVALID, "Currency must be usd."),
    "invalid_merchant": (400, _INVALID, "Merchant ID is malformed."),
    "ttl_out_of_range": (400, _INVALID, "TTL must be between 60 and 3600 seconds."),
    "invalid_webhook_url": (400, _INVALID, "Webhook URL is not a valid HTTPS URL."),
    "invalid_request": (400, _INVALID, "The request is malformed."),  # ours
    "missing_api_key": (401, _AUTH, "No Authorization header provided."),
    "invalid_api_key": (401, _AUTH, "API key is malformed or does not exist."),
    "revoked_api_key": (401, _AUTH, "API key has been revoked."),
    "environment_mismatch": (403, "authorization_error", "The key belongs to the other environment."),
    "merchant_not_found": (404, _MISSING, "Merchant does not exist or is not accessible."),
    "payment_intent_not_found": (404, _MISSING, "Payment intent does not exist."),  # ours
    "not_found": (404, _MISSING, "No such resource."),  # ours
    "method_not_allowed": (405, _INVALID, "Method not allowed."),  # ours
    "intent_not_cancellable": (409, _CONFLICT, "Payment intent is not in awaiting_payment status."),
    "idempotency_key_conflict": (409, _CONFLICT, "The idempotency key was used with different parameters."),
    "merchant_not_active": (422, _INVALID, "Merchant account is suspended or deactivated."),
    "webhook_unreachable": (422, _INVALID, "Could not reach the webhook URL."),
    "rate_limit_exceeded": (429, "rate_limit_error", "Too many requests in the current window."),
    "internal_error_500": (500, "api_error", "An internal error on our side."),  # ours
    "internal_error_502": (502, "api_error", "Bad gateway."),  # ours
    "internal_error_503": (503, "api_error", "Service unavailable."),  # ours
    "internal_error_504": (504, "api_error", "Gateway timeout."),  # ours
}


def refuse(code: str, message: str = "", param: str | None = None) -> ApiError:
    """Build the error of this code, to be raised."""
    status, kind, text = ERRORS[code]
    shown = "internal_error" if code.startswith("internal_error") else code
    error = {"type": kind, "message": message or text, "param": param, "code": shown}
    return ApiError(json_reply(status, {"error": error}))
