"""Time partitions on PostgreSQL, made ahead of time.

Nobody who reads or writes waits for that for longer than a moment: each partition is made in a transaction that gives
up when it does not get its locks at once, and that moves a bounded number of rows.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import text

from storage.advisory_locks import is_leader
from storage.database import Database, Unit
from storage.errors import StorageUnavailable
from storage.ids import first_id, instant_of
from storage.types import CLOCK_WAS_WRONG

#: By table: the column whose range is a range of time. See ADR 0018.
PARTITIONED: Final = {"inbox_message": "id", "transition": "payment_id", "delivery_attempt": "outbox_id"}

#: By table: those whose partitions are made, detached and dropped with its own, by the column of its ids.
COMPANIONS: Final = {"inbox_message": {"decision": "message_id"}}

#: Tables whose rows are never changed; see the triggers of the first migration.
IMMUTABLE: Final = frozenset({"inbox_message", "decision", "transition"})

#: How many periods are there ahead of the current one.
AHEAD: Final = 3

#: Rows that are moved out of the rest at once; a period that has more there becomes several partitions.
MOVED_AT_ONCE: Final = 5000

#: Milliseconds that making a partition waits for its locks, also the last time, when an autovacuum is to give way, and
#: how often it is tried.
_LOCK_MS: Final = 200
_LONG_LOCK_MS: Final = 1500
_TRIES: Final = 12
_LOCK_RETRY_S: Final = 0.25

_BOUNDS: Final = re.compile(r"FOR VALUES FROM \((?:'([^']+)'|MINVALUE)\) TO \((?:'([^']+)'|MAXVALUE)\)")

#: What the tables of partitions are called, while they are attached and afterwards.
NAMES: Final = re.compile(rf"({'|'.join((*PARTITIONED, 'decision'))})_(rest|p\d{{8}}(_\d+)?)")


class Period(StrEnum):
    """The length of a partition."""

    MONTH = "month"
    WEEK = "week"  #: from Monday, UTC
    DAY = "day"

    def begin(self, at: datetime) -> datetime:
        """Return the beginning of the period that the instant is in."""
        day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self is Period.MONTH:
            return day.replace(day=1)
        return day - timedelta(days=day.weekday()) if self is Period.WEEK else day

    def end(self, at: datetime) -> datetime:
        """Return the beginning of the period that follows."""
        return self.begin(self.begin(at) + timedelta(days={"month": 32, "week": 7, "day": 1}[self.value]))


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: the ids from `since` on and below `until`."""

    table: str
    name: str
    since: str  #: "" where it begins with the first id
    until: str


@dataclass(slots=True)
class Kept:
    """The result of one run of `keep_ahead`."""

    made: list[str] = field(default_factory=list)
    moved: dict[str, int] = field(default_factory=dict)  #: rows that had fallen into the rest, by table
    strays: dict[str, int] = field(default_factory=dict)  #: rows of clocks that are wrong by far: they stay there


def keep_ahead(database: Database, now: datetime, period: Period, *, ahead: int = AHEAD) -> Kept:
    """Make the partitions of this period and the next, and of rows in the default one.

    Any number of processes may do it at once; a repeat does nothing. Raises StorageUnavailable, where a table is in
    use for too long: what was made until then stays. Nothing on SQLite.
    """
    kept = Kept()
    if database.engine.dialect.name != "postgresql":
        return kept
    for table in PARTITIONED:
        for since, until in list(_wanted(database, table, now, period, ahead)):
            while True:
                made = _patiently(database, table, since, until)
                if made is None:
                    break
                name, moved, reached = made
                kept.made.append(name)
                if moved:
                    kept.moved[table] = kept.moved.get(table, 0) + moved
                if reached == until:
                    break
                since = reached
        with database.read() as unit:
            strays = unit.execute(text(f"SELECT count(*) FROM {table}_rest")).scalar_one()  # noqa: S608 - our names
        if strays:
            kept.strays[table] = strays
    return kept


def existing(unit: Unit, table: str) -> list[Partition]:
    """Return the table's partitions but for the default one, in order."""
    query = text(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits AS i JOIN pg_class AS c "
        "ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(:parent)"
    )
    found = [(name, _BOUNDS.match(bounds)) for name, bounds in unit.execute(query, {"parent": table})]
    parts = [Partition(table, name, bounds[1] or "", bounds[2]) for name, bounds in found if bounds is not None]
    return sorted(parts, key=lambda part: part.since)


def _wanted(database: Database, table: str, now: datetime, period: Period, ahead: int) -> Iterator[tuple[str, str]]:
    """Ranges of ids that should be partitions and are none, in order."""
    periods, at = [], period.begin(now)
    for _ in range(ahead + 1):
        periods.append((at, period.end(at)))
        at = period.end(at)
    with database.read() as unit:
        taken = [(part.since, part.until) for part in existing(unit, table)]
        gone = _detached(unit, table)
        by, lower = PARTITIONED[table], first_id(now - CLOCK_WAS_WRONG)
        early = text(f"SELECT {by} FROM {table}_rest WHERE {by} >= :lower AND {by} < :upper ORDER BY {by} LIMIT 1")  # noqa: S608 - our names
        late = []
        while found := unit.execute(early, {"lower": lower, "upper": first_id(periods[0][0])}).scalar():
            begin = period.begin(instant_of(str(found)))
            late.append((begin, period.end(begin)))
            lower = first_id(period.end(begin))
    for begin, end in late:
        yield from _uncovered(first_id(begin), first_id(end), sorted([*taken, *gone]))
    for begin, end in periods:
        yield from _uncovered(first_id(begin), first_id(end), taken)


