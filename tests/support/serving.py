"""The real application behind real uvicorn on a free port, and plain sockets to talk to it."""

import asyncio
import http.client
import json
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from receipted.app import create_app
from receipted.http_protocol import BoundedProtocol
from receipted.settings.load import Settings, parse
from receipted.wiring import Service
from receiver.intake import Intake
from receiver.returns import About
from storage import inbox, quarantine
from storage.database import Database
from storage.ids import new_id
from storage.tables import InboxMessage, Payment, RejectedDelivery
from tests.support import keeping
from tests.support.databases import fill
from tests.support.deliveries import KEYS, OLD_KEYS, PROVIDERS, Signed
from tests.support.waiting import DEADLINE_S

TOKEN_KEY = "token-key-for-tests-0000000000001"
SINK_KEY = "whsec_" + "c2luay1rZXktZm9yLXRlc3RzLTAwMDAwMDAwMDAwMDE="


def settings(
    folder: Path,
    *,
    development: bool = True,
    tick: float = 1,
    handler: str | None = None,
    sections: Mapping[str, Any] | None = None,
    **service: Any,
) -> Settings:
    """Settings with an account at each provider, read as an operator's file would be."""
    client_secrets = {
        "alternative_payments": ("client_id", "client_secret"),
        "stable_genius": ("api_key",),
        "payfield": ("api_key", "api_secret"),
        "banked": ("api_key", "api_secret"),
    }
    environ = {"SECRET": "a-secret-of-the-clients", "TOKEN": TOKEN_KEY, "SINK": SINK_KEY}
    accounts: dict[str, Any] = {}
    for name, provider in PROVIDERS.items():
        environ |= {f"KEY_{name}": KEYS[name], f"OLD_{name}": OLD_KEYS[name]}
        accounts[name] = {
            "provider": provider,
            "secrets": dict.fromkeys(client_secrets[provider], "env:SECRET"),
            "webhook_keys": [
                {"id": "new", "secret": f"env:KEY_{name}"},
                {"id": "old", "secret": f"env:OLD_{name}"},
            ],
        }
    return parse(
        {
            "service": {
                "database": f"sqlite:///{folder / 'receipted.db'}",
                "public_url": "https://pay.shop.example",
                "development": development,
                "token_keys": [{"id": "t1", "secret": "env:TOKEN"}],
                **service,
            },
            "sinks": [
                {"name": "shop", "url": "https://shop.example/receipted", "secrets": ["env:SINK"]}
                if handler is None
                else {"name": "shop", "kind": "python", "handler": handler}
            ],
            **(sections or {}),
            "worker": {"tick_seconds": tick},
            "accounts": {**accounts, **(sections or {}).get("accounts", {})},
        },
        environ=environ,
    )


