"""Serve the application over HTTP in one process, or several at one socket.

Until SIGTERM or SIGINT.
"""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from receipted.http_protocol import BoundedProtocol
from receipted.runtime import bounded_stop, reduce_garbage_collection, short_switch_interval
from statemachine.errors import ServiceError

#: Seconds that requests under way have to end.
_REQUEST_GRACE_S: Final = 10

log = structlog.get_logger()

#: Seconds before a process is begun again that ended within so many seconds; doubles up to the longest.
_FIRST_RESTART_WAIT_S, _MAX_RESTART_WAIT_S = 1.0, 30.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class CannotListen(ServiceError):
    """The address to listen at is not available."""

    code = "cannot_listen"


class DidNotStart(ServiceError):
    """The server ended before it could answer; the log has the reason."""

    code = "did_not_start"


class _Server(uvicorn.Server):
    """Server with callbacks for being ready and for beginning to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        on_signal: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, and limit the time for it."""
        self._on_signal()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            reduce_garbage_collection()
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens there; port 0 takes a free one. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as fault:
        raise CannotListen(f"cannot listen at {host}:{port} ({fault.strerror or fault})") from fault


def address(listener: socket.socket) -> str:
    """Return the http:// URL at which the socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = lambda: None,
    stop_within: float = 25.0,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish requests and close the lifespan.

    Where that takes longer than `stop_within` seconds, the process is ended.
    """
    config = uvicorn.Config(
        app,
        loop="auto",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(min(_REQUEST_GRACE_S, max(stop_within / 2, 1))),
    )
    with bounded_stop(stop_within) as begin_stop:
        _run(_Server(config, on_ready, on_stop, begin_stop), listener)


def _run(server: _Server, listener: socket.socket) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # The server raises the signals that ended it once more, to these handlers: an orderly stop is no failure.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with listener, short_switch_interval():
            server.run([listener])
    except SystemExit as fault:
        raise DidNotStart from fault
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise DidNotStart


#: What a process of a group does: called with what it is to call when it answers, or works.
Run = Callable[[Callable[[], None]], None]


class ProcessGroup:
    """Keep processes running until SIGTERM or SIGINT; restart one that is lost.

    Each process calls its function, and ends when that returns, with 0, or raises, with 1.
    """

    def __init__(self, runs: Sequence[tuple[str, Run]], *, grace: float = 28.0) -> None:
        """Set up the group by name and function.

        `grace` is the seconds that processes have to end: longer than their own time to stop.
        """
        self._runs = runs
        self._grace = grace
        self._children: dict[int, float] = {}  # by process: when it began
        self._places: dict[int, int] = {}  # by process: the number of its function
        self._is_ending = False
        self._is_asked = False  #: to end, by a signal and not by a fault
        self._waits = 0.0
        self._ready_reader, self._ready_writer = os.pipe()
        self._parent_gone, self._parent_alive = os.pipe()  # the second is open as long as this process lives

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Run until all have ended after a signal; `on_ready` is called once all answer.

        Raises DidNotStart where one ends before that.
        """
        with self._signals() as called:
            for place in range(len(self._runs)):
                self._start_process(place)
            ready = 0
            while self._children:
                found, _, _ = select.select([called.fileno(), self._ready_reader], [], [])
                if called.fileno() in found:
                    called.recv(4096)
                if self._ready_reader in found:
                    os.read(self._ready_reader, 1)
                    ready += 1
                    if ready == len(self._runs):
                        on_ready()
                self._restart_ended(has_started=ready >= len(self._runs))
        if ready < len(self._runs) and not self._is_asked:
            raise DidNotStart

    def _start_process(self, place: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # until it is known, or knows what to do
        child = os.fork()
        if child:
            self._places[child] = place
            self._children[child] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            return
        code = 1
        try:
            self._run_child(place)
            code = 0
        except Exception:
            log.exception("service.failed")
        finally:
            os._exit(code)

    def _run_child(self, place: int) -> None:
        for number in (*_STOP_SIGNALS, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        os.close(self._parent_alive)
        threading.Thread(target=self._end_with_parent, name="parent", daemon=True).start()
        self._runs[place][1](self._report_ready)

    def _report_ready(self) -> None:
        os.write(self._ready_writer, b".")

    def _end_with_parent(self) -> None:
        """End when the parent process is gone, for example by kill -9.

        At once, since the next start needs the port.
        """
        os.read(self._parent_gone, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    def _restart_ended(self, *, has_started: bool) -> None:
        """Start ended processes again, unless all are to end."""
        for child in list(self._children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            lasted = time.monotonic() - self._children.pop(child)
            place = self._places.pop(child)
            if self._is_ending:
                continue
            code = os.waitstatus_to_exitcode(status)
            log.error("process.lost", process=self._runs[place][0], pid=child, exit=code)
            if not has_started:
                self._end()
                continue
            self._waits = (
                min(max(_FIRST_RESTART_WAIT_S, 2 * self._waits), _MAX_RESTART_WAIT_S)
                if lasted < _MAX_RESTART_WAIT_S
                else 0.0
            )
            self._pause(self._waits)
            if not self._is_ending:
                self._start_process(place)

    def _pause(self, seconds: float) -> None:
        """Wait; the others go on answering, and a signal ends the wait."""
        until = time.monotonic() + seconds
        while not self._is_ending and (left := until - time.monotonic()) > 0:
            select.select([], [], [], min(left, 0.1))

    def _end(self) -> None:
        self._is_ending = True
        signal.setitimer(signal.ITIMER_REAL, self._grace)
        for child in self._children:
            os.kill(child, signal.SIGTERM)

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._is_asked = True
        if not self._is_ending:
            self._end()

    def _on_grace_over(self, _number: int, _frame: FrameType | None) -> None:
        for child in self._children:
            os.kill(child, signal.SIGKILL)

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Yield a socket that becomes readable at every signal."""
        called, wake = socket.socketpair()
        called.setblocking(False)
        wake.setblocking(False)
        before = {number: signal.signal(number, self._on_stop_signal) for number in _STOP_SIGNALS}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_grace_over)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        fd = signal.set_wakeup_fd(wake.fileno())
        try:
            yield called
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            called.close()
            wake.close()
            for end in (self._ready_reader, self._ready_writer, self._parent_gone, self._parent_alive):
                os.close(end)
