"""A merchant's endpoint: a real HTTP server in a thread, which keeps what it was sent and answers as it was told."""

import asyncio
import base64
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvicorn
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.waiting import DEADLINE_S

KEY = "whsec_" + base64.b64encode(b"the current signing key 0001").decode()
OLD_KEY = "whsec_" + base64.b64encode(b"the former signing key  0002").decode()


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, key: str = KEY) -> object:
        """The payload, when the library of Standard Webhooks accepts it now; raises otherwise."""
        return Webhook(key).verify(self.body, self.headers)

    def is_signed(self, key: str = KEY) -> bool:
        """Whether the library would have signed the same, however old the timestamp is."""
        at = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)
        return Webhook(key).sign(self.id, at, self.body.decode()) in self.headers["webhook-signature"].split(" ")


Answer = Callable[[Received], Response]


@dataclass
class Receiver:
    """Answers 200 unless `answers` holds something for the next request, or `rule` says otherwise."""

    received: list[Received] = field(default_factory=list)
    answers: deque[Response] = field(default_factory=deque)
    rule: Answer = lambda _received: Response(status_code=204)
    held: threading.Event | None = None  #: when set, an answer waits for it

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def start(self, **settings: object) -> None:
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="critical",
            **settings,  # type: ignore[arg-type]
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """As if just started: nothing received, nothing held back."""
        if self.held is not None:
            self.held.set()
        self.held = None
        self.received.clear()
        self.answers.clear()

    def stop(self) -> None:
        if self.held is not None:
            self.held.set()
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(DEADLINE_S)
        self._socket.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/effects?shop=1"

    async def _answer(self, request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        received = Received(target, dict(request.headers), await request.body())
        self.received.append(received)
        answer = self.answers.popleft() if self.answers else self.rule(received)
        if self.held is not None:
            await asyncio.to_thread(self.held.wait, 10)
        return answer
