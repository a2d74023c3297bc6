"""A proxy that ends TLS before the service, and does to deliveries what proxies do."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.waiting import DEADLINE_S


@dataclass
class Proxy:
    """How it behaves; may be changed while it runs."""

    to: str  #: http://host:port of the service
    body: Callable[[bytes], bytes] = bytes
    without: tuple[str, ...] = ()  #: headers that it takes off, in lower case
    largest: int = 10**9
    redirects_to: str | None = None
    page: bytes | None = None  #: it answers this itself
    pause: float = 0.0


@contextmanager
def proxying(proxy: Proxy, certificate: str, key: str) -> Iterator[str]:
    """The proxy's https:// URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if proxy.pause:
                threading.Event().wait(proxy.pause)
            if proxy.redirects_to is not None:
                self._answer(301, [("location", proxy.redirects_to)], b"")
            elif proxy.page is not None:
                self._answer(200, [("content-type", "text/html")], proxy.page)
            elif len(body) > proxy.largest:
                self._answer(413, [("content-type", "text/html")], b"<h1>413 Request Entity Too Large</h1>")
            else:
                self._ask(proxy.body(body))

        do_GET = do_HEAD = do_POST = _pass  # noqa: N815 - the library's names

        def _ask(self, body: bytes) -> None:
            there = http.client.HTTPConnection(urlsplit(proxy.to).netloc, timeout=DEADLINE_S)
            dropped = {*proxy.without, "host", "content-length", "connection"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            there.request(self.command, self.path, body, {**headers, "X-Forwarded-Proto": "https"})
            answer = there.getresponse()
            content = answer.read()
            self._answer(answer.status, [("content-type", answer.getheader("content-type", ""))], content)
            there.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            """Tests are quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_args: object) -> None:
            """A client that does not trust the certificate goes away."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)
