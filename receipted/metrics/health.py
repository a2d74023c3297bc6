"""Liveness and readiness of this process and its group, by loops and database."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from statemachine.errors import ServiceError
from statemachine.histograms import Counts, counts
from storage import counts as storage_counts
from storage import migrate
from storage.database import Database
from storage.errors import SchemaOutdated

#: Loops whose steps may take hours: a reconciliation, or a partition that is moved.
_LONG_STEP_PREFIXES: Final = ("reconcile.", "housekeeping")

#: Loops that decide and deliver; all others are duties beside them.
MAIN_LOOPS: Final = frozenset({"inbox", "outbox"})

#: Seconds for which one check of the database is reused, and after which it counts as away.
_MAX_AGE_S: Final = 1.0
_READ_TIMEOUT_S: Final = 3.0

#: Seconds without a word of a process that works, after which it counts as gone. It speaks each second, and is begun
#: again within half a minute of its end.
_SILENCE_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class LoopFailure:
    """A loop that keeps failing and being retried."""

    loop: str
    error: str  #: code of a named failure, or the exception's type
    failures: int  #: in a row
    seconds: float  #: since the first of them
    is_bug: bool  #: of the last: no failure that has a name

    @property
    def is_main(self) -> bool:
        """True for a loop that decides or delivers."""
        return loop_family(self.loop) in MAIN_LOOPS


@dataclass(slots=True)
class _FailureRun:
    began: float
    failures: int = 0
    error: str = ""
    is_bug: bool = False


class LoopMonitor:
    """Steps and failures of this process's loops, by the names of their tasks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._beats: dict[str, float] = {}
        self._failing: dict[str, _FailureRun] = {}
        self.failed: list[str] = []  #: loops that have ended, which only a bug of the loop itself can do
        self.failures: Counts = counts()  #: by family of loops, and "storage" or "bug"

    def begin_step(self) -> None:
        """Note that the calling loop begins a step."""
        task = asyncio.current_task()
        if task is not None:
            self._beats[task.get_name()] = self._monotonic()

    def stalled(self, seconds: float) -> list[str]:
        """Return loops whose last step began longer ago."""
        since = self._monotonic() - seconds
        return [name for name, at in self._beats.items() if at < since and not name.startswith(_LONG_STEP_PREFIXES)]

    def end_step(self, fault: Exception | None) -> None:
        """Note that the calling loop has ended a step, with its exception if any."""
        task = asyncio.current_task()
        if task is None:
            return
        name = task.get_name()
        if fault is None:
            self._failing.pop(name, None)
            return
        failing = self._failing.setdefault(name, _FailureRun(self._monotonic()))
        failing.failures += 1
        failing.is_bug = not isinstance(fault, ServiceError)
        failing.error = fault.code if isinstance(fault, ServiceError) else type(fault).__name__
        self.failures[loop_family(name), "bug" if failing.is_bug else "storage"] += 1

    def failures_now(self) -> list[LoopFailure]:
        """Return the loops that fail now."""
        now = self._monotonic()
        return [
            LoopFailure(name, found.error, found.failures, max(now - found.began, 0.0), found.is_bug)
            for name, found in self._failing.copy().items()
        ]


def loop_family(loop: str) -> str:
    """Return the loop's name without its number or account."""
    return loop.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Health:
    """Causes of bad health with details; none where all is well."""

    causes: list[dict[str, Any]] = field(default_factory=list)
    inbox_lag_seconds: float | None = None  #: of the oldest undecided message; None where that is not known
    failing: list[dict[str, Any]] = field(default_factory=list)  #: loops that fail and are tried again
    held_payments: list[str] = field(default_factory=list)  #: another session holds them, and their messages wait

    @property
    def is_well(self) -> bool:
        """True if nothing is wrong."""
        return not self.causes


class HealthChecks:
    """Checks for the probes of liveness and readiness."""

    def __init__(
        self,
        database: Database,
        pulse: LoopMonitor,
        clock: Callable[[], datetime],
        *,
        stalled_after: float,
        lag_after: timedelta | None,
        held: Callable[[], list[str]] = list,
        others: Callable[[], list[tuple[float, Health]]] = list,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the checks; `held` returns payments that another session holds.

        `others` returns the health of the processes beside this one that work, with its age in seconds.

        `lag_after` is None where the process receives: it goes on recording, however late the worker is.
        """
        self._database = database
        self._pulse = pulse
        self._clock = clock
        self._stalled_after = stalled_after
        self._lag_after = lag_after
        self._held = held
        self._others = others
        self._monotonic = monotonic
        self._check: asyncio.Task[Health] | None = None
        self._checked_at = 0.0

    def alive(self) -> Health:
        """Check that the loops go on, of this process and of those beside it.

        Never reads the database. The event loop goes on, since it answers.
        """
        found = self.own()
        for age, other in self._others():
            silent = [{"cause": "process_silent", "seconds": round(age)}] if age > _SILENCE_LIMIT_S else []
            found = Health(
                [*found.causes, *silent, *other.causes],
                failing=[*found.failing, *other.failing],
                held_payments=[*found.held_payments, *other.held_payments],
            )
        return found

    def own(self) -> Health:
        """Check that the loops of this process go on."""
        causes: list[dict[str, Any]] = [{"cause": "loop_failed", "loop": name} for name in self._pulse.failed]
        causes += [{"cause": "loop_stalled", "loop": name} for name in self._pulse.stalled(self._stalled_after)]
        causes += [
            {"cause": "loop_failing", "loop": each.loop, "error": each.error, "seconds": round(each.seconds)}
            for each in self._pulse.failures_now()
            if each.is_main and each.is_bug and each.seconds > self._stalled_after
        ]
        return Health(causes, failing=self._failing(), held_payments=self._held())

    def _failing(self) -> list[dict[str, Any]]:
        """Return loops that fail now; a side duty among them does not make this unready."""
        return [
            {"loop": each.loop, "error": each.error, "failures": each.failures, "seconds": round(each.seconds)}
            for each in self._pulse.failures_now()
        ]

    async def ready(self) -> Health:
        """Check that it can work: alive, database there, schema newest, worker not late."""
        alive = self.alive()
        now = self._monotonic()
        if self._check is None or (self._check.done() and now - self._checked_at > _MAX_AGE_S):
            self._checked_at = now
            self._check = asyncio.create_task(asyncio.to_thread(self._check_database))
        await asyncio.wait([self._check], timeout=_READ_TIMEOUT_S)
        if not self._check.done():
            causes = [*alive.causes, {"cause": "storage_unavailable", "after_seconds": _READ_TIMEOUT_S}]
            return replace(alive, causes=causes)
        found = self._check.result()
        causes = [*alive.causes, *found.causes]
        return replace(alive, causes=causes, inbox_lag_seconds=found.inbox_lag_seconds)

    def _check_database(self) -> Health:
        try:
            if migrate.current(self._database) != _newest():
                raise SchemaOutdated
            with storage_counts.bounded_read(self._database) as unit:
                since = storage_counts.pending_since(unit)
            refusal = self._database.takes_no_writes()
        except ServiceError as fault:
            return Health([{"cause": fault.code}])
        lag = max(self._clock() - since, timedelta(0)) if since is not None else timedelta(0)
        is_late = self._lag_after is not None and lag > self._lag_after
        causes: list[dict[str, Any]] = [{"cause": refusal}] if refusal is not None else []
        causes += [{"cause": "inbox_lag", "seconds": round(lag.total_seconds(), 3)}] if is_late else []
        return Health(causes, round(lag.total_seconds(), 3))


@cache
def _newest() -> str:
    return migrate.newest()
