"""HTTP as uvicorn speaks it, with a bound on what stands before a body."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Request line and headers together. What passes is judged by receiver/intake.py, which takes less.
MAX_HEAD = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not end: uvicorn would keep all of them in memory.

    There is no answer, since the parser stands amid a header.
    """

    _is_in_head = False
    _began_now = False  #: within the data that is being parsed; what stands before it belongs to another request
    _head = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_in_head, self._began_now, self._head = True, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its body begins, or its end."""
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Up to 256 KiB at a time, so that the bound may be passed by twice as much."""
        self._began_now = False
        super().data_received(data)
        if self._is_in_head and not self._began_now:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.transport.abort()
