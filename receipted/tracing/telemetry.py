"""Export of ended spans through OpenTelemetry's SDK, by OTLP over HTTP.

Only this module imports OpenTelemetry.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

import requests
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import TraceFlags as Flags

from receipted.tracing.traces import Remote, Span

log = structlog.get_logger()

#: Spans that wait to be sent; beyond that the oldest are lost.
_QUEUE_SPANS: Final = 2048
_BATCH_SPANS: Final = 512
_INTERVAL_MS: Final = 2000
#: Seconds that the collector has for its answer, and that an orderly stop waits for what is left.
_TIMEOUT_S: Final = 3.0
_CLOSE_TIMEOUT_S: Final = 5.0

_KINDS: Final = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "internal": SpanKind.INTERNAL,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: A context without a span, whatever a library has attached to this thread.
_EMPTY_CONTEXT: Final = Context()


class _PresetIds(IdGenerator):
    """Generator of ids that returns those set for this thread's next span."""

    def __init__(self) -> None:
        self._next = threading.local()

    def set_next(self, trace_id: int, span_id: int) -> None:
        """Set the ids of this thread's next span."""
        self._next.trace_id, self._next.span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        """Return the preset trace id."""
        trace_id: int = self._next.trace_id
        return trace_id

    def generate_span_id(self) -> int:
        """Return the preset span id."""
        span_id: int = self._next.span_id
        return span_id


class Telemetry:
    """Queue of spans, sent in batches by a thread; adding one never waits."""

    def __init__(self, processor: SpanProcessor, service_name: str) -> None:
        self._ids = _PresetIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # spans are sampled before
            resource=Resource({"service.name": service_name, "service.version": version("receipted")}),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("receipted", version("receipted"))

    def emit(self, span: Span) -> None:
        """Queue the span; in a full queue it replaces the oldest."""
        self._ids.set_next(span.trace_id, span.span_id)
        parent = (
            _EMPTY_CONTEXT
            if span.parent_id is None
            else _parent_context((span.trace_id, span.parent_id, Flags.SAMPLED))
        )
        made = self._tracer.start_span(
            span.name,
            parent,
            _KINDS[span.kind],
            span.attributes,
            [Link(_span_context(span.link))] if span.link is not None else (),
            start_time=_nanoseconds(span.began_at),
        )
        if span.error is not None:
            made.set_attribute("error.type", span.error)
            made.set_status(Status(StatusCode.ERROR))
        made.end(_nanoseconds(span.ended_at))

    def close(self) -> None:
        """Send the waiting spans, as far as the collector takes them within seconds."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_CLOSE_TIMEOUT_S)


class _ReportingExporter(SpanExporter):
    """Exporter that logs once when spans are lost, and once when they are sent again.

    Gives up quickly at the end.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("trace.resumed", lost=self._lost)
            self._lost = 0
        else:
            if not self._lost:
                log.warning("trace.lost", spans=len(spans))
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()


def create_telemetry(endpoint: str, headers: Mapping[str, str], service_name: str) -> Telemetry:
    """Create the export to the collector at this URL.

    Its own words are not logged: they repeat what it was sent.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    session = requests.Session()
    session.trust_env = False  # no proxy and no password that the settings do not name
    exporter = OTLPSpanExporter(
        endpoint, headers=dict(headers), timeout=_TIMEOUT_S, compression=Compression.Gzip, session=session
    )
    processor = BatchSpanProcessor(
        _ReportingExporter(exporter),
        max_queue_size=_QUEUE_SPANS,
        schedule_delay_millis=_INTERVAL_MS,
        max_export_batch_size=_BATCH_SPANS,
        export_timeout_millis=_TIMEOUT_S * 1000,
    )
    return Telemetry(processor, service_name)


def _parent_context(parent: Remote) -> Context:
    return set_span_in_context(NonRecordingSpan(_span_context(parent)), _EMPTY_CONTEXT)


def _span_context(remote: Remote) -> SpanContext:
    trace_id, span_id, flags = remote
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=Flags(flags))


def _nanoseconds(at: datetime) -> int:
    past = at - _EPOCH
    return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1000
