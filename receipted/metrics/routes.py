"""What is answered at /metrics, /healthz and /readyz."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receipted.metrics.access import Access, WrongToken
from receipted.metrics.database import DatabaseFigures
from receipted.metrics.exposition import exposed
from receipted.metrics.health import Checks, Health
from receipted.metrics.process import ProcessFigures
from receipted.metrics.rows import merged
from statemachine.errors import ServiceError
from storage.ids import new_id

_Answers = Callable[[Request], Awaitable[Response]]

_UNCACHED = {"cache-control": "no-store"}


class Monitoring:
    """The three URLs of one process."""

    def __init__(self, access: Access, process: ProcessFigures, database: DatabaseFigures, checks: Checks) -> None:
        self._access = access
        self._process = process
        self._database = database
        self._checks = checks

    def routes(self) -> list[BaseRoute]:
        """For the application that receives, or one that has nothing else."""
        return [
            Route("/metrics", _told(self._metrics), methods=["GET", "HEAD"]),
            Route("/healthz", _told(self._healthz), methods=["GET", "HEAD"]),
            Route("/readyz", _told(self._readyz), methods=["GET", "HEAD"]),
        ]

    async def _metrics(self, request: Request) -> Response:
        self._access.metrics(request.scope)
        database = await self._database.rows()
        process = self._process.rows()  # afterwards, so that what just failed is counted
        accept = request.headers.get("accept", "")
        # Beside the event loop: writing a thousand numbers as text takes as long as many deliveries.
        content, content_type = await asyncio.to_thread(lambda: exposed(merged([process, database]), accept))
        return Response(content, headers={**_UNCACHED, "content-type": content_type})

    async def _healthz(self, request: Request) -> Response:
        self._access.probes(request.scope)
        return _answer("alive", self._checks.alive())

    async def _readyz(self, request: Request) -> Response:
        self._access.probes(request.scope)
        return _answer("ready", await self._checks.ready())


def _answer(word: str, health: Health) -> Response:
    content = {word: health.is_well, "causes": health.causes}
    if health.failing:
        content["failing"] = health.failing
    if health.held_payments:
        content["held_payments"] = health.held_payments
    if health.inbox_lag_seconds is not None:
        content["inbox_lag_seconds"] = health.inbox_lag_seconds
    return JSONResponse(content, 200 if health.is_well else 503, headers=_UNCACHED)


def _told(answers: _Answers) -> _Answers:
    """A refusal in the one shape that every error of this service has."""

    async def told(request: Request) -> Response:
        try:
            return await answers(request)
        except ServiceError as error:
            headers = {**_UNCACHED, **(WrongToken.headers if isinstance(error, WrongToken) else {})}
            return JSONResponse(error.as_json(new_id()), error.status, headers=headers)

    return told
