"""One connection holds a bounded amount of memory, for a bounded time, whatever its client does."""

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.credentials import Environment, new_key
from receipted import http_protocol
from receipted.http_protocol import BoundedProtocol
from service.permissions import KeyScope
from storage import api_keys
from tests.integration.receiver.test_framing import CHUNKED, Answers, chunked, post, whole
from tests.support import console
from tests.support.deliveries import event, sign
from tests.support.serving import Served, eventually, write_locked
from tests.support.waiting import DEADLINE_S

FLOOD = 18 * 1024 * 1024
SHORTEST = b"GET /x HTTP/1.1\r\n\r\n"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests waited behind another, whenever one began."""
    seen = [0]
    before = HttpToolsProtocol.on_headers_complete

    def on_headers_complete(self: HttpToolsProtocol) -> None:
        before(self)
        seen[0] = max(seen[0], len(self.pipeline))

    monkeypatch.setattr(HttpToolsProtocol, "on_headers_complete", on_headers_complete)
    return seen


def flood(connection: socket.socket, unit: bytes, enough: threading.Event) -> int:
    """Send it again and again until nothing more is taken; how many bytes were."""
    block, sent = unit * (65536 // len(unit)), 0
    connection.settimeout(1)
    with suppress(OSError):
        while sent < FLOOD and not enough.is_set():
            sent += connection.send(block[sent % len(unit) :])
    return sent


@pytest.mark.parametrize("unit", [SHORTEST, post(b"Content-Length: 2", target=b"/webhooks/none") + b"\r\n{}"])
def test_requests_are_read_as_they_are_answered(served: Served, waiting: list[int], unit: bytes) -> None:
    """However many a client sends at once; they were all held before, and whoever asked for a body read more."""
    answers, enough = [0], threading.Event()

    def read() -> None:
        with suppress(OSError):
            while found := connection.recv(65536):
                answers[0] += found.count(b"HTTP/1.1 404")
                if answers[0] > 2000:
                    enough.set()

    with closing(served.raw()) as connection:
        reader = threading.Thread(target=read)
        reader.start()
        flood(connection, unit, enough)
        eventually(enough.is_set)
        assert served.post(event("sg")).status == 200
        connection.shutdown(socket.SHUT_RDWR)
        reader.join(DEADLINE_S)
    assert 0 < waiting[0] <= 4096 // len(SHORTEST) + 1


def test_a_client_that_does_not_read_its_answers_is_not_read(served: Served, waiting: list[int]) -> None:
    """What it sends stays in the kernel's buffers, which end."""
    unit = post(b"Content-Length: 2", target=b"/webhooks/none") + b"\r\n{}"
    with closing(served.raw()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        assert flood(connection, unit, threading.Event()) < FLOOD
        assert served.post(event("sg")).status == 200
    assert waiting[0] <= 4096 // len(SHORTEST) + 1


def test_a_client_that_does_not_read_is_dropped(
    served: Served, monkeypatch: pytest.MonkeyPatch, connections: set[BoundedProtocol]
) -> None:
    """Its answers are held only so long."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)  # when it is looked at first
    monkeypatch.setattr(BoundedProtocol, "write_timeout_s", 0.2)
    monkeypatch.setattr(BoundedProtocol, "check_interval_s", 0.1)
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        flood(connection, post(target=b"/console/login", method=b"GET") + b"\r\n", threading.Event())
        eventually(lambda: not connections)


@pytest.fixture
def connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> set[BoundedProtocol]:
    """Those that are open, of what began since."""
    found: set[BoundedProtocol] = set()
    made_before, lost_before = BoundedProtocol.connection_made, BoundedProtocol.connection_lost

    def connection_made(self: BoundedProtocol, transport: Any) -> None:
        found.add(self)
        made_before(self, transport)

    def connection_lost(self: BoundedProtocol, exc: Exception | None) -> None:
        found.discard(self)
        lost_before(self, exc)

    monkeypatch.setattr(BoundedProtocol, "connection_made", connection_made)
    monkeypatch.setattr(BoundedProtocol, "connection_lost", connection_lost)
    return found


@pytest.fixture
def hasty(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Waits for its clients for a fraction of a second."""
    for name in ("HEAD_TIMEOUT_S", "DRAIN_TIMEOUT_S"):
        monkeypatch.setattr(http_protocol, name, 0.3)
    return served


HALF = post(b"Content-Length: 1000", target=b"/nothing")


@pytest.mark.parametrize(
    ("sent", "more", "statuses"),
    [
        (b"", b"\r\n", []),
        (b"\r\n\r\n", b"\r\n", []),
        (b"GET /", b"x", [408]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"x", [408]),
        (SHORTEST + b"GET /healthz HTTP/1.1\r\nHos", b"x", [404, 408]),
        (HALF + b"\r\nhello", b"x", [404]),
        (post(CHUNKED, target=b"/nothing") + b"\r\n5\r\nhello\r\n0\r\nTrailer: x", b"x", [404]),
    ],
    ids=["nothing", "blank lines", "half a line", "half a head", "half a second head", "half a body", "half a trailer"],
)
@pytest.mark.parametrize("trickles", [False, True], ids=["", "trickling"])
def test_what_does_not_go_on_is_closed(
    hasty: Served, sent: bytes, more: bytes, statuses: list[int], trickles: bool
) -> None:
    """With 408 where a request began that has no answer yet; single bytes buy no time."""
    done = threading.Event()

    def send() -> None:
        with suppress(OSError):
            while trickles and not done.wait(0.05):
                connection.sendall(more)

    with closing(hasty.raw()) as connection:
        connection.sendall(sent)
        sender = threading.Thread(target=send)
        sender.start()
        answers = Answers(connection)
        found = [answers.next() for _ in statuses]
        last = answers.next()
        done.set()
        sender.join(DEADLINE_S)
    assert [one and one[0] for one in found] == statuses
    assert last is None


def test_a_request_that_is_being_answered_has_time(hasty: Served) -> None:
    """The bounds are for clients: a commit that takes longer than them is answered."""
    delivery = event("sg")
    with closing(hasty.raw()) as connection:
        with write_locked(hasty.file):
            connection.sendall(whole(delivery) + b"POST /webh")
            connection.settimeout(1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        connection.settimeout(10)
        answers = Answers(connection)
        first, second, third = answers.next(), answers.next(), answers.next()
    assert first is not None
    assert second is not None
    assert (first[0], second[0], third) == (200, 408, None)


def test_a_body_for_nobody_is_bounded_in_bytes(served: Served) -> None:
    """The rest of it is not read for ever, however quickly it comes."""
    with closing(served.raw()) as connection:
        connection.sendall(post(b"Content-Length: 1000000000", target=b"/nothing") + b"\r\n")
        assert flood(connection, b"x" * 4096, threading.Event()) < FLOOD


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[Any]]]:
    """Every error that was logged until now, by whichever way."""
    with caplog.at_level(logging.WARNING), capture_logs() as logged:
        yield lambda: [
            *(entry for entry in logged if entry["log_level"] in ("error", "critical") or entry.get("exc_info")),
            *(record.getMessage() for record in caplog.records),
        ]


