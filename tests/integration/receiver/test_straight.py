"""Ordinary deliveries are handed straight to the intake; whatever is not ordinary is answered as ever."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.routing import Route
from structlog.testing import capture_logs

from receiver.intake import Intake
from tests.support.deliveries import Signed, event, sign
from tests.support.serving import Served, eventually, serving, settings, write_locked


def request(delivery: Signed, *more: str, path: str | None = None, version: str = "1.1") -> bytes:
    """The whole request."""
    lines = [f"POST {path or delivery.path} HTTP/{version}", "Host: pay.example"]
    lines += [f"{name}: {value}" for name, value in delivery.headers]
    lines += [f"Content-Length: {len(delivery.body)}", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1") + delivery.body


def answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The next complete answer on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += _more(connection, int(headers["content-length"]) - len(body))
    assert len(body) == int(headers["content-length"]), "more than one answer"
    return int(lines[0].split()[1]), headers, json.loads(body)


def _more(connection: socket.socket, at_most: int = 1) -> bytes:
    found = connection.recv(at_most)
    assert found, "the connection was closed"
    return found


@pytest.fixture
def general(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was answered by the general way: the path of each request."""
    return watch(served, monkeypatch)


def watch(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on."""
    assert served.app is not None
    intake = cast("Intake", cast("Route", served.app.routes[0]).endpoint)
    paths: list[str] = []
    before = intake._find_endpoint

    def addressed(scope: Any) -> Any:
        paths.append(scope["path"])
        return before(scope)

    monkeypatch.setattr(intake, "_find_endpoint", addressed)
    return paths


@pytest.mark.parametrize("account", ["ap", "sg", "pf", "bk"])
def test_an_ordinary_delivery_goes_straight_in(served: Served, general: list[str], account: str) -> None:
    """With the answer that everybody else gets; on one connection as often as the provider likes."""
    with closing(served.raw()) as connection:
        for number in range(3):
            delivery = event(account)
            connection.sendall(request(delivery))
            status, headers, content = answer(connection)
            (row,) = [row for row in served.rows() if row.body == delivery.body]
            assert (status, content) == (200, {"received": True, "id": row.id})
            assert (headers["content-type"], headers["cache-control"]) == ("application/json", "no-store")
            assert "date" in headers
            assert number + 1 == len(served.rows())
    assert general == []


def test_a_callback_and_a_kind_go_straight_in_too(served: Served, general: list[str]) -> None:
    """Each with what its URL says."""
    about = served.payment()
    for path in (f"/callbacks/{served.service.tokens.issue('callback', about)}", "/webhooks/pf?kind=payout"):
        delivery = event("sg" if "callbacks" in path else "pf")
        assert served.post(delivery, path).status == 200
    callback, webhook = served.rows()
    assert (callback.source, callback.about, callback.kind) == ("callback", about.payment_id, "payment_intent")
    assert (webhook.source, webhook.about, webhook.kind) == ("webhook", None, "payout")
    assert general == []


@pytest.mark.parametrize("size", [100, 5_000, 60_000])
def test_a_delivery_in_pieces_is_held_until_all_of_it_is_there(served: Served, general: list[str], size: int) -> None:
    """Packets come one by one, cut anywhere."""
    delivery = sign("sg", json.dumps({"id": f"evt_{size}", "x": "y" * size}).encode())
    whole = request(delivery)
    with closing(served.raw()) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(whole), len(whole) // 4):
            connection.sendall(whole[at : at + len(whole) // 4])
        assert answer(connection)[0] == 200
    assert [row.body for row in served.rows()] == [delivery.body]
    assert general in ([], [delivery.path])  # where the machine was slow it took too long


def test_what_is_slow_or_large_goes_the_general_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which bounds both."""
    with serving(settings(tmp_path, body_timeout_seconds=0.3, body_limit_bytes=100_000)) as served:
        general = watch(served, monkeypatch)
        for body, cut, expected in ((b"x" * 500, 400, 408), (b"x" * 90_000, 70_000, 408), (b"x" * 100_001, None, 413)):
            with closing(served.raw()) as connection:
                connection.sendall(request(sign("sg", body))[:cut])
                assert answer(connection)[0] == expected
        assert len(general) == 3
        assert served.rows() == []


def test_a_client_that_leaves_while_it_is_held_is_no_delivery(served: Served) -> None:
    """Half a body is nothing; it is logged as ever."""
    with capture_logs() as logged:
        with closing(served.raw()) as connection:
            connection.sendall(request(event("sg"))[:-5])
        eventually(lambda: "delivery.abandoned" in {entry["event"] for entry in logged})
    assert served.rows() == []


def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    """However many come at once, of whatever kind: none overtakes the delivery that is being committed."""
    deliveries = [event("sg") for _ in range(3)]
    probe = b"GET /webhooks/sg HTTP/1.1\r\nHost: x\r\n\r\n"
    forged = sign("sg", b"{}", secret="the-key-of-somebody-else")
    with closing(served.raw()) as connection, write_locked(served.file):
        parts = [request(deliveries[0]), request(deliveries[1]), probe, request(forged), request(deliveries[2])]
        connection.sendall(b"".join(parts))
        served.until_waiting(0)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    with closing(served.raw()) as connection:
        connection.sendall(b"".join(parts))
        answers = [answer(connection) for _ in parts]
    assert [status for status, _, _ in answers] == [200, 200, 200, 401, 200]
    assert answers[2][2] == {"account": "sg", "ready": True}
    ids = {row.body: row.id for row in served.rows()}
    told = [content["id"] for status, _, content in answers if status == 200 and "id" in content]
    assert [ids[delivery.body] for delivery in deliveries] == told


@pytest.mark.parametrize(("version", "more"), [("1.0", ()), ("1.1", ("Connection: close",))])
def test_a_connection_that_is_to_be_closed_is_closed(served: Served, version: str, more: tuple[str, ...]) -> None:
    """After the answer, which says so."""
    with closing(served.raw()) as connection:
        connection.sendall(request(event("sg"), *more, version=version))
        status, headers, _ = answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert connection.recv(1) == b""


def test_a_client_that_does_not_wait_for_its_answer_is_recorded_all_the_same(served: Served) -> None:
    """It had sent all of it; a redelivery finds it."""
    delivery = event("sg")
    with write_locked(served.file), closing(served.raw()) as connection:
        connection.sendall(request(delivery))
        served.until_waiting(0)
        connection.close()
    eventually(lambda: len(served.rows()) == 1)
    assert served.post(delivery).status == 200
    assert [row.redeliveries for row in served.rows()] == [1]


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/webhooks/nobody", (), 404),
        ("/webhooks/sg/", (), 404),
        ("/webhooks/%73g", (), 200),
        ("/webhooks/sg?kind=dance", (), 200),
        ("/callbacks/forged", (), 404),
        ("/callbacks/", (), 404),
        ("/webhooks/sg", ("Expect: 100-continue",), 200),
        ("/webhooks/sg", tuple(f"X-{n}: y" for n in range(100)), 431),
        ("/webhooks/sg", ("X-Large: " + "y" * 33_000,), 431),
        ("/webhooks/sg", ("Upgrade: websocket", "Connection: Upgrade"), 200),
    ],
)
def test_what_is_not_ordinary_is_answered_as_ever(
    served: Served, path: str, more: tuple[str, ...], status: int
) -> None:
    """By the routes, with their errors."""
    with closing(served.raw()) as connection:
        connection.sendall(request(event("sg"), *more, path=path))
        if "Expect" in str(more):
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answer(connection)[0] == status


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Connections without a request are closed after a second, as others are after five."""
    from receipted.http_protocol import BoundedProtocol

    before = BoundedProtocol.__init__

    def begin(self: BoundedProtocol, *args: Any, **kwargs: Any) -> None:
        before(self, *args, **kwargs)
        self.timeout_keep_alive = 1.0  # type: ignore[assignment]

    monkeypatch.setattr(BoundedProtocol, "__init__", begin)
    with serving(settings(tmp_path)) as running:
        yield running


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(hasty: Served) -> None:
    """One timer watches over many answers, and over a delivery that takes longer than that."""
    with closing(hasty.raw()) as connection:
        connection.sendall(request(event("sg")))
        assert answer(connection)[0] == 200
        with write_locked(hasty.file):
            connection.sendall(request(event("sg")))
            connection.settimeout(2.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        connection.settimeout(10)
        assert answer(connection)[0] == 200
        for _ in range(3):
            connection.sendall(request(event("sg")))
            assert answer(connection)[0] == 200
        assert connection.recv(1) == b""
