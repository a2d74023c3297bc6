"""Behind a real proxy, whose connections to the service many clients share: nobody takes another's answer."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from tests.integration.receiver.test_framing import CASES, CHUNKED, Answers, chunked, post, whole
from tests.support.deliveries import Signed, event
from tests.support.proxies import PROXIES
from tests.support.serving import Served, serving, settings
from tests.support.waiting import DEADLINE_S

#: Would be answered 200 in place of whatever comes behind it, were it taken for a request.
SMUGGLED = b"GET /webhooks/sg HTTP/1.1\r\nHost: pay.example\r\nX-Swallowed: "

#: Blank lines before it, which no parser of requests minds: proxies send so many bytes with a head, or fewer.
BLANKS = (0, 2_000, 2_100, 4_000, 8_200, 20_000)

_VICTIMS, _ATTACKERS = 4, 4


@pytest.fixture(params=PROXIES)
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Served, int]]:
    """A service, and the port of a proxy before it."""
    with serving(settings(tmp_path, unverified_per_minute=10_000)) as running:
        proxy = cast("Callable[[Path, int], AbstractContextManager[int]]", PROXIES[request.param])
        with proxy(tmp_path / "proxy", running.port) as port:
            yield running, port


def deliver(port: int, answered: list[tuple[Signed, Any]], over: threading.Event) -> None:
    """One delivery after the other until it is over, each until it is answered 200, as a provider would."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    delivery = event("sg")
    while not over.is_set():
        try:
            connection.request("POST", delivery.path, delivery.body, dict(delivery.headers))
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            continue
        if status == 200:
            answered.append((delivery, json.loads(body)))
            delivery = event("sg")
    connection.close()


def attack(port: int, requests: list[bytes], reached: list[bytes]) -> None:
    """Send each on a connection of its own; of the answers, those of the service are told."""
    for request in requests:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 5)) as connection:
            connection.settimeout(0.1)
            connection.sendall(request)
            answer = connection.recv(65536)
            if b'"signature_missing"' in answer:
                reached.append(request)


def test_no_delivery_is_answered_200_and_not_recorded(proxied: tuple[Served, int]) -> None:
    """Whatever others send through the same proxy: their bodies are never requests on connections that are shared."""
    served, port = proxied
    requests = [
        case.request(b"\r\n" * many + SMUGGLED)
        for name, case in CASES.items()
        for many in BLANKS * (10 if "upgrade" in name else 1)
    ]
    answered: list[tuple[Signed, Any]] = []
    over, reached = threading.Event(), list[bytes]()
    attackers = [
        threading.Thread(target=attack, args=(port, requests[n::_ATTACKERS], reached)) for n in range(_ATTACKERS)
    ]
    victims = [threading.Thread(target=deliver, args=(port, answered, over)) for _ in range(_VICTIMS)]
    for thread in (*attackers, *victims):
        thread.start()
    for thread in attackers:
        thread.join(100)
    over.set()
    for thread in victims:
        thread.join(DEADLINE_S)
    assert reached
    assert len(answered) > _VICTIMS
    recorded = {row.id: row.body for row in served.rows("sg")}
    for delivery, answer in answered:
        assert answer.get("received") is True, answer
        assert recorded[answer["id"]] == delivery.body


def through(port: int, sent: bytes, answers: int) -> list[tuple[int, bytes] | None]:
    """The answers of one connection to the proxy."""
    with closing(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) as connection:
        connection.sendall(sent)
        reader = Answers(connection)
        return [reader.next() for _ in range(answers)]


def test_a_trailer_that_is_passed_on_is_no_header(proxied: tuple[Served, int]) -> None:
    """One proxy drops it, another does not: a signature there opens nothing, and another one there breaks nothing."""
    served, port = proxied
    delivery = event("sg")
    signed = [f"{name}: {value}".encode() for name, value in delivery.headers]
    names = b"Trailer: " + b", ".join(name.encode() for name, _ in delivery.headers)
    trailers = b"".join(line + b"\r\n" for line in signed)
    (refused,) = through(port, post(CHUNKED, names) + b"\r\n" + chunked(delivery.body, trailers=trailers), 1)
    assert refused is not None
    assert refused[0] == 401
    others = b"".join(name.encode() + b": of another\r\n" for name, _ in delivery.headers)
    (taken,) = through(port, post(CHUNKED, names, *signed) + b"\r\n" + chunked(delivery.body, trailers=others), 1)
    assert taken is not None
    assert taken[0] == 200
    assert [row.body for row in served.rows("sg")] == [delivery.body]


def test_pipelined_deliveries_are_each_answered_for_itself(proxied: tuple[Served, int]) -> None:
    """All are sent at once, and the n-th answer is that of the n-th."""
    served, port = proxied
    deliveries = [event("sg") for _ in range(20)]
    found = through(port, b"".join(map(whole, deliveries)), len(deliveries))
    recorded = {row.id: row.body for row in served.rows("sg")}
    for delivery, answer in zip(deliveries, found, strict=True):
        assert answer is not None
        assert answer[0] == 200
        assert recorded[json.loads(answer[1])["id"]] == delivery.body
