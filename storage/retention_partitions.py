"""Retention by partition: check, detach in one commit, count, then drop or keep."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy import TextClause, text

from storage import partitions, retention_runs
from storage.database import Unit
from storage.ids import first_id
from storage.partitions import Partition
from storage.retention_runs import Ask
from storage.tables_support import RetentionRun
from storage.types import RetentionRule, RetentionStatus

#: By rule: the table whose partitions it takes.
TABLES: Final = {
    RetentionRule.INBOX: "inbox_message",
    RetentionRule.HISTORY: "transition",
    RetentionRule.ATTEMPTS: "delivery_attempt",
}

#: Rows that one step looks at: reading only, so that it may be more than a batch that writes.
_WINDOW: Final = 5000

#: Milliseconds that detaching waits for its locks.
_LOCK_MS: Final = 1500  # an autovacuum of an old partition gives way after a second

#: How many of what is in the way are named.
_NAMED: Final = 5

_NIL: Final = "00000000-0000-0000-0000-000000000000"

_NOT_OVER: Final = "(p.phase IN ('open', 'processing', 'authorised') OR p.review IS NOT NULL OR p.changed_at >= :until)"

#: By rule: the next ids to be looked at, and what among them stands in the way of letting them go.
_WINDOWS: Final = {
    RetentionRule.INBOX: "SELECT id FROM {name} WHERE id > :after ORDER BY id LIMIT :window",
    RetentionRule.HISTORY: "SELECT id FROM payment WHERE id >= :since AND id < :end AND id > :after "
    "ORDER BY id LIMIT :window",
    RetentionRule.ATTEMPTS: "SELECT id FROM outbox_message WHERE id >= :since AND id < :end AND id > :after "
    "ORDER BY id LIMIT :window",
}
_IN_THE_WAY: Final = {
    RetentionRule.INBOX: "SELECT m.id FROM {name} AS m "  # noqa: S608 - our own words
    "WHERE m.id > :after AND m.id <= :upto "
    "AND (EXISTS (SELECT FROM inbox_queue AS q WHERE q.message_id = m.id) "
    "OR EXISTS (SELECT FROM decision AS d JOIN payment AS p ON p.id = d.payment_id "
    f"WHERE d.message_id = m.id AND {_NOT_OVER})) LIMIT :named",
    RetentionRule.HISTORY: "SELECT p.id FROM payment AS p "  # noqa: S608 - our own words
    "WHERE p.id >= :since AND p.id > :after AND p.id <= :upto "
    f"AND {_NOT_OVER} LIMIT :named",
    RetentionRule.ATTEMPTS: "SELECT outbox_id FROM outbox_queue WHERE outbox_id >= :since "
    "AND outbox_id > :after AND outbox_id <= :upto AND status = 'pending' LIMIT :named",
}

#: What became pending again since it was looked at; an index serves each.
_AGAIN: Final = {
    RetentionRule.INBOX: "SELECT 1 FROM inbox_queue WHERE message_id >= :since AND message_id < :end LIMIT 1",
    RetentionRule.HISTORY: "SELECT 1 FROM payment WHERE review IS NOT NULL AND id >= :since AND id < :end LIMIT 1",
    RetentionRule.ATTEMPTS: "SELECT 1 FROM outbox_queue WHERE status = 'pending' "
    "AND outbox_id >= :since AND outbox_id < :end LIMIT 1",
}

#: What counts the redeliveries of the messages that are counted.
_FORGET: Final = "DELETE FROM inbox_redelivery WHERE message_id > :after AND message_id <= :end"

_COUNTS: Final = {
    RetentionRule.INBOX: "SELECT count(*), coalesce(sum((SELECT count(d.payment_id) FROM {decisions} AS d "
    "WHERE d.message_id = id)), 0)",
    RetentionRule.HISTORY: "SELECT count(*), 0",
    RetentionRule.ATTEMPTS: "SELECT count(*), 0",
}


def old(unit: Unit, ask: Ask) -> list[Partition]:
    """Return the rule's partitions that end before the limit, the oldest first."""
    if unit.dialect != "postgresql":
        return []
    end = first_id(ask.until)
    return [part for part in partitions.existing(unit, TABLES[ask.rule]) if part.until <= end]


