"""Responses of the API and their descriptions; errors have one shape."""

import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import structlog
from fastapi.responses import Response, StreamingResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from statemachine.errors import ServiceError

log = structlog.get_logger()

#: Descriptions of responses by status, as FastAPI takes them.
Responses = dict[int | str, dict[str, Any]]

#: Of every operation, by status.
_ALWAYS: Final = {
    400: "the request is not as described here, or a header is missing",
    401: "no API key, or one that is good no more",
    403: "the key lacks the scope, is of the other environment, or the request came without HTTPS",
    429: "the key's requests come too fast; `Retry-After` says when to go on",
    500: "an internal error; it is logged under the request id",
    503: "the database or another part is away; the same call may be sent again after `Retry-After`",
}

#: Of operations that may have a body.
_WITH_BODY: Final = {
    408: "the body took too long to arrive",
    413: "the body is too large",
    415: "the body is not said to be application/json",
}

#: Of operations that may be repeated under a key.
_WITH_KEY: Final = {409: "the Idempotency-Key is in use, or was used for something else"}

#: Refusals of operations that call a provider.
FROM_PROVIDER: Final[Responses] = {
    404: {"description": "no such account or payment, here or at the provider"},
    409: {"description": "it contradicts what is known, here or at the provider"},
    422: {"description": "it makes no sense here, or the provider refuses it"},
    502: {
        "description": ("the provider did not answer, or not in a way that says anything, or refuses our credentials")
    },
}

_REQUEST_ID: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "names this request in the log", "required": True, "schema": {"type": "string"}}
}
_RATE_LIMIT: Final[dict[str, Any]] = {
    "X-RateLimit-Limit": {"description": "requests at once, after a rest", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "requests that are left now", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {"description": "seconds until all are back", "schema": {"type": "integer"}},
}
_RETRY: Final[dict[str, Any]] = {
    "Retry-After": {"description": "seconds to wait first", "required": True, "schema": {"type": "integer"}}
}
_ERROR: Final[dict[str, Any]] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}

#: Seconds to wait where an error that may pass does not say how many.
_RETRY_AFTER_S: Final = "5"


def described(own: Responses, *, may_have_body: bool, may_have_key: bool) -> Responses:
    """Describe the answer's headers and every refusal of an operation.

    Descriptions of its own come before those of every operation.
    """
    found = {
        **_ALWAYS,
        **(_WITH_BODY if may_have_body else {}),
        **(_WITH_KEY if may_have_key else {}),
        **{int(status): str(each["description"]) for status, each in own.items() if int(status) >= 400},
    }
    answers: Responses = {200: {**own.get(200, {}), "headers": _REQUEST_ID | _RATE_LIMIT}}
    answers.update({status: _refusal(status, words) for status, words in sorted(found.items())})
    return answers


def _refusal(status: int, words: str) -> dict[str, Any]:
    headers = _REQUEST_ID | (_RETRY if status in (429, 503) else {})
    return {"description": words, "headers": headers, "content": _ERROR}


def refuse(request: Request, error: ServiceError) -> Response:
    """Answer with the error in the one shape, and the headers that belong to it."""
    headers: dict[str, str] = request.state.headers
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="receipted"'
    if error.status in (429, 503):
        wait = getattr(error, "retry_after", None)
        headers.setdefault("retry-after", str(max(1, math.ceil(wait))) if wait else _RETRY_AFTER_S)
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    request_id: str = request.state.request_id
    log.info("request.refused", request_id=request_id, code=error.code, status=error.status)
    return json_text(error.status, json.dumps(error.as_json(request_id)))


def json_text(status: int, text: str) -> Response:
    """Answer with JSON that is written already."""
    return Response(text, status, media_type="application/json")


def missing(words: str) -> Responses:
    """Describe a 404 of an operation."""
    return {404: {"description": words}}


class OctetStream(Response):
    """Bytes as they were received."""

    media_type = "application/octet-stream"


class JsonLines(Response):
    """JSON objects, one a line."""

    media_type = "application/x-ndjson"


class EventStream(StreamingResponse):
    """Server-sent events.

    Their iterator finds out by itself that the reader has gone, and is always closed.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, headers={"content-type": "text/event-stream", "x-accel-buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a HEAD request gets the headers alone."""
        async with aclosing(self._events):
            if scope["state"]["is_head"]:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await self.stream_response(send)
