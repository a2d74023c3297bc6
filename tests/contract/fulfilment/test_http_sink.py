"""What a merchant's endpoint can rely on, seen from outside over real HTTP."""

import asyncio
import ipaddress
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.responses import RedirectResponse, Response, StreamingResponse

from fulfilment.contract import MAX_ANSWER_BODY_BYTES, Delivered, Failed, OwedEffect, Result
from fulfilment.errors import InsecureSinkUrl, InvalidSigningKey, InvalidSink
from fulfilment.http_connection import MAX_ANSWER_BYTES
from fulfilment.http_sink import HttpSink
from tests.support import tls as certificates
from tests.support.clock import START
from tests.support.effect_receiver import KEY, OLD_KEY, Receiver
from tests.support.waiting import DEADLINE_S

NOW = START  #: each test has its own: the outside library refuses a timestamp of five minutes ago
LOCAL = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set NOW to the time at which the test begins."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC))


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    found = Receiver()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def receiver(server: Receiver) -> Iterator[Receiver]:
    yield server
    server.reset()


def owed(**changes: object) -> OwedEffect:
    known = {
        "id": "0197c1f0-0000-7000-8000-000000000001",
        "effect": "payment.paid",
        "payment_id": "0197c1f0-0000-7000-8000-000000000002",
        "attempt": 1,
        "payload": '{"type":"payment.paid","reference":"Bestellung 7 – ü"}',
        "created_at": NOW,
    }
    return OwedEffect(**{**known, **changes})  # type: ignore[arg-type]


def sink_of(url: str, keys: Sequence[str] = (KEY,), **settings: object) -> HttpSink:
    return HttpSink("shop", url, keys, **{"allow_loopback": True, **settings})  # type: ignore[arg-type]


def deliver(sink: HttpSink, *effects: OwedEffect) -> list[Result]:
    async def run() -> list[Result]:
        results = [await sink.deliver(effect, NOW) for effect in effects or (owed(),)]
        await sink.aclose()
        return results

    return asyncio.run(run())


def resolver_of(*answers: Sequence[str]) -> Callable[[str, int], object]:
    """Each look-up gets the next answer; the last is repeated."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def test_signed(receiver: Receiver) -> None:
    """The outside library verifies what arrives, and the body is the payload byte by byte."""
    assert deliver(sink_of(receiver.url)) == [Delivered(204)]
    [got] = receiver.received
    assert got.verify() == {"type": "payment.paid", "reference": "Bestellung 7 – ü"}
    assert got.body == owed().payload.encode()
    assert got.path == "/effects?shop=1"
    assert got.id == "msg_0197c1f0-0000-7000-8000-000000000001"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_rotation(receiver: Receiver) -> None:
    """While two keys are configured, a receiver verifies with either of them, and with no other."""
    deliver(sink_of(receiver.url, [KEY, OLD_KEY]))
    [got] = receiver.received
    assert got.verify(KEY) == got.verify(OLD_KEY)
    with pytest.raises(WebhookVerificationError):
        got.verify("whsec_" + "A" * 32)


def test_tampered_body(receiver: Receiver) -> None:
    """A body that was changed on its way is not accepted by the outside library."""
    deliver(sink_of(receiver.url))
    [got] = receiver.received
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(got.body.replace(b"paid", b"PAID"), got.headers)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success(receiver: Receiver, status: int) -> None:
    """Every 2xx is a success, and says which."""
    receiver.answers.append(Response(status_code=status))
    assert deliver(sink_of(receiver.url)) == [Delivered(status)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    """A redirect is a failure that is tried again later; its target is never asked."""
    receiver.answers.append(RedirectResponse(f"http://127.0.0.1:{receiver.port}/elsewhere", status))
    [result] = deliver(sink_of(receiver.url))
    assert result == Failed(f"answered {status}: redirects are not followed", status)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 501])
def test_refusal(receiver: Receiver, status: int) -> None:
    """Any other refusal is tried again by schedule, whatever Retry-After it carries."""
    receiver.answers.append(Response(status_code=status, headers={"retry-after": "9"}))
    assert deliver(sink_of(receiver.url)) == [Failed(f"answered {status}", status)]


def test_gone(receiver: Receiver) -> None:
    """410 Gone is final, as the specification of Standard Webhooks has it."""
    receiver.answers.append(Response(status_code=410))
    [result] = deliver(sink_of(receiver.url))
    assert isinstance(result, Failed)
    assert result.is_final
    assert result.http_status == 410


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after(receiver: Receiver, status: int) -> None:
    """A busy receiver's Retry-After is handed on, in seconds or as a date, and never as more than ten hours."""
    date = format_datetime((NOW + timedelta(minutes=2)).replace(microsecond=0), usegmt=True)
    for text in ("17", date, "999999", "soon"):
        receiver.answers.append(Response(status_code=status, headers={"retry-after": text}))
    found = deliver(sink_of(receiver.url), *[owed()] * 4)
    waits = [result.retry_after for result in found if isinstance(result, Failed)]
    assert waits == [17, pytest.approx(120, abs=1), 36_000, None]


