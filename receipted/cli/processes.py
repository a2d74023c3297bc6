"""Processes of the Procfile: serve, web, worker, and migrate before them."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Annotated, Final

import typer

from receipted.cli import output, server
from receipted.cli.exits import Exit
from receipted.cli.options import AsJson, open_service
from receipted.cli.server import ProcessGroup, Run
from receipted.metrics.process import SharedSnapshots
from receipted.monitoring import ProcessMonitor, serving_metrics
from receipted.runtime import (
    ProcessWake,
    bounded_stop,
    reduce_garbage_collection,
    short_switch_interval,
    until_signalled,
)
from receipted.wiring import Service
from statemachine.errors import ServiceError
from storage import migrate as schema
from storage import partitions
from storage.errors import SchemaOutdated
from storage.wal_checkpoints import checkpointing

#: Seconds that a process has beyond its own time to stop, before the one that began it ends it.
_CHILD_GRACE_S: Final = 3.0


class OneWriter(ServiceError):
    """Several processes would write where only one can."""

    type = "invalid_request_error"
    code = "one_writer"
    status = 400


class LoopFailed(ServiceError):
    """A loop, and the process with it, ended by a bug; the log has its traceback."""

    code = "loop_failed"


def serve(
    context: typer.Context,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the database to the newest schema before starting.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Run everything: web and worker, a process each.

    Receives, applies, asks and delivers until SIGTERM or Ctrl-C; logs go to stderr. A process that is lost is begun
    again.

    Refuses to start with settings that cannot work (exit 2) and with an outdated schema (exit 3).
    """
    with open_service(context, is_process=True, checks_schema=not migrate) as service:
        if migrate:
            schema.upgrade(service.database)
        listener = _listener(service)
        serve_in_two(service, listener, partial(_announce, "serve", listener, service, as_json=json))


def web(
    context: typer.Context,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="How many processes answer; on SQLite only one can.")
    ] = 1,
    json: AsJson = False,
) -> None:
    """Run the receiver, the API and the console without the worker.

    Answers deliveries, callbacks, returning payers and your systems until SIGTERM or Ctrl-C; `receipted worker` does
    the rest.
    """
    with open_service(context, is_process=True, delivers=False) as service:
        if workers > 1 and service.database.engine.dialect.name == "sqlite":
            raise OneWriter("on SQLite one process receives: --workers needs PostgreSQL", param="workers")
        listener = _listener(service)
        ready, run = partial(_announce, "web", listener, service, as_json=json), partial(_serve, service, listener)
        if workers == 1:
            run(ready)
        else:  # the kernel balances between them
            _run_group(service, listener, [(f"web.{number}", run) for number in range(1, workers + 1)], ready)


def worker(context: typer.Context, json: AsJson = False) -> None:
    """Run the worker alone; any number of them may run.

    Applies the inbox, asks providers and delivers effects until SIGTERM or Ctrl-C.
    """
    with open_service(context, is_process=True) as service:
        metrics = service.settings.metrics
        listener = None
        if metrics.enabled and metrics.worker_port is not None:
            listener = server.listen(metrics.worker_host, metrics.worker_port)
        url = server.address(listener) if listener is not None else None

        def ready() -> None:
            if json:
                output.as_json({"process": "worker", "accounts": list(service.accounts), "metrics": url})
                return
            output.say("receipted worker works; Ctrl-C stops it")
            if url is not None:
                output.say(f"  metrics and probes at {url}")

        _work(service, listener, ready)


def migrate(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 3 when the schema is outdated.")] = False,
    json: AsJson = False,
) -> None:
    """Bring the database to the newest schema.

    A repeat changes nothing, and goes on where one was broken off. On PostgreSQL it makes the coming partitions too.
    """
    with open_service(context, checks_schema=False) as service:
        if check:
            _check(service, as_json=json)
            return
        before = None if schema.is_absent(service.database) else schema.current(service.database)
        now = schema.upgrade(service.database)
        partitions.keep_ahead(service.database, service.clock(), service.settings.retention.period())
    if json:
        output.as_json({"before": before, "revision": now, "changed": before != now})
    elif before == now:
        output.say(f"the database has the newest schema ({now})")
    else:
        output.say(f"the database is migrated from {before or 'nothing'} to {now}")