@dataclass
class Answered:
    """One complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """The error, after proof that it has the one shape."""
        content = self.json()
        assert list(content) == ["error"], content
        assert {"type", "code", "message", "param", "request_id"} == set(content["error"])
        assert self.headers["content-type"] == "application/json"
        assert content["error"]["request_id"]
        return content["error"]  # type: ignore[no-any-return]


@dataclass
class Served:
    """A running application."""

    port: int
    service: Service
    app: Starlette | None = None
    commits_before: int = 0  #: those of the migration

    @property
    def database(self) -> Database:
        """The application's own."""
        return self.service.database

    @property
    def file(self) -> str:
        """The path of the SQLite file."""
        return self.database.url.removeprefix("sqlite:///")

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
        *,
        source: str = "127.0.0.1",
    ) -> Answered:
        """One request on a connection of its own; redirects are not followed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, DEADLINE_S, source_address=(source, 0))
        with closing(connection):
            names_host = any(name.lower() == "host" for name, _ in headers)
            connection.putrequest(method, path, skip_host=names_host, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value.encode("latin-1"))
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def post(self, signed: Signed, path: str | None = None, **more: Any) -> Answered:
        """The delivery, delivered."""
        extra = tuple(more.pop("headers", ()))
        return self.request("POST", path or signed.path, signed.body, (*signed.headers, *extra), **more)

    def deliver(self, signed: Signed) -> Answered:
        """The delivery, delivered as a provider does: again while the database is not to be had."""
        give_up, pause = time.monotonic() + DEADLINE_S, threading.Event()
        while (answer := self.post(signed)).status == 503:
            assert time.monotonic() < give_up, "the database is away"
            pause.wait(0.1)  # nothing sets it: PostgreSQL's being busy sets no event here
        return answer

    @property
    def commits(self) -> int:
        """How many transactions were committed, as the write-ahead log tells; nothing may have been checkpointed."""
        return _commits(Path(f"{self.file}-wal")) - self.commits_before

    def until_waiting(self, number: int) -> None:
        """Return when so many deliveries wait behind the commit that is under way."""
        assert self.app is not None
        intake = cast("Intake", cast("Route", self.app.routes[0]).endpoint)
        writer = intake._writer
        eventually(lambda: len(writer._under_way) == 1 and len(writer._waiting) == number)

    def raw(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)

    def rows(self, account: str | None = None) -> list[InboxMessage]:
        """What is in the inbox, read by a connection of its own."""
        database = Database(self.database.url)
        try:
            with database.read() as unit:
                return inbox.find(unit, account=account, limit=10_000)
        finally:
            database.close()

    def rejected(self, account: str) -> list[RejectedDelivery]:
        """What is in quarantine."""
        with self.database.read() as unit:
            return quarantine.find(unit, account, limit=10_000)

    def payment(self, account: str = "sg", kind: str = "payment_intent", **columns: Any) -> About:
        """A payment that exists here."""
        now = self.service.clock()
        made = Payment(id=new_id(), account=account, kind=kind, phase="open", created_at=now, changed_at=now)
        for name, value in columns.items():
            setattr(made, name, value)
        with self.database.write() as unit:
            keeping.keep(unit, made)
        return About(account, kind, made.id)


def _commits(log: Path) -> int:
    """Frames that end a transaction say how large the database is then (sqlite.org/fileformat2.html, "WAL Format")."""
    content = log.read_bytes() if log.exists() else b""
    if not content:
        return 0
    (page,), salt = struct.unpack(">I", content[8:12]), content[16:24]
    frames = (content[at : at + 24] for at in range(32, len(content), 24 + page))
    ends = 0
    for frame in frames:
        if frame[8:16] != salt:
            break
        ends += frame[4:8] != bytes(4)
    return ends


class _Server(uvicorn.Server):
    """Says when it serves, and stops at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.is_up.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        await self.lifespan.shutdown()

    def stop(self) -> None:
        """No more requests are taken, from any thread."""
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stopping.set)


@contextmanager
def listening(app: ASGIApp, http: type[BoundedProtocol] = BoundedProtocol) -> Iterator[int]:
    """The app behind uvicorn, configured as `receipted serve` does; yields the port."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            http=http,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert server.is_up.wait(DEADLINE_S)
            yield listener.getsockname()[1]
        finally:
            server.stop()
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@contextmanager
def serving(with_settings: Settings, *, migrated: bool = True, with_work: bool = False) -> Iterator[Served]:
    """The application of these settings, on a database of its own."""
    service = Service(with_settings)
    if migrated:
        fill(service.database)
    served = Served(0, service)
    if migrated and service.database.url.startswith("sqlite"):
        served.commits_before = served.commits
    try:
        served.app = create_app(service, with_work=with_work)
        with listening(served.app) as served.port:
            yield served
    finally:
        service.close()


def eventually(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Return as soon as the condition holds; fail when it does not within the time."""
    waiting = threading.Event()
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "what was waited for did not come"
        waiting.wait(0.005)


def read_answer(sock: socket.socket) -> Answered:
    """The next answer on a connection."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextmanager
def write_locked(file: str) -> Iterator[None]:
    """Another process's write transaction."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
