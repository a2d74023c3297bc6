"""Steps of a PostgreSQL migration beside the running service, with short locks.

Finished steps are recorded in the table `migration_step`, in the step's own transaction where it has one, so that a
repeated migration continues where the last one ended. A statement that waits for a table lock blocks every later
reader and writer of that table; so a step waits for its locks only briefly, lets the others pass, and tries again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from storage.errors import SchemaOutdated, StorageUnavailable

#: Time that a step waits for a lock, and so the longest time that it blocks others before it has the lock.
LOCK_TIMEOUT_MS: Final = 200

#: Lock timeout of every tenth attempt: longer than deadlock_timeout, after which PostgreSQL cancels an autovacuum.
AUTOVACUUM_LOCK_TIMEOUT_MS: Final = 1500
_ATTEMPTS_PER_LONG_ATTEMPT: Final = 10

#: Time until a step that did not get its locks gives up.
LOCK_DEADLINE_S: Final = 600.0

#: Rows of one batch, and the share of time in which batches run.
BATCH_SIZE: Final = 2000
_BUSY_SHARE: Final = 0.5

#: lock_not_available, deadlock_detected: the transaction was rolled back, and may be repeated.
_LOCK_CONFLICTS: Final = frozenset({"55P03", "40P01"})

_NIL_ID: Final = "00000000-0000-0000-0000-000000000000"

#: Searches for partitions without the index, before a partitioned index is given up.
_PARTITION_ROUNDS: Final = 5

_PARTITIONS_WITHOUT_INDEX: Final = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(:table) AND NOT EXISTS (
    SELECT FROM pg_inherits AS part JOIN pg_index AS x ON x.indexrelid = part.inhrelid
    WHERE part.inhparent = to_regclass(:name) AND x.indrelid = c.oid
) ORDER BY c.relname
"""

_IS_VALID: Final = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"

Work = str | Callable[[Connection], None]


@contextmanager
def online_steps(context: MigrationContext) -> Iterator["OnlineSteps"]:
    """Run a revision's steps outside its transaction; forget them when all are done.

    Raises SchemaOutdated where the migration is not run by storage.migrate, which holds the migration lock.
    """
    if context.config is None or context.connection is None:
        raise SchemaOutdated("this migration is run by receipted migrate alone")
    with context.autocommit_block():
        yield OnlineSteps(context.connection.engine, context.config.attributes["check_lock"])
    context.execute("DROP TABLE migration_step")


