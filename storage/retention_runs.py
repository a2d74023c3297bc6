"""Runs of retention: one sealed row for each run of a rule, for the audit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update

from storage import hashing
from storage.columns import table_of
from storage.database import Unit, values
from storage.ids import first_id, new_id
from storage.tables_support import RetentionRun
from storage.types import CLOCK_WAS_WRONG, RetentionRule, RetentionStatus

_table = table_of(RetentionRun)

_ONGOING = (RetentionStatus.RUNNING, RetentionStatus.DETACHED)


@dataclass(frozen=True, slots=True)
class Ask:
    """A wish to run a rule."""

    rule: RetentionRule
    days: int
    asked_by: str
    now: datetime

    @property
    def until(self) -> datetime:
        """The instant before which rows are deleted."""
        return self.now - timedelta(days=self.days)


def ongoing(unit: Unit, rule: RetentionRule) -> RetentionRun | None:
    """Return the rule's unfinished run, if there is one."""
    query = select(_table).where(_table.c.rule == rule, _table.c.status.in_(_ONGOING))
    return unit.first(RetentionRun, query.order_by(_table.c.id.desc()).limit(1))


def last(unit: Unit, rule: RetentionRule) -> RetentionRun | None:
    """Return the rule's last run."""
    query = select(_table).where(_table.c.rule == rule).order_by(_table.c.id.desc()).limit(1)
    return unit.first(RetentionRun, query)


def is_due(run: RetentionRun | None, now: datetime, every: timedelta) -> bool:
    """Return whether the last run began long enough ago, or in a wrong clock's future."""
    return run is None or not now - every < run.began_at <= now + CLOCK_WAS_WRONG


def every(unit: Unit, *, limit: int | None = None) -> list[RetentionRun]:
    """Return the runs, the newest first."""
    return unit.all(RetentionRun, select(_table).order_by(_table.c.id.desc()).limit(limit))


def held_since(unit: Unit, rule: RetentionRule, since: datetime, now: datetime) -> set[str]:
    """Return the rule's partitions that were held back after that instant."""
    began = _table.c.began_at
    query = select(_table.c.partition).where(_table.c.rule == rule, _table.c.status == RetentionStatus.HELD)
    return set(unit.execute(query.where(began > since, began <= now + CLOCK_WAS_WRONG)).scalars())


def begin(
    unit: Unit,
    ask: Ask,
    *,
    since_id: str | None = None,
    until_id: str | None = None,
    position: str | None = None,
    partition: str | None = None,
    held_back: Sequence[str] = (),
) -> RetentionRun:
    """Insert a new run."""
    run = RetentionRun(
        id=new_id(),
        rule=ask.rule.value,
        days=ask.days,
        asked_by=ask.asked_by,
        status=RetentionStatus.RUNNING.value,
        began_at=ask.now,
        changed_at=ask.now,
        resume_at=ask.now,
        since_id=since_id,
        until_id=until_id or first_id(ask.until),
        position=position,
        held_back=list(held_back),
        partition=partition,
    )
    run.seal = unit.sealer.seal(hashing.retention_run(run))
    unit.execute(insert(_table), values(run))
    return run


def keep(unit: Unit, run: RetentionRun) -> None:
    """Every column of the run is as given."""
    run.seal = unit.sealer.seal(hashing.retention_run(run))
    unit.execute(update(_table).where(_table.c.id == run.id).values(**values(run)))
