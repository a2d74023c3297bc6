"""The way in: durable deliveries per second and their latency, beside endpoints that do nothing, in the same rounds."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.databases import POSTGRESQL, SQLITE, Databases, count
from tests.benchmarks.figures import Bar, Part, Plan, Spread, Table, number, prose, ratios
from tests.benchmarks.measuring import Run, Target, rounds
from tests.benchmarks.servers import served

ABOUT: Final = prose("""
*receipted* is the application as `receipted web` serves it: HTTP, HMAC-SHA256 over the body, one JSON log line,
digests, and the delivery committed with fsync before the 200.
SQLite is in WAL mode with `synchronous=FULL`; PostgreSQL has `fsync`, `synchronous_commit`, `full_page_writes` and
autovacuum on, and is reached over its Unix socket.
*Starlette* reads the body and answers 200 with a JSONResponse; *ASGI* is a bare callable that does the same: no
signature, no log, no storage.
*naive* verifies the same signature with the standard library, opens an SQLModel session and commits, for each request.
All run in one process each under the same flags of uvicorn, the same protocol class, and with garbage frozen after the
start.
*duplicates* delivers only what was delivered before.
Deliveries have bodies of 600, 900 and 1,200 bytes and eight headers; each has a random id and is signed before the
clock starts.
The load generator shares the machine; what it takes for a delivery is in the table.
""")

_BARE: Final = "Starlette"
_POINTS: Final = (1, 64, 256)
_REPEATED: Final = 3000  #: deliveries that are sent over and over
_LARGE: Final = 512
_LIKELY: Final = 60_000.0  #: of the quickest


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the servers that are compared."""

    name: str
    mode: str
    kind: str | None = None
    points: tuple[int, ...] = _POINTS
    processes: int = 1

    @property
    def table(self) -> str:
        """Where its deliveries are kept."""
        return "naive_delivery" if self.mode == "naive" else "inbox_message"


OURS: Final = {SQLITE: "receipted, SQLite", POSTGRESQL: "receipted, PostgreSQL"}

VARIANTS: Final = (
    Variant(_BARE, "starlette"),
    Variant("ASGI", "asgi", points=(64, 256)),
    Variant(OURS[SQLITE], "web", SQLITE),
    Variant(OURS[POSTGRESQL], "web", POSTGRESQL),
    Variant("naive, SQLite", "naive", SQLITE, (64,)),
    Variant("naive, PostgreSQL", "naive", POSTGRESQL, (64,)),
)

PAIRS: Final = (
    Variant(f"two of {_BARE}", "starlette", points=(_LARGE,), processes=2),
    Variant("two of receipted, PostgreSQL", "web", POSTGRESQL, (_LARGE,), processes=2),
)

Runs = dict[tuple[str, object], list[Run]]


def measure(databases: Databases, plan: Plan, seconds: float) -> Part:
    """Everything about one process."""
    part = Part("intake", "The way in", ABOUT)
    runs = compare(part, databases, VARIANTS, plan, seconds, again=True)
    for name in OURS.values():
        for connections, target in ((64, 0.95), (256, 1.2)):
            ratio = ratios(speeds(runs, name, connections), speeds(runs, _BARE, connections))
            part.bars.append(Bar(f"{name}, {connections} connections: deliveries/s of {_BARE}'s", ratio, target))
    for name in OURS.values():
        p99 = ratios([run.p99_ms for run in runs[name, 64]], [run.p99_ms for run in runs[_BARE, 64]])
        part.bars.append(Bar(f"{name}, 64 connections: p99 of {_BARE}'s", p99, 2, is_ceiling=True))
        p50 = ratios([run.p50_ms for run in runs[name, 1]], [run.p50_ms for run in runs[_BARE, 1]])
        part.bars.append(Bar(f"{name}, 1 connection: p50 of {_BARE}'s", p50, 3, is_ceiling=True))
        ratio = ratios(speeds(runs, name, "duplicates"), speeds(runs, _BARE, 64))
        part.bars.append(Bar(f"{name}, duplicates, 64 connections: deliveries/s of {_BARE}'s", ratio, 0.9))
    generator = Spread.of(run.generator_us for run in runs[_BARE, 64])
    part.about += f"With Starlette and 64 connections it takes {generator} microseconds of processor time for each.\n"
    return part


def measure_processes(databases: Databases, plan: Plan, seconds: float) -> Part:
    """Two processes that share one listening socket."""
    about = (
        "Two processes take connections from one listening socket.\n"
        f"There are {_LARGE} connections, spread over the two by the kernel."
    )
    part = Part("processes", "Two processes on one socket", about)
    runs = compare(part, databases, PAIRS, plan, seconds)
    ratio = ratios(speeds(runs, PAIRS[1].name, _LARGE), speeds(runs, PAIRS[0].name, _LARGE))
    part.bars.append(Bar(f"{PAIRS[1].name}, {_LARGE} connections: deliveries/s of {PAIRS[0].name}'s", ratio, 0.8))
    return part


def compare(
    part: Part,
    databases: Databases,
    variants: Iterable[Variant],
    plan: Plan,
    seconds: float,
    *,
    again: bool = False,
) -> Runs:
    """Every variant at each of its points in every round; the part has their table, and what went wrong."""
    runs: Runs = {}
    with ExitStack() as stack:
        started: list[tuple[Variant, str, Target]] = []
        for variant in variants:
            url = databases.empty(variant.kind) if variant.mode == "naive" and variant.kind else ""
            url = databases.fresh(variant.kind) if variant.kind and not url else url
            log = databases.folder / f"{variant.name}.log"
            server = stack.enter_context(served(variant.mode, url, processes=variant.processes, log=log))
            target = Target(variant.name, server)
            target.run(min(variant.points), 0.3, warm_up=200)
            started.append((variant, url, target))
        for _, (variant, _, target) in rounds(started, plan.rounds, plan.seconds):
            for point in variant.points:
                is_short = point == 1 or variant.mode == "naive"  # less is to be seen, and sooner
                run = target.run(point, seconds / 2 if is_short else seconds, most=_LIKELY)
                runs.setdefault((variant.name, point), []).append(run)
            if again and variant.name in OURS.values():
                run = target.run(64, seconds / 2, again=_REPEATED)
                runs.setdefault((variant.name, "duplicates"), []).append(run)
        for variant, url, target in started:
            part.faults += target.faults
            if url and (kept := count(url, variant.table)) != target.acknowledged:
                part.faults.append(f"{variant.name}: {target.acknowledged} acknowledged, {kept} kept")
    part.tables.append(
        _table(
            runs,
            f"Medians of {len(next(iter(runs.values())))} rounds of up to {seconds:g} s, least and most in brackets",
        )
    )
    return runs


def speeds(runs: Runs, name: str, point: object) -> list[float]:
    """Deliveries a second, round by round."""
    return [run.per_second for run in runs[name, point]]


def _table(runs: Runs, title: str) -> Table:
    head = ("server", "connections", "deliveries/s", "p50 ms", "p99 ms", "server µs", "generator µs")
    rows = [
        (
            name,
            f"64, {point}" if isinstance(point, str) else str(point),
            str(Spread.of(run.per_second for run in found)),
            *(
                number(Spread.of(getattr(run, figure) for run in found).median)
                for figure in ("p50_ms", "p99_ms", "server_us", "generator_us")
            ),
        )
        for (name, point), found in sorted(runs.items(), key=lambda one: _order(one[0]))
    ]
    return Table(title, head, rows)


def _order(key: tuple[str, object]) -> tuple[int, str]:
    name, point = key
    return (point if isinstance(point, int) else 1000, name)