def _uncovered(since: str, until: str, taken: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the parts of a range that are in none of the others, which are in order."""
    for other_since, other_until in taken:
        if other_until <= since or other_since >= until:
            continue
        if other_since > since:
            yield since, other_since
        since = other_until
        if since >= until:
            return
    yield since, until


def _detached(unit: Unit, table: str) -> list[tuple[str, str]]:
    """Return ranges whose partitions retention took: late rows of them stay."""
    query = text("SELECT since_id, until_id FROM retention_run WHERE partition LIKE :names ORDER BY until_id")
    return [(str(since or ""), str(until)) for since, until in unit.execute(query, {"names": f"{table}\\_%"})]


def _patiently(database: Database, table: str, since: str, until: str) -> tuple[str, int, str] | None:
    for left in reversed(range(_TRIES)):
        try:
            with database.write() as unit:
                unit.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MS if left else _LONG_LOCK_MS}"))
                return _make(unit, table, since, until)
        except StorageUnavailable:
            if not left:
                raise
        time.sleep(_LOCK_RETRY_S)  # a free lock sends no signal, and sessions that wait behind this one go first
    return None


def _make(unit: Unit, table: str, since: str, until: str) -> tuple[str, int, str] | None:
    """Make a partition; return its name, rows moved and end, short of `until` if many.

    None where somebody else is at it, or has done it.
    """
    if not is_leader(unit, "partitions") or any(
        part.since < until and since < part.until for part in existing(unit, table)
    ):
        return None
    by, rest = PARTITIONED[table], f"{table}_rest"
    inside = f"FROM {rest} WHERE {by} >= '{since}' AND {by} < '{until}'"
    too_far = unit.execute(text(f"SELECT {by} {inside} ORDER BY {by} OFFSET {MOVED_AT_ONCE} LIMIT 1")).scalar()
    if too_far is not None and str(too_far) > since:
        until = str(too_far)
    name = _free_name(unit, table, since)
    unit.execute(text(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE"))
    # With one lock held, never wait for another: a reader of both tables may have them in the other order, and would be
    # the one that is refused for the deadlock. It is tried again instead.
    for companion in COMPANIONS.get(table, ()):
        unit.execute(text(f"LOCK TABLE {companion}_rest IN ACCESS EXCLUSIVE MODE NOWAIT"))
    moved = _make_one(unit, table, by, name, since, until)
    for (companion, column), beside in zip(COMPANIONS.get(table, {}).items(), with_companions(name)[1:], strict=True):
        _make_one(unit, companion, column, beside, since, until)
    return name, moved, until


def with_companions(name: str) -> list[str]:
    """Return the name of a partition, and the names of those that go with it."""
    found = NAMES.fullmatch(name)
    table = found[1] if found else ""
    return [name, *(companion + name.removeprefix(table) for companion in COMPANIONS.get(table, ()))]


def _make_one(unit: Unit, table: str, by: str, name: str, since: str, until: str) -> int:
    """Make one partition and move its rows there; return how many.

    The caller has the lock of the default partition.
    """
    unit.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS)"))
    moved = _move(unit, table, name, f"{by} >= '{since}' AND {by} < '{until}'")
    if table in IMMUTABLE:
        unit.execute(
            text(
                f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {name} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
            )
        )
    unit.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')"))
    return moved


def _move(unit: Unit, table: str, name: str, where: str) -> int:
    """Move rows from the default partition; nobody else sees it meanwhile."""
    if not unit.execute(text(f"SELECT 1 FROM {table}_rest WHERE {where} LIMIT 1")).first():  # noqa: S608 - our names
        return 0
    if table in IMMUTABLE:  # it is the same row afterwards, in another place of the same table
        unit.execute(text(f"ALTER TABLE {table}_rest DISABLE TRIGGER {table}_append_only"))
    moved = unit.execute(
        text(
            f"WITH gone AS (DELETE FROM {table}_rest WHERE {where} RETURNING *) "  # noqa: S608 - our names
            f"INSERT INTO {name} SELECT * FROM gone"
        )
    ).rowcount
    if table in IMMUTABLE:
        unit.execute(text(f"ALTER TABLE {table}_rest ENABLE TRIGGER {table}_append_only"))
    return moved


def _free_name(unit: Unit, table: str, since: str) -> str:
    """By the day on which it begins; numbered where there is one of that name."""
    name = f"{table}_p{instant_of(since):%Y%m%d}"
    candidates = [name, *(f"{name}_{number}" for number in range(2, 10_000))]
    taken = unit.execute(
        text("SELECT relname FROM pg_class WHERE starts_with(relname, :name)"), {"name": name}
    ).scalars()
    occupied = set(taken)
    return next(each for each in candidates if each not in occupied)