def test_timeout(receiver: Receiver) -> None:
    """No answer in time is a failure, since nobody knows what became of the effect."""
    receiver.held = threading.Event()
    assert deliver(sink_of(receiver.url, timeout=0.2)) == [Failed("no answer within 0.2 s")]


def test_nobody_there(receiver: Receiver) -> None:
    """A closed port is a failure, not an exception."""
    unused = Receiver()
    unused._socket.close()
    [result] = deliver(sink_of(unused.url))
    assert result == Failed("no answer (ConnectionRefusedError)")


def test_endless_answer(receiver: Receiver) -> None:
    """An endless answer is read to 64 KiB and dropped; its status counts."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1024
            yield b"x" * 1024
            await asyncio.sleep(0)

    receiver.answers.append(StreamingResponse(endless()))
    assert deliver(sink_of(receiver.url, timeout=10)) == [Delivered(200, b"x" * MAX_ANSWER_BODY_BYTES)]
    assert sent >= MAX_ANSWER_BYTES


def test_answer_cut_off(receiver: Receiver) -> None:
    """A 2xx whose body never ends in time is a success: the receiver has said so."""
    gate = threading.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.to_thread(gate.wait, DEADLINE_S)

    receiver.answers.append(StreamingResponse(stalled()))
    assert deliver(sink_of(receiver.url, timeout=3)) == [Delivered(200, b"x")]
    gate.set()


@pytest.mark.parametrize(("status", "kind"), [(200, Delivered), (302, Failed), (410, Failed), (503, Failed)])
def test_what_is_answered_is_handed_on_to_a_limit(receiver: Receiver, status: int, kind: type[Result]) -> None:
    """The beginning of the body comes with every result, and none of it is left for the next delivery."""
    long = b"no such order " * 1000
    receiver.answers += [Response(long, status), Response(b"short", status), Response(status_code=204)]
    results = deliver(sink_of(receiver.url), *[owed()] * 3)

    assert [type(each) for each in results] == [kind, kind, Delivered]
    assert [each.answer for each in results] == [long[:MAX_ANSWER_BODY_BYTES], b"short", b""]
    assert "order" not in repr(results)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.8",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.1",
        "localhost",
    ],
)
def test_private_address(receiver: Receiver, host: str) -> None:
    """However a private address is written, nothing is sent there unless it is allowed."""
    sink = HttpSink("shop", f"https://{host}:{receiver.port}/effects", [KEY], timeout=5)
    [result] = deliver(sink)
    assert isinstance(result, Failed)
    assert result.http_status is None
    if "neither public nor allowed" not in result.error:
        # Some systems do not read the odd spellings as addresses at all.
        assert result.error == "no answer (gaierror)"
        assert not host.replace(".", "").isdigit()
    assert not receiver.received


@pytest.mark.parametrize("extra", ["10.1.2.3", "::1", "169.254.169.254", "::ffff:127.0.0.1", "no address"])
def test_one_bad_address_condemns_all(receiver: Receiver, extra: str) -> None:
    """A host with a public and a private address is refused as a whole."""
    url = f"https://shop.example:{receiver.port}/"
    [result] = deliver(HttpSink("shop", url, [KEY], resolver=resolver_of(["93.184.215.14", extra])))
    assert isinstance(result, Failed)
    assert not receiver.received


def test_rebinding(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was public when checked and private a moment later never leads to the private address."""
    asked: list[str] = []
    answers = resolver_of(["192.0.2.1"], ["127.0.0.1"])

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return await answers(host, port)  # type: ignore[misc,no-any-return]

    system = socket.getaddrinfo
    looked_up: list[object] = []

    def rebound(host: object, *given: object, **named: object) -> object:
        """The system's resolver has the private address already: whoever asks it again is led there."""
        looked_up.append(host)
        return system("127.0.0.1" if "rebinding" in str(host) else host, *given, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    # 192.0.2.0/24 leads nowhere (RFC 5737) and stands for the public address.
    allowed = [ipaddress.ip_network("192.0.2.0/24")]
    url = f"https://rebinding.example:{receiver.port}/"
    sink = HttpSink("shop", url, [KEY], allowed_networks=allowed, resolver=resolve, timeout=0.3)
    first, second = deliver(sink, owed(), owed())
    assert asked == ["rebinding.example"] * 2
    assert not any("rebinding" in str(host) for host in looked_up)
    assert isinstance(first, Failed)
    assert first.error.startswith("no answer")
    assert second == Failed("the host has an address that is neither public nor allowed")
    assert not receiver.received


def test_loopback_without_tls_stays_here(receiver: Receiver) -> None:
    """Plain HTTP in development goes to loopback alone, even if the name leads to an allowed network."""
    allowed = [ipaddress.ip_network("192.0.2.0/24")]
    url = f"http://localhost:{receiver.port}/"
    sink = sink_of(url, allowed_networks=allowed, resolver=resolver_of(["192.0.2.1"]))
    assert deliver(sink) == [Failed("the host has an address that is neither public nor allowed")]


def test_tls_proves_the_name(tmp_path: Path) -> None:
    """The connection goes to the checked address, while TLS and the Host header keep the name of the URL."""
    issuer = certificates.authority("an authority of tests")
    cert, key = certificates.served(tmp_path, "shop.example", issuer)
    trust = ssl.create_default_context(cadata=issuer.pem.decode())
    receiver = Receiver()
    receiver.start(ssl_certfile=cert, ssl_keyfile=key)
    try:
        resolver = resolver_of(["127.0.0.1"])
        right, wrong = (
            deliver(
                HttpSink(
                    "shop",
                    f"https://{host}:{receiver.port}/effects",
                    [KEY],
                    allowed_networks=LOCAL,
                    resolver=resolver,  # type: ignore[arg-type]
                    tls=trust,
                )
            )
            for host in ("shop.example", "other.example")
        )
    finally:
        receiver.stop()
    assert right == [Delivered(204)]
    assert wrong == [Failed("no answer (SSLCertVerificationError)")]
    [got] = receiver.received
    assert got.headers["host"] == f"shop.example:{receiver.port}"


def test_next_address_when_one_cannot_be_reached(receiver: Receiver) -> None:
    """When nothing was sent because an address refused the connection, the next checked one is tried."""
    sink = sink_of(f"http://localhost:{receiver.port}/", resolver=resolver_of(["127.9.9.9", "127.0.0.1"]))
    assert deliver(sink) == [Delivered(204)]
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "ftp://shop.example/",
        "https://user:pass@shop.example/",
        "https:///effects",
        "shop.example",
        "",
        "https://exa mple/",
        "https://0177.0.0.1/",
        "https://[fe80::1%25eth0]/",
    ],
)
def test_url_is_refused(url: str) -> None:
    """A URL that is not plain https:// with a host stops the program at its start."""
    with pytest.raises(InsecureSinkUrl):
        HttpSink("shop", url, [KEY], allow_loopback=True)


def test_loopback_needs_permission() -> None:
    """Plain HTTP to loopback is refused unless development allows it."""
    with pytest.raises(InsecureSinkUrl):
        HttpSink("shop", "http://127.0.0.1:8000/", [KEY])


def test_settings_are_refused() -> None:
    """No key, or no time at all, stops the program at its start."""
    with pytest.raises(InvalidSigningKey):
        HttpSink("shop", "https://shop.example/", [])
    with pytest.raises(InvalidSink):
        HttpSink("shop", "https://shop.example/", [KEY], timeout=0)


def test_nothing_secret_in_repr() -> None:
    """Neither the key nor the query of the URL is shown by a sink's repr."""
    shown = repr(HttpSink("shop", "https://shop.example/?token=abc", [KEY]))
    assert "token" not in shown
    assert KEY not in shown
