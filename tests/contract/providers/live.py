"""A provider's client against the sandbox over real HTTP, and a shop's webhook address that keeps what arrives."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx2

from providers.contract import Account, Client, CreateRequest, Delivery, HttpAnswer, Provider
from providers.http import HttpTransport


class Recorder:
    """A transport over real HTTP with a budget without limits; keeps what was sent and what was paused."""

    def __init__(self, client: httpx2.AsyncClient, clock=None) -> None:
        self.sent: list[tuple[str, str, int | None]] = []  #: method, path, status (None: no answer)
        self.paused: list[float] = []
        self._transport = HttpTransport(client, self, clock or utc_now, allow_loopback_http=True)

    async def turn(self) -> None:
        """A request may leave at once."""

    async def leave(self) -> None:
        """The same."""

    async def pause(self, seconds: float) -> None:
        """Only kept: a test does not sleep."""
        self.paused.append(seconds)

    async def send(self, method: str, url: str, *, headers, content: bytes = b"") -> HttpAnswer:
        """As HttpTransport does."""
        self.sent.append((method, urlsplit(url).path, None))
        answer = await self._transport.send(method, url, headers=headers, content=content)
        self.sent[-1] = (*self.sent[-1][:2], answer.status)
        return answer

    def statuses(self, method: str, path: str) -> list[int | None]:
        """The statuses of the calls to a path that ends so."""
        return [status for sent, at, status in self.sent if sent == method and at.endswith(path)]


@dataclass
class Line:
    """A client, and what it sent."""

    client: Client
    sent: Recorder


@asynccontextmanager
async def line(provider: Provider, base_url: str, secrets, *, clock=None, seconds: float = 10) -> AsyncIterator[Line]:
    """A client for an account at `base_url`, closed afterwards."""
    # Plain HTTP on loopback: reading the certificates of the world would take longer than the call.
    async with httpx2.AsyncClient(timeout=seconds, trust_env=False, verify=False) as http:
        recorder = Recorder(http, clock)
        account = Account("test", base_url, secrets)
        yield Line(provider.client(account, recorder, clock or utc_now), recorder)


def utc_now() -> datetime:
    """The instant now."""
    return datetime.now(UTC)


def order(reference: str, amount_minor: int = 450, **more) -> CreateRequest:
    """What a merchant wants to be paid, $4.50 unless said otherwise."""
    told = {
        "kind": "payment",
        "amount_minor": amount_minor,
        "currency": "USD",
        "reference": reference,
        "idempotency_key": f"key-{reference}",
        "return_url": "https://shop.example/thanks",
    }
    return CreateRequest(**{**told, **more})


def control(base_url: str, method: str, path: str, body: object = None) -> object:
    """A call to the sandbox's strings behind the stage."""
    with httpx2.Client(timeout=10, trust_env=False, verify=False) as http:
        answer = http.request(method, f"{base_url}/_control/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@dataclass
class Shop:
    """A webhook address on this machine."""

    url: str
    deliveries: list[Delivery] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int, seconds: float = 10) -> list[Delivery]:
        """The first deliveries; AssertionError when they do not come in time."""
        with self.came:
            self.came.wait_for(lambda: len(self.deliveries) >= count, seconds)
        assert len(self.deliveries) >= count, f"{len(self.deliveries)} of {count} deliveries came"
        return self.deliveries[:count]


@contextmanager
def shop() -> Iterator[Shop]:
    """A webhook address that answers 200 to everything until the block ends."""
    found = Shop("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with found.came:
                found.deliveries.append(Delivery(body, tuple((k.lower(), v) for k, v in self.headers.items())))
                found.came.notify_all()
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the library's naming

        def log_message(self, *_args) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/webhooks"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
