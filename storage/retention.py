"""Retention: delete what is old, by rules that are off by default.

In small batches, each with its record in one commit: a crash costs nothing, and a repeat goes on from there. One
process at a time works, and no faster than it was told. The audit knows from the records what is gone by a rule.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from storage import retention_partitions, retention_rows, retention_runs
from storage.advisory_locks import is_leader
from storage.database import Database, Unit
from storage.retention_runs import Ask
from storage.tables_support import RetentionRun
from storage.types import RetentionRule, RetentionStatus

#: How often a rule runs by itself.
RUN_INTERVAL: Final = timedelta(hours=24)

#: Who runs it then.
SCHEDULE: Final = "schedule"

#: Of the time, the share in which retention works at most, whatever its rate is.
_SHARE: Final = 0.25

_BATCHES: Final[Mapping[RetentionRule, Callable[[Unit, RetentionRun, int], bool]]] = {
    RetentionRule.BODIES: retention_rows.scrub,
    RetentionRule.ATTEMPTS: retention_rows.drop_attempts,
    RetentionRule.KNOWN: retention_rows.forget,
    RetentionRule.REJECTED: retention_rows.drop_rejected,
    RetentionRule.RECONCILIATIONS: retention_rows.drop_reconciliations,
}

#: Only a partition can be let go of: deleting rows one by one is what history's triggers are there to refuse.
NEEDS_PARTITIONS: Final = frozenset({RetentionRule.INBOX, RetentionRule.HISTORY})


@dataclass(frozen=True, slots=True)
class Rules:
    """The age in days at which each rule deletes, and how fast."""

    days: Mapping[RetentionRule, int]
    drops: bool = False  #: whether detached partitions are dropped, or left for whoever archives them
    batch: int = 500
    rows_per_second: float = 1000


@dataclass(frozen=True, slots=True)
class Stepped:
    """The result of one step."""

    run: RetentionRun | None  #: None where nothing is due, or another process is at it
    pause: timedelta  #: until the next step


@dataclass(frozen=True, slots=True)
class Planned:
    """The work that a rule would do now."""

    rule: RetentionRule
    days: int
    until: datetime
    is_possible: bool  #: not on SQLite, where it takes partitions
    partitions: list[str]  #: that are old enough
    last: RetentionRun | None


class Retention:
    """Runs the rules, batch by batch. The loop that calls `step` lives elsewhere."""

    def __init__(self, database: Database, rules: Rules, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock
        self._is_postgresql = database.engine.dialect.name == "postgresql"

    def plan(self) -> list[Planned]:
        """Return what each active rule would do, in the order in which they run."""
        now = self._clock()
        with self._database.read() as unit:
            return [self._planned(unit, Ask(rule, days, SCHEDULE, now)) for rule, days in self._on()]

    def step(self, *, asked_by: str = SCHEDULE, wanted_at: datetime | None = None) -> Stepped:
        """One batch of the first rule that is due: daily, or since somebody wanted it.

        A rule that meets a fault holds up no other; where none of them has anything to do, the fault is raised. Of a
        batch, all is kept or nothing.
        """
        now, faults = self._clock(), list[Exception]()
        for rule, days in self._on():
            if rule in NEEDS_PARTITIONS and not self._is_postgresql:
                continue
            try:
                stepped = self._step(Ask(rule, days, asked_by, now), wanted_at)
            except Exception as fault:  # noqa: BLE001 - raised below
                faults.append(fault)
                continue
            if stepped is not None:
                return stepped
        if faults:
            raise faults[0]
        return Stepped(None, RUN_INTERVAL)

    def _step(self, ask: Ask, wanted_at: datetime | None) -> Stepped | None:
        """Run a batch of one rule; None where it has nothing to do."""
        with self._database.write() as unit:
            if not is_leader(unit, "retention"):
                return Stepped(None, timedelta(seconds=1))
            run = self._run(unit, ask, wanted_at)
            if run is None:
                return None
            if ask.now < run.resume_at < ask.now + timedelta(hours=1):  # whichever process did the last batch
                return Stepped(run, run.resume_at - ask.now)
            return self._batch(unit, run, ask.now)

    def _on(self) -> list[tuple[RetentionRule, int]]:
        return [(rule, self._rules.days[rule]) for rule in RetentionRule if rule in self._rules.days]

    def _planned(self, unit: Unit, ask: Ask) -> Planned:
        takes = ask.rule in retention_partitions.TABLES and self._is_postgresql
        return Planned(
            ask.rule,
            ask.days,
            ask.until,
            self._is_postgresql or ask.rule not in NEEDS_PARTITIONS,
            [part.name for part in retention_partitions.old(unit, ask)] if takes else [],
            retention_runs.last(unit, ask.rule),
        )

    def _run(self, unit: Unit, ask: Ask, wanted_at: datetime | None) -> RetentionRun | None:
        """Return the rule's unfinished run, or a new one where one is due."""
        run = retention_runs.ongoing(unit, ask.rule)
        if run is not None:
            return run
        last = retention_runs.last(unit, ask.rule)
        every = RUN_INTERVAL if wanted_at is None else max(ask.now - wanted_at, timedelta(0))
        if ask.rule in retention_partitions.TABLES and self._is_postgresql:
            # One run takes one partition; one that was held back is tried again the next day, and holds up no other.
            held = retention_runs.held_since(unit, ask.rule, ask.now - every, ask.now)
            free = [part for part in retention_partitions.old(unit, ask) if part.name not in held]
            return retention_partitions.begin(unit, ask, free[0]) if free else None
        if not retention_runs.is_due(last, ask.now, every):
            return None
        if ask.rule is RetentionRule.BODIES and last is not None:
            return retention_runs.begin(unit, ask, since_id=last.position, held_back=last.held_back)
        return retention_runs.begin(unit, ask)

    def _batch(self, unit: Unit, run: RetentionRun, now: datetime) -> Stepped:
        seen, run.changed_at = run.seen, now
        if run.partition is not None:
            retention_partitions.step(unit, run, drops=self._rules.drops)
        elif _BATCHES[RetentionRule(run.rule)](unit, run, self._rules.batch):
            run.status = RetentionStatus.DONE.value
        pause = timedelta(seconds=(run.seen - seen) / self._rules.rows_per_second)
        run.resume_at = now + pause
        retention_runs.keep(unit, run)
        return Stepped(run, pause)


def rested(worked: float, pause: timedelta) -> float:
    """Return the seconds to rest after work, by the rate and a share for others."""
    return max(pause.total_seconds(), worked * (1 / _SHARE - 1))
