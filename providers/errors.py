"""Errors of providers, in our own error shape."""

from typing import ClassVar

from providers import decoding
from statemachine.errors import ErrorType, ServiceError, type_for_status


class DeliveryRejected(ServiceError):
    """The delivery is not authentic, or not fresh.

    It is the only exception that a verifier may raise (rule R7).
    """

    type = "authentication_error"
    code = "delivery_rejected"
    status = 401

    #: `reason` is one of these, so that it can be a metric label.
    REASONS: ClassVar[frozenset[str]] = frozenset(
        {
            "signature_missing",
            "signature_malformed",
            "signature_wrong",
            "timestamp_missing",
            "timestamp_malformed",
            "timestamp_stale",
            "timestamp_future",
            "no_active_key",
            "content_encoded",  # wrong, and the body came compressed: what was signed may be what it was before
        }
    )

    def __init__(self, reason: str) -> None:
        if reason not in self.REASONS:
            raise ValueError(f"{reason!r} is no reason to reject a delivery")
        self.reason = reason
        super().__init__(reason.replace("_", " "), code=reason)


class ProviderError(ServiceError):
    """The provider answered with an error, or not at all.

    Carries the provider's own code and what to do next.
    """

    code = "provider_error"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        type: ErrorType | None = None,  # noqa: A002 - the error shape's own word
        provider_code: str | None = None,
        http_status: int | None = None,
        param: str | None = None,
        may_retry: bool = False,
        retry_after: float | None = None,
        is_ambiguous: bool = False,
        is_unsent: bool = False,
        created_ref: str | None = None,
    ) -> None:
        provider_code = decoding.words(provider_code, decoding.MAX_WORD) if provider_code else None
        super().__init__(decoding.words(message), param=param, code=provider_code or "provider_error")
        self.type = type or type_for_status(http_status or 500)
        self.provider_code = provider_code  #: the provider's own code, as it can be kept; None where it has none
        self.http_status = http_status  #: None where there was no answer
        self.may_retry = may_retry  #: whether the same call may be sent again
        self.retry_after = retry_after  #: seconds to wait first, where the provider says so; None: back off
        self.is_ambiguous = is_ambiguous  #: the provider may have done what we asked for
        self.is_unsent = is_unsent  #: the call never left, whatever else was answered: nothing was done
        self.created_ref = created_ref  #: the id of what was created although the call failed in part


class AnswerTooLarge(ProviderError):
    """The provider's answer exceeds the limit; of a list, ask for a smaller page."""


class UnsupportedByProvider(ServiceError):
    """The provider documents no such call."""

    type = "invalid_request_error"
    code = "unsupported_by_provider"
    status = 422


class InsecureUrl(ServiceError):
    """A URL that we would register or call is not HTTPS."""

    type = "invalid_request_error"
    code = "insecure_url"
    status = 400
