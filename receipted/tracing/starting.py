"""Create traces by the settings; OpenTelemetry is imported only where it is used."""

from collections.abc import Callable
from datetime import datetime

from receipted.settings.models import Settings
from receipted.tracing.traces import Span, Traces

Close = Callable[[], None]


def create_traces(settings: Settings, clock: Callable[[], datetime]) -> tuple[Traces, Close]:
    """Create the traces and what closes them.

    Where a collector is named this starts a thread: call it after a fork.
    """
    tracing = settings.tracing
    if tracing.endpoint is None:
        return Traces(_discard, {}, clock, share=0, trusts_incoming=False), lambda: None
    from receipted.tracing.telemetry import create_telemetry  # noqa: PLC0415 - an extra

    telemetry = create_telemetry(tracing.endpoint, tracing.header_values(), tracing.service_name)
    sinks = {sink.name: sink.kind for sink in settings.sinks}
    made = Traces(telemetry.emit, sinks, clock, share=tracing.share, trusts_incoming=tracing.trust_incoming)
    return made, telemetry.close


def _discard(_span: Span) -> None:
    """Discard the span."""
