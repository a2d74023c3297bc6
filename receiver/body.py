"""Reads a body: cut off while it arrives when it grows too large, given up when it takes too long."""

import asyncio

from starlette.types import Receive, Scope

from receiver.errors import BodyTooLarge, BodyTooSlow, ClientGone


async def read_body(scope: Scope, receive: Receive, *, at_most: int, seconds: float) -> bytes:
    """The exact bytes of the body.

    Raises BodyTooLarge as soon as it is known to be, BodyTooSlow, or ClientGone.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > at_most:
            raise BodyTooLarge(f"a body may have {at_most} bytes")
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, at_most)
    except TimeoutError:
        raise BodyTooSlow(f"a body must arrive within {seconds:g} seconds") from None


async def _read(receive: Receive, at_most: int) -> bytes:
    first = b""
    body: bytearray | None = None
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        chunk = event.get("body", b"")
        if len(chunk) + (len(first) if body is None else len(body)) > at_most:
            raise BodyTooLarge(f"a body may have {at_most} bytes")
        if body is not None:
            body += chunk
        elif first:
            body = bytearray(first + chunk)
        else:
            first = chunk
        if not event.get("more_body", False):
            return first if body is None else bytes(body)
