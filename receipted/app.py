"""The web application, alone or with the work beside it in the same process."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from receipted.loops import Wake, keep_stepping
from receipted.reconciling import scheduled_steps
from receipted.wiring import Service
from receiver.intake import Intake
from receiver.limits import UnverifiedLimit
from receiver.quarantine import Quarantine
from receiver.returns import Returns
from receiver.routes import http_error, routes, service_error, unexpected_error
from receiver.writer import GroupWriter
from statemachine.errors import ServiceError

log = structlog.get_logger()

#: Seconds between two looks at whether an account's reconciliation is due.
_SELDOM = 30.0

#: Seconds after which the planner looks whether a minute has passed.
_PLAN_TICK = 10.0


def create_app(service: Service, *, with_work: bool) -> Starlette:
    """The application of `receipted serve` (with_work) or `receipted web`."""
    settings = service.settings.service
    wakes: list[Wake] = []

    def on_recorded() -> None:
        for wake in wakes:
            wake()

    writer = GroupWriter(service.database, queue=settings.intake_queue, on_recorded=on_recorded)
    intake = Intake(
        service.receiving_accounts(),
        service.tokens,
        writer,
        Quarantine(service.database, per_account=settings.quarantine_per_account),
        UnverifiedLimit(settings.unverified_per_minute),
        service.intake_settings(),
        service.clock,
    )
    returns = Returns(
        service.tokens,
        writer,
        service.database,
        settings.trusted_proxies,
        service.clock,
        is_development=settings.development,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if with_work:
                wakes.append(await stack.enter_async_context(working(service)))
            stack.push_async_callback(writer.close)
            log.info("service.started", accounts=sorted(service.accounts), with_work=with_work)
            yield
        log.info("service.stopped")

    app = Starlette(
        routes=routes(intake, returns),
        lifespan=lifespan,
        exception_handlers={
            ServiceError: service_error,
            HTTPException: http_error,
            Exception: unexpected_error,
        },
    )
    app.router.redirect_slashes = False  # never a 3xx on the way in: providers do not follow it, or lose the body
    return app


@asynccontextmanager
async def working(service: Service) -> AsyncIterator[Wake]:
    """Inbox, poller and outbox are worked on within the block; calling the Wake says that a message was recorded.

    A loop that ends by a bug stops the process with SIGTERM, so that the bug is seen and the process started again.
    """
    tick = service.settings.worker.tick_seconds
    inbox_worker = service.inbox_worker()
    async with service.clients() as clients, service.dispatcher() as dispatcher:
        on_inbox, on_outbox = Wake(), Wake()
        on_poll = {name: Wake() for name in service.accounts}  # a Wake wakes one loop
        planner = service.planner()

        def answered(account: str) -> None:
            on_inbox()
            on_poll[account]()

        poller = service.poller(clients, answered)

        def applied() -> None:
            for wake in (on_outbox, *on_poll.values()):
                wake()

        async def apply() -> int:
            return await asyncio.to_thread(inbox_worker.step)

        async def plan() -> int:
            return await asyncio.to_thread(planner.step)

        push_meter, push_tick = service.push_meter(), service.settings.push.measure_every_seconds

        async def measure() -> int:
            return await asyncio.to_thread(push_meter.step)

        loops = {
            "inbox": keep_stepping("inbox", apply, on_inbox, tick, applied),
            "outbox": keep_stepping("outbox", dispatcher.step, on_outbox, tick),
            "planner": keep_stepping("planner", plan, Wake(), _PLAN_TICK),
        }
        loops["push"] = keep_stepping("push", measure, Wake(), push_tick, on_inbox)
        for name, wake in on_poll.items():
            loops[f"poller.{name}"] = keep_stepping(name, partial(poller.start, name), wake, tick)
        for name, step in scheduled_steps(service, clients).items():
            loops[f"reconcile.{name}"] = keep_stepping(f"reconcile.{name}", step, Wake(), max(tick, _SELDOM), applied)
        tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
        for task in tasks:
            task.add_done_callback(partial(_on_loop_end, service))
        try:
            yield on_inbox
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await poller.aclose()


def _on_loop_end(service: Service, task: asyncio.Task[None]) -> None:
    fault = None if task.cancelled() else task.exception()
    if fault is not None:
        service.has_failed = True
        log.error("service.failed", loop=task.get_name(), exc_info=fault)
        signal.raise_signal(signal.SIGTERM)
