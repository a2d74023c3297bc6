"""Traces as the settings want them. What they need is imported only where they are on."""

from collections.abc import Callable
from datetime import datetime

from receipted.settings.models import Settings
from receipted.tracing.traces import Span, Traces

Close = Callable[[], None]


def traces_of(settings: Settings, clock: Callable[[], datetime]) -> tuple[Traces, Close]:
    """What tells of spans, and what ends it. Where a collector is named a thread is begun: call it after a fork."""
    tracing = settings.tracing
    if tracing.endpoint is None:
        return Traces(_untold, {}, clock, share=0, trusts_incoming=False), lambda: None
    from receipted.tracing.telemetry import sending  # noqa: PLC0415 - an extra

    telemetry = sending(tracing.endpoint, tracing.header_values(), tracing.service_name)
    sinks = {sink.name: sink.kind for sink in settings.sinks}
    made = Traces(telemetry.emit, sinks, clock, share=tracing.share, trusts_incoming=tracing.trust_incoming)
    return made, telemetry.close


def _untold(_span: Span) -> None:
    """Nobody is told."""
