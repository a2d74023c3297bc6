"""HTTP as uvicorn speaks it, with a bound on what stands before a body, and a straight way in for deliveries.

Of what a request costs under uvicorn and Starlette, half is spent on requests in general: a scope, a task, events and
queues between the two. A POST on a URL of the way in is therefore held until all of it is there, which is nearly always
at once, and handed to the application's `take`. Whatever is not ordinary about it goes the general way, from its
beginning: too large, too slow, pipelined, refused.
"""

import asyncio
from typing import Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from receiver.answers import headers_of

#: Request line and headers together. What passes is judged by receiver/intake.py, which takes less.
MAX_HEAD = 64 * 1024

#: Of URLs that `take` may know.
_WAYS_IN: Final = (b"/webhooks/", b"/callbacks/")

#: Bytes of a body that are held until the rest of it is there.
_HELD: Final = 64 * 1024

#: Seconds that a request is held: its packets come together or, if its sender is slow, not at all.
_HOLD_SECONDS: Final = 0.05


class Takes(Protocol):
    """An application that may answer a whole request itself; see receiver.intake.Intake.take."""

    def __call__(self, target: bytes, raw: Any, body: bytes, client: str, scheme: str, answer: Any, /) -> bool:
        """Whether it answers."""


class _Taken:
    """What uvicorn sees of a request that was taken, in place of its own cycle of request and response."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, protocol: "BoundedProtocol", *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = self

    def set(self) -> None:
        """Nobody waits for more of the request."""

    def answer(self, status: int, body: bytes) -> None:
        """The answer is sent, if there is still somebody to send it to."""
        self.response_complete = True
        self._protocol.answered(self, status, body)


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not end: uvicorn would keep all of them in memory.

    There is no answer, since the parser stands amid a header.
    """

    _is_in_head = False
    _began_now = False  #: within the data that is being parsed; what stands before it belongs to another request
    _head = 0
    _held: list[bytes] | None = None  #: the body so far, of a request that may be taken
    _hold: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    _idle_since = 0.0  #: the loop's time of the last answer to what was taken; 0 while a request is under way

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: An application that knows nothing of this, or one below another's path, is served as uvicorn would.
        self._take: Takes | None = None if self.root_path else getattr(self.app, "take", None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is there."""
        super().connection_made(transport)
        client: tuple[str, int] | None = self.client  # none on a socket of the system's own
        self._peer = "" if client is None else client[0]
        self._over = str(self.scheme)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_in_head, self._began_now, self._head = True, True, 0
        if self._take is None:
            super().on_message_begin()
        else:
            self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        """Its body begins, or its end."""
        self._is_in_head = False
        before: Any = self.cycle  # none at first, whatever uvicorn declares
        if self._take is None:
            super().on_headers_complete()
        elif (
            self.url.startswith(_WAYS_IN)
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and (before is None or before.response_complete)
            and not self.flow.write_paused
        ):
            self._held = []
        else:
            self._go_the_general_way()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        if self._held is None:
            super().on_message_complete()
            return
        held = self._unhold()
        parser = self.parser
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        taken = _Taken(self, keep_alive=keep_alive)
        body = held[0] if len(held) == 1 else b"".join(held)
        if self._take is not None and self._take(self.url, self.headers, body, self._peer, self._over, taken.answer):
            self.cycle = taken  # type: ignore[assignment]
            return
        self._go_the_general_way()
        super().on_body(body)
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Up to 256 KiB at a time, so that the bound may be passed by twice as much."""
        self._began_now = False
        self._idle_since = 0.0
        super().data_received(data)
        if self._held is not None:
            if sum(map(len, self._held)) > _HELD:
                self._release()
            elif self._hold is None:
                self._hold = self.loop.call_later(_HOLD_SECONDS, self._release)
        if self._is_in_head and not self._began_now:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """What was held goes the general way, where it is told that the client is gone."""
        if self._held is not None:
            self._let_go()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """A request that is held is answered before its connection ends."""
        self._release()
        super().shutdown()

    def _go_the_general_way(self) -> None:
        """As if uvicorn had seen the request from its beginning."""
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
            self._let_go()

    def _let_go(self) -> None:
        """The rest of the request goes the general way, which bounds how large and how slow it may be."""
        held = self._unhold()
        self._go_the_general_way()
        for part in held:
            super().on_body(part)

    def answered(self, taken: _Taken, status: int, body: bytes) -> None:
        """Send the answer to what was taken, and go on with what came behind it."""
        transport = self.transport
        if taken.disconnected or transport.is_closing():
            return
        length = b"%d\r\n\r\n" % len(body)
        transport.write(self._head_of(status, keep_alive=taken.keep_alive) + length + body)
        if not taken.keep_alive:
            transport.close()
        elif self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._idle_since = self.loop.time()
            if self._idle is None:
                self._idle = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """One timer for many answers: uvicorn's own is made and taken back for each."""
        self._idle = None
        if not self._idle_since:
            return  # a request is under way; the answer to it begins anew
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle = self.loop.call_later(left, self._close_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def _head_of(self, status: int, *, keep_alive: bool) -> bytes:
        """Everything before the number of bytes; made anew when the date changes, once a second."""
        common = self.server_state.default_headers
        found = _HEADS.get((status, keep_alive))
        if found is not None and found[0] is common:
            return found[1]
        headers = [*common, *headers_of(status)]
        if not keep_alive:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % pair for pair in headers]
        head = b"".join([STATUS_LINE[status], *lines, b"content-length: "])
        _HEADS[status, keep_alive] = (common, head)
        return head


_HEADS: dict[tuple[int, bool], tuple[list[tuple[bytes, bytes]], bytes]] = {}
