"""A provider's client at the sandbox over real HTTP, and an ear for what the sandbox delivers."""

import asyncio
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import httpx2

from providers.contract import Account, Answer, Delivery, Statement
from providers.http import HttpTransport


def now() -> datetime:
    return datetime.now(UTC)


class NoPace:
    """Lets everybody send at once, and keeps what it was told."""

    def __init__(self) -> None:
        self.paused: list[float] = []

    async def turn(self) -> None:
        return

    async def leave(self) -> None:
        return

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)


class Recording:
    """A transport that keeps what was sent, and may change a request on its way."""

    def __init__(self, inner, change=None) -> None:
        self._inner, self._change = inner, change
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []

    async def turn(self):
        await self._inner.turn()

    async def send(self, method, url, *, headers, content=b""):
        if self._change is not None:
            headers, content = self._change(len(self.sent), dict(headers), content)
        self.sent.append((method, url, dict(headers), content))
        return await self._inner.send(method, url, headers=headers, content=content)

    async def pause(self, seconds):
        await self._inner.pause(seconds)


class Desk:
    """Where a test asks: one provider, one account, one sandbox."""

    def __init__(self, provider, base_url, secrets, *, clock=now, change=None) -> None:
        self.provider, self.base_url, self.secrets = provider, base_url, secrets
        self.clock, self.change = clock, change
        self.pace = NoPace()
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []

    def run(self, work):
        """The result of `work(client)`, an async function."""

        async def asked():
            async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
                transport = Recording(HttpTransport(http, self.pace, now, allow_loopback_http=True), self.change)
                self.sent = transport.sent
                account = Account("test", self.base_url, self.secrets)
                return await work(self.provider.client(account, transport, self.clock))

        return asyncio.run(asked())

    def create(self, request):
        return self.run(lambda client: client.create(request))

    def fetch(self, kind, ref):
        return self.run(lambda client: client.fetch(kind, ref))

    def cancel(self, kind, ref):
        return self.run(lambda client: client.cancel(kind, ref))

    def seen(self, answer: Answer, source):
        """The one observation in an answer."""
        statement = Statement(source, answer.body, answer.asked_at, answer.kind, answer.ref, answer.status)
        reading = self.provider.parse(statement)
        assert len(reading.observations) == 1, reading
        return reading.observations[0]


def act(root: str, provider: str, kind: str, ref: str, action: str, **details: str) -> str:
    """Do what a payer or the bank does; the state that results."""
    content = {"provider": provider, "kind": kind, "ref": ref, "action": action, **details}
    answer = httpx2.post(f"{root}/_control/act", json=content)
    assert answer.status_code == 200, answer.text
    return answer.json()["state"]


@contextmanager
def ear():
    """A URL on this machine, and the queue of the deliveries that come there."""
    heard: Queue[Delivery] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.put(Delivery(body, tuple((name.lower(), value) for name, value in self.headers.items())))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/webhooks/a", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
