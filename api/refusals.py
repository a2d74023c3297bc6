"""What may be refused, by HTTP status, and how a provider's refusal reads at our edge."""

from typing import Final

from api.errors import InvalidRequest
from statemachine.errors import ErrorType, ServiceError

#: A provider's error keeps its type and code. What it says of our own credentials there is no fault of the caller's,
#: and what it does not answer is nobody's: both are a bad gateway.
STATUS_BY_TYPE: Final[dict[ErrorType, int]] = {
    "invalid_request_error": 422,
    "not_found_error": 404,
    "conflict_error": 409,
    "rate_limit_error": 429,
}

#: Of every operation.
ALWAYS: Final = {
    400: "the request is not as described here, or a header is missing",
    401: "no API key, or one that is good no more",
    403: "the key lacks the scope, is of the other environment, or the request came without HTTPS",
    429: "the key's requests come too fast; `Retry-After` says when to go on",
    500: "an internal error; it is logged under the request id",
    503: "the database or another part is away; the same call may be sent again after `Retry-After`",
}

#: Of those with a body.
WITH_BODY: Final = {
    408: "the body took too long to arrive",
    413: "the body is too large",
    415: "the body is not said to be application/json",
}

#: Of those that call a provider.
WITH_PROVIDER: Final = {
    404: "no such account or payment, here or at the provider",
    409: "it contradicts what is known, here or at the provider",
    422: "it makes no sense here, or the provider refuses it",
    502: "the provider did not answer, or not in a way that says anything, or refuses our credentials",
}

#: Of those that may be repeated under a key.
WITH_KEY: Final = {409: "the Idempotency-Key is in use, or was used for something else"}


def as_refusal(error: ServiceError) -> ServiceError:
    """The error with the status that it has for a caller of ours, where that is not its own.

    A provider's error has that of its type. What a command finds to make no sense is 422: the request had the right
    form, or it would not have come so far; 400 is about the form alone.
    """
    if hasattr(error, "provider_code"):
        error.status = STATUS_BY_TYPE.get(error.type, 502)
    elif error.status == 400 and not isinstance(error, InvalidRequest):
        error.status = 422
    return error
