"""Steps of a migration beside a running service: none holds a lock for long, and a crash costs only the last of them.

PostgreSQL alone. What is done is noted in the table `migration_step`, for transactional steps in the step's own
commit, so that a repeat goes on where the last run ended. Whoever waits for a table in order to change it holds up
everybody who comes after; so a step waits for its locks for a moment only, lets the others pass, and tries again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from storage.errors import StorageUnavailable

#: Milliseconds that a step waits for a lock, and thereby the longest that it makes others wait before it has it.
LOCK_MS: Final = 200

#: Likewise, for every tenth try: longer than PostgreSQL's deadlock_timeout, after which an autovacuum gives way.
LONG_LOCK_MS: Final = 1500
_EVERY: Final = 10

#: Seconds until a step that did not get its locks gives up: somebody reads, or has forgotten to commit, for longer.
PATIENCE_SECONDS: Final = 600.0

#: Rows of one batch, and the share of time in which batches are written.
BATCH: Final = 2000
_SHARE: Final = 0.5

#: lock_not_available, deadlock_detected: somebody else was there first, and nothing was kept.
_TAKEN: Final = frozenset({"55P03", "40P01"})

_NIL: Final = "00000000-0000-0000-0000-000000000000"

#: How often the partitions are looked through for those without a part of an index.
_PARTITION_ROUNDS: Final = 5

_WITHOUT: Final = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(:table) AND NOT EXISTS (
    SELECT FROM pg_inherits AS part JOIN pg_index AS x ON x.indexrelid = part.inhrelid
    WHERE part.inhparent = to_regclass(:name) AND x.indrelid = c.oid
) ORDER BY c.relname
"""

Work = str | Callable[[Connection], None]


