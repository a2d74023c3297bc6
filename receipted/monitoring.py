"""Metrics and probes put together from the service's parts, for the process that receives and the one that works."""

import asyncio
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from receipted.metrics.catalogue import Bounds
from receipted.metrics.database import DatabaseFigures
from receipted.metrics.health import Checks
from receipted.metrics.process import ProcessFigures
from receipted.metrics.routes import Access, Monitoring
from receipted.protocol import BoundedProtocol
from receipted.wiring import Service

#: Seconds between two times at which a process tells its figures to those that answer at the same socket.
_PUBLISHED: Final = 1.0


class Watched:
    """What one process tells about itself."""

    def __init__(self, service: Service, *, receives: bool) -> None:
        settings, metrics = service.settings.service, service.settings.metrics
        self._is_enabled = metrics.enabled
        sinks = tuple(sink.name for sink in service.settings.sinks)
        bounds = Bounds(service.accounts, sinks, version("receipted"))
        self._process = ProcessFigures(
            service.parts, service.database, bounds, version=version("receipted"), queue=settings.intake_queue
        )
        if service.place is not None:
            self._process.share(*service.place)
        self._monitoring = Monitoring(
            Access(
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
            Checks(
                service.database,
                service.pulse,
                service.clock,
                held=service.parts.held_payments,
                stalled_after=metrics.stalled_after_seconds,
                lag_after=None if receives else timedelta(seconds=metrics.lag_after_seconds),
            ),
        )

    def routes(self) -> list[BaseRoute]:
        """The routes; none where the settings do not enable them."""
        return self._monitoring.routes() if self._is_enabled else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within the block the other processes at the same socket are told this one's figures, and at its end."""
        if not self._process.is_shared:
            yield
            return
        self._process.publish()
        task = asyncio.create_task(self._keep_publishing(), name="metrics")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._process.publish()

    async def _keep_publishing(self) -> None:
        while True:
            await asyncio.sleep(_PUBLISHED)
            self._process.publish()


class _Beside(uvicorn.Server):
    """A server beside other work: signals are for whoever runs that."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing is captured."""
        yield


@asynccontextmanager
async def answering(service: Service, listener: socket.socket | None) -> AsyncIterator[None]:
    """Metrics and probes of a process that works are answered at the socket within the block.

    In the event loop that does the work: were that stuck, there would be no answer.
    """
    if listener is None:
        yield
        return
    app = Starlette(routes=Watched(service, receives=False).routes())
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
    server = _Beside(config)
    task = asyncio.create_task(server.serve([listener]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()
