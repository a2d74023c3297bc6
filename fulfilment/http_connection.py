"""An HTTP/1.1 client connection for one POST after the other, parsed in C.

A general client costs twice the processor time of all the rest of a delivery.
"""

import asyncio
import ssl
from typing import Final, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fulfilment.contract import MAX_ANSWER_BODY_BYTES

#: Of an answer, head and body; what is beyond is not read, and ends the connection.
MAX_ANSWER_BYTES: Final = 64 * 1024

_SWITCHING_PROTOCOLS: Final = 101


class ResponseHead(NamedTuple):
    """The head of an answer."""

    status: int
    retry_after: str | None


class SinkResponse(NamedTuple):
    """An answer with the beginning of its body."""

    head: ResponseHead
    body: bytes


class NoAnswer(ConnectionError):
    """The connection ended, or said what is not HTTP, before the head of an answer."""


class HttpConnection(asyncio.Protocol):
    """A connection to one address, for one request at a time."""

    def __init__(self) -> None:
        self.is_reusable = True  #: another request may be sent, as far as is known here
        self.is_used = False  #: an answer has come on it already
        self.answer: ResponseHead | None = None  #: to the last request, as soon as its head is there
        self._body = bytearray()  #: the beginning of the answer's
        self.opened_at = asyncio.get_running_loop().time()
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._ended: asyncio.Future[None] | None = None
        self._size = 0
        self._retry_after: str | None = None

    @property
    def body(self) -> bytes:
        """The beginning of the last answer's body, as far as it has come."""
        return bytes(self._body)

    async def post(self, request: bytes) -> SinkResponse:
        """Send the request and return its answer once that has ended.

        An answer that may not go on has ended as well.

        Raises NoAnswer. After any exception, or a cancellation, `answer` may hold the head all the same.
        """
        if self._transport is None or not self.is_reusable:
            raise NoAnswer
        self.answer, self._retry_after, self._size = None, None, 0
        self._body.clear()
        self._parser = HttpResponseParser(self)
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._ended
        except BaseException:
            self.close()
            raise
        self._ended = None
        if self.answer is None:
            self.close()
            raise NoAnswer
        self.is_used = True
        if not self.is_reusable:
            self.close()
        return SinkResponse(self.answer, self.body)

    def close(self) -> None:
        """Drop the connection at once; a repeat does nothing."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what writes."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes unasked, or is no HTTP, ends the connection."""
        self._size += len(data)
        if self._ended is None or self._ended.done() or self._parser is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._end(is_reusable=False)
        if self._size > MAX_ANSWER_BYTES:
            self._end(is_reusable=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request; an answer whose head has come counts."""
        self._end(is_reusable=False)

    def eof_received(self) -> None:
        """Close the connection, as the other side sends no more."""

    def _end(self, *, is_reusable: bool) -> None:
        self.is_reusable = self.is_reusable and is_reusable
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # -- what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the one header that matters."""
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Keep the head, unless it only announces another or comes unasked."""
        if self._parser is None or self._ended is None or self._ended.done():
            self.is_reusable = False
            return
        status = self._parser.get_status_code()
        if status >= 200 or status == _SWITCHING_PROTOCOLS:
            self.answer = ResponseHead(status, self._retry_after)
        self._retry_after = None

    def on_body(self, body: bytes) -> None:
        """Keep the beginning of the body."""
        if (room := MAX_ANSWER_BODY_BYTES - len(self._body)) > 0:
            self._body += body[:room]

    def on_message_complete(self) -> None:
        """End the request, unless the answer only announced another."""
        if self._parser is not None and self.answer is not None:
            self._end(is_reusable=self._parser.should_keep_alive() and self.answer.status != _SWITCHING_PROTOCOLS)


async def connect(address: str, port: int, tls: ssl.SSLContext | None, host: str) -> HttpConnection:
    """Connect to the address, which must prove the host by TLS; raises OSError."""
    loop = asyncio.get_running_loop()
    name = host.rstrip(".") if tls is not None else None
    _, connection = await loop.create_connection(HttpConnection, address, port, ssl=tls, server_hostname=name)
    return connection
