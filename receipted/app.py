"""The web application and the worker's loops, in processes of their own or in one."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from receipted import logs
from receipted.http_protocol import DirectHandler
from receipted.monitoring import ProcessMonitor
from receipted.reconciler_wiring import scheduled_steps
from receipted.runtime import MAX_DUTY_WAIT_S, Wake, keep_stepping
from receipted.web_wiring import WebServices, console_routes, front_route, rest_routes
from receipted.wiring import Service, housekeeping
from receiver.group_commit import GroupWriter
from receiver.http import UnverifiedLimit
from receiver.intake import Intake, QuarantineWriter
from receiver.returns import Returns
from receiver.routes import http_error, routes, service_error, unexpected_error
from statemachine.errors import ServiceError
from storage.intake_stores import store_for
from storage.wal_checkpoints import checkpointing

log = structlog.get_logger()

#: Seconds between two checks for due side duties, such as an account's reconciliation.
_DUTY_INTERVAL_S = 30.0

#: The shortest interval between two steps of the outbox and of a poller, while something always wakes them: under load
#: few commits do the work of many, and leave the turn to write to intake and the worker.
_OUTBOX_MIN_INTERVAL_S = 0.01
_POLL_MIN_INTERVAL_S = 0.05

#: Threads that may wait for the database or a name server at once; each is started when it is needed.
_MAX_THREADS = 64

#: Seconds between two checks of the planner for a minute that has passed.
_PLAN_INTERVAL_S = 10.0


class WebApplication(Starlette):
    """Starlette application with the direct handler of deliveries for the protocol."""

    def __init__(self, take: DirectHandler, stop: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self.take = take
        self.stop = stop  #: ends requests that would wait as long as their clients


def create_app(service: Service, *, with_work: bool, on_recorded: Callable[[], None] | None = None) -> WebApplication:
    """Create the application that receives and answers.

    `with_work`: the worker's loops run in it. `on_recorded` is called when messages were recorded; without it, workers
    in other processes are notified as the database can.
    """
    settings = service.settings.service
    wakes: list[Callable[[], None]] = [] if on_recorded is None else [on_recorded]

    def recorded() -> None:
        for wake in wakes:
            wake()

    store = store_for(service.database)
    writer = GroupWriter(store, queue=settings.intake_queue, on_recorded=recorded, traced=service.traces.received)
    intake = Intake(
        service.receiving_accounts(),
        service.tokens,
        writer,
        QuarantineWriter(service.database, per_account=settings.quarantine_per_account),
        UnverifiedLimit(settings.unverified_per_minute),
        service.intake_settings(),
        service.clock,
        logs.sample,
    )
    service.parts.notes.append(intake.notes)
    service.parts.writers.append(writer)
    returns = Returns(
        service.tokens,
        writer,
        service.database,
        settings.trusted_proxies,
        service.clock,
        is_development=settings.development,
    )

    services, monitor = WebServices(service), ProcessMonitor(service, receives=True)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(services.running())
            await stack.enter_async_context(monitor.running())
            stack.enter_context(checkpointing(service.database))
            if with_work:
                wakes.append(await stack.enter_async_context(working(service)))
            elif not wakes and service.database.engine.dialect.name == "postgresql":
                from storage.notifications import Notices  # noqa: PLC0415 - its driver is an extra

                notices = Notices(service.database)
                stack.push_async_callback(notices.close)
                wakes.append(notices)
            stack.push_async_callback(writer.close)
            log.info("service.started", accounts=sorted(service.accounts), with_work=with_work)
            yield
        log.info("service.stopped")

    app = WebApplication(
        intake.take,
        services.stop,
        routes=[
            *routes(intake, returns),
            *rest_routes(service, services),
            *console_routes(service, services),
            *monitor.routes(),
            front_route(service, services),
        ],
        lifespan=lifespan,
        exception_handlers={
            ServiceError: service_error,
            HTTPException: http_error,
            Exception: unexpected_error,
        },
    )
    app.router.redirect_slashes = False  # never a 3xx at intake: providers do not follow it, or lose the body
    return app


@asynccontextmanager
async def working(service: Service) -> AsyncIterator[Wake]:
    """Run the loops of inbox, poller and outbox inside this block; yield the Wake.

    Call it when a message was recorded. A loop goes on whatever its steps raise, and the others do not wait for it.
    One that ends all the same stops the process with SIGTERM, so that it is started again.
    """
    # Python's own has four more than there are processors: a few duties that wait for something would take them all.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="work"))
    tick = service.settings.worker.tick_seconds
    stepping = partial(keep_stepping, on_begin=service.pulse.begin_step, on_end=service.pulse.end_step)
    duty = partial(stepping, max_wait=MAX_DUTY_WAIT_S)
    on_inbox, on_outbox = Wake(), Wake(_OUTBOX_MIN_INTERVAL_S)
    async with service.clients() as clients, service.dispatcher(on_outbox) as dispatcher:
        on_poll = {name: Wake(_POLL_MIN_INTERVAL_S) for name in service.accounts}  # a Wake wakes one loop
        planner = service.planner()

        def answered(account: str) -> None:
            on_inbox()
            on_poll[account]()

        poller = service.poller(clients, answered)

        def applied() -> None:
            for wake in (on_outbox, *on_poll.values()):
                wake()

        async def plan() -> int:
            return await asyncio.to_thread(planner.step)

        async def hand_over() -> int:
            await dispatcher.start()
            return 0  # it says itself when more can be begun

        push_monitor, push_interval = service.push_monitor(), service.settings.push.measure_every_seconds

        async def measure() -> int:
            return await asyncio.to_thread(push_monitor.step)

        loops = {
            **_inbox_loops(service, on_inbox, applied),
            "outbox": stepping("outbox", hand_over, on_outbox, tick),
            "planner": duty("planner", plan, Wake(), _PLAN_INTERVAL_S),
        }
        loops["housekeeping"] = duty("housekeeping", housekeeping(service).step, Wake(), _DUTY_INTERVAL_S)
        loops["push"] = duty("push", measure, Wake(), push_interval, on_inbox)
        for name, wake in on_poll.items():
            loops[f"poller.{name}"] = duty(name, partial(poller.start, name), wake, tick)
        for name, step in scheduled_steps(service, clients).items():
            loops[f"reconcile.{name}"] = duty(f"reconcile.{name}", step, Wake(), max(tick, _DUTY_INTERVAL_S), applied)
        tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
        for task in tasks:
            task.add_done_callback(partial(_on_loop_end, service))
        try:
            async with _woken_by_notifications(service, on_inbox):
                yield on_inbox
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await poller.aclose()


def _inbox_loops(service: Service, on_inbox: Wake, applied: Callable[[], None]) -> dict[str, Coroutine[Any, Any, None]]:
    """Return the loops that apply the inbox: one, and others while more waits.

    They decide while the database writes for the first.
    """
    worker = service.settings.worker
    stepping = partial(keep_stepping, on_begin=service.pulse.begin_step, on_end=service.pulse.end_step)
    first, *others = (service.inbox_worker() for _ in range(service.batches()))
    wakes = [Wake() for _ in others]

    async def apply() -> int:
        done = await asyncio.to_thread(first.step)
        if done >= worker.batch:
            for wake in wakes:
                wake()
        return done

    loops = {"inbox": stepping("inbox", apply, on_inbox, worker.tick_seconds, applied)}
    for number, (other, wake) in enumerate(zip(others, wakes, strict=True), start=2):
        name = f"inbox.{number}"
        loops[name] = stepping(name, partial(asyncio.to_thread, other.step), wake, _DUTY_INTERVAL_S, applied)
    return loops


def _woken_by_notifications(service: Service, on_inbox: Wake) -> AbstractAsyncContextManager[None]:
    """Wake the inbox loop for what others recorded; on SQLite the tick does."""
    if service.database.engine.dialect.name != "postgresql":
        return nullcontext()
    from storage.notifications import listening  # noqa: PLC0415 - its driver is an extra

    return listening(service.database, on_inbox)


def _on_loop_end(service: Service, task: asyncio.Task[None]) -> None:
    fault = None if task.cancelled() else task.exception()
    if fault is not None:
        service.has_failed = True
        service.pulse.failed.append(task.get_name())
        log.error("service.failed", loop=task.get_name(), exc_info=fault)
        signal.raise_signal(signal.SIGTERM)
