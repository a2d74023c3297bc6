"""Our own calls to a provider, played by the sandbox over real HTTP: each answer begins the trace of its decision."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from structlog.testing import capture_logs

from providers.errors import ProviderError
from receipted.settings import load
from receipted.tracing.telemetry import Telemetry
from receipted.tracing.traces import Traces
from receipted.wiring import Service
from sandbox.config import SandboxConfig
from sandbox.server import running
from storage import inbox, payment_polls
from storage.payment_polls import PolledPayment
from storage.tables import Payment
from tests.support.databases import fill
from tests.support.settings_file import NOWHERE, write_settings


@dataclass
class Desk:
    """A service whose spans are kept in memory."""

    service: Service
    exporter: InMemorySpanExporter

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def message(self, source: str) -> str:
        """The id of the one message of this source."""
        with self.service.database.read() as unit:
            (found,) = inbox.find(unit, source=source)
        return found.id


def desk(folder: Path, url: str) -> Desk:
    service = Service(load.load(write_settings(folder, url), {}))
    fill(service.database)
    exporter = InMemorySpanExporter()
    telemetry = Telemetry(SimpleSpanProcessor(exporter), "tests")
    service.traces = Traces(telemetry.emit, {"shop": "http"}, service.clock, share=1.0, trusts_incoming=False)
    return Desk(service, exporter)


@pytest.fixture
def at_sandbox(tmp_path: Path) -> Iterator[Desk]:
    with running(SandboxConfig()) as found, capture_logs():
        made = desk(tmp_path, found.base_url)
        yield made
        made.service.close()


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[Desk]:
    with capture_logs():
        made = desk(tmp_path, NOWHERE)
        yield made
        made.service.close()


async def created(service: Service) -> Payment:
    async with service.clients() as clients:
        return await service.commands(clients).create("stable", amount_minor=1250, currency="USD", reference="order 1")


def test_an_answer_begins_the_trace_of_its_decision(at_sandbox: Desk) -> None:
    async def story() -> Payment:
        payment = await created(at_sandbox.service)
        async with at_sandbox.service.clients() as clients:
            with at_sandbox.service.database.read() as unit:
                polled = PolledPayment(payment, payment_polls.get(unit, payment.id))
            await at_sandbox.service.poller(clients).ask(polled)
            at_sandbox.service.inbox_worker().step()
            return await at_sandbox.service.commands(clients).cancel(payment.id)

    payment = asyncio.run(story())
    create, cancel = at_sandbox.spans("create")[0], at_sandbox.spans("cancel")[0]
    asked = at_sandbox.spans("ask")
    decided = {span.parent.span_id: span for span in at_sandbox.spans("decide") if span.parent is not None}

    assert create.context.trace_id == int(at_sandbox.message("create").replace("-", ""), 16)
    assert len(asked) >= 2  # the question of the story, and the one before anything is cancelled
    for call in (create, cancel, *asked):
        assert (call.kind, call.parent, call.status.is_ok) == (SpanKind.CLIENT, None, True)
        assert call.attributes["http.response.status_code"] in (200, 201)
        assert call.attributes["receipted.payment.id"] == payment.id
        assert decided[call.context.span_id].context.trace_id == call.context.trace_id
        assert call.start_time < call.end_time <= decided[call.context.span_id].end_time


def test_a_call_without_an_answer_has_a_trace_of_its_own(nowhere: Desk) -> None:
    with pytest.raises(ProviderError) as fault:
        asyncio.run(created(nowhere.service))
    (create,) = nowhere.spans("create")

    assert create.attributes["error.type"] == fault.value.code
    assert not create.status.is_ok
    assert create.context.trace_id not in {span.context.trace_id for span in nowhere.spans("decide")}
