"""HTTP over uvicorn with bounded input, and a direct path for ordinary deliveries.

Of what a request costs under uvicorn and Starlette, half is spent on requests in general: a scope, a task, events and
queues between the two. A POST on a URL of the intake is therefore held until all of it is there, which is nearly always
at once, and handed to the application's `take`. Whatever is not ordinary about it goes the general way, from its
beginning: too large, too slow, pipelined, refused.

Where a message ends is decided by its length or its chunks alone (RFC 9112, section 6.3), so that this parser and a
proxy's agree: an Upgrade is ignored, and what could be framed in two ways is refused and its connection closed. What
stands behind the last chunk (trailers) is dropped. Nothing is parsed while a request waits behind another, so that a
connection holds a bounded amount of memory; and every wait for its client is bounded in time.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
import structlog
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from receiver.errors import (
    ExpectationFailed,
    HeadersTooLarge,
    MalformedRequest,
    RequestTooSlow,
    UnsupportedRequest,
    UnsupportedVersion,
)
from receiver.http import headers_of
from statemachine.errors import ServiceError
from storage.ids import new_id

log = structlog.get_logger()

#: Bytes of a request line and its headers, and of what stands between or behind the chunks of a body. What passes is
#: judged by receiver/intake.py, which takes less.
MAX_HEAD_BYTES: Final = 64 * 1024

#: Seconds from the first byte of a request, or from the beginning of its connection, to the end of its headers.
HEAD_TIMEOUT_S = 10.0

#: Seconds and bytes within which an unread rest of a body must arrive, for its connection to be kept.
DRAIN_TIMEOUT_S = 5.0
MAX_DRAIN_BYTES: Final = 1024 * 1024

#: Seconds in which a client must read so many bytes of an answer, or what is left of it; else it is dropped.
WRITE_TIMEOUT_S: Final = 60.0
MIN_READ_BYTES: Final = 16 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

#: Seconds between two checks of a connection that has no earlier deadline.
_CHECK_INTERVAL_S: Final = 10.0

#: Bytes given to the parser at once: all requests that begin within them are held, before reading stops.
_PIECE_BYTES: Final = 4096

#: Paths that the direct handler may know.
_INTAKE_PATHS: Final = (b"/webhooks/", b"/callbacks/")

#: Bytes of a body that are held until the rest arrives.
_MAX_HELD_BYTES: Final = 64 * 1024

#: Seconds that a request is held: its packets come together or, if its sender is slow, not at all.
_HOLD_TIMEOUT_S: Final = 0.05

#: Headers that say how a message is framed or to be read; see `_check_framing`.
_FRAMING_HEADERS: Final = frozenset({b"expect", b"host", b"transfer-encoding"})
_CLOSE: Final = (b"connection", b"close")
_HEADS: dict[tuple[int, bool], tuple[list[tuple[bytes, bytes]], bytes]] = {}


class DirectHandler(Protocol):
    """Application that may answer whole requests itself; see Intake.take."""

    def __call__(self, target: bytes, raw: Any, body: bytes, client: str, scheme: str, answer: Any, /) -> bool:
        """Return whether it answers the request."""


class _DirectRequest:
    """Request answered by the direct handler, in place of uvicorn's cycle."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "message_event", "response_complete", "response_started")

    def __init__(self, protocol: "BoundedProtocol", *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.message_event = self

    def set(self) -> None:
        """Do nothing: no task waits for more of the request."""

    def answer(self, status: int, body: bytes) -> None:
        """Send the answer, if its client is still there."""
        self.response_started = self.response_complete = True
        self._protocol.answered(self, status, body)


class _Flow(FlowControl):
    """Flow control that reads on only when no request waits behind another.

    uvicorn's resumes as soon as an application asks for a body, however many requests wait.
    """

    def __init__(self, protocol: "BoundedProtocol", transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def pause_reading(self) -> None:
        """Stop parsing after the piece that is being parsed."""
        self.read_paused = True
        self._protocol.stop_reading()

    def resume_reading(self) -> None:
        """Parse what was read already, then read on."""
        if self.read_paused and self._protocol.may_read_on():
            self.read_paused = False
            self._protocol.loop.call_soon(self._protocol.read_on)


class BoundedProtocol(HttpToolsProtocol):
    """One connection with bounded memory and bounded waits."""

    write_timeout_s = WRITE_TIMEOUT_S
    check_interval_s = _CHECK_INTERVAL_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: An application that knows nothing of this, or one below another's path, is served as uvicorn would.
        self._handler: DirectHandler | None = None if self.root_path else getattr(self.app, "take", None)

        self._is_in_head = False
        self._is_in_body = False
        self._has_progress = False  #: a request, its body or its end began within the piece that is being parsed
        self._unframed_bytes = 0  #: bytes parsed since the last of these
        self._fault: ServiceError | None = None  #: of the head that is being parsed
        self._hosts = 0
        self._is_chunked = False
        self._is_upgrade = False  #: the parser skips the body of the message, which is parsed once more
        self._version = ""

        self._unread = b""  #: was read, and is parsed when no request waits
        self._is_stopped = False  #: the transport does not read
        self._running: Any = None  #: the request that is being answered; others wait in `pipeline`
        self._refusal: ServiceError | None = None  #: answers what cannot be parsed, after all that came before it
        self._is_discarding = False  #: the last answer was sent
        self._discarded_bytes = 0

        self._held: list[bytes] | None = None  #: the body so far, of a request that may be taken
        self._hold: asyncio.TimerHandle | None = None

        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._deadline = 0.0  #: the loop's time by which the client must have moved; 0 while an application works
        self._unsent_bytes = 0  #: the most bytes that waited for the client at any check since `_read_at`
        self._read_at = 0.0  #: the loop's time at which the client had last read enough, or everything

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.flow = _Flow(self, transport)
        client: tuple[str, int] | None = self.client  # none on a socket of the system's own
        self._peer = "" if client is None else client[0]
        self._scheme = str(self.scheme)
        self._set_deadline(HEAD_TIMEOUT_S)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Reset the state of the last request."""
        self._is_in_head = self._has_progress = True
        self._deadline = 0.0
        self._fault, self._hosts, self._is_chunked = None, 0, False
        if self._handler is None:
            super().on_message_begin()
        else:
            self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header without trailing blanks (RFC 9110, section 5.5).

        A trailer is dropped: what reads headers would take it for one.
        """
        if not self._is_in_head:
            return
        name, value = name.lower(), value.rstrip(b" \t")
        if name in _FRAMING_HEADERS:
            self._check_framing(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the body, or refuse a request that others could frame or read differently."""
        self._is_in_head, self._has_progress, self._deadline = False, True, 0.0
        if self._fault is not None:
            raise self._fault
        parser = self.parser
        method, version = parser.get_method(), parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._is_chunked):
            raise MalformedRequest if version == "1.0" else UnsupportedVersion
        if method == b"CONNECT":
            raise UnsupportedRequest
        if not self.url.startswith(b"/") and parse_url(self.url).path is None:
            raise MalformedRequest  # such as http://host
        if parser.should_upgrade():
            self._is_upgrade = True
            return
        self._is_in_body, self._version = True, version
        if self._handler is None:
            super().on_headers_complete()
            return
        before: Any = self.cycle  # none at first, whatever uvicorn declares
        if (
            self.url.startswith(_INTAKE_PATHS)
            and method == b"POST"
            and not self.expect_100_continue
            and (before is None or before.response_complete)
            and not self.flow.write_paused
        ):
            self._held = []
        else:
            self._pass_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        """Hold or pass on a part of the body; drop it if the answer was sent already."""
        self._has_progress = True
        if self._held is not None:
            self._held.append(body)
        elif self.cycle.response_complete:
            self._discard(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Give a held request to the direct handler, or end the body for uvicorn."""
        self._has_progress = True
        if self._is_upgrade:
            return
        self._is_in_body = False
        keep_alive = self._version == "1.1" and self.parser.should_keep_alive()
        if self._held is None:
            self._end_body(keep_alive=keep_alive)
            return
        held = self._unhold()
        request = _DirectRequest(self, keep_alive=keep_alive)
        body = held[0] if len(held) == 1 else b"".join(held)
        if self._handler is not None and self._handler(
            self.url, self.headers, body, self._peer, self._scheme, request.answer
        ):
            self.cycle = self._running = request  # type: ignore[assignment]
            return
        self._pass_to_uvicorn()
        super().on_body(body)
        self._end_body(keep_alive=keep_alive)

    # Called by the transport.

    def data_received(self, data: bytes) -> None:
        """Parse up to 256 KiB, which is what a transport reads at a time."""
        if self._is_discarding:
            self._discard(len(data))
        elif self._unread or self._refusal is not None:
            self._unread += data  # a transport may give what it had read when it was told to stop
        else:
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the applications; a held request goes to uvicorn, to be logged."""
        if self._held is not None:
            self._pass_held_to_uvicorn()
        if self._timer is not None:
            self._timer.cancel()
        self._unread = b""
        self._disconnect(self._running)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Send on, since the client reads."""
        self._read_at = self.loop.time()
        super().resume_writing()

    # Called by uvicorn.

    def shutdown(self) -> None:
        """Answer a request that is held before its connection ends."""
        self._release()
        super().shutdown()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self.flow.resume_reading()
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._is_in_body and self.expect_100_continue:
            self.transport.close()  # the client may send the body now or not: its end is unknown
        else:
            self.flow.resume_reading()
            in_body, in_head = DRAIN_TIMEOUT_S, HEAD_TIMEOUT_S
            self._set_deadline(
                in_body if self._is_in_body else in_head if self._is_in_head else self.timeout_keep_alive
            )

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # Reading.

    def stop_reading(self) -> None:
        """Have the transport read no more."""
        if not self._is_stopped and not self.transport.is_closing():
            self._is_stopped = True
            self.transport.pause_reading()

    def may_read_on(self) -> bool:
        """Return whether no request waits behind another."""
        return not self.pipeline and self._refusal is None

    def read_on(self) -> None:
        """Parse what was read already; resume reading unless a request waits again."""
        if self.transport.is_closing():
            return
        data, self._unread = self._unread, b""
        if data:
            self._feed(data)
        if self._is_stopped and not self.flow.read_paused and not self._unread and not self.transport.is_closing():
            self._is_stopped = False
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if self.flow.read_paused:
                self._unread = data[at:]
                break
            if not self._parse(data[at : at + _PIECE_BYTES]):  # bytes that are whole are not copied
                return
            at += self._parsed
            if self.transport.is_closing():
                return
        if self._held is not None:
            if sum(map(len, self._held)) > _MAX_HELD_BYTES:
                self._release()
            elif self._hold is None:
                self._hold = self.loop.call_later(_HOLD_TIMEOUT_S, self._release)
        elif self._is_in_head and not self._deadline and (self._running is None or self._running.response_complete):
            self._set_deadline(HEAD_TIMEOUT_S)

    _parsed = 0

    def _parse(self, piece: bytes) -> bool:
        """Parse a piece of at least one byte, or part of it; return False if refused."""
        self._has_progress = False
        try:
            try:
                self.parser.feed_data(piece)
                self._parsed = len(piece)
            except HttpParserUpgrade as pause:
                self._parsed = int(pause.args[0])
                self._parse_without_upgrade()
        except HttpParserError as fault:
            self._refuse(_refusal_for(fault))
            return False
        self._unframed_bytes = 0 if self._has_progress else self._unframed_bytes + self._parsed
        if self._unframed_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge())
            return False
        return True

    def _parse_without_upgrade(self) -> None:
        """Parse the head once more, without what made the parser skip its body."""
        self._is_upgrade = False
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"".join([first, *lines, b"\r\n"]))

    def _check_framing(self, name: bytes, value: bytes) -> None:
        """Check a header that says how the message is framed or to be read."""
        if name == b"host":
            self._hosts += 1
            if self._hosts > 1:
                self._fault = MalformedRequest()
        elif name == b"transfer-encoding":
            self._is_chunked = True
            if value.lower() != b"chunked":
                self._fault = UnsupportedRequest()
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True
        else:
            self._fault = ExpectationFailed()

    def _end_body(self, *, keep_alive: bool) -> None:
        cycle = self.cycle
        if not keep_alive:  # a trailer may have said so; the parser takes no other request then
            cycle.keep_alive = False
        if not cycle.response_complete:
            super().on_message_complete()
        elif keep_alive:
            self._set_deadline(self.timeout_keep_alive)
        else:
            self.transport.close()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > MAX_DRAIN_BYTES:
            self.transport.close()

    # Refusing.

    def _refuse(self, error: ServiceError) -> None:
        """Refuse what cannot be parsed after all earlier answers; close the connection."""
        self._refusal = error
        self._unread = b""
        self.stop_reading()
        is_held = self._held is not None
        self._unhold()
        if self._is_in_body and not is_held:
            cycle = self.cycle
            if cycle.response_started:
                self.transport.close()
                return
            self._disconnect(cycle)
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            else:
                self._running = None
        self._is_in_head = self._is_in_body = False
        if self._running is None or self._running.response_complete:
            self._send_refusal(error)

    def _send_refusal(self, error: ServiceError) -> None:
        request_id = new_id()
        log.info("request.refused", request_id=request_id, code=error.code, status=error.status)
        body = msgspec.json.encode(error.as_json(request_id))
        transport = self.transport
        transport.write(self._response_head(error.status, keep_alive=False) + b"%d\r\n\r\n" % len(body) + body)
        # What the client is still sending must not reset the connection before it has read the answer.
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self._is_discarding, self._discarded_bytes = True, 0
        self._set_deadline(DRAIN_TIMEOUT_S)
        if self._is_stopped:
            self._is_stopped = False
            transport.resume_reading()

    def _disconnect(self, cycle: Any) -> None:
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    # Requests that may be taken.

    def _pass_to_uvicorn(self) -> None:
        """Pass the request to uvicorn from its beginning."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the scope holds this list
        super().on_headers_complete()

    def _unhold(self) -> list[bytes]:
        held: list[bytes] = [] if self._held is None else self._held
        self._held = None
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        return held

    def _release(self) -> None:
        if self._held is not None and not self.transport.is_closing():
            self._pass_held_to_uvicorn()

    def _pass_held_to_uvicorn(self) -> None:
        """Pass the held part to uvicorn, which bounds the size and time of the rest."""
        held = self._unhold()
        self._pass_to_uvicorn()
        for part in held:
            super().on_body(part)

    def answered(self, request: _DirectRequest, status: int, body: bytes) -> None:
        """Send the direct handler's answer, and continue with the next request."""
        transport = self.transport
        if request.disconnected or transport.is_closing():
            return
        length = b"%d\r\n\r\n" % len(body)
        transport.write(self._response_head(status, keep_alive=request.keep_alive) + length + body)
        if not request.keep_alive:
            transport.close()
        else:
            self.on_response_complete()

    # Waiting.

    def _set_deadline(self, seconds: float) -> None:
        """Close the connection unless its client sends something within `seconds`.

        One timer serves many requests: uvicorn's own is made and taken back for each.
        """
        self._deadline = due = self.loop.time() + seconds
        if self._timer is None or self._timer_due > due:
            self._check_at(due)

    def _check_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = when
        self._timer = self.loop.call_at(when, self._check_deadline)

    def _check_deadline(self) -> None:
        """Close a connection past its deadline, and check again later.

        An answer that is under way has no deadline here.
        """
        now, transport = self.loop.time(), self.transport
        unsent = self._count_unsent()
        is_begun, self._unsent_bytes = self._unsent_bytes > 0, max(self._unsent_bytes, unsent)
        if not unsent or not is_begun or self._unsent_bytes - unsent >= MIN_READ_BYTES:
            self._read_at, self._unsent_bytes = now, unsent
        if unsent and now - self._read_at >= self.write_timeout_s:
            # By a reset: otherwise the kernel would go on to send what it has, to a client that hardly reads.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
            return
        if self._deadline and now >= self._deadline and not transport.is_closing():
            self._deadline = 0.0
            if self._is_in_head:
                self._refuse(RequestTooSlow())
            else:
                transport.close()
        self._check_at(min(self._deadline or now + self.check_interval_s, now + self.check_interval_s))

    def _count_unsent(self) -> int:
        """Return the bytes that the client has not read, the kernel's included.

        0 where all of them are the kernel's.
        """
        own: int = self.transport.get_write_buffer_size()
        if not own:
            return 0
        with suppress(OSError):  # not every system knows
            found = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            return own + int.from_bytes(found, sys.byteorder)
        return own

    def _response_head(self, status: int, *, keep_alive: bool) -> bytes:
        """Return the head up to the content length; cached for each second's date."""
        common = self.server_state.default_headers
        found = _HEADS.get((status, keep_alive))
        if found is not None and found[0] is common:
            return found[1]
        headers = [*common, *headers_of(status)]
        if not keep_alive and _CLOSE not in headers:
            headers.append(_CLOSE)
        lines = [b"%b: %b\r\n" % pair for pair in headers]
        head = b"".join([STATUS_LINE[status], *lines, b"content-length: "])
        _HEADS[status, keep_alive] = (common, head)
        return head


def _refusal_for(fault: HttpParserError) -> ServiceError:
    """Return the error for an exception of the parser or its callbacks; raise bugs."""
    cause = fault.__context__ if isinstance(fault, HttpParserCallbackError) else None
    if isinstance(cause, ServiceError):
        return cause
    if cause is None or isinstance(cause, (HttpParserError, UnicodeError)):  # uvicorn reads the URL
        return MalformedRequest()
    raise cause
