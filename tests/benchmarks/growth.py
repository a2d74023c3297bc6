"""How speed changes as a database grows: intake, worker and the pages that a person asks for, and bytes per event."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from receipted.cli import lists
from storage import payment_history, payments, search
from storage.database import Unit
from storage.search import PageCursor, RowFilter
from tests.benchmarks import driver_loop
from tests.benchmarks.chart import drawn
from tests.benchmarks.databases import BOTH, POSTGRESQL, Databases, opened, rows, settle, size
from tests.benchmarks.figures import Part, Table, number, prose
from tests.benchmarks.filling import fill
from tests.benchmarks.growing import Growing
from tests.benchmarks.measuring import Target
from tests.benchmarks.servers import served
from tests.benchmarks.worker import NAMES, empty

ABOUT: Final = prose("""
Databases of so many payments, each with a message, a transition and an effect that is delivered, filled by SQL.
Then deliveries come in on 64 connections for a second, 4,000 events of new payments are applied, and the pages of the
command line are read, each by the function that the command calls, fifty rows a page.
One run for each size: the course matters here, and not the single figure.
""")

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
_COPIED_UP_TO: Final = 100_000  #: a larger database is measured in place, being the last
_EVENTS: Final = 4000
_PAGE: Final = 50
_READS: Final = 5
_PER_SIZE: Final = 15.0  #: seconds that measuring one size takes, at a guess


def _last(unit: Unit) -> str:
    return payments.find(unit, reference="order-500")[0].id


#: As lists begin.
_OLDEST: Final = PageCursor(_PAGE, before=lists.FIRST)


def _sifted(unit: Unit, shelf: search.TableSpec, **equal: str) -> Any:
    return search.page(
        unit, lists.with_all_columns(shelf), search.RowFilter(equal), search.PageCursor(_PAGE, is_ascending=True)
    )


#: What a person asks for.
PAGES: Final[dict[str, Callable[[Unit, str], Any]]] = {
    "payments": lambda unit, _id: search.payments(unit, RowFilter(), _OLDEST),
    "payment's timeline": payment_history.read,
    "inbox": lambda unit, _id: _sifted(unit, search.MESSAGES),
    "inbox, parked": lambda unit, _id: _sifted(unit, search.MESSAGES, status="parked"),
    "outbox": lambda unit, _id: _sifted(unit, search.OWED),
    "outbox, dead": lambda unit, _id: _sifted(unit, search.OWED, status="dead"),
    "payments by reference": lambda unit, _id: search.payments(unit, RowFilter({"reference": "order-501"}), _OLDEST),
}


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one size."""

    kind: str
    payments: int
    intake: float  #: deliveries a second
    worker: float  #: events a second
    pages: dict[str, float]  #: milliseconds


def measure(databases: Databases, seconds: float) -> Part:
    """Every size that can be filled and measured in the time; bytes per event before that."""
    until = time.monotonic() + seconds
    part = Part("growth", "As it grows", ABOUT)
    part.tables.append(_on_disk(databases))
    growing = {kind: Growing(databases.fresh(kind)) for kind in BOTH}
    points: list[Point] = []
    took = 0.0
    for payments_ in SIZES:
        expected = 11 * took + len(BOTH) * _PER_SIZE
        kinds = BOTH if time.monotonic() + expected < until else ()
        if not kinds:
            part.about += f"There was no time left for {payments_:,} payments.\n"
            break
        began = time.monotonic()
        with ThreadPoolExecutor(len(kinds)) as pool:
            list(pool.map(lambda kind: growing[kind].grow(payments_), kinds))  # noqa: B023 - done within the turn
        took = time.monotonic() - began
        points += [_measured(part, databases, kind, growing[kind].url, payments_) for kind in kinds]
    part.tables += [_speeds(points), _pages(points)]
    part.chart = drawn(
        {NAMES[kind]: [(p.payments, p.intake, p.worker) for p in points if p.kind == kind] for kind in BOTH}
    )
    return part


def _measured(part: Part, databases: Databases, kind: str, original: str, payments_: int) -> Point:
    is_copied = payments_ <= _COPIED_UP_TO
    pages = _read_pages(original)
    url = databases.copy(original) if is_copied else original
    fill(url, _EVENTS)
    settle(url)
    worker = empty(url, "working", 1, databases.folder / "growth.log").per_second
    before = _kept(url)
    with served("web", url, log=databases.folder / "growth.log") as server:
        target = Target(f"{NAMES[kind]} with {payments_:,} payments", server)
        intake = target.run(64, 1.0, warm_up=300).per_second
    part.faults += target.faults
    if (kept := _kept(url) - before) != target.acknowledged:
        part.faults.append(f"{target.name}: {target.acknowledged} acknowledged, {kept} kept")
    if is_copied:
        databases.drop(url)
    print(f"  {target.name}: {intake:,.0f} deliveries/s, {worker:,.0f} events/s", flush=True)
    return Point(kind, payments_, intake, worker, pages)


def _kept(url: str) -> int:
    return int(rows(url, "SELECT count(*) FROM inbox_message")[0][0])


def _read_pages(url: str) -> dict[str, float]:
    """Milliseconds of each page; the median of some reads, after one."""
    found = {}
    with opened(url) as database, database.read() as unit:
        one = _last(unit)
        for name, read in PAGES.items():
            read(unit, one)
            taken = []
            for _ in range(_READS):
                began = time.perf_counter()
                read(unit, one)
                taken.append((time.perf_counter() - began) * 1000)
            found[name] = statistics.median(taken)
    return found


def _on_disk(databases: Databases) -> Table:
    """Bytes for each event, when all is applied: of three events of a payment."""
    found = []
    for kind in BOTH:
        url = databases.fresh(kind)
        empty_size, count = size(url), 9_999
        fill(url, count)
        arrived = size(url)
        driver_loop.empty(url)
        settle(url)
        bodies = rows(url, "SELECT avg(length(body)) FROM inbox_message")[0][0]
        applied = size(url)
        found.append(
            (
                NAMES[kind],
                number(float(bodies)),
                number((arrived - empty_size) / count),
                number((applied - empty_size) / count),
            )
        )
        databases.drop(url)
    head = ("database", "bytes of the body", "recorded", "recorded and applied")
    return Table("Bytes on the disk for each event, indexes included and the log not", head, found)


def _speeds(points: list[Point]) -> Table:
    found = [
        (NAMES[point.kind], f"{point.payments:,}", number(point.intake), number(point.worker))
        for point in sorted(points, key=lambda point: (point.kind != POSTGRESQL, point.payments))
    ]
    return Table("Speed by size", ("database", "payments", "deliveries/s", "events/s"), found)


def _pages(points: list[Point]) -> Table:
    found = [
        (NAMES[point.kind], f"{point.payments:,}", *(number(point.pages[name]) for name in PAGES))
        for point in sorted(points, key=lambda point: (point.kind != POSTGRESQL, point.payments))
    ]
    return Table("Milliseconds of a page by size", ("database", "payments", *PAGES), found)
