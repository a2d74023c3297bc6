"""The settings of traces, which are off where no collector is named."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import Field

from providers.errors import InsecureUrl
from providers.http import require_https
from receipted.errors import Fault
from receipted.secrets import Secret
from receipted.settings_accounts import Section

EXTRA: Final = 'install receipted with the extra tracing: pip install "receipted[tracing]"'


class TracingSettings(Section):
    """Traces for OpenTelemetry."""

    endpoint: str | None = Field(
        None,
        description="the URL at which a collector takes traces by OTLP over HTTP: https://, or http:// on loopback",
    )
    headers: Secret | None = Field(
        None, description='what the collector is sent besides, as "name=value,name=value": env:NAME or file:path'
    )
    share: float = Field(0.01, ge=0, le=1, description="the share of inbox messages whose traces are told")
    trust_incoming: bool = Field(
        False, description="whether a delivery's own traceparent is linked to; for where a proxy of yours sets it"
    )
    service_name: str = Field(
        "receipted", min_length=1, max_length=100, description="the name that spans are told under"
    )

    def header_values(self) -> Mapping[str, str]:
        """The headers, by name; raises ValueError where they are none."""
        return {} if self.headers is None else _headers(self.headers.reveal())


def is_installed() -> bool:
    """Whether the extra is there."""
    try:
        wanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
        return all(find_spec(name) is not None for name in wanted)
    except ImportError:
        return False


def tracing_faults(tracing: TracingSettings) -> Iterator[Fault]:
    """What types cannot say about the section; no part of the headers is repeated."""
    if tracing.endpoint is not None:
        if not is_installed():
            yield Fault("tracing.endpoint", "is set, and OpenTelemetry is missing", EXTRA)
        try:
            parts = urlsplit(require_https(tracing.endpoint, allow_loopback=True))
            _ = parts.port  # raises ValueError where it is no number
            is_place = not (parts.query or parts.fragment or parts.username)
        except (InsecureUrl, ValueError):
            is_place = False
        if not is_place:
            remedy = (
                'give one such as "https://collector.example.com/v1/traces", or http:// on loopback; without a query'
            )
            yield Fault("tracing.endpoint", "is no URL that traces may be sent to", remedy)
    yield from _headers_fault(tracing)


def _headers_fault(tracing: TracingSettings) -> Iterator[Fault]:
    headers = tracing.headers
    if headers is None:
        return
    if headers.problem:
        yield Fault("tracing.headers", headers.problem, headers.remedy)
        return
    try:
        tracing.header_values()
    except ValueError:
        remedy = 'give "name=value", with commas between several and %2C for a comma in a value'
        yield Fault("tracing.headers", f"({headers.reference}) holds no headers", remedy)


def _headers(text: str) -> Mapping[str, str]:
    """As OpenTelemetry Protocol Exporter has it, "Specifying headers via environment variables"."""
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not equals or not name or not (name + value).isascii() or not (name + value).isprintable() or " " in name:
            raise ValueError("not a header")
        found[name] = value
    return found
