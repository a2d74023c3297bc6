"""Banked's errors as data: the type of each code, and whether it may be retried."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from providers.contract import HttpAnswer
from providers.decoding import Unreadable, json_object, name, retry_after, word
from providers.errors import ProviderError
from providers.masking import masked_words
from statemachine.errors import ErrorType, type_for_status


@dataclass(frozen=True, slots=True)
class CodeRow:
    """Meaning of a code.

    The provider states no HTTP status per code, so its own status is kept as it came.
    """

    type: ErrorType
    may_retry: bool = False


_INVALID: Final = CodeRow("invalid_request_error")

#: The codes of payment errors, payin errors and refund errors; `processing` is the code of a parallel request.
#: Source: https://docs.banked.com/merchant/payments/payment-errors, https://docs.banked.com/merchant/refunds/refund-errors
CODES: Final[Mapping[str, CodeRow]] = {
    **dict.fromkeys(
        (
            "bad_request",
            "decoding",
            "invalid",
            "invalid_request",
            "invalid_reference",
            "invalid_description",
            "invalid_success_url",
            "invalid_error_url",
            "invalid_amount",
            "invalid_amount_cents",
            "invalid_currency",
            "invalid_line_items.amount_cents",
            "missing_amount_or_line_items",
            "missing_currency_or_line_items",
            "invalid_payee",
            "invalid_payee_name",
            "invalid_payee_account_identifier",
            "invalid_payer_email",
            "invalid_expiration",
            "invalid_expiration_format",
            "invalid_bank_account",
            "invalid_business",
            "method_not_allowed",
        ),
        _INVALID,
    ),
    "unauthorized": CodeRow("authentication_error"),
    "forbidden": CodeRow("authorization_error"),
    "not_found": CodeRow("not_found_error"),
    "session_not_found": CodeRow("not_found_error"),
    "invalid_action": CodeRow("conflict_error"),  # of the present state: read it again
    "invalid_idempotency_key": CodeRow("conflict_error"),
    "idempotency_conflict": CodeRow("conflict_error"),
    "processing": CodeRow("conflict_error", may_retry=True),
    "rate_limit_exceeded": CodeRow("rate_limit_error", may_retry=True),
    "internal": CodeRow("api_error", may_retry=True),
    "internal_error": CodeRow("api_error", may_retry=True),
    "service_unavailable": CodeRow("api_error", may_retry=True),
}

RETRYABLE_STATUSES: Final = frozenset({429, 500, 502, 503, 504})

#: Whatever the code says, a repeat cannot help.
_NEVER_RETRIED: Final = frozenset({400, 401, 403, 404})


class InvalidBankedCreate(ProviderError):
    """The request is not what Banked accepts; it was not sent."""

    status = 400

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, type="invalid_request_error", param=param)
        self.code = "invalid_create"  # ours: the provider was not asked


class PartialSuccess(ProviderError):
    """The call failed in part, and its answer names what was created nevertheless."""

    #: The answer, to be recorded as a statement about what was created.
    answer: HttpAnswer


def name_error(answer: HttpAnswer) -> ProviderError:
    """Return the error of an answer, PartialSuccess if it names a resource; total.

    Total.

    The first code of `errors` names the error; it may be repeated only if each code there permits it. A code that is
    not in the table, and a body that cannot be read, leave the HTTP status to say what happened.
    """
    try:
        body: Mapping[str, object] = json_object(answer.body)
    except Unreadable:
        body = {}
    items = error_items(body)
    first = items[0] if items else {}
    code = word(first.get("code"))
    row = CODES.get((code or "").lower())
    message = masked_words(first.get("title") or first.get("message"))
    created = created_ref(body)
    named = ProviderError if created is None else PartialSuccess
    error = named(
        f"Banked: {message}" if message else f"Banked answered {answer.status}",
        type=row.type if row else type_for_status(answer.status),
        provider_code=masked_words(code) or None,
        http_status=answer.status,
        param=_param(first),
        may_retry=created is None and _may_retry(answer.status, items),
        retry_after=retry_after(answer.headers, answer.sent_at),
        is_ambiguous=created is None and (answer.status >= 500 or (code or "").lower() == "processing"),
        created_ref=created,
    )
    if isinstance(error, PartialSuccess):
        error.answer = answer
    return error


def error_items(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the objects in `errors`; empty where there are none."""
    found = body.get("errors")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def created_ref(body: Mapping[str, object]) -> str | None:
    """Return the id of the payment that `successes` reports as created."""
    found = body.get("successes")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and word(item.get("resource_type")) in {"payment", "payment_session", "payin"}:
            ref = name(item.get("resource_id"))
            if ref is not None:
                return ref
    return None


def _may_retry(status: int, items: list[Mapping[str, object]]) -> bool:
    if status in _NEVER_RETRIED:
        return False
    if status in RETRYABLE_STATUSES:
        return True
    rows = [CODES.get((word(item.get("code")) or "").lower()) for item in items]
    return bool(rows) and all(row is not None and row.may_retry for row in rows)


def _param(item: Mapping[str, object]) -> str | None:
    source, params = item.get("source"), item.get("params")
    named = source.get("parameter") if isinstance(source, dict) else None
    if named is None and isinstance(params, dict) and params:
        named = next(iter(params))
    return masked_words(named) or None
