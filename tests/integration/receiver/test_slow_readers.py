"""A client that reads its answer too slowly is dropped in bounded time, and slows nobody else down."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from receipted.http_protocol import BoundedProtocol
from tests.support.serving import listening

SIZE = 32 * 1024 * 1024
DEADLINE_S = 30.0


class Hasty(BoundedProtocol):
    """Waits for its clients for two seconds instead of a minute."""

    write_timeout_s = 2.0
    check_interval_s = 0.05


async def whole(_request: Request) -> Response:
    return Response(bytes(SIZE))


async def streamed(_request: Request) -> Response:
    async def parts() -> Iterator[bytes]:
        for _ in range(SIZE // 65536):
            yield bytes(65536)

    return StreamingResponse(parts())  # type: ignore[arg-type]


async def ping(_request: Request) -> Response:
    return Response("pong")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of an application with large answers; connections are checked soon after they begin."""
    monkeypatch.setattr("receipted.http_protocol.HEAD_TIMEOUT_S", 0.2)
    app = Starlette(routes=[Route("/whole", whole), Route("/streamed", streamed), Route("/ping", ping)])
    with listening(app, Hasty) as found:
        yield found


def get(port: int, path: str) -> int:
    """The bytes of an answer that is read as fast as it comes."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as connection:
        connection.request("GET", path)
        return len(connection.getresponse().read())


def read_slowly(connection: socket.socket, step: int, pause: threading.Event) -> int:
    """Read `step` bytes at a time until the connection ends; return how many came."""
    got, until = 0, time.monotonic() + DEADLINE_S
    with suppress(ConnectionError):
        while found := connection.recv(step):
            got += len(found)
            assert time.monotonic() < until, "the slow reader is not dropped"
            pause.wait(0.01)
    return got


@pytest.mark.parametrize("path", ["/whole", "/streamed"])
def test_a_slow_reader_of_a_large_answer_is_dropped_and_harms_nobody(port: int, path: str) -> None:
    """It reads a few bytes again and again; meanwhile others are answered at once, and large answers come whole."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(DEADLINE_S)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got: list[int] = []
        slow = threading.Thread(target=lambda: got.append(read_slowly(connection, 16, threading.Event())))
        slow.start()
        answered = 0
        while slow.is_alive() and answered < 1000:
            assert get(port, "/ping") == len("pong")
            answered += 1
        assert get(port, path) == SIZE
        slow.join(DEADLINE_S)
    assert got, "the slow reader is not dropped"
    assert got[0] < SIZE
    assert answered > 0


def test_a_reader_that_is_slow_and_reads_enough_has_its_answer(port: int) -> None:
    """More than the least of the time, though far from all of it."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(DEADLINE_S)
        connection.sendall(b"GET /whole HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_slowly(connection, 512 * 1024, threading.Event()) > SIZE