class Online:
    """The steps of one revision. `still_alone` raises where this process is not the one that migrates any more."""

    def __init__(self, engine: Engine, still_alone: Callable[[], None]) -> None:
        self._engine = engine
        self._still_alone = still_alone
        with self._transaction() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS migration_step "
                "(step varchar(64) PRIMARY KEY, position varchar(64), done_at timestamptz)"
            )

    def short(self, step: str, *works: Work) -> None:
        """All of it in one transaction, once; it must be quick, since what it locks is locked until its end."""
        if self.is_done(step):
            return

        def work(connection: Connection) -> None:
            _run(connection, works)
            _note(connection, step)

        self._patiently(step, work)

    def batches(self, step: str, table: str, statement: str) -> None:
        """The statement for one batch of the table after the other, each its own transaction.

        It takes `:after`, the id where the batch before ended, and `:end`, the last of this one.
        """
        position = self.position(step) or _NIL
        while not self.is_done(step):
            began = time.monotonic()

            def work(connection: Connection, after: str = position) -> str | None:
                end = _end(connection, table, after)
                if end is not None:
                    connection.execute(text(statement), {"after": after, "end": end})
                _note(connection, step, end)
                return end

            position = self._patiently(step, work) or position
            rest = (time.monotonic() - began) * (1 / _SHARE - 1)
            time.sleep(rest)  # since the service reads and writes the same table meanwhile

    def index(self, name: str, definition: str) -> None:
        """The index is there and complete, built while everybody reads and writes."""
        step = f"index {name}"
        if self.is_done(step):
            return
        self._still_alone()
        with self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT", receipted_patience=None)
            whole = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
            is_whole = connection.execute(text(whole), {"name": name}).scalar()
            usual = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
            if is_whole is False:
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
            if not is_whole:
                # It waits for everybody who looks at the table, and nobody waits for it.
                connection.exec_driver_sql("SET lock_timeout = 0")
                connection.exec_driver_sql(f"CREATE {definition.replace('INDEX', f'INDEX CONCURRENTLY {name}', 1)}")
                connection.exec_driver_sql(f"SET lock_timeout = '{usual}'")
        self.short(step)

    def partitioned_index(self, name: str, table: str, what: str) -> None:
        """Every partition has the index, and so has every one that is made from now on; nobody waits while it is built.

        The table's own entry comes first, so that a partition that is attached meanwhile brings its index along.
        """
        step = f"whole index {name}"
        if self.is_done(step):
            return
        self.short(f"only {name}", f"CREATE INDEX {name} ON ONLY {table} {what}")
        short = name.removeprefix(f"ix_{table}_")
        for _ in range(_PARTITION_ROUNDS):
            for partition in self._without(name, table):
                self.index(f"{partition}_{short}", f"INDEX ON {partition} {what}")
                self._patiently(name, partial(_attach, name, table, partition, f"{partition}_{short}"))
            if self._is_whole(name):
                self.short(step)
                return
        raise StorageUnavailable(f"{table} got and lost partitions while {name} was built: migrate again")

    def _without(self, name: str, table: str) -> list[str]:
        """The table's partitions that lack their part of the index."""
        with self._transaction() as connection:
            found = connection.execute(text(_WITHOUT), {"name": name, "table": table})
            return [str(row[0]) for row in found]

    def _is_whole(self, name: str) -> bool:
        with self._transaction() as connection:
            found = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
            return bool(connection.execute(text(found), {"name": name}).scalar())

    def alone(self, step: str, statement: str) -> None:
        """A statement of any length in a transaction of its own, whose lock lets everybody read and write."""
        self.short(step, statement)

    def now(self) -> datetime:
        """The database's clock."""
        with self._transaction() as connection:
            found: datetime = connection.exec_driver_sql("SELECT now()").scalar_one()
        return found

    def decided(self, step: str, position: str) -> None:
        """What was decided is kept for the steps that follow, whoever does them."""
        with self._transaction() as connection:
            _note(connection, step, position)

    def undone(self, steps: Sequence[str], *works: Work) -> None:
        """The steps are to be done again, after this work in one transaction."""

        def work(connection: Connection) -> None:
            _run(connection, works)
            connection.execute(text("DELETE FROM migration_step WHERE step = ANY(:steps)"), {"steps": list(steps)})

        self._patiently(steps[0], work)

    def is_done(self, step: str) -> bool:
        """Whether the step was done, by this run or an earlier one."""
        found = self._first("SELECT done_at IS NOT NULL FROM migration_step WHERE step = :step", step)
        return bool(found)

    def position(self, step: str) -> str | None:
        """How far the step is, or what it was decided to be."""
        found = self._first("SELECT position FROM migration_step WHERE step = :step", step)
        return None if found is None else str(found)

    def _first(self, query: str, step: str) -> Any:
        with self._transaction() as connection:
            return connection.execute(text(query), {"step": step}).scalar()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that takes as long as it takes."""
        with self._engine.connect() as opened:
            connection = opened.execution_options(receipted_write=True, receipted_patience=None)
            with connection.begin():
                yield connection

    def _patiently(self, step: str, work: Callable[[Connection], Any]) -> Any:
        """The answer of the work, in a transaction that got its locks."""
        deadline, wait, attempt = time.monotonic() + PATIENCE_SECONDS, 0.05, 0
        while True:
            attempt += 1
            self._still_alone()
            try:
                with self._transaction() as connection:
                    patience = LOCK_MS if attempt % _EVERY else LONG_LOCK_MS
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {patience}")
                    return work(connection)
            except DBAPIError as fault:
                if getattr(fault.orig, "sqlstate", None) not in _TAKEN:
                    raise
                if time.monotonic() > deadline:
                    raise StorageUnavailable(
                        f"the migration's step {step!r} found its tables in use for {PATIENCE_SECONDS:.0f} s: "
                        "end what reads them for so long, and migrate again; it goes on from here"
                    ) from None
            time.sleep(wait)  # whoever holds the lock, or waited behind us, is served first
            wait = min(wait * 2, 2.0)


def _attach(name: str, table: str, partition: str, index: str, connection: Connection) -> None:
    """The partition's index is part of the table's; nothing where retention has detached the partition meanwhile."""
    there = "SELECT FROM pg_inherits WHERE inhparent = to_regclass(:table) AND inhrelid = to_regclass(:partition)"
    if connection.execute(text(there), {"table": table, "partition": partition}).first() is not None:
        connection.exec_driver_sql(f"ALTER INDEX {name} ATTACH PARTITION {index}")


def _end(connection: Connection, table: str, after: str) -> str | None:
    """The last id of the batch that follows; None where nothing does."""
    ids = f"SELECT id FROM {table} WHERE id > :after ORDER BY id"  # noqa: S608 - our names
    for one in (f"{ids} OFFSET {BATCH - 1} LIMIT 1", f"{ids} DESC LIMIT 1"):
        end = connection.execute(text(one), {"after": after}).scalar()
        if end is not None:
            return str(end)
    return None


def _run(connection: Connection, works: Sequence[Work]) -> None:
    for each in works:
        if isinstance(each, str):
            connection.exec_driver_sql(each)
        else:
            each(connection)


def _note(connection: Connection, step: str, position: str | None = None) -> None:
    """The step is done; with a position it is only that far."""
    connection.execute(
        text(
            "INSERT INTO migration_step (step, position, done_at) "
            "VALUES (:step, cast(:position AS varchar), CASE WHEN cast(:position AS varchar) IS NULL THEN now() END) "
            "ON CONFLICT (step) DO UPDATE SET position = coalesce(excluded.position, migration_step.position), "
            "done_at = excluded.done_at"
        ),
        {"step": step, "position": position},
    )