class OnlineSteps:
    """The steps of one revision, each skipped when it is already done."""

    def __init__(self, engine: Engine, check_lock: Callable[[], None]) -> None:
        """`check_lock` raises when this process has lost the migration lock."""
        self._engine = engine
        self._check_lock = check_lock
        with self._transaction() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS migration_step "
                "(step varchar(64) PRIMARY KEY, position varchar(64), done_at timestamptz)"
            )

    def run(self, step: str, *works: Work) -> None:
        """Run all works in one transaction, quickly: its locks are held until it ends."""
        if self.is_done(step):
            return

        def work(connection: Connection) -> None:
            for each in works:
                if isinstance(each, str):
                    connection.exec_driver_sql(each)
                else:
                    each(connection)
            _record(connection, step)

        self._retry(step, work)

    def run_batches(self, step: str, table: str, statement: str) -> None:
        """Run the statement batch by batch of the table, each in its own transaction.

        The statement's parameters are `:after`, the last id of the batch before, and `:end`, the last id of this one.
        """
        position = self._position(step) or _NIL_ID
        while not self.is_done(step):
            began = time.monotonic()

            def work(connection: Connection, after: str = position) -> str | None:
                end = _end_of_batch(connection, table, after)
                if end is not None:
                    connection.execute(text(statement), {"after": after, "end": end})
                _record(connection, step, end)
                return end

            position = self._retry(step, work) or position
            idle_s = (time.monotonic() - began) * (1 / _BUSY_SHARE - 1)
            time.sleep(idle_s)  # since the service reads and writes the same table meanwhile

    def create_index(self, name: str, definition: str) -> None:
        """Create an index concurrently; one that a crash left invalid is dropped first.

        `definition` is what follows CREATE without the name: "UNIQUE INDEX ON payment (id)".
        """
        step = f"index {name}"
        if self.is_done(step):
            return
        self._check_lock()
        with self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT", receipted_patience=None)
            is_valid = connection.execute(text(_IS_VALID), {"name": name}).scalar()
            lock_timeout = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
            if is_valid is False:
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
            if not is_valid:
                # It waits for every transaction that uses the table, and blocks none.
                connection.exec_driver_sql("SET lock_timeout = 0")
                connection.exec_driver_sql(f"CREATE {definition.replace('INDEX', f'INDEX CONCURRENTLY {name}', 1)}")
                connection.exec_driver_sql(f"SET lock_timeout = '{lock_timeout}'")
        self.run(step)

    def create_partitioned_index(self, name: str, table: str, definition: str) -> None:
        """Create the index on every partition, also on those attached meanwhile or later.

        The table's own entry comes first, so that a partition that is attached meanwhile gets its index from it.
        `definition` is what follows the table's name: "(status, id) WHERE status = 'dead'".
        """
        step = f"partitioned index {name}"
        if self.is_done(step):
            return
        self.run(f"only {name}", f"CREATE INDEX {name} ON ONLY {table} {definition}")
        suffix = name.removeprefix(f"ix_{table}_")
        for _ in range(_PARTITION_ROUNDS):
            for partition in self._partitions_without_index(name, table):
                self.create_index(f"{partition}_{suffix}", f"INDEX ON {partition} {definition}")
                self._retry(name, partial(_attach_index, name, table, partition, f"{partition}_{suffix}"))
            if self._is_valid(name):
                self.run(step)
                return
        raise StorageUnavailable(f"{table} got and lost partitions while {name} was built: migrate again")

    def is_done(self, step: str) -> bool:
        """Return whether the step was finished, by this process or an earlier one."""
        return bool(self._scalar("SELECT done_at IS NOT NULL FROM migration_step WHERE step = :step", step=step))

    def _position(self, step: str) -> str | None:
        """Return the last id of the last batch of the step."""
        found = self._scalar("SELECT position FROM migration_step WHERE step = :step", step=step)
        return None if found is None else str(found)

    def _partitions_without_index(self, name: str, table: str) -> list[str]:
        with self._transaction() as connection:
            found = connection.execute(text(_PARTITIONS_WITHOUT_INDEX), {"name": name, "table": table})
            return [str(row[0]) for row in found]

    def _is_valid(self, name: str) -> bool:
        return bool(self._scalar(_IS_VALID, name=name))

    def _scalar(self, query: str, **parameters: str) -> Any:
        with self._transaction() as connection:
            return connection.execute(text(query), parameters).scalar()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction without a statement timeout."""
        with self._engine.connect() as opened:
            connection = opened.execution_options(receipted_write=True, receipted_patience=None)
            with connection.begin():
                yield connection

    def _retry(self, step: str, work: Callable[[Connection], Any]) -> Any:
        """Run the work in a transaction until it gets its locks.

        Raises StorageUnavailable at the deadline.
        """
        deadline, wait_s, attempt = time.monotonic() + LOCK_DEADLINE_S, 0.05, 0
        while True:
            attempt += 1
            self._check_lock()
            try:
                with self._transaction() as connection:
                    is_long = attempt % _ATTEMPTS_PER_LONG_ATTEMPT == 0
                    timeout_ms = AUTOVACUUM_LOCK_TIMEOUT_MS if is_long else LOCK_TIMEOUT_MS
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {timeout_ms}")
                    return work(connection)
            except DBAPIError as fault:
                if getattr(fault.orig, "sqlstate", None) not in _LOCK_CONFLICTS:
                    raise
                if time.monotonic() > deadline:
                    raise StorageUnavailable(
                        f"the migration's step {step!r} found its tables in use for {LOCK_DEADLINE_S:.0f} s: "
                        "end what reads them for so long, and migrate again; it goes on from here"
                    ) from None
            time.sleep(wait_s)  # the holder of the lock, and those that wait behind this step, are served first
            wait_s = min(wait_s * 2, 2.0)


def _attach_index(name: str, table: str, partition: str, index: str, connection: Connection) -> None:
    """Attach the partition's index, unless the partition was detached meanwhile."""
    attached = "SELECT FROM pg_inherits WHERE inhparent = to_regclass(:table) AND inhrelid = to_regclass(:partition)"
    if connection.execute(text(attached), {"table": table, "partition": partition}).first() is not None:
        connection.exec_driver_sql(f"ALTER INDEX {name} ATTACH PARTITION {index}")


def _end_of_batch(connection: Connection, table: str, after: str) -> str | None:
    """Return the last id of the next batch; None where there is none."""
    ids = f"SELECT id FROM {table} WHERE id > :after ORDER BY id"  # noqa: S608 - constants
    for query in (f"{ids} OFFSET {BATCH_SIZE - 1} LIMIT 1", f"{ids} DESC LIMIT 1"):
        end = connection.execute(text(query), {"after": after}).scalar()
        if end is not None:
            return str(end)
    return None


def _record(connection: Connection, step: str, position: str | None = None) -> None:
    """Record that the step is done, or with a position how far it is."""
    connection.execute(
        text(
            "INSERT INTO migration_step (step, position, done_at) "
            "VALUES (:step, cast(:position AS varchar), CASE WHEN cast(:position AS varchar) IS NULL THEN now() END) "
            "ON CONFLICT (step) DO UPDATE SET position = coalesce(excluded.position, migration_step.position), "
            "done_at = excluded.done_at"
        ),
        {"step": step, "position": position},
    )
