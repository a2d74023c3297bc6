"""Routes /metrics, /healthz and /readyz: access, Prometheus text and probes."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import ClassVar, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from receipted.metrics.catalogue import METRICS, Metric, Rows, sum_rows
from receipted.metrics.database import DatabaseFigures
from receipted.metrics.health import Health, HealthChecks
from receipted.metrics.process import ProcessFigures
from receiver.errors import NotHttps
from receiver.http import Network, is_inside, peer_of
from statemachine.errors import ServiceError
from storage.ids import new_id

#: Headers that a proxy adds to a forwarded request.
_PROXY_HEADERS: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
_Handler = Callable[[Request], Awaitable[Response]]
_NO_STORE = {"cache-control": "no-store"}


class NotInside(ServiceError):
    """Only loopback and the networks of trusted_proxies and allowed_networks may ask."""

    type = "authorization_error"
    code = "not_inside"
    status = 403


class WrongToken(ServiceError):
    """The bearer token of metrics.token is missing or wrong."""

    type = "authentication_error"
    code = "wrong_token"
    status = 401
    headers: ClassVar[dict[str, str]] = {"www-authenticate": "Bearer"}


class MetricsAccess:
    """Access control for metrics and probes, by peer and token.

    They are requested over plain HTTP, and show how much business there is.
    """

    def __init__(
        self, trusted: Sequence[Network], allowed: Sequence[Network], token: str | None, *, is_development: bool
    ) -> None:
        self._trusted = trusted
        self._inside = (*trusted, *allowed)
        self._token = token.encode() if token is not None else None
        self._is_development = is_development

    def probes(self, scope: Scope) -> None:
        """Allow requests from inside; raises NotInside. A token does not replace that."""
        if not self._is_inside(scope):
            raise NotInside

    def allow_metrics(self, scope: Scope) -> None:
        """Allow requests with the token, or from inside where no token is set.

        The token is checked where it cannot be read on its way: inside, or over HTTPS. Raises NotInside, NotHttps
        or WrongToken.
        """
        is_inside = self._is_inside(scope)
        if self._token is None:
            if not is_inside:
                raise NotInside
            return
        if not is_inside and not peer_of(scope, self._trusted, is_development=self._is_development).is_secure:
            raise NotHttps
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not hmac.compare_digest(given[0], b"Bearer " + self._token):
            raise WrongToken

    def _is_inside(self, scope: Scope) -> bool:
        """Return whether the peer's address is inside; a proxied request never is.

        A proxy that passes on what strangers send has an address of ours, and perhaps no setting that says so.
        """
        if not _PROXY_HEADERS.isdisjoint(name for name, _ in scope["headers"]):
            return False
        client = scope.get("client")
        return client is not None and is_inside(client[0], self._inside)


def prometheus_text(rows: Rows, accept: str) -> tuple[bytes, str]:
    """Format the rows for Prometheus; return the text and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_RowsCollector(rows)), content_type


class _RowsCollector(Collector):
    """Metric families of one response, in the order of the catalogue."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if metric.name in self._rows:
                yield _family(metric, self._rows[metric.name])


def _family(metric: Metric, series: dict[tuple[str, ...], list[float]]) -> Family:
    names = list(metric.labels)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.says, labels=names)
        for labels, row in sorted(series.items()):
            histogram.add_metric(labels, _buckets(metric, row), row[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.says, labels=names)
    for labels, row in sorted(series.items()):
        family.add_metric(labels, row[0])
    return family


def _buckets(metric: Metric, row: list[float]) -> list[tuple[str, float]]:
    """Return cumulative buckets, as the format has them."""
    found, total = [], 0.0
    for bound, count in zip((*metric.bounds, float("inf")), row, strict=False):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
    return found


class MonitoringRoutes:
    """The three URLs of one process."""

    def __init__(
        self, access: MetricsAccess, process: ProcessFigures, database: DatabaseFigures, checks: HealthChecks
    ) -> None:
        self._access = access
        self._process = process
        self._database = database
        self._checks = checks

    def routes(self) -> list[BaseRoute]:
        """Return the routes for an application."""
        return [
            Route("/metrics", _with_error_shape(self._metrics), methods=["GET", "HEAD"]),
            Route("/healthz", _with_error_shape(self._healthz), methods=["GET", "HEAD"]),
            Route("/readyz", _with_error_shape(self._readyz), methods=["GET", "HEAD"]),
        ]

    async def _metrics(self, request: Request) -> Response:
        self._access.allow_metrics(request.scope)
        database = await self._database.rows()
        process = self._process.rows()  # afterwards, so that what just failed is counted
        accept = request.headers.get("accept", "")
        # Beside the event loop: writing a thousand numbers as text takes as long as many deliveries.
        content, content_type = await asyncio.to_thread(lambda: prometheus_text(sum_rows([process, database]), accept))
        return Response(content, headers={**_NO_STORE, "content-type": content_type})

    async def _healthz(self, request: Request) -> Response:
        self._access.probes(request.scope)
        return _health_response("alive", self._checks.alive())

    async def _readyz(self, request: Request) -> Response:
        self._access.probes(request.scope)
        return _health_response("ready", await self._checks.ready())


def _health_response(word: str, health: Health) -> Response:
    content = {word: health.is_well, "causes": health.causes}
    if health.failing:
        content["failing"] = health.failing
    if health.held_payments:
        content["held_payments"] = health.held_payments
    if health.inbox_lag_seconds is not None:
        content["inbox_lag_seconds"] = health.inbox_lag_seconds
    return JSONResponse(content, 200 if health.is_well else 503, headers=_NO_STORE)


def _with_error_shape(answers: _Handler) -> _Handler:
    """Answer errors in the JSON shape of this service's errors."""

    async def guarded(request: Request) -> Response:
        try:
            return await answers(request)
        except ServiceError as error:
            headers = {**_NO_STORE, **(WrongToken.headers if isinstance(error, WrongToken) else {})}
            return JSONResponse(error.as_json(new_id()), error.status, headers=headers)

    return guarded
