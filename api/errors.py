"""Errors of the API with their HTTP statuses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal

from statemachine.errors import ErrorType, ServiceError


class KeyMissing(ServiceError):
    """The request carries no API key, as bearer token or user name of HTTP basic."""

    type = "authentication_error"
    code = "api_key_missing"
    status = 401


class KeyInvalid(ServiceError):
    """The API key is unknown, has expired or was revoked."""

    type = "authentication_error"
    code = "api_key_invalid"
    status = 401


class ScopeMissing(ServiceError):
    """The API key may not do this."""

    type = "authorization_error"
    code = "scope_missing"
    status = 403


class EnvironmentMismatch(ServiceError):
    """A test key reaches test accounts only, and a live key live ones."""

    type = "authorization_error"
    code = "environment_mismatch"
    status = 403


class PlainHttpRefused(ServiceError):
    """The request did not come over HTTPS."""

    type = "authorization_error"
    code = "https_required"
    status = 403


class UnknownPath(ServiceError):
    """There is nothing at this path."""

    type = "not_found_error"
    code = "unknown_path"
    status = 404


class MethodNotAllowed(ServiceError):
    """This path does not take this method."""

    type = "invalid_request_error"
    code = "method_not_allowed"
    status = 405


class NotJson(ServiceError):
    """A body must be sent as application/json."""

    type = "invalid_request_error"
    code = "unsupported_media_type"
    status = 415


@dataclass(frozen=True, slots=True)
class RequestFault:
    """One thing that is wrong with a request."""

    code: str
    message: str
    param: str | None
    where: Literal["query", "header", "body"]


class InvalidRequest(ServiceError):
    """The request is not as the API's description says."""

    type = "invalid_request_error"
    code = "invalid_request"
    status = 400

    def __init__(self, faults: Sequence[RequestFault]) -> None:
        super().__init__(faults[0].message, param=faults[0].param, code=faults[0].code)
        self.faults = tuple(faults)

    def as_json(self, request_id: str) -> dict[str, dict[str, Any]]:
        """Serialize the first fault as every error, and list all of them beside it."""
        made = super().as_json(request_id)
        made["error"]["errors"] = [asdict(fault) for fault in self.faults]
        return made


class KeyConflict(ServiceError):
    """The Idempotency-Key was used before, for something else."""

    type = "conflict_error"
    code = "idempotency_key_conflict"
    status = 409


class KeyInUse(ServiceError):
    """The first call with this Idempotency-Key is under way; repeat this one later."""

    type = "conflict_error"
    code = "idempotency_key_in_use"
    status = 409
    retryable: ClassVar[bool] = True


class CursorAhead(ServiceError):
    """The feed does not hold what was read of it; begin anew from 0."""

    type = "conflict_error"
    code = "cursor_ahead"
    status = 409


class TooManyRequests(ServiceError):
    """The API key's requests come faster than it may send them."""

    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    status = 429
    retryable: ClassVar[bool] = True


class TooManyWaiting(ServiceError):
    """Too many readers wait for events in this process."""

    type = "rate_limit_error"
    code = "too_many_waiting"
    status = 429
    retryable: ClassVar[bool] = True


#: HTTP status of a provider's error by its type, which it keeps along with its code. Any other is a bad gateway: what
#: a provider says of our own credentials is no fault of the caller, and neither is a provider that does not answer.
STATUS_BY_TYPE: Final[dict[ErrorType, int]] = {
    "invalid_request_error": 422,
    "not_found_error": 404,
    "conflict_error": 409,
    "rate_limit_error": 429,
}


def as_refusal(error: ServiceError) -> ServiceError:
    """Give an error from elsewhere the status that it has at the API.

    A provider's error has the status of its type. A command that makes no sense is 422: the request had the right form,
    or it would not have come so far; 400 is about the form alone.
    """
    if hasattr(error, "provider_code"):
        error.status = STATUS_BY_TYPE.get(error.type, 502)
    elif error.status == 400 and not isinstance(error, InvalidRequest):
        error.status = 422
    return error
