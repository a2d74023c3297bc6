"""Alternative Payments' error answers as data, each with its ProviderError."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from providers.contract import HttpAnswer
from providers.decoding import Unreadable, json_object, retry_after, word
from providers.errors import ProviderError
from providers.masking import masked_words
from statemachine.errors import ErrorType, ServiceError, type_for_status


@dataclass(frozen=True, slots=True)
class StatusRow:
    """Meaning of a status, and whether the same call may be sent again."""

    type: ErrorType
    may_retry: bool = False


#: docs.alternativepayments.io, "Troubleshooting": errors are told apart by status only, no codes are listed.
#: 502 to 504 are a gateway's, undocumented, and no less transient than a 500.
TABLE: Final[Mapping[int, StatusRow]] = {
    400: StatusRow("invalid_request_error"),
    401: StatusRow("authentication_error"),  # after one new token, which the caller has fetched by then
    403: StatusRow("authorization_error"),
    404: StatusRow("not_found_error"),  # unknown id, or another environment's
    422: StatusRow("invalid_request_error"),
    429: StatusRow("rate_limit_error", may_retry=True),
    500: StatusRow("api_error", may_retry=True),
    502: StatusRow("api_error", may_retry=True),
    503: StatusRow("api_error", may_retry=True),
    504: StatusRow("api_error", may_retry=True),
}


class WebhookNeedsSecret(ServiceError):
    """A webhook without a secret_key carries no authentication and is rejected here."""

    type = "invalid_request_error"
    code = "webhook_needs_secret"
    status = 422


def name_error(answer: HttpAnswer) -> ProviderError:
    """Return the error that an answer stands for, by its status alone; total.

    Reads both documented shapes, `message` at the top and under `error`; the parameter is the field that
    `validation_errors` names, where it names one. Carries at most 200 masked characters of the provider's message
    and nothing else of the body. Source: docs.alternativepayments.io, "Troubleshooting" and "FAQ".
    """
    told = _error_object(answer.body)
    row = TABLE.get(answer.status, StatusRow(type_for_status(answer.status)))
    words = masked_words(told.get("message"))
    return ProviderError(
        f"Alternative Payments answered {answer.status}" + (f": {words}" if words else ""),
        type=row.type,
        provider_code=word(told.get("code")),
        http_status=answer.status,
        param=_param(told.get("validation_errors")),
        may_retry=row.may_retry,
        retry_after=retry_after(answer.headers, answer.sent_at) if row.may_retry else None,
        is_ambiguous=answer.status >= 500,
    )


def name_token_error(answer: HttpAnswer) -> ProviderError:
    """Return the error of `POST /oauth/token`, where a 403 means wrong credentials.

    Nothing was asked for yet; else as name_error().
    """
    error = name_error(answer)
    error.is_ambiguous = False
    if answer.status == 403:
        error.type = "authentication_error"
    return error


def _error_object(body: bytes) -> Mapping[str, object]:
    try:
        told = json_object(body)
    except Unreadable:
        return {}
    nested = told.get("error")
    return nested if isinstance(nested, dict) else told


def _param(fields: object) -> str | None:
    return word(next(iter(fields), None)) if isinstance(fields, dict) else None
