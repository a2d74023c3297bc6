"""Root of every error that Receipted raises, and the error types of its answers."""

from typing import Any, ClassVar, Literal

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "authorization_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
    "api_error",
]

#: The error type that an HTTP status stands for where nothing more exact is known.
TYPE_BY_STATUS: dict[int, ErrorType] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "authorization_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def type_for_status(status: int) -> ErrorType:
    """Return the error type for an HTTP status.

    Everything unlisted below 500 is the request's fault.
    """
    return TYPE_BY_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")


class ServiceError(Exception):
    """Root of all named failures, with the fields of the JSON error shape.

    No secret or payload is ever in one.
    """

    type: ErrorType = "api_error"  #: one of the seven types of the error shape
    code: str = "internal"  #: for machines; stable
    status: int = 500  #: the HTTP status that this becomes at our edge
    retryable: ClassVar[bool] = False  #: whether the same call may succeed later, unchanged
    is_for_ever: ClassVar[bool] = False  #: whether nothing that happens later can change the refusal

    def __init__(self, message: str | None = None, *, param: str | None = None, code: str | None = None) -> None:
        doc = (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        self.message = message or doc
        self.param = param
        if code is not None:
            self.code = code
        super().__init__(self.message)

    def as_json(self, request_id: str) -> dict[str, dict[str, Any]]:
        """Build the one JSON shape in which an error leaves this service."""
        return {
            "error": {
                "type": self.type,
                "code": self.code,
                "message": self.message,
                "param": self.param,
                "request_id": request_id,
            }
        }


class InvalidLifecycle(ServiceError):
    """A lifecycle's data contradicts itself; the program must not start with it."""

    code = "invalid_lifecycle"


class IllegalMove(ServiceError):
    """A move that the lifecycle does not permit was about to be recorded; nothing was."""

    type = "conflict_error"
    code = "illegal_move"
    status = 409


class InvalidAmount(ServiceError):
    """An amount or currency that cannot be stated in whole minor units."""

    type = "invalid_request_error"
    code = "invalid_amount"
    status = 400
