"""Build metrics and probes, for processes that receive and for those that work."""

import asyncio
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from receipted.http_protocol import BoundedProtocol
from receipted.metrics.catalogue import LabelBounds
from receipted.metrics.database import DatabaseFigures
from receipted.metrics.health import HealthChecks
from receipted.metrics.process import ProcessFigures
from receipted.metrics.routes import MetricsAccess, MonitoringRoutes
from receipted.wiring import Service

log = structlog.get_logger()

#: Seconds between two writes of a process's figures for the others of its group.
_PUBLISH_INTERVAL_S: Final = 1.0


class ProcessMonitor:
    """Metrics and probes of one process."""

    def __init__(self, service: Service, *, receives: bool) -> None:
        settings, metrics = service.settings.service, service.settings.metrics
        self._is_enabled = metrics.enabled
        sinks = tuple(sink.name for sink in service.settings.sinks)
        bounds = LabelBounds(service.accounts, sinks, version("receipted"))
        self._process = ProcessFigures(
            service.parts, service.database, bounds, version=version("receipted"), queue=settings.intake_queue
        )
        if service.metrics_slot is not None:
            self._process.join(*service.metrics_slot)
        self._works = not receives
        self._checks = HealthChecks(
            service.database,
            service.pulse,
            service.clock,
            held=service.parts.held_payments,
            stalled_after=metrics.stalled_after_seconds,
            lag_after=None if receives else timedelta(seconds=metrics.lag_after_seconds),
            others=self._process.others_health,
        )
        self._monitoring = MonitoringRoutes(
            MetricsAccess(
                settings.trusted_proxies,
                metrics.allowed_networks,
                metrics.token.reveal() if metrics.token is not None else None,
                is_development=settings.development,
            ),
            self._process,
            DatabaseFigures(
                service.database,
                bounds,
                tuple(service.accounts),
                service.clock,
                service.parts.scrape_errors,
                fresh_seconds=metrics.fresh_seconds,
            ),
            self._checks,
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes; none where the settings do not enable them."""
        return self._monitoring.routes() if self._is_enabled else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Share this process's figures with the others of its group inside this block."""
        if not self._process.is_shared:
            yield
            return
        self._publish()
        task = asyncio.create_task(self._keep_publishing(), name="metrics")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._publish()

    async def _keep_publishing(self) -> None:
        while True:
            await asyncio.sleep(_PUBLISH_INTERVAL_S)
            try:
                self._publish()
            except Exception:  # a bug in the figures must not make this process look silent
                log.exception("process.failed")

    def _publish(self) -> None:
        self._process.publish(self._checks.own() if self._works else None)


class _SilentServer(uvicorn.Server):
    """Server beside other work, which leaves signals to that."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture no signals."""
        yield


@asynccontextmanager
async def serving_metrics(service: Service, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve metrics and probes of a worker process at the socket inside this block.

    In the event loop that does the work: were that stuck, there would be no answer.
    """
    if listener is None:
        yield
        return
    app = Starlette(routes=ProcessMonitor(service, receives=False).routes())
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = _SilentServer(config)
    task = asyncio.create_task(server.serve([listener]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()
