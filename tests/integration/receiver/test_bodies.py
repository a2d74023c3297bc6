"""How much, how slowly and how strangely a request may arrive."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs

from receipted.app import create_app
from tests.support.deliveries import Signed, event, sign
from tests.support.serving import Served, eventually, listening, read_answer, serving, settings
from tests.support.waiting import DEADLINE_S

LIMIT = 8 * 1024


class Counting:
    """Counts what the application takes of bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.chunks: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self.chunks.append(len(message.get("body", b"")))
            return message

        await self._app(scope, counted, send)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Served]:
    """Small bodies only, and quickly."""
    with serving(settings(tmp_path, body_limit_bytes=LIMIT, body_timeout_seconds=0.3)) as running:
        yield running


@contextmanager
def counted(served: Served) -> Iterator[tuple[Served, Counting]]:
    app = Counting(create_app(served.service, with_work=False))
    with listening(app) as port:
        yield Served(port, served.service), app


def head(signed: Signed, *more: str) -> bytes:
    lines = [f"POST {signed.path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in signed.headers), *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def whole(signed: Signed) -> bytes:
    return head(signed, f"Content-Length: {len(signed.body)}") + signed.body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_body_of_exactly_the_limit_is_taken(small: Served) -> None:
    """The limit is the largest that is allowed."""
    assert small.post(sign("sg", b"x" * LIMIT)).status == 200


def test_a_body_whose_length_says_too_much_is_refused_before_it_is_read(small: Served) -> None:
    """413 without one byte of the body."""
    with counted(small) as (running, app), running.raw() as sock:
        sock.sendall(head(event("sg"), f"Content-Length: {LIMIT + 1}"))
        answer = read_answer(sock)
        assert (
            answer.status,
            answer.error["type"],
            answer.error["code"],
        ) == (413, "invalid_request_error", "body_too_large")
        assert answer.headers["connection"] == "close"
        assert app.chunks == []
        assert sock.recv(1) == b""


def test_a_chunked_body_is_cut_off_while_it_is_read(small: Served) -> None:
    """An endless body costs the limit and one chunk; then the connection is closed."""
    with counted(small) as (running, app), running.raw() as sock:
        sock.sendall(head(event("sg"), "Transfer-Encoding: chunked"))
        stop = threading.Event()

        def send_for_ever() -> None:
            try:
                while not stop.is_set():
                    sock.sendall(chunk(b"x" * 1000))
            except OSError:
                stop.set()  # the server has closed the connection

        sender = threading.Thread(target=send_for_ever)
        sender.start()
        answer = read_answer(sock)
        sender.join(DEADLINE_S)
        assert not sender.is_alive()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert sum(app.chunks) <= LIMIT + max(app.chunks)
        assert running.rows() == []


def test_a_chunked_body_within_the_limit_is_recorded_byte_for_byte(small: Served) -> None:
    """How a body is cut into pieces is no part of it."""
    delivery = sign("sg", bytes(range(256)) * 20)
    with small.raw() as sock:
        pieces = [delivery.body[at : at + 700] for at in range(0, len(delivery.body), 700)]
        sock.sendall(head(delivery, "Transfer-Encoding: chunked") + b"".join(map(chunk, pieces)) + b"0\r\n\r\n")
        assert read_answer(sock).status == 200
    assert [delivery.body] == [row.body for row in small.rows()]


@pytest.mark.parametrize("sent", [b"", b"the beginning"])
def test_a_slow_body_is_answered_408(small: Served, sent: bytes) -> None:
    """A body that does not come is given up and its connection closed."""
    with small.raw() as sock:
        sock.sendall(head(event("sg"), "Content-Length: 100") + sent)
        answer = read_answer(sock)
        assert (
            answer.status,
            answer.error["type"],
            answer.error["code"],
        ) == (408, "invalid_request_error", "body_too_slow")
        assert sock.recv(1) == b""
    assert small.rows() == []


def test_a_body_that_trickles_is_slow_as_a_whole(small: Served) -> None:
    """Single bytes do not buy time."""
    with small.raw() as sock:
        sock.sendall(head(event("sg"), "Content-Length: 1000"))
        done = threading.Event()

        def trickle() -> None:
            try:
                while not done.wait(0.02):
                    sock.sendall(b"x")
            except OSError:
                return

        sender = threading.Thread(target=trickle)
        sender.start()
        assert read_answer(sock).status == 408
        done.set()
        sender.join(DEADLINE_S)


def test_a_client_that_leaves_amid_its_body_is_no_bug(served: Served) -> None:
    """Nothing is recorded, nothing is logged as an error, and the next request is served."""
    with capture_logs() as logged:
        with served.raw() as sock:
            sock.sendall(head(event("sg"), "Content-Length: 100") + b"some")
        eventually(lambda: [entry for entry in logged if entry["event"] == "delivery.abandoned"])
        assert served.post(event("sg")).status == 200
    assert len(served.rows()) == 1
    assert [entry for entry in logged if entry["log_level"] in ("error", "critical")] == []


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    """One connection, many deliveries sent at once, one answer for each."""
    deliveries = [event("sg") for _ in range(20)]
    with served.raw() as sock:
        sock.sendall(b"".join(map(whole, deliveries)))
        reader = sock.makefile("rb")
        ids = []
        for _ in deliveries:
            assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            ids.append(reader.read(length).split(b'"id":"')[1].rstrip(b'"}').decode())
        reader.close()
    rows = {row.id: row.body for row in served.rows()}
    assert [delivery.body for delivery in deliveries] == [rows[found] for found in ids]


def test_a_connection_is_used_again_after_a_refusal(served: Served) -> None:
    """A 401 ends the request, not the connection."""
    with served.raw() as sock:
        for delivery, status in ((sign("sg", b"x", secret="wrong-key-wrong-key"), 401), (event("sg"), 200)):
            sock.sendall(whole(delivery))
            assert status == read_answer(sock).status


def test_headers_of_any_bytes_are_kept_as_they_came(served: Served) -> None:
    """Values that are no ASCII are authentic bytes too; the blanks around them are no part of them."""
    delivery = event("sg")
    extra = b"User-Agent: caf\xc3\xa9 \xff\xfe \t \r\nVia: \xe9\r\nOrigin:\r\nForwarded: 1\r\nForwarded: 2\r\n"
    with served.raw() as sock:
        request = whole(delivery)
        at = request.index(b"Host: x\r\n")
        sock.sendall(request[:at] + extra + request[at:])
        assert read_answer(sock).status == 200
    (row,) = served.rows()
    assert [[name, value.encode("latin-1")] for name, value in row.headers][:5] == [
        ["user-agent", b"caf\xc3\xa9 \xff\xfe"],
        ["via", b"\xe9"],
        ["origin", b""],
        ["forwarded", b"1"],
        ["forwarded", b"2"],
    ]


@pytest.mark.parametrize("account", ["ap", "sg", "pf", "bk"])
def test_blanks_behind_a_signature_are_no_part_of_it_and_any_other_leniency_is_none(
    served: Served, account: str
) -> None:
    """RFC 9110, 5.5: a field's value has no blanks around it; what stands within it counts."""
    for behind, status in ((" ", 200), ("\t \t", 200), ("\xa0", 401), (" x", 401), (",", 401)):
        delivery = event(account)
        headers = tuple((name, value + behind) for name, value in delivery.headers)
        assert served.post(Signed(account, delivery.body, headers)).status == status, repr(behind)


@pytest.mark.parametrize(("encoding", "code"), [("gzip", "content_encoded"), ("identity", "signature_wrong")])
def test_a_body_that_was_compressed_on_its_way_is_refused_with_that_cause(
    served: Served, encoding: str, code: str
) -> None:
    """Which an operator reads in the quarantine too; what was signed as it is passes."""
    plain = event("sg")
    packed = Signed("sg", gzip.compress(plain.body), (*plain.headers, ("Content-Encoding", encoding)))
    answer = served.post(packed)
    assert (answer.status, answer.error["code"]) == (401, code)
    assert [row.reason for row in served.rejected("sg")] == [code]
    signed = sign("sg", gzip.compress(plain.body))
    assert served.post(Signed("sg", signed.body, (*signed.headers, ("Content-Encoding", encoding)))).status == 200


def test_a_signature_given_twice_with_two_values_is_none(served: Served) -> None:
    """Which of them a proxy believed is not for us to guess."""
    delivery = event("sg")
    answer = served.post(delivery, headers=[("X-StableGenius-Signature", "sha256=" + "0" * 64)])
    assert (answer.status, answer.error["code"]) == (401, "signature_missing")


@pytest.mark.parametrize(
    "extra", [[("X-Big", "x" * 40_000)], [(f"X-Many-{number}", "x") for number in range(200)]], ids=["large", "many"]
)
def test_headers_beyond_their_bounds_are_refused(served: Served, extra: list[tuple[str, str]]) -> None:
    """Every header of an authentic delivery is kept as evidence; so there must not be too much of them."""
    answer = served.post(event("sg"), headers=extra)
    assert (
        answer.status,
        answer.error["type"],
        answer.error["code"],
    ) == (431, "invalid_request_error", "headers_too_large")
    assert served.rows() == []


@pytest.mark.parametrize("account", ["ap", "sg", "pf", "bk"])
@pytest.mark.parametrize("is_authentic", [True, False])
def test_of_headers_that_are_not_known_to_be_harmless_only_a_digest_is_kept(
    served: Served, account: str, is_authentic: bool
) -> None:
    """A row shows which credential it was, and not the credential, however its header is called."""
    secrets = {
        "Cookie": "session=secret-1",
        "X-Api-Key": "secret-2",
        "Proxy-Authorization": "Basic secret-3",
        "X-Auth-Token": "secret-4",
        "X-Amz-Security-Token": "secret-5",
        "CF-Access-Client-Secret": "secret-6",
        "X-Vault-Token": "secret-7",
        "Referer": "https://x.example/?token=secret-8",
        "X-Anything": "secret-9",
    }
    delivery = event(account)
    body = delivery.body if is_authentic else delivery.body + b" "
    served.post(Signed(account, body, delivery.headers), headers=secrets.items())
    kept = [*served.rows(account), *served.rejected(account)]
    assert len(kept) == 1
    headers = dict(kept[0].headers)
    assert "secret-" not in json.dumps(kept[0].headers)
    for name, value in secrets.items():
        assert headers[name.lower()] == f"sha256={sha256(value.encode()).hexdigest()}"
    for name, value in delivery.headers:  # redeeming and the audit verify them once more
        assert headers[name.lower()] == value or account == "ap"
    if account == "ap":
        assert headers["authorization"].startswith("sha256=")


def send_for_ever(sock: socket.socket, beginning: bytes, endless: bytes) -> None:
    sock.sendall(beginning)
    for _ in range(100_000):
        sock.sendall(endless)


@pytest.mark.parametrize("endless", [b"X-Endless: " + b"x" * 1000, b"x" * 1000], ids=["a header", "the request line"])
def test_a_head_that_does_not_end_is_cut_off(served: Served, endless: bytes) -> None:
    """It costs a bounded amount of memory, whoever sends it; other connections go on."""
    beginning = b"POST /webhooks/sg" if endless.startswith(b"x") else b"POST /webhooks/sg HTTP/1.1\r\nHost: x\r\n"
    with served.raw() as sock, pytest.raises(ConnectionError):
        send_for_ever(sock, beginning, endless)
    assert served.post(event("sg")).status == 200


def test_many_small_requests_on_one_connection_are_no_large_head(served: Served) -> None:
    """The bound is for each request."""
    padding = "X-Padding: " + "x" * 4000
    with served.raw() as sock:
        for _ in range(40):
            delivery = event("sg")
            sock.sendall(head(delivery, padding, f"Content-Length: {len(delivery.body)}") + delivery.body)
            assert read_answer(sock).status == 200


def test_many_requests_that_arrive_at_once_are_no_large_head(served: Served) -> None:
    """A beginning of one that comes with the end of many others is as short as it is."""
    deliveries = [event("sg") for _ in range(300)]
    everything = b"".join(map(whole, deliveries))
    with served.raw() as sock:
        reader = threading.Thread(target=lambda: sock.makefile("rb").read())
        reader.start()
        sock.sendall(everything[:-900])
        sock.sendall(everything[-900:])
        eventually(lambda: len(served.rows()) == 300)
        sock.shutdown(socket.SHUT_RDWR)
        reader.join(DEADLINE_S)
