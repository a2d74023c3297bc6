"""A provider of one's own over real HTTP, which answers every call as a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.waiting import DEADLINE_S


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What it is answered with."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


GRANTED = Reply(200, json.dumps({"access_token": "a-token", "token_type": "bearer", "expires_in": 3600}).encode())

Answers = Callable[[Call], Reply]


@dataclass
class Answering:
    """The server: `answers` and `tokens` may be set anew between calls."""

    url: str = ""
    answers: Answers = lambda _call: Reply(404)
    tokens: Answers = lambda _call: GRANTED
    calls: list[Call] = field(default_factory=list)  #: those for a token are left out


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, _request: object, _address: object) -> None:
        """Print nothing of callers that hang up."""


@contextmanager
def answering() -> Iterator[Answering]:
    """The server, until the block ends."""
    found = Answering()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            call = Call(self.command, self.path, body)
            if self.path.endswith("/oauth/token"):
                reply = found.tokens(call)
            else:
                found.calls.append(call)
                reply = found.answers(call)
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except ConnectionError:
                self.close_connection = True  # the caller has read as much as it wants

        def log_message(self, *_about: object) -> None:
            """Print nothing."""

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.serve)
    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)
