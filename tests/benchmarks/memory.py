"""What the way in holds of memory: with ten thousand idle connections, and after very many deliveries."""

import resource
import socket
import time
from contextlib import suppress
from typing import Final

from tests.benchmarks.databases import POSTGRESQL, Databases, count
from tests.benchmarks.figures import Bar, Part, Spread, Table, prose
from tests.benchmarks.intake import OURS
from tests.benchmarks.measuring import Target
from tests.benchmarks.servers import Served, served

ABOUT: Final = prose("""
The memory that the processes of `receipted web` hold (RSS).
An idle connection has been used for one request, and is kept open.
Growth is measured on 64 connections that never rest.
""")

_IDLE: Final = 10_000
_CHUNK: Final = 50_000
_MB: Final = 1_000_000
_PROBE: Final = b"GET /webhooks/sg HTTP/1.1\r\nHost: pay.shop.example\r\n\r\n"


def measure(databases: Databases, *, seconds: float) -> Part:
    """Idle connections, then growth from 50,000 to 500,000 deliveries, or as far as it comes in that time."""
    part = Part("memory", "Memory", ABOUT)
    url = databases.fresh(POSTGRESQL)
    with served("web", url, log=databases.folder / "idle.log") as server:
        before, holding = server.rss(), _hold(part, server)
    rows = [("started", _megabytes(before)), (f"{_IDLE:,} idle connections", _megabytes(holding))]
    part.tables.append(Table(f"{OURS[POSTGRESQL]}, idle", ("with", "MB"), rows))
    part.bars.append(Bar(f"{_IDLE:,} idle connections", _one(holding / _MB), 250, is_ceiling=True, unit=" MB"))
    databases.drop(url)
    grow(part, databases, POSTGRESQL, _CHUNK, 10 * _CHUNK, give_up_after=seconds)
    return part


def _hold(part: Part, server: Served) -> int:
    """Bytes that are held with the connections open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    connections = []
    try:
        for _ in range(_IDLE):
            connections.append(socket.create_connection(("127.0.0.1", server.port)))
            connections[-1].sendall(_PROBE)
            if not connections[-1].recv(4096).startswith(b"HTTP/1.1 200"):
                part.faults.append("a GET that was not answered 200")
        held = server.rss()
        is_open = sum(not _is_closed(connection) for connection in connections)
        if is_open < _IDLE:
            part.about += f"Only {is_open:,} of them were still open when the memory was read.\n"
        return held
    finally:
        for connection in connections:
            connection.close()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with suppress(BlockingIOError):
        return not connection.recv(1)
    return False


def grow(
    part: Part, databases: Databases, kind: str, first: int, last: int, *, give_up_after: float | None = None
) -> None:
    """Deliver until `last`; the bar holds the memory then against that after `first`."""
    url = databases.fresh(kind)
    held: list[tuple[int, int]] = []
    mark = first
    until = time.monotonic() + give_up_after if give_up_after else None
    with served("web", url, log=databases.folder / "grow.log") as server:
        target = Target(OURS[kind], server)
        while target.acknowledged < last and (until is None or time.monotonic() < until) and not target.faults:
            target.run(64, 600, number=min(_CHUNK, mark - target.acknowledged))
            if target.acknowledged >= mark:
                mark = min(2 * mark, last)
                held.append((target.acknowledged, server.rss()))
                print(f"  {OURS[kind]}: {held[-1][0]:,} deliveries, {held[-1][1] / _MB:.0f} MB", flush=True)
        held.append((target.acknowledged, server.rss()))
    part.faults += target.faults
    if (kept := count(url, "inbox_message")) != target.acknowledged:
        part.faults.append(f"{OURS[kind]}: {target.acknowledged} acknowledged, {kept} kept")
    databases.drop(url)
    begun = next(rss for deliveries, rss in held if deliveries >= min(first, target.acknowledged))
    reached, ended = held[-1]
    rows = [(f"{deliveries:,}", _megabytes(rss)) for deliveries, rss in dict(held).items()]
    part.tables.append(Table(f"{OURS[kind]}, under load", ("deliveries", "MB"), rows))
    promise = f"{OURS[kind]}: memory after {reached:,} deliveries of that after {first:,}"
    is_far_enough = reached >= last
    part.bars.append(Bar(promise, _one(ended / begun) if is_far_enough else None, 1.05, is_ceiling=True))
    if not is_far_enough:
        part.about += f"{OURS[kind]} came to {reached:,} of {last:,} deliveries in the time that there was.\n"


def _one(figure: float) -> Spread:
    return Spread.of([figure])


def _megabytes(size: int) -> str:
    return f"{size / _MB:.0f}"
