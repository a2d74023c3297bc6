"""What the way in answers: small JSON, one error shape, never a redirect."""

from collections.abc import Mapping

import msgspec
from starlette.types import Send

from statemachine.errors import ServiceError

_RETRY_AFTER = {429: b"60", 503: b"5"}


def headers_of(status: int) -> list[tuple[bytes, bytes]]:
    """Of an answer with this status, without its length."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if status in _RETRY_AFTER:
        headers.append((b"retry-after", _RETRY_AFTER[status]))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return headers


async def send_json(send: Send, status: int, content: Mapping[str, object], *, is_head: bool = False) -> None:
    """One complete JSON answer."""
    body = msgspec.json.encode(content)
    headers = [*headers_of(status), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def send_error(send: Send, error: ServiceError, request_id: str, *, is_head: bool = False) -> None:
    """The error in the one shape that every error of this service has."""
    await send_json(send, error.status, error.as_json(request_id), is_head=is_head)