def begin(unit: Unit, ask: Ask, part: Partition) -> RetentionRun:
    """Build the run that takes this partition."""
    return retention_runs.begin(unit, ask, since_id=part.since or None, until_id=part.until, partition=part.name)


def step(unit: Unit, run: RetentionRun, *, drops: bool) -> None:
    """Do the next step: check some rows, detach, count or drop.

    The caller stores the run in the same commit.
    """
    rule = RetentionRule(run.rule)
    if run.status == RetentionStatus.DETACHED:
        if _count(unit, run, rule):
            for name in _tables(run) if drops else ():
                unit.execute(text(f"DROP TABLE {name}"))
            run.status = RetentionStatus.DONE.value
        return
    bounds = {"since": run.since_id or _NIL, "end": run.until_id, "after": run.position or _NIL}
    window = list(unit.execute(_text(_WINDOWS[rule], run), {**bounds, "window": _WINDOW}).scalars())
    if not window:
        _detach(unit, run, rule, bounds)
        return
    last = str(window[-1])
    until = run.began_at - timedelta(days=run.days)
    found = {**bounds, "upto": last, "until": until, "named": _NAMED}
    run.seen += len(window)
    in_the_way = [
        str(each) for each in unit.execute(_text(_IN_THE_WAY[rule], run), _used(_IN_THE_WAY[rule], found)).scalars()
    ]
    run.position, run.held_back = last, in_the_way
    if in_the_way:
        run.status = RetentionStatus.HELD.value


def _detach(unit: Unit, run: RetentionRun, rule: RetentionRule, bounds: dict[str, str]) -> None:
    table = TABLES[rule]
    unit.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MS}"))
    unit.execute(text(f"LOCK TABLE {', '.join(_tables(run))} IN ACCESS EXCLUSIVE MODE"))
    if unit.execute(_text(_AGAIN[rule], run), _used(_AGAIN[rule], bounds)).first():
        run.status = RetentionStatus.HELD.value
        return
    for parent, name in zip((table, *partitions.COMPANIONS.get(table, ())), _tables(run), strict=True):
        unit.execute(text(f"ALTER TABLE {parent} DETACH PARTITION {name}"))
        if parent in partitions.IMMUTABLE:  # the trigger of the whole table is gone from it
            unit.execute(
                text(
                    f"CREATE TRIGGER {parent}_append_only BEFORE UPDATE OR DELETE ON {name} "
                    f"FOR EACH ROW EXECUTE FUNCTION {parent}_append_only()"
                )
            )
    run.status, run.position = RetentionStatus.DETACHED.value, None


def _tables(run: RetentionRun) -> list[str]:
    """Return the run's partition and those of its companions."""
    return partitions.with_companions(str(run.partition))


def _count(unit: Unit, run: RetentionRun, rule: RetentionRule) -> bool:
    """Count some rows of the detached partition; return whether that was all."""
    by, after = partitions.PARTITIONED[TABLES[rule]], run.position or _NIL
    ids = f"SELECT {by} FROM {run.partition} WHERE {by} > :after ORDER BY {by}"  # noqa: S608 - our names
    end = unit.execute(text(f"{ids} OFFSET {_WINDOW - 1} LIMIT 1"), {"after": after}).scalar()
    where, bounds = f"{by} > :after", {"after": after}
    if end is not None:
        where, bounds = f"{where} AND {by} <= :end", {"after": after, "end": str(end)}
    if rule is RetentionRule.INBOX:
        unit.execute(text(_FORGET), {"after": after, "end": end or run.until_id})
    counts = _COUNTS[rule].format(decisions=_tables(run)[-1])
    rows, statements = unit.execute(text(f"{counts} FROM {run.partition} WHERE {where}"), bounds).one()
    run.rows, run.statements = run.rows + int(rows), run.statements + int(statements)
    run.position = None if end is None else str(end)
    run.seen += int(rows)
    return end is None


def _text(statement: str, run: RetentionRun) -> TextClause:
    return text(statement.format(name=run.partition))


def _used(statement: str, values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if f":{name}" in statement}
