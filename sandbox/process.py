"""Sandbox and shop in a process of their own."""

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

import uvicorn

from sandbox.config import SandboxConfig
from sandbox.server import running
from sandbox.shop import Shop


class Outside(NamedTuple):
    """Addresses of the sandbox and the shop."""

    sandbox_url: str
    shop_url: str


@contextmanager
def outside(config: SandboxConfig, shop_secret: str, *, shop_failures: float) -> Iterator[Outside]:
    """Run a sandbox and a shop in another process, until the block ends.

    They listen on free ports of this machine.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(config, shop_secret, shop_failures, theirs), daemon=True)
    process.start()
    try:
        theirs.close()  # so that the end of the process is seen as the end of the pipe
        try:
            urls = ours.recv() if ours.poll(60) else None
        except EOFError:
            urls = None
        if urls is None:
            msg = "the sandbox did not start"
            raise RuntimeError(msg)
        yield Outside(*urls)
    finally:
        ours.close()  # the other side takes that as the sign to stop
        process.join(20)
        if process.is_alive():
            process.kill()


def _run(config: SandboxConfig, shop_secret: str, shop_failures: float, parent: Connection) -> None:
    shop = Shop(shop_secret, failures=shop_failures, seed=config.seed)
    with running(config) as sandbox, _serving(shop) as shop_url:
        parent.send((sandbox.base_url, shop_url))
        try:
            parent.recv()
        except (EOFError, KeyboardInterrupt):
            return  # the parent closed its end, or Ctrl-C reached both


@contextmanager
def _serving(shop: Shop) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(shop.app(), log_config=None, access_log=False, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