def leave(connection: socket.socket, how: str) -> None:
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def requests(served: Served) -> dict[str, bytes]:
    """Whole requests to each kind of door, of which some take long."""
    record, key = new_key("tests", Environment.TEST, tuple(KeyScope), served.service.clock())
    with served.service.database.write() as unit:
        api_keys.add(unit, record)
    browser = console.Served(f"http://127.0.0.1:{served.port}", served.service).client()
    with closing(browser.http):
        cookie = b"Cookie: receipted=" + browser.http.cookies["receipted"].encode()
    payment = served.payment().payment_id.encode()
    bearer, is_json = f"Authorization: Bearer {key}".encode(), b"Content-Type: application/json"
    origin = b"Origin: http://pay.example"
    form = b"csrf=" + browser.csrf.encode() + b"&name=" + b"x" * 5000
    forged = sign("sg", b"{}" + b" " * 5000, secret="wrong-key-wrong-key")
    length = b"Content-Length: %d" % len(form)
    return {
        "delivery": whole(event("sg")),
        "delivery in chunks": post(CHUNKED) + b"\r\n" + chunked(b"x" * 70_000),
        "forged": whole(forged),
        "expecting": post(b"Expect: 100-continue", b"Content-Length: 9") + b"\r\n" + b"x" * 9,
        "long poll": post(bearer, method=b"GET", target=b"/v1/events?wait=20") + b"\r\n",
        "api": post(bearer, is_json, b"Content-Length: 2", target=b"/v1/payments") + b"\r\n{}",
        "page": post(cookie, method=b"GET", target=b"/console/") + b"\r\n",
        "stream": post(cookie, method=b"GET", target=b"/console/payments/%b/live" % payment) + b"\r\n",
        "form": post(cookie, origin, length, target=b"/console/logout") + b"\r\n" + form,
        "log-in": post(origin, length, target=b"/console/login") + b"\r\n" + form,
        "metrics": post(method=b"GET", target=b"/metrics") + b"\r\n",
        "nobody": post(b"Content-Length: 5", target=b"/nothing") + b"\r\nhello",
        "nonsense": b"nonsense\r\n\r\n",
    }


@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_go_away_are_no_error(
    served: Served, faults: Callable[[], list[Any]], connections: set[BoundedProtocol], how: str
) -> None:
    """Wherever within their request or their answer, with another request behind it or none."""
    for request in requests(served).values():
        head = request.index(b"\r\n\r\n") + 4
        for sent in {1, head - 2, head, (head + len(request)) // 2, len(request) - 1, len(request)}:
            connection = served.raw()
            connection.sendall(request[:sent])
            leave(connection, how)
        for follower in (SHORTEST, request, request * 3, b"POST"):
            connection = served.raw()
            connection.sendall(request + follower)
            leave(connection, how)
            connection = served.raw()
            connection.sendall(request + follower)
            connection.settimeout(0.05)
            with suppress(TimeoutError):
                connection.recv(100)
            leave(connection, how)
    eventually(lambda: not connections)
    assert served.post(event("sg")).status == 200
    assert faults() == []


def test_whoever_streams_is_told_that_its_client_is_gone_though_others_wait_behind(
    served: Served, faults: Callable[[], list[Any]], connections: set[BoundedProtocol]
) -> None:
    """uvicorn tells the last request of a connection alone; a stream before it would go on, and fail at its writes."""
    stream = requests(served)["stream"]
    connection = served.raw()
    connection.sendall(stream + SHORTEST)
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    (open_one,) = connections
    tasks = open_one.tasks
    assert len(tasks) == 1
    leave(connection, "reset")
    eventually(lambda: not tasks)
    assert faults() == []
