"""The worker: events per second with history, hash chain, payments and effects, beside a loop written by hand."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tests.benchmarks import driver_loop
from tests.benchmarks.config import ROOT
from tests.benchmarks.databases import BOTH, POSTGRESQL, SQLITE, Databases, rows, settle
from tests.benchmarks.figures import Bar, Part, Plan, Spread, Table, number, prose, ratios
from tests.benchmarks.filling import fill
from tests.benchmarks.measuring import rounds

ABOUT: Final = prose("""
*receipted* is `InboxWorker.step` until the inbox is empty, from settings as an operator would have them, so on
PostgreSQL two batches at once: events are
decoded, decided by the lifecycle's table, and committed durably as transitions with their hash chain, payments with
their seal, effects, decisions with their digest, and one log line each.
Of three events of a payment two move it and the last owes an effect.
The database holds 6,666 payments before, and 20,000 events are pending.
*driver loop* is `tests/benchmarks/driver_loop.py`: sqlite3, or asyncpg with one statement for each table and a thousand
events in a transaction.
It leaves the same rows, and the audit finds no fault in them; it knows one provider and two moves, logs nothing, leaves
out when to ask next, and one bad event ends it.
The processor time is that of the process alone, without PostgreSQL's own.
""")

#: Payments and events that are there before, so that no index is empty and no plan is made for an empty table.
_BEFORE: Final = 19_998
_PENDING: Final = 20_000
_ONE: Final = 10_000  #: events of one payment, beside as many payments with one event
#: Seconds after which a run ends, however much is left.
_LIMIT: Final = 2.5

TARGETS: Final = {SQLITE: 40_000, POSTGRESQL: 30_000}


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the ways in which an inbox is emptied."""

    name: str
    kind: str
    module: str = "working"
    processes: int = 1
    per_payment: int = 3
    pending: int = _PENDING


@dataclass(frozen=True, slots=True)
class Emptied:
    """What was measured in one run."""

    per_second: float
    us: float  #: wall clock for each event
    cpu_us: float  #: of the processes


NAMES: Final = {SQLITE: "SQLite", POSTGRESQL: "PostgreSQL"}


def _ours(kind: str) -> Variant:
    return Variant(f"receipted, {NAMES[kind]}", kind)


def _by_hand(kind: str) -> Variant:
    return Variant(f"driver loop, {NAMES[kind]}", kind, "driver_loop")


def _one_payment(kind: str) -> Variant:
    return Variant(f"receipted, {NAMES[kind]}, one payment", kind, per_payment=_ONE, pending=_ONE)


def _many_payments(kind: str) -> Variant:
    return Variant(f"receipted, {NAMES[kind]}, as many payments", kind, per_payment=1, pending=_ONE)


_TWO: Final = Variant("two of receipted, PostgreSQL", POSTGRESQL, processes=2)


def measure(databases: Databases, plan: Plan) -> Part:
    """Everything about the worker."""
    part = Part("worker", "The worker", ABOUT)
    prepared = Prepared(databases)
    speed = [variant for kind in BOTH for variant in (_ours(kind), _by_hand(kind))] + [_TWO]
    shape = [variant for kind in BOTH for variant in (_one_payment(kind), _many_payments(kind))]
    found = _emptied(part, databases, prepared, speed, plan.rounds, 0.6 * plan.seconds)
    found |= _emptied(part, databases, prepared, shape, min(plan.rounds, 3), 0.4 * plan.seconds)
    for kind in BOTH:
        own = [run.per_second for run in found[_ours(kind)]]
        by_hand = [run.per_second for run in found[_by_hand(kind)]]
        part.bars.append(Bar(f"{_ours(kind).name}: events/s", Spread.of(own), TARGETS[kind]))
        part.bars.append(Bar(f"{_ours(kind).name}: events/s of the driver loop's", ratios(own, by_hand), 0.75))
    two = ratios(_speeds(found, _TWO), _speeds(found, _ours(POSTGRESQL)))
    part.bars.append(Bar(f"{_TWO.name}: events/s of one's", two, 1.5))
    for kind in BOTH:
        cost = ratios([run.us for run in found[_one_payment(kind)]], [run.us for run in found[_many_payments(kind)]])
        promise = f"{_ours(kind).name}: an event of one payment's 10,000, of one of 10,000 payments'"
        part.bars.append(Bar(promise, cost, 1.05, is_ceiling=True))
    table = [
        (
            variant.name,
            str(len(runs)),
            str(Spread.of(run.per_second for run in runs)),
            number(Spread.of(run.us for run in runs).median),
            number(Spread.of(run.cpu_us for run in runs).median),
        )
        for variant, runs in found.items()
    ]
    part.tables.append(
        Table("Until the inbox is empty", ("loop", "rounds", "events/s", "µs an event", "processor µs"), table)
    )
    prepared.drop()
    return part


def _speeds(found: dict[Variant, list[Emptied]], variant: Variant) -> list[float]:
    return [run.per_second for run in found[variant]]


class Prepared:
    """Databases with events pending, made once and copied for each run."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._before: dict[str, str] = {}
        self._pending: dict[tuple[str, int, int], str] = {}

    def copy(self, variant: Variant) -> str:
        """The URL of a database of its own."""
        key = (variant.kind, variant.pending, variant.per_payment)
        if key not in self._pending:
            url = self._databases.copy(self._history(variant.kind))
            fill(url, variant.pending, per_payment=variant.per_payment)
            settle(url)
            self._pending[key] = url
        return self._databases.copy(self._pending[key])

    def _history(self, kind: str) -> str:
        if kind not in self._before:
            url = self._databases.fresh(kind)
            fill(url, _BEFORE)
            driver_loop.empty(url)
            settle(url)
            self._before[kind] = url
        return self._before[kind]

    def drop(self) -> None:
        """All of them are gone."""
        for url in (*self._before.values(), *self._pending.values()):
            self._databases.drop(url)


def _emptied(
    part: Part,
    databases: Databases,
    prepared: Prepared,
    variants: Sequence[Variant],
    most: int,
    seconds: float,
) -> dict[Variant, list[Emptied]]:
    found: dict[Variant, list[Emptied]] = {variant: [] for variant in variants}
    for _, variant in rounds(variants, most, seconds):
        url = prepared.copy(variant)
        found[variant].append(empty(url, variant.module, variant.processes, databases.folder / "worker.log"))
        wrong = [tuple(row) for row in rows(url, _WRONG)]
        if wrong:
            part.faults.append(f"{variant.name}: messages that ended {wrong}")
        databases.drop(url)
    return found


_WRONG: Final = "SELECT status, count(*) FROM inbox_queue WHERE status <> 'pending' GROUP BY status"


def empty(url: str, module: str, processes: int, log: Path) -> Emptied:
    """So many processes empty the inbox together, or as far as they come in the time."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", url, str(_LIMIT)]
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("ab"))
        started = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT)
            )
            for _ in range(processes)
        ]
        for process in started:
            if _pipe(process.stdout).readline() != b"ready\n":
                raise RuntimeError(f"{module} did not start:\n{log.read_text()[-2000:]}")
        for process in started:
            _pipe(process.stdin).write(b"\n")
            _pipe(process.stdin).flush()
        told = [json.loads(_pipe(process.stdout).readline()) for process in started]
    return _summed(told)


def _summed(told: Iterable[dict[str, Any]]) -> Emptied:
    runs = list(told)
    done, lasted = sum(run["events"] for run in runs), max(run["seconds"] for run in runs)
    return Emptied(done / lasted, lasted / done * 1e6, sum(run["cpu"] for run in runs) / done * 1e6)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
