"""Stable Genius's error codes as data, each with its ProviderError."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

from providers.contract import HttpAnswer
from providers.decoding import Unreadable, json_object, retry_after, sane_wait, word
from providers.errors import ProviderError
from providers.masking import masked_words
from statemachine.errors import ErrorType, type_for_status

ResetUnit = Literal["auto", "unix", "delta"]


@dataclass(frozen=True, slots=True)
class IntentCodeRow:
    """One documented code: the status that it comes with and what it means."""

    status: int
    type: ErrorType


#: docs.stablegenius.co, "Error Codes". The provider lists codes and types apart; they are joined by status here.
TABLE: Final[Mapping[str, IntentCodeRow]] = {
    "amount_out_of_range": IntentCodeRow(400, "invalid_request_error"),
    "amount_too_small": IntentCodeRow(400, "invalid_request_error"),
    "invalid_currency": IntentCodeRow(400, "invalid_request_error"),
    "invalid_merchant": IntentCodeRow(400, "invalid_request_error"),
    "ttl_out_of_range": IntentCodeRow(400, "invalid_request_error"),
    "invalid_webhook_url": IntentCodeRow(400, "invalid_request_error"),
    "missing_api_key": IntentCodeRow(401, "authentication_error"),
    "invalid_api_key": IntentCodeRow(401, "authentication_error"),
    "revoked_api_key": IntentCodeRow(401, "authentication_error"),
    "environment_mismatch": IntentCodeRow(403, "authorization_error"),
    "merchant_not_found": IntentCodeRow(404, "not_found_error"),
    "intent_not_cancellable": IntentCodeRow(409, "conflict_error"),
    "idempotency_key_conflict": IntentCodeRow(409, "conflict_error"),
    "merchant_not_active": IntentCodeRow(422, "invalid_request_error"),
    "webhook_unreachable": IntentCodeRow(422, "invalid_request_error"),
    "rate_limit_exceeded": IntentCodeRow(429, "rate_limit_error"),
}

#: "Retry on 429 and 500"; a gateway's 502, 503 and 504 are no less transient. Everything else is our request's fault.
RETRYABLE: Final = frozenset({429, 500, 502, 503, 504})

_TYPES: Final[Mapping[str, ErrorType]] = {name: name for name in get_args(ErrorType)}

#: Values of X-RateLimit-Reset above this are instants, below it spans: no window lasts thirty years.
_FIRST_INSTANT: Final = 1e9


def name_error(answer: HttpAnswer, reset_unit: ResetUnit = "auto") -> ProviderError:
    """Return the error that an answer stands for: by code, else type, else status.

    Whether to retry depends on the status alone. Carries at most 200 masked characters of the provider's message and
    nothing else of the body. Source: docs.stablegenius.co, "Error Codes" and /api-reference/overview.
    """
    told = _error_object(answer.body)
    code = word(told.get("code"))
    row = TABLE.get(code) if code is not None else None
    own_type = _TYPES.get(word(told.get("type")) or "")
    words = masked_words(told.get("message"))
    return ProviderError(
        f"Stable Genius answered {answer.status}" + (f": {words}" if words else ""),
        type=row.type if row is not None else own_type or type_for_status(answer.status),
        provider_code=code,
        http_status=answer.status,
        param=word(told.get("param")),
        may_retry=answer.status in RETRYABLE,
        retry_after=_wait(answer, reset_unit) if answer.status in RETRYABLE else None,
        is_ambiguous=answer.status >= 500,
    )


def _error_object(body: bytes) -> Mapping[str, object]:
    try:
        told = json_object(body).get("error")
    except Unreadable:
        return {}
    return told if isinstance(told, dict) else {}


def _wait(answer: HttpAnswer, unit: ResetUnit) -> float | None:
    """Return the seconds until the window resets, None for back-off.

    X-RateLimit-Reset counts before Retry-After.
    """
    text = answer.headers.get("x-ratelimit-reset", "").strip()
    whole, _, fraction = text.partition(".")
    if text.isascii() and whole.isdigit() and len(whole) <= 12 and (not fraction or fraction.isdigit()):
        return _until(float(text), unit, answer.sent_at)
    return retry_after(answer.headers, answer.sent_at)


def _until(value: float, unit: ResetUnit, sent_at: datetime) -> float | None:
    is_instant = unit == "unix" or (unit == "auto" and value > _FIRST_INSTANT)
    return sane_wait(value - sent_at.timestamp() if is_instant else value)
