"""The refusals of the API, each with its HTTP status."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from statemachine.errors import ServiceError


class KeyMissing(ServiceError):
    """The request carries no API key: send it as a bearer token, or as the user name of HTTP basic."""

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


class HttpsRequired(ServiceError):
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
class Fault:
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

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults[0].message, param=faults[0].param, code=faults[0].code)
        self.faults = tuple(faults)

    def as_json(self, request_id: str) -> dict[str, dict[str, Any]]:
        """Describe the first fault as every error is, and list all of them beside it."""
        made = super().as_json(request_id)
        made["error"]["errors"] = [asdict(fault) for fault in self.faults]
        return made


class KeyConflict(ServiceError):
    """The Idempotency-Key was used before, for something else."""

    type = "conflict_error"
    code = "idempotency_key_conflict"
    status = 409


class KeyInUse(ServiceError):
    """The first call with this Idempotency-Key is still under way; repeat this one later."""

    type = "conflict_error"
    code = "idempotency_key_in_use"
    status = 409
    retryable: ClassVar[bool] = True


class CursorAhead(ServiceError):
    """The feed does not hold what was read of it: the database is older, or another. Begin anew from 0."""

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