def _check(service: Service, *, as_json: bool) -> None:
    """Print pending migrations, and exit with code 3 if there are any.

    Each says whether it runs beside the service.
    """
    schema.check_encoding(service.database)
    revision = None if schema.is_absent(service.database) else schema.current(service.database)
    waiting = schema.pending(service.database)
    if as_json:
        output.as_json({"revision": revision, "needed": schema.newest(), "pending": [asdict(each) for each in waiting]})
    elif not waiting:
        output.say(f"the database has the newest schema ({revision})")
    for each in waiting if not as_json else ():
        how = "runs beside the service" if each.is_online else "stop the service first"
        output.say(f"{each.revision}: {how}. {each.says}")
    if waiting or revision != schema.newest():
        if not as_json:
            output.print_error(SchemaOutdated(f"{len(waiting)} to do: run receipted migrate"), as_json=False)
        raise typer.Exit(Exit.SCHEMA)


def _listener(service: Service) -> socket.socket:
    return server.listen(service.settings.service.listen_host, service.settings.service.listen_port)


def _serve(
    service: Service,
    listener: socket.socket,
    on_ready: Callable[[], None],
    on_recorded: Callable[[], None] | None = None,
) -> None:
    from receipted.app import create_app  # noqa: PLC0415 - it takes time that no other command should

    app = create_app(service, with_work=False, on_recorded=on_recorded)
    within = service.settings.service.stop_timeout_seconds
    server.serve(app, listener, on_ready=on_ready, on_stop=app.stop, stop_within=within)
    _raise_if_failed(service)


def serve_in_two(service: Service, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Answer at the socket in one process and work in another, until a signal.

    Each has an interpreter to itself.
    """
    wake = ProcessWake()

    def work(on_ready: Callable[[], None]) -> None:
        listener.close()
        _work(service, None, on_ready, wake)

    _run_group(
        service, listener, [("web", partial(_serve, service, listener, on_recorded=wake)), ("worker", work)], on_ready
    )


def _run_group(
    service: Service, listener: socket.socket, runs: Sequence[tuple[str, Run]], on_ready: Callable[[], None]
) -> None:
    """Run processes that share a socket and their figures, until a signal."""
    board = SharedSnapshots(len(runs))

    def begin(slot: int, run: Run, on_ready: Callable[[], None]) -> None:
        service.metrics_slot = (board, slot)
        try:
            run(on_ready)
        finally:
            service.close()  # this process's own connections and spans

    service.database.prepare_to_fork()
    processes = [(name, partial(begin, slot, run)) for slot, (name, run) in enumerate(runs)]
    grace = service.settings.service.stop_timeout_seconds + _CHILD_GRACE_S
    with listener:
        ProcessGroup(processes, grace=grace).serve(on_ready)


def _announce(process: str, listener: socket.socket, service: Service, *, as_json: bool) -> None:
    listens_at = server.address(listener)
    if as_json:
        output.as_json({"process": process, "url": listens_at, "public_url": service.settings.service.public_url})
        return
    output.say(f"receipted {process} listens at {listens_at}; providers reach it at:")
    for name in service.accounts:
        output.say(f"  {webhook_url(service, name)}")


def webhook_url(service: Service, account: str) -> str:
    """Return the URL at which the account's provider delivers."""
    return f"{service.settings.service.public_url}/webhooks/{account}"


def _work(
    service: Service, listener: socket.socket | None, on_ready: Callable[[], None], wake: ProcessWake | None = None
) -> None:
    with short_switch_interval(), bounded_stop(service.settings.service.stop_timeout_seconds) as begin_stop:
        asyncio.run(_work_until_signalled(service, listener, begin_stop, on_ready, wake))
    _raise_if_failed(service)


async def _work_until_signalled(
    service: Service,
    listener: socket.socket | None,
    begin_stop: Callable[[], None],
    on_ready: Callable[[], None],
    wake: ProcessWake | None,
) -> None:
    from receipted.app import working  # noqa: PLC0415 - it takes time that no other command should

    with until_signalled(begin_stop) as stop, checkpointing(service.database):
        async with (
            working(service) as on_inbox,
            serving_metrics(service, listener),
            ProcessMonitor(service, receives=False).running(),
        ):
            with wake.waking(on_inbox) if wake is not None else nullcontext():
                reduce_garbage_collection()
                on_ready()
                await stop.wait()


def _raise_if_failed(service: Service) -> None:
    if service.has_failed:
        raise LoopFailed
