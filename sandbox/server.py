"""Sandbox server on a free port, for tests and for the demonstration."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

import uvicorn

from sandbox.app import Sandbox, create_app
from sandbox.config import SandboxConfig


class Running(NamedTuple):
    """Address of a running sandbox, and its world."""

    base_url: str
    sandbox: Sandbox


class _Server(uvicorn.Server):
    """Server that reports its start or failure, and stops at once."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._ready, self._closing = ready, closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self._ready.set()

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), 0.1)


@contextmanager
def running(config: SandboxConfig | None = None, port: int = 0) -> Iterator[Running]:
    """Run a sandbox on 127.0.0.1 until the block ends.

    `public_url` is set to where it is.

    The world belongs to the server's thread: read it from others, change it over HTTP.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_app(replace(config or SandboxConfig(), public_url=url))
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5, ws="none"
        )
        ready = threading.Event()
        sandbox: Sandbox = app.state.sandbox
        server = _Server(settings, ready, sandbox.closing)
        thread = threading.Thread(target=server.run, args=([listener],), name="sandbox", daemon=True)
        thread.start()
        if not ready.wait(30) or not server.started:
            msg = "the sandbox did not start"
            raise RuntimeError(msg)
        try:
            yield Running(url, sandbox)
        finally:
            server.should_exit = True
            # Withheld answers would hold the shutdown up, so they are let go first.
            server.servers[0].get_loop().call_soon_threadsafe(sandbox.closing.set)
            thread.join(30)
