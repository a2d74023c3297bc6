"""The processes of the Procfile: serve, web, worker, and migrate before them."""

import asyncio
import socket
from typing import Annotated

import typer

from receipted.app import create_app, working
from receipted.cli import output, server
from receipted.cli.context import AsJson, check_schema, opened
from receipted.loops import until_signalled
from receipted.wiring import Service
from statemachine.errors import ServiceError
from storage import migrate as schema


class LoopFailed(ServiceError):
    """A loop ended by a bug, and the process with it; the log tells which."""

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
    with opened(context, is_process=True, checks_schema=not migrate) as service:
        if migrate:
            schema.upgrade(service.database)
        _answer("serve", service, with_work=True, as_json=json)


def web(context: typer.Context, json: AsJson = False) -> None:
    """Run the way in alone.

    Receives deliveries, callbacks and returning payers until SIGTERM or Ctrl-C; `receipted worker` does the rest.
    """
    with opened(context, is_process=True) as service:
        _answer("web", service, with_work=False, as_json=json)


def worker(context: typer.Context, json: AsJson = False) -> None:
    """Run the work alone; any number may run.

    Applies the inbox, asks providers and delivers effects until SIGTERM or Ctrl-C.
    """
    with opened(context, is_process=True) as service:
        asyncio.run(_work(service, as_json=json))
        _raise_if_failed(service)


def migrate(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 3 when the schema is outdated.")] = False,
    json: AsJson = False,
) -> None:
    """Bring the database to the newest schema.

    A repeat changes nothing.
    """
    with opened(context, checks_schema=False) as service:
        if check:
            check_schema(service)
        before = None if schema.is_absent(service.database) else schema.current(service.database)
        now = before if check else schema.upgrade(service.database)
    if json:
        output.as_json({"before": before, "revision": now, "changed": before != now})
    elif before == now:
        output.say(f"the database has the newest schema ({now})")
    else:
        output.say(f"the database is migrated from {before or 'nothing'} to {now}")


def _answer(process: str, service: Service, *, with_work: bool, as_json: bool) -> None:
    settings = service.settings.service
    listener = server.listen(settings.listen_host, settings.listen_port)

    def ready() -> None:
        _announce(process, listener, service, as_json=as_json)

    server.serve(create_app(service, with_work=with_work), listener, on_ready=ready)
    _raise_if_failed(service)


def _announce(process: str, listener: socket.socket, service: Service, *, as_json: bool) -> None:
    listens_at = server.address(listener)
    if as_json:
        output.as_json({"process": process, "url": listens_at, "public_url": service.settings.service.public_url})
        return
    output.say(f"receipted {process} listens at {listens_at}; providers reach it at:")
    for name in service.accounts:
        output.say(f"  {webhook_url(service, name)}")


def webhook_url(service: Service, account: str) -> str:
    """Where the account's provider is to deliver."""
    return f"{service.settings.service.public_url}/webhooks/{account}"


async def _work(service: Service, *, as_json: bool) -> None:
    with until_signalled() as stop:
        async with working(service):
            if as_json:
                output.as_json({"process": "worker", "accounts": list(service.accounts)})
            else:
                output.say("receipted worker works; Ctrl-C stops it")
            await stop.wait()


def _raise_if_failed(service: Service) -> None:
    if service.has_failed:
        raise LoopFailed
