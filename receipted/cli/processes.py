"""Processes of the Procfile: serve, web, worker, and migrate before them."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Final

import typer

from receipted.cli import output, server
from receipted.cli.exits import Exit
from receipted.cli.options import AsJson, open_service
from receipted.cli.server import ProcessGroup
from receipted.metrics.process import SharedSnapshots
from receipted.monitoring import serving_metrics
from receipted.runtime import bounded_stop, reduce_garbage_collection, until_signalled
from receipted.wiring import Service
from statemachine.errors import ServiceError
from storage import migrate as schema
from storage import partitions
from storage.errors import SchemaOutdated

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
    """Run everything in one process.

    Receives, applies, asks and delivers until SIGTERM or Ctrl-C; logs go to stderr.

    Refuses to start with settings that cannot work (exit 2) and with an outdated schema (exit 3).
    """
    with open_service(context, is_process=True, checks_schema=not migrate) as service:
        if migrate:
            schema.upgrade(service.database)
        _answer("serve", service, with_work=True, as_json=json)


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
        if workers == 1:
            _answer("web", service, with_work=False, as_json=json)
        else:
            _answer_together(service, workers, as_json=json)


def worker(context: typer.Context, json: AsJson = False) -> None:
    """Run the worker alone; any number of them may run.

    Applies the inbox, asks providers and delivers effects until SIGTERM or Ctrl-C.
    """
    with open_service(context, is_process=True) as service:
        metrics = service.settings.metrics
        listener = None
        if metrics.enabled and metrics.worker_port is not None:
            listener = server.listen(metrics.worker_host, metrics.worker_port)
        with bounded_stop(service.settings.service.stop_timeout_seconds) as begin_stop:
            asyncio.run(_work(service, listener, begin_stop, as_json=json))
        _raise_if_failed(service)


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


def _answer(process: str, service: Service, *, with_work: bool, as_json: bool) -> None:
    from receipted.app import create_app  # noqa: PLC0415 - it takes time that no other command should

    settings = service.settings.service
    listener = server.listen(settings.listen_host, settings.listen_port)

    def ready() -> None:
        _announce(process, listener, service, as_json=as_json)

    app = create_app(service, with_work=with_work)
    server.serve(app, listener, on_ready=ready, on_stop=app.stop, stop_within=settings.stop_timeout_seconds)
    _raise_if_failed(service)


def _answer_together(service: Service, number: int, *, as_json: bool) -> None:
    """Serve in several processes from one listening socket; the kernel balances."""
    from receipted.app import create_app  # noqa: PLC0415 - it takes time that no other command should

    if service.database.engine.dialect.name == "sqlite":
        raise OneWriter("SQLite has one writer, which one process is: --workers needs PostgreSQL", param="workers")
    settings = service.settings.service
    listener = server.listen(settings.listen_host, settings.listen_port)

    board = SharedSnapshots(number)

    def run(slot: int, on_ready: Callable[[], None]) -> None:
        service.metrics_slot = (board, slot)
        service.database.engine.dispose(close=False)  # its connections are the first process's
        app = create_app(service, with_work=False)
        try:
            within = settings.stop_timeout_seconds
            server.serve(app, listener, on_ready=on_ready, on_stop=app.stop, stop_within=within)
        finally:
            service.close()  # this process's own connections and spans
        _raise_if_failed(service)

    def ready() -> None:
        _announce("web", listener, service, as_json=as_json)

    with listener:
        ProcessGroup(number, run, grace=settings.stop_timeout_seconds + _CHILD_GRACE_S).serve(ready)


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


async def _work(
    service: Service, listener: socket.socket | None, begin_stop: Callable[[], None], *, as_json: bool
) -> None:
    from receipted.app import working  # noqa: PLC0415 - it takes time that no other command should

    with until_signalled(begin_stop) as stop:
        async with working(service), serving_metrics(service, listener):
            reduce_garbage_collection()
            url = server.address(listener) if listener is not None else None
            if as_json:
                output.as_json({"process": "worker", "accounts": list(service.accounts), "metrics": url})
            else:
                output.say("receipted worker works; Ctrl-C stops it")
                if url is not None:
                    output.say(f"  metrics and probes at {url}")
            await stop.wait()


def _raise_if_failed(service: Service) -> None:
    if service.has_failed:
        raise LoopFailed
