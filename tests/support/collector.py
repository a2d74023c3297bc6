"""A collector of traces: takes OTLP over HTTP as one does, and keeps the spans as they came over the wire."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.waiting import DEADLINE_S


@dataclass(frozen=True)
class Told:
    """One span."""

    name: str
    kind: int  #: opentelemetry.proto.trace.v1.Span.SpanKind
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    said: dict[str, str | int | float]
    links: list[tuple[str, str]]
    is_error: bool
    service: str


@dataclass
class Collector:
    """What was sent, and what is answered."""

    url: str = ""
    status: int = 200
    spans: list[Told] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def named(self, name: str) -> list[Told]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """As a collector would."""
        self.headers.append(headers)
        if self.status != 200:
            return
        plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        self.bodies.append(plain)
        request = ExportTraceServiceRequest.FromString(plain)
        for resource in request.resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            self.spans += [_told(span, service) for scope in resource.scope_spans for span in scope.spans]


def _told(span, service: str) -> Told:
    said = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    return Told(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        said,
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.code == 2,
        service,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector at a free port of loopback."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)
