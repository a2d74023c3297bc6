"""Serves one application over HTTP until SIGTERM or Ctrl-C, in order."""

import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from receipted.garbage import collect_seldom
from receipted.protocol import BoundedProtocol
from receipted.stopping import bounded_stop
from statemachine.errors import ServiceError

#: Seconds that requests under way have to end.
_GRACE: Final = 10

#: Seconds that a thread waits for Python's lock before it asks for it. By default 0.005, which is longer than a commit:
#: the thread that commits hands the lock over with each of its statements, and a busy event loop leaves it no gap.
_TURN: Final = 0.0002


class CannotListen(ServiceError):
    """The address to listen at is not to be had."""

    code = "cannot_listen"


class DidNotStart(ServiceError):
    """The server ended before it could answer; the log tells why."""

    code = "did_not_start"


class _Server(uvicorn.Server):
    """Tells when it answers, and when it is about to stop."""

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
        """Begin to stop, and the time for it."""
        self._on_signal()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            collect_seldom()
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as fault:
        raise CannotListen(f"cannot listen at {host}:{port} ({fault.strerror or fault})") from fault


def address(listener: socket.socket) -> str:
    """The http:// URL at which the socket listens."""
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
    """Answer until SIGTERM or SIGINT; then requests under way are ended and the application's lifespan closed.

    Where that takes longer than `stop_within` seconds, the process is ended.

    Raises DidNotStart. Whose request it is and over which scheme is the application's to find out: no proxy's header
    counts here.
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
        timeout_graceful_shutdown=int(min(_GRACE, max(stop_within / 2, 1))),
    )
    with bounded_stop(stop_within) as begin_stop:
        _run(_Server(config, on_ready, on_stop, begin_stop), listener)


def _run(server: _Server, listener: socket.socket) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # The server raises the signals that ended it once more, to these handlers: an orderly stop is no failure.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    turn = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        with listener:
            server.run([listener])
    except SystemExit as fault:
        raise DidNotStart from fault
    finally:
        sys.setswitchinterval(turn)
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise DidNotStart
