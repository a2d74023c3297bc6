"""Where a message ends is beyond doubt: the next request is answered as itself, or its connection is closed."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.deliveries import Signed, event
from tests.support.serving import Served, eventually, serving, settings

PATH = b"/webhooks/sg"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all; each test knows its deliveries by their bodies."""
    with serving(settings(tmp_path_factory.mktemp("framing"), unverified_per_minute=10_000)) as running:
        yield running


def whole(delivery: Signed, *more: bytes) -> bytes:
    """The delivery as an ordinary request."""
    lines = [b"POST %b HTTP/1.1" % PATH, b"Host: pay.example", *more]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in delivery.headers]
    lines += [b"Content-Length: %d" % len(delivery.body), b"", b""]
    return b"\r\n".join(lines) + delivery.body


def chunked(body: bytes, *, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n0\r\n%b\r\n" % (len(body), extension, body, trailers)


class Answers:
    """Reads one answer after the other off a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def next(self, *, is_head: bool = False) -> tuple[int, bytes] | None:
        """The next answer's status and body; none where the connection was closed before one began."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if not self._more():
                assert self._received == b""
                return None
        head = self._received[:end].lower()
        length = 0 if is_head else int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while len(self._received) < end + 4 + length:
            assert self._more(), "an answer was cut off"
        body = self._received[end + 4 : end + 4 + length]
        self._received = self._received[end + 4 + length :]
        return int(head[9:12]), body

    def _more(self) -> bool:
        try:
            found = self._connection.recv(65536)
        except ConnectionResetError:
            return False
        self._received += found
        return bool(found)


@dataclass(frozen=True)
class Case:
    """A request whose end could be seen in two places; `{body}` stands for a whole delivery, that is no request."""

    head: bytes
    status: int
    is_kept: bool
    length: bool = True  #: Content-Length of the body is sent, else the body is in chunks
    extension: bytes = b""
    trailers: bytes = b""
    tail: bytes | None = None  #: in place of the body
    may_end: bool = False  #: the connection may end instead of being kept, by what has come when it is answered

    def request(self, body: bytes) -> bytes:
        """Its bytes."""
        if self.tail is not None:
            return self.head + b"\r\n" + self.tail.replace(b"{body}", body)
        if self.length:
            return self.head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        return self.head + b"\r\n" + chunked(body, extension=self.extension, trailers=self.trailers)


def post(*lines: bytes, version: bytes = b"1.1", method: bytes = b"POST", target: bytes = PATH) -> bytes:
    first = b"%b %b HTTP/%b\r\n" % (method, target, version)
    return b"".join([first, b"Host: pay.example\r\n", *(line + b"\r\n" for line in lines)])


CHUNKED = b"Transfer-Encoding: chunked"
UPGRADES = {
    f"upgrade: {name}": Case(post(b"Connection: Upgrade", b"Upgrade: " + name.encode()), 401, is_kept=True)
    for name in ("h2c", "websocket", "TLS/1.3", "foo/1, bar")
}
CASES = {
    **UPGRADES,
    "upgrade and settings": Case(
        post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), 401, True
    ),
    "upgrade among others": Case(post(b"Connection: keep-alive, Upgrade", b"Upgrade: x", b"Upgrade: y"), 401, True),
    "upgrade, chunked": Case(post(b"Connection: Upgrade", b"Upgrade: x", CHUNKED), 401, True, length=False),
    "upgrade, then close": Case(post(b"Connection: Upgrade", b"Upgrade: x", b"Connection: close"), 401, False),
    "upgrade in 1.0": Case(post(b"Connection: Upgrade", b"Upgrade: x", version=b"1.0"), 401, False),
    "upgrade of GET": Case(post(b"Connection: Upgrade", b"Upgrade: x", method=b"GET"), 200, True),
    "upgrade of HEAD": Case(post(b"Connection: Upgrade", b"Upgrade: x", method=b"HEAD"), 200, True),
    "upgrade of another path": Case(post(b"Connection: Upgrade", b"Upgrade: x", target=b"/nothing"), 404, True),
    "upgrade without a connection": Case(post(b"Upgrade: h2c"), 401, True),
    "connection without an upgrade": Case(post(b"Connection: Upgrade"), 401, True),
    "upgrade in a trailer": Case(post(CHUNKED), 401, True, False, trailers=b"Connection: Upgrade\r\nUpgrade: x\r\n"),
    "half an upgrade in a trailer": Case(
        post(b"Upgrade: x", CHUNKED), 401, True, False, trailers=b"Connection: Upgrade\r\n"
    ),
    "close in a trailer": Case(post(CHUNKED), 401, False, False, trailers=b"Connection: close\r\n"),
    "length in a trailer": Case(post(CHUNKED), 400, False, False, trailers=b"Content-Length: 5\r\n"),
    "encoding in a trailer": Case(post(CHUNKED), 400, False, False, trailers=b"Transfer-Encoding: chunked\r\n"),
    "connect": Case(post(method=b"CONNECT", target=b"pay.example:443"), 501, False),
    "connect, a path": Case(post(method=b"CONNECT"), 501, False),
    "connect, chunked": Case(post(CHUNKED, method=b"CONNECT", target=b"pay.example:443"), 501, False, False),
    "connect and upgrade": Case(
        post(b"Connection: Upgrade", b"Upgrade: x", method=b"CONNECT", target=b"pay.example:443"), 501, False
    ),
    "preface of HTTP/2": Case(b"PRI * HTTP/2.0\r\n", 400, False, tail=b"SM\r\n\r\n{body}"),
    "HTTP/2.0": Case(post(version=b"2.0"), 505, False),
    "HTTP/1.2": Case(post(version=b"1.2"), 400, False),
    "HTTP/0.9": Case(post(version=b"0.9"), 505, False),
    "no version": Case(b"POST %b\r\n" % PATH, 505, False, tail=b"{body}"),
    "HTTP/1.0": Case(post(version=b"1.0"), 401, False),
    "HTTP/1.0, kept alive": Case(post(b"Connection: keep-alive", version=b"1.0"), 401, False),
    "HTTP/1.0, chunked": Case(post(CHUNKED, version=b"1.0"), 400, False, False),
    "HTTP/1.0, kept alive, chunked": Case(post(b"Connection: keep-alive", CHUNKED, version=b"1.0"), 400, False, False),
    "close": Case(post(b"Connection: close"), 401, False),
    "gzip and chunked": Case(post(b"Transfer-Encoding: gzip, chunked"), 501, False, False),
    "gzip": Case(post(b"Transfer-Encoding: gzip"), 501, False, tail=b"{body}"),
    "identity": Case(post(b"Transfer-Encoding: identity"), 501, False, tail=b"{body}"),
    "identity and a length": Case(post(b"Transfer-Encoding: identity"), 400, False),
    "chunked twice": Case(post(CHUNKED, CHUNKED), 400, False, False),
    "chunked, chunked": Case(post(b"Transfer-Encoding: chunked, chunked"), 400, False, False),
    "nothing, chunked": Case(post(b"Transfer-Encoding: , chunked"), 501, False, False),
    "xchunked": Case(post(b"Transfer-Encoding: xchunked"), 501, False, False),
    "chunked with a parameter": Case(post(b"Transfer-Encoding: chunked;q=1"), 501, False, False),
    "chunked in quotes": Case(post(b'Transfer-Encoding: "chunked"'), 501, False, False),
    "chunked behind a tab": Case(post(b"Transfer-Encoding:\tchunked"), 401, True, False),
    "chunked behind a vertical tab": Case(post(b"Transfer-Encoding:\x0bchunked"), 400, False, False),
    "chunked before a blank": Case(post(b"Transfer-Encoding: chunked "), 401, True, False),
    "chunked in capitals": Case(post(b"TRANSFER-ENCODING: CHUNKED"), 401, True, False),
    "chunked, a blank before the colon": Case(post(b"Transfer-Encoding : chunked"), 400, False, False),
    "chunked on a folded line": Case(post(b"Transfer-Encoding:", b" chunked"), 400, False, False),
    "a length and chunks": Case(post(CHUNKED), 400, False),
    "chunks and a length": Case(post(b"Content-Length: 5", CHUNKED), 400, False, False),
    "two lengths": Case(post(b"Content-Length: 5"), 400, False),
    "a list of lengths": Case(post(b"Content-Length: 5, 5"), 400, False, tail=b"{body}"),
    "a length with a sign": Case(post(b"Content-Length: +5"), 400, False, tail=b"{body}"),
    "a length below nothing": Case(post(b"Content-Length: -5"), 400, False, tail=b"{body}"),
    "a length in hexadecimal": Case(post(b"Content-Length: 0x5"), 400, False, tail=b"{body}"),
    "a length with a fraction": Case(post(b"Content-Length: 5.0"), 400, False, tail=b"{body}"),
    "a length in two parts": Case(post(b"Content-Length: 1 5"), 400, False, tail=b"{body}"),
    "a length of nothing": Case(post(b"Content-Length:"), 400, False, tail=b"{body}"),
    "a length beyond 64 bits": Case(post(b"Content-Length: 18446744073709551621"), 400, False, tail=b"{body}"),
    "a length before blanks": Case(post(b"Content-Length: 5  "), 401, True, tail=b"hello"),
    "a length with zeros before it": Case(post(b"Content-Length: 005"), 401, True, tail=b"hello"),
    "a folded line": Case(post(b"X: a", b" b"), 400, False),
    "a folded line at first": Case(b"POST %b HTTP/1.1\r\n X: a\r\n" % PATH, 400, False),
    "a line that ends with LF": Case(post(b"X: a\nY: b"), 400, False),
    "a request line that ends with LF": Case(b"POST %b HTTP/1.1\nHost: x\r\n" % PATH, 400, False),
    "headers that end with LF": Case(post(b"X: a") + b"\n", 400, False, tail=b"{body}"),
    "a CR in a value": Case(post(b"X: a\rY: b"), 400, False),
    "a NUL in a value": Case(post(b"X: a\0b"), 400, False),
    "a NUL in a name": Case(post(b"Content-Length\0: 5"), 400, False),
    "a name without a colon": Case(post(b"X"), 400, False),
    "two hosts": Case(post(b"Host: other.example"), 400, False),
    "chunk extension": Case(post(CHUNKED), 401, True, False, extension=b";a=b;c"),
    "chunk extension with LF": Case(post(CHUNKED), 400, False, False, extension=b";a\n"),
    "chunk extension with CR": Case(post(CHUNKED), 400, False, False, extension=b";a\rb"),
    "chunk extension, quoted LF": Case(post(CHUNKED), 400, False, False, extension=b';a="\n"'),
    "chunk size and a blank": Case(post(CHUNKED), 400, False, False, extension=b" "),
    "chunk size and LF": Case(post(CHUNKED), 400, False, tail=b"5\nhello\r\n0\r\n\r\n"),
    "chunk size 0x": Case(post(CHUNKED), 400, False, tail=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a sign": Case(post(CHUNKED), 400, False, tail=b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": Case(post(CHUNKED), 400, False, tail=b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk that ends with LF": Case(post(CHUNKED), 400, False, tail=b"5\r\nhello\n0\r\n\r\n"),
    "chunk that ends with nothing": Case(post(CHUNKED), 400, False, tail=b"5\r\nhello0\r\n\r\n"),
    "chunk that ends with something": Case(post(CHUNKED), 400, False, tail=b"5\r\nhelloXX0\r\n\r\n"),
    "last chunk with LF": Case(post(CHUNKED), 400, False, tail=b"5\r\nhello\r\n0\n\n"),
    "trailers": Case(post(CHUNKED), 401, True, False, trailers=b"A: 1\r\nHost: x\r\n"),
    "GET with a body": Case(post(method=b"GET"), 200, True),
    "GET in chunks": Case(post(CHUNKED, method=b"GET"), 200, True, False),
    "HEAD with a body": Case(post(method=b"HEAD"), 200, True),
    "HEAD in chunks": Case(post(CHUNKED, method=b"HEAD"), 200, True, False),
    "DELETE with a body": Case(post(method=b"DELETE"), 405, True),
    "a body for nobody": Case(post(target=b"/nothing"), 404, True),
    "an unknown method": Case(post(method=b"BREW"), 400, False),
    "a method in small letters": Case(post(method=b"post"), 400, False),
    "a target of *": Case(post(method=b"OPTIONS", target=b"*"), 404, True),
    "a target without a path": Case(post(target=b"http://pay.example"), 400, False),
    "a target with a host": Case(post(target=b"http://pay.example" + PATH), 401, True),
    "a target of a host alone": Case(post(target=b"pay.example:443"), 400, False),
    "a target that is not ASCII": Case(post(target=b"/\xc3\xa9"), 400, False),
    "expects to continue": Case(post(b"Expect: 100-continue"), 401, True),
    "expects to continue, for nobody": Case(post(b"Expect: 100-continue", target=b"/nothing"), 404, True, may_end=True),
    "expects something else": Case(post(b"Expect: 200-ok"), 417, False),
    "expects two things": Case(post(b"Expect: x, 100-continue"), 417, False),
}


def pieces(request: bytes, follower: bytes, how: str) -> Iterator[bytes]:
    """What is sent at a time."""
    if how == "at once":
        yield request + follower
        return
    end = request.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in request else len(request)
    yield from filter(None, (request[: end - 3], request[end - 3 : end], request[end:], follower))


@pytest.mark.parametrize("how", ["at once", "in pieces"])
@pytest.mark.parametrize("name", CASES)
def test_what_follows_a_request_is_answered_as_itself_or_not_at_all(shared: Served, name: str, how: str) -> None:
    """What is within a body is never a request, and no request ever a part of a body."""
    case, within, follower = CASES[name], event("sg"), event("sg")
    request = case.request(whole(within))
    is_head = request.startswith(b"HEAD")
    with closing(shared.raw()) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces(request, whole(follower), how):
                connection.sendall(piece)
        except (ConnectionResetError, BrokenPipeError):
            assert case.may_end or not case.is_kept
        answers = Answers(connection)
        first = answers.next(is_head=is_head)
        if first is not None and first[0] == 100:
            first = answers.next(is_head=is_head)
        second = answers.next()
    statuses = [found[0] for found in (first, second) if found is not None]
    is_kept = case.is_kept and not (case.may_end and second is None)
    assert statuses == [case.status, 200] if is_kept else statuses in ([case.status], []), (first, second)
    recorded = {row.body: row.id for row in shared.rows("sg")}
    assert within.body not in recorded
    assert (follower.body in recorded) == is_kept
    if second is not None:
        assert json.loads(second[1]) == {"received": True, "id": recorded[follower.body]}


def test_a_refusal_is_in_the_one_shape_and_says_that_the_connection_ends(shared: Served) -> None:
    """A machine reads it as it reads every other error."""
    with closing(shared.raw()) as connection:
        connection.sendall(post(b"Transfer-Encoding: gzip, chunked") + b"\r\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert b"connection: close" in head
    assert head.count(b"connection: close") == 1
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_implemented")
    assert error["request_id"]


def test_a_refusal_waits_for_the_answers_before_it(shared: Served) -> None:
    """It would be taken for theirs."""
    deliveries = [event("sg") for _ in range(3)]
    with closing(shared.raw()) as connection:
        connection.sendall(b"".join(map(whole, deliveries)) + b"nonsense\r\n\r\n" + whole(event("sg")))
        answers = Answers(connection)
        found: list[Any] = [answers.next() for _ in range(5)]
    assert [answer and answer[0] for answer in found] == [200, 200, 200, 400, None]
    recorded = {row.body: row.id for row in shared.rows("sg")}
    assert [json.loads(answer[1])["id"] for answer in found[:3]] == [recorded[one.body] for one in deliveries]


@pytest.mark.parametrize("before", [0, 1])
def test_a_body_that_breaks_is_answered_once(shared: Served, before: int) -> None:
    """Whoever had begun to read it is told that its client is gone; the answers before it come first."""
    first = [event("sg") for _ in range(before)]
    large = b"20000\r\n" + b"x" * 0x20000 + b"\r\n"  # is not held, so that the application has begun
    with closing(shared.raw()) as connection:
        connection.sendall(b"".join(map(whole, first)) + post(CHUNKED) + b"\r\n" + large + b"nonsense\r\n")
        answers = Answers(connection)
        found: list[Any] = [answers.next() for _ in range(before + 2)]
    assert [answer and answer[0] for answer in found] == [*([200] * before), 400, None]


def test_expecting_a_client_that_was_refused_closes_its_connection(shared: Served) -> None:
    """It may leave its body out, and may send it: where the next request begins, nobody knows."""
    request = post(b"Expect: 100-continue", b"Content-Length: 1000", target=b"/nothing")
    delivery = event("sg")
    with closing(shared.raw()) as connection:
        connection.sendall(request + b"\r\n")
        answers = Answers(connection)
        answer = answers.next()
        assert answer is not None
        assert answer[0] == 404
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(whole(delivery))
        assert answers.next() is None
    eventually(lambda: all(row.body != delivery.body for row in shared.rows("sg")))
