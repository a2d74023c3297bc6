"""One of the three servers that are compared, in a process of its own: `python -m tests.benchmarks.served MODE FOLDER`.

durable: the application as `receipted web` serves it. off: the same, with a writer that commits nothing; there is no
switch for that outside this file. bare: an endpoint that reads the body and answers, which is what uvicorn and
Starlette cost by themselves.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from receipted import app as application
from receipted import logs
from receipted.cli.server import address, listen, serve
from receipted.wiring import Service
from receiver.writer import GroupWriter
from statemachine.errors import ServiceError
from storage import migrate
from storage.inbox import Recorded
from storage.tables import InboxMessage
from tests.integration.receiver.serving import settings

MODES = ("durable", "off", "bare")


class StoringNothing(GroupWriter):
    """Groups and answers as always, through the same queue and thread; nothing is stored."""

    def _commit(self, messages: Sequence[InboxMessage]) -> list[Recorded | ServiceError]:
        return [Recorded(message.id) for message in messages]


async def _bare(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({"received": True, "id": "01a1fc0f-8c1a-7124-b681-143b8a4ba4f2"})


def _app(mode: str, folder: Path) -> ASGIApp:
    if mode == "bare":
        return Starlette(routes=[Route("/webhooks/{account}", _bare, methods=["POST"])])
    service = Service(settings(folder))
    migrate.upgrade(service.database)
    if mode == "off":
        application.GroupWriter = StoringNothing  # type: ignore[misc]
    return application.create_app(service, with_work=False)


def main(mode: str, folder: str) -> None:
    """Serve until SIGTERM; the first line on stdout is the URL. Logs go to stderr, as those of a process do."""
    logs.configure("info", "json")
    listener = listen("127.0.0.1", 0)
    serve(_app(mode, Path(folder)), listener, on_ready=lambda: print(address(listener), flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
