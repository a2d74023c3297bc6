"""A provider's client at the sandbox over real HTTP, the sandbox's strings, and a shop that keeps what is delivered."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx2

from providers.contract import Account, Answer, Client, CreateRequest, Delivery, HttpAnswer, Provider, Statement
from providers.http import HttpTransport
from statemachine.observation import Observation
from statemachine.phases import Source
from tests.support.waiting import DEADLINE_S


def now() -> datetime:
    """The instant now."""
    return datetime.now(UTC)


@dataclass
class Sent:
    """One request as it left, and the status of its answer (None: no answer)."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes
    status: int | None = None

    @property
    def path(self) -> str:
        """The URL's path."""
        return urlsplit(self.url).path


class Recorder:
    """A transport over real HTTP with a budget without limits: keeps what was sent, may change it, never waits."""

    def __init__(self, client: httpx2.AsyncClient, change: Callable[..., Any] | None = None) -> None:
        self.sent: list[Sent] = []
        self.paused: list[float] = []
        self._change = change  #: (number of the request, headers, content) -> headers, content
        self._transport = HttpTransport(client, self, now, allow_loopback_http=True)

    async def turn(self) -> None:
        """A request may leave at once."""

    async def leave(self) -> None:
        """And its turn does not pass."""

    async def pause(self, seconds: float) -> None:
        """Only kept: a test does not sleep."""
        self.paused.append(seconds)

    async def send(self, method: str, url: str, *, headers, content: bytes = b"") -> HttpAnswer:
        """As HttpTransport does."""
        if self._change is not None:
            headers, content = self._change(len(self.sent), dict(headers), content)
        record = Sent(method, url, dict(headers), content)
        self.sent.append(record)
        answer = await self._transport.send(method, url, headers=headers, content=content)
        record.status = answer.status
        return answer

    def statuses(self, method: str, path: str) -> list[int | None]:
        """The statuses of the calls to a path that ends so."""
        return [each.status for each in self.sent if each.method == method and each.path.endswith(path)]


@dataclass
class Line:
    """A client, and what it sent."""

    client: Client
    sent: Recorder


@asynccontextmanager
async def line(
    provider: Provider, base_url: str, secrets, *, clock=now, seconds: float = 10, change=None
) -> AsyncIterator[Line]:
    """A client for an account at `base_url`, closed afterwards."""
    # Plain HTTP on loopback: reading the certificates of the world would take longer than the call.
    async with httpx2.AsyncClient(timeout=seconds, trust_env=False, verify=False) as http:
        recorder = Recorder(http, change)
        yield Line(provider.client(Account("test", base_url, secrets), recorder, clock), recorder)


class Desk:
    """Where a test asks, one question at a time: one provider, one account, one sandbox."""

    def __init__(self, provider: Provider, base_url: str, secrets, *, clock=now, change=None) -> None:
        self.provider, self.base_url, self.secrets = provider, base_url, secrets
        self.clock, self.change = clock, change
        self.sent: list[Sent] = []  #: by the last question
        self.paused: list[float] = []

    def run(self, work):
        """The result of `work(client)`, an async function."""

        async def asked():
            async with line(self.provider, self.base_url, self.secrets, clock=self.clock, change=self.change) as found:
                self.sent, self.paused = found.sent.sent, found.sent.paused
                return await work(found.client)

        return asyncio.run(asked())

    def create(self, request: CreateRequest) -> Answer:
        """As the client's."""
        return self.run(lambda client: client.create(request))

    def fetch(self, kind: str, ref: str) -> Answer:
        """As the client's."""
        return self.run(lambda client: client.fetch(kind, ref))

    def cancel(self, kind: str, ref: str) -> Answer:
        """As the client's."""
        return self.run(lambda client: client.cancel(kind, ref))

    def seen(self, answer: Answer, source: Source) -> Observation:
        """The one observation in an answer."""
        return seen(self.provider, answer, source)


def seen(provider: Provider, answer: Answer, source: Source) -> Observation:
    """The one observation of an answer, read as the worker reads it."""
    statement = Statement(source, answer.body, answer.asked_at, answer.kind, answer.ref, answer.status)
    reading = provider.parse(statement)
    assert reading.observations, reading
    assert all(each.status is None for each in reading.observations[1:]), reading
    return reading.observations[0]


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


def control(root: str, method: str, path: str, body: object = None) -> Any:
    """A call to the sandbox's strings behind the stage."""
    with httpx2.Client(timeout=DEADLINE_S, trust_env=False, verify=False) as http:
        answer = http.request(method, f"{root}/_control/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def act(root: str, provider: str, kind: str, ref: str, action: str, **details: str) -> str:
    """Do what a payer, the bank or time does; the state that results."""
    told = {"provider": provider, "kind": kind, "ref": ref, "action": action, **details}
    return str(control(root, "POST", "act", told)["state"])


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
        thread.join(DEADLINE_S)
