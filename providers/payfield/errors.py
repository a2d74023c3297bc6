"""Payfield's errors as data: the type of each, and whether it may be retried."""

from dataclasses import dataclass
from typing import Final

from providers.contract import HttpAnswer
from providers.decoding import Unreadable, json_object, retry_after, word
from providers.errors import ProviderError
from providers.masking import masked_words
from statemachine.errors import ErrorType, type_for_status


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One documented message, or the beginning of it, and what follows from it."""

    message: str
    type: ErrorType
    param: str | None = None
    may_retry: bool = False
    is_prefix: bool = False


#: Source: https://bdt-hrs-external-documentation.pages.dev/docs/05-errors and the same page of the older dialect.
MESSAGES: Final = (
    MessageRow("API key required", "authentication_error", "X-API-Key"),
    MessageRow("Invalid API key", "authentication_error", "X-API-Key"),
    MessageRow("Timestamp required", "authentication_error", "X-Timestamp"),
    MessageRow("Signature required", "authentication_error", "X-Signature"),
    MessageRow("Invalid timestamp format", "authentication_error", "X-Timestamp"),
    # each repeat is stamped and signed anew, which heals a request that waited too long for its turn
    MessageRow("Timestamp window exceeded", "authentication_error", "X-Timestamp", may_retry=True),
    MessageRow("Invalid signature", "authentication_error", "X-Signature"),
    MessageRow("external_id is required", "invalid_request_error", "external_id"),
    MessageRow("amount must be a positive decimal string", "invalid_request_error", "amount"),
    MessageRow("amount must be a positive number", "invalid_request_error", "amount"),
    MessageRow("currency is required", "invalid_request_error", "currency"),
    MessageRow("card_number is required", "invalid_request_error", "card_number"),
    MessageRow("callback_url must be a valid URL", "invalid_request_error", "callback_url"),
    MessageRow("Invalid paymentData", "invalid_request_error", "paymentData"),
    MessageRow("Shop currency mismatch. Expected ", "invalid_request_error", "currency", is_prefix=True),
    # a person must top the shop up first
    MessageRow("Insufficient balance", "invalid_request_error", "amount", is_prefix=True),
    MessageRow("Payout not found", "not_found_error", "external_id"),
    MessageRow("PayIn not found", "not_found_error", "external_id"),
)

#: By the provider's code, where its message is not in the table.
CODES: Final[dict[str, ErrorType]] = {
    "unauthorized": "authentication_error",
    "validation_error": "invalid_request_error",
    "not_found": "not_found_error",
}

#: HTTP statuses after which the very same request may succeed.
RETRYABLE_STATUSES: Final = frozenset({429, 500, 502, 503, 504})


class InvalidPayfieldCreate(ProviderError):
    """The request lacks what Payfield requires; it was not sent."""

    status = 400

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, type="invalid_request_error", param=param)
        self.code = "invalid_create"  # ours: the provider was not asked


def name_error(answer: HttpAnswer) -> ProviderError:
    """Return the ProviderError that an error answer stands for; total on any body.

    Both dialects are read: `code` and `error` exist in the newer one only. A body that cannot be read leaves the HTTP
    status to say what happened. After a 5xx the operation may exist: the same `external_id` is safe to repeat.
    """
    try:
        body = json_object(answer.body)
    except Unreadable:
        body = {}
    inner = body.get("error")
    nested = inner if isinstance(inner, dict) else {}
    message = masked_words(body.get("message") or nested.get("message"))
    code = word(body.get("code")) or word(nested.get("code"))
    row = row_for(message)
    is_transient = answer.status in RETRYABLE_STATUSES
    kind = row.type if row else CODES.get(code or "", type_for_status(answer.status))
    if is_transient:  # whatever the words are
        kind = type_for_status(answer.status)
    return ProviderError(
        f"Payfield: {message}" if message else f"Payfield answered {answer.status}",
        type=kind,
        provider_code=masked_words(code) or None,
        http_status=answer.status,
        param=_field(body) or (row.param if row else None),
        may_retry=is_transient or (row is not None and row.may_retry and answer.status == 401),
        retry_after=retry_after(answer.headers, answer.sent_at) if is_transient else None,
        is_ambiguous=answer.status >= 500,
    )


def row_for(message: str) -> MessageRow | None:
    """Return the row of the documented message, if it is one."""
    for row in MESSAGES:
        if message == row.message or (row.is_prefix and message.startswith(row.message)):
            return row
    return None


def _field(body: object) -> str | None:
    errors = body.get("errors") if isinstance(body, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    return (masked_words(word(first.get("field"))) or None) if isinstance(first, dict) else None
