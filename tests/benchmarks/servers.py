"""The servers that are compared, each in a process of its own: `python -m tests.benchmarks.servers MODE [URL]`.

All are served by the same function as `receipted web`: the same flags of uvicorn, the same protocol class, the same
collecting and freezing of garbage once they are up. The first line on stdout is the URL; they end at SIGTERM.
"""

import argparse
import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from receipted import logs
from receipted.app import create_app, working
from receipted.cli.processes import serve_in_two
from receipted.cli.server import address, listen, serve
from receipted.runtime import reduce_garbage_collection, until_signalled
from receipted.wiring import Service
from tests.benchmarks.config import ROOT, http_sink, settings
from tests.benchmarks.naive import naive_app

_ANSWER: Final = b'{"received":true,"id":"01a1fc0f-8c1a-7124-b681-143b8a4ba4f2"}'


async def _starlette(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({"received": True, "id": "01a1fc0f-8c1a-7124-b681-143b8a4ba4f2"})


async def _asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that an application can do."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    length = str(len(_ANSWER)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


def _app(mode: str, url: str, shop: str) -> ASGIApp:
    if mode == "starlette":
        return Starlette(routes=[Route("/webhooks/{account}", _starlette, methods=["POST"])])
    if mode == "asgi":
        return _asgi
    if mode == "naive":
        return naive_app(url)
    return create_app(_service(url, shop), with_work=False)


def _service(url: str, shop: str) -> Service:
    """Its effects go to a function in the process, or to a shop of that URL."""
    return Service(settings(url, **({"sinks": [http_sink(shop)]} if shop else {})))


#: starlette, asgi: bare endpoints. naive: a session and a commit for each request. web, serve, worker: as `receipted`.
MODES: Final = ("starlette", "asgi", "naive", "web", "serve", "worker")


async def _work(url: str, shop: str, on_ready: Callable[[], None]) -> None:
    with until_signalled() as stop:
        async with working(_service(url, shop)):
            reduce_garbage_collection()
            on_ready()
            await stop.wait()


def _serve_together(mode: str, url: str, processes: int) -> None:
    """So many processes take from one listening socket; the address is told when all of them are ready."""
    listener = listen("127.0.0.1", 0)
    told, tell = os.pipe()
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            serve(_app(mode, url, ""), listener, on_ready=lambda: os.write(tell, b"."))
            return
        children.append(child)
    for _ in children:
        os.read(told, 1)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in children])
    print(address(listener), *children, flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(any(codes))


def _tell(listener: socket.socket) -> None:
    """Print the address, and the processes that this one has begun."""
    own = os.getpid()
    print(address(listener), Path(f"/proc/{own}/task/{own}/children").read_text().strip(), flush=True)


def main() -> None:
    """Serve until SIGTERM. Logs go to stderr, as those of a process do."""
    parser = argparse.ArgumentParser(description="serve one of the applications that are compared")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--shop", default="", help="the URL of a shop that takes the effects")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logs.configure("info", "json")
    if options.mode == "worker":
        asyncio.run(_work(options.url, options.shop, lambda: print("works", flush=True)))
    elif options.mode == "serve":
        listener = listen("127.0.0.1", 0)
        serve_in_two(_service(options.url, options.shop), listener, lambda: _tell(listener))
    elif options.processes > 1:
        _serve_together(options.mode, options.url, options.processes)
    else:
        listener = listen("127.0.0.1", 0)
        ready = f"{address(listener)} {os.getpid()}"
        serve(_app(options.mode, options.url, options.shop), listener, on_ready=lambda: print(ready, flush=True))


@dataclass
class Served:
    """A server that answers."""

    port: int
    processes: list[int]  #: that answer

    def rss(self) -> int:
        """Bytes of memory that its processes hold."""
        pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in self.processes]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds of processor time that its processes have taken."""
        return sum(cpu_of(number) for number in self.processes)


def cpu_of(process: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(mode: str, url: str = "", *, processes: int = 1, shop: str = "", log: Path) -> Iterator[Served]:
    """The server in processes of its own, until the end of the block; its log lines go to the file."""
    command = [sys.executable, "-m", "tests.benchmarks.servers", mode, url, "--processes", str(processes)]
    command += ["--shop", shop] if shop else []
    with started(command, log) as (process, first):
        if mode == "worker":
            yield Served(0, [process])
        else:
            at, *numbers = first.split()
            port = urlsplit(at).port
            assert port is not None
            yield Served(port, [int(number) for number in numbers])


@contextmanager
def started(command: list[str], log: Path) -> Iterator[tuple[int, str]]:
    """A process and its first line on stdout, until the end of the block. Fails where it ends by itself, or badly."""
    with log.open("ab") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT)
    with process:
        reader: IO[bytes] | None = process.stdout
        assert reader is not None
        first = reader.readline().decode()
        if not first:
            raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read_text()[-2000:]}")
        threading.Thread(target=reader.read, daemon=True).start()  # nothing that it says may block it
        try:
            yield process.pid, first
        except Exception as fault:
            if process.poll() is not None:  # the fault is what came of it
                raise _Ended(command, process.returncode, log) from fault
            raise
        finally:
            process.terminate()
    if process.returncode != 0:
        raise _Ended(command, process.returncode, log)


class _Ended(RuntimeError):
    """A process ended by itself, or not in order; its own last words say why."""

    def __init__(self, command: list[str], code: int, log: Path) -> None:
        words = [line for line in log.read_text().splitlines() if '"level": "info"' not in line]
        super().__init__(f"{' '.join(command)} ended with {code}:\n" + "\n".join(words[-20:])[-4000:])


if __name__ == "__main__":
    main()
