"""The database and its units of work.

On SQLite there is one writer at a time, on PostgreSQL rows are locked.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import structlog
from sqlalchemy import Connection, CursorResult, Executable, RowMapping, Select, event, inspect
from sqlalchemy import Row as Selected
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, PendingRollbackError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import configure_mappers
from sqlalchemy.pool import QueuePool

from statemachine.histograms import Counts, counts
from storage import unreadable_rows
from storage.clocks import DatabaseClock
from storage.columns import Model, Row, columns_of, reported_name, table_of
from storage.connections import POOL_OVERFLOW, POOL_SIZE, connected
from storage.errors import StorageUnavailable, UnreadableRow
from storage.faults import refusal_of, without_values, words
from storage.hashing import Sealer
from storage.unreadable_rows import UnreadableRecord
from storage.write_turn import WriteTurn

log = structlog.get_logger()

Record = TypeVar("Record", bound=Model)
Plain = TypeVar("Plain", bound=Row)

#: A reader sees one instant on PostgreSQL too; a writer sees what is committed, and locks the rows that it decides by.
_SNAPSHOT: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


#: Of the server that answers, whatever this transaction is: a standby, or one that was made to take no writes.
_IS_READ_ONLY: Final = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean"

#: Rows that cannot be read and are named in the log, each once; more are counted.
_MAX_NOTED: Final = 1_000

#: Instructions of SQLite's between two looks at the clock.
_STEPS: Final = 10_000


class Unit:
    """One unit of work: what is done through it is committed together or not at all."""

    def __init__(
        self, connection: Connection, sealer: Sealer, note: Callable[[UnreadableRecord], None], *, leaves_out: bool
    ) -> None:
        """Wrap the connection of a transaction.

        `note` is called with rows that cannot be read; `leaves_out` says that sets of rows are read without them.
        """
        self._connection = connection
        self.sealer = sealer
        self._note = note
        self._leaves_out = leaves_out
        self.dialect = connection.dialect.name
        self.unreadable: list[UnreadableRecord] = []  #: what was left out

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """End statements of the block after so many seconds, with StorageUnavailable."""
        if self.dialect == "postgresql":
            self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
            yield
            return
        driver: Any = self._connection.connection.driver_connection
        until = time.monotonic() + seconds
        driver.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)

    def execute(
        self, statement: Executable, parameters: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement within the unit of work."""
        return self._connection.execute(statement, parameters)

    @contextmanager
    def locks_within(self, seconds: float) -> Iterator[None]:
        """Wait no longer than this for a locked row; raises StorageUnavailable then."""
        if self.dialect != "postgresql":
            yield
            return
        before = self._connection.exec_driver_sql("SHOW lock_timeout").scalar()
        self._connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")
        yield
        self._connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{before}'")

    def all(
        self, model: type[Record], statement: Select[Any], aside: list[UnreadableRecord] | None = None
    ) -> list[Record]:
        """Every row of a statement that selects whole rows of the model.

        Rows that cannot be read go to `aside`; without it, a unit of work that reads leaves them out, and one that
        writes raises UnreadableRow.
        """
        try:
            with self.execute(statement) as found:
                records = [load(model, row) for row in found]
            if all(unreadable_rows.check(model, record) is None for record in records):
                return records
        except Exception as fault:
            if not unreadable_rows.is_about_a_row(fault):
                raise
        rows, unreadable = self._scanned(statement, reported_name(table_of(model)))
        records = []
        for raw, row in rows:
            record = build_record(model, row)
            wrong = unreadable_rows.check(model, record)
            if wrong is None:
                records.append(record)
            else:
                unreadable.append(UnreadableRecord(reported_name(table_of(model)), raw, *wrong))
        self.set_aside(unreadable, aside)
        return records

    def shown(self, model: type[Record], statement: Select[Any]) -> list[Record]:
        """Read as `all`, for people, with a stand-in for each unreadable row.

        It has what can be read of the row, and why the rest cannot.
        """
        aside: list[UnreadableRecord] = []
        records = self.all(model, statement, aside)
        if not aside:
            return records
        raw, columns = unreadable_rows.raw_select(statement, is_sqlite=self.dialect == "sqlite")
        readable_ones, stand_ins = iter(records), list[Record]()
        wrong = {each.row_id: each for each in aside}
        with unreadable_rows.raw_text(
            self._connection.connection.driver_connection, is_sqlite=self.dialect == "sqlite"
        ):
            rows = self.execute(raw).all()
        for row in rows:
            kept = dict(zip((name for name, _ in columns), row, strict=True))
            found = wrong.get(UnreadableRecord(reported_name(table_of(model)), kept, "", "").row_id)
            if found is None:
                stand_ins.append(next(readable_ones))
            else:
                values = unreadable_rows.stand_in(found, columns, is_sqlite=self.dialect == "sqlite")
                stand_ins.append(build_record(model, unreadable_rows.completed(model, values)))
        return stand_ins

    def lines(self, statement: Select[Any]) -> list[Any]:
        """Read as `each`, for people, with a stand-in for each unreadable row."""
        aside: list[UnreadableRecord] = []
        try:
            with self.execute(statement) as found:
                return list(found)
        except Exception as fault:
            if not unreadable_rows.is_about_a_row(fault):
                raise
        is_sqlite = self.dialect == "sqlite"
        raw, columns = unreadable_rows.raw_select(statement, is_sqlite=is_sqlite)
        with unreadable_rows.raw_text(self._connection.connection.driver_connection, is_sqlite=is_sqlite):
            rows = self.execute(raw).all()
        lines = []
        for row in rows:
            values = unreadable_rows.converted(_table_of(statement), columns, row, is_sqlite=is_sqlite)
            if isinstance(values, UnreadableRecord):
                aside.append(values)
                values = unreadable_rows.stand_in(values, columns, is_sqlite=is_sqlite)
            lines.append(unreadable_rows.as_row(values))
        self.set_aside(aside, [])
        return lines

    def each(self, statement: Select[Any]) -> list[Any]:
        """Return the rows of any selection; skip unreadable ones, or raise, as `all` does."""
        try:
            with self.execute(statement) as found:
                return list(found)
        except Exception as fault:
            if not unreadable_rows.is_about_a_row(fault):
                raise
        rows, unreadable = self._scanned(statement, _table_of(statement))
        self.set_aside(unreadable, None)
        return [unreadable_rows.as_row(row) for _, row in rows]

    def set_aside(self, unreadable: Sequence[UnreadableRecord], aside: list[UnreadableRecord] | None) -> None:
        """Note unreadable rows and add them to `aside`; raises UnreadableRow without it."""
        for each in unreadable:
            self._note(each)
        if unreadable and aside is None and not self._leaves_out:
            first = unreadable[0]
            raise UnreadableRow(f"{first.table} {first.row_id}: {first.words}")
        (self.unreadable if aside is None else aside).extend(unreadable)

    def _scanned(
        self, statement: Select[Any], table: str
    ) -> tuple[list[tuple[Mapping[str, Any], dict[str, Any]]], list[UnreadableRecord]]:
        """Read each row alone; return stored and converted values, and unreadable rows."""
        is_sqlite = self.dialect == "sqlite"
        raw, columns = unreadable_rows.raw_select(statement, is_sqlite=is_sqlite)
        with unreadable_rows.raw_text(self._connection.connection.driver_connection, is_sqlite=is_sqlite):
            rows = self.execute(raw).all()
        found, unreadable = list[tuple[Mapping[str, Any], dict[str, Any]]](), list[UnreadableRecord]()
        for row in rows:
            values = unreadable_rows.converted(table, columns, row, is_sqlite=is_sqlite)
            if isinstance(values, UnreadableRecord):
                unreadable.append(values)
            else:
                found.append((dict(zip(values, row, strict=True)), values))
        return found, unreadable

    def first(self, model: type[Record], statement: Select[Any]) -> Record | None:
        """Return the first row, or None; raises UnreadableRow where it cannot be read."""
        try:
            row = self.execute(statement).first()
            record = None if row is None else load(model, row)
            wrong = None if record is None else unreadable_rows.check(model, record)
            if wrong is None:
                return record
            problem = " ".join(wrong)
        except Exception as fault:
            if not unreadable_rows.is_about_a_row(fault):
                raise
            problem = type(fault).__name__
        raise UnreadableRow(f"a row of {reported_name(table_of(model))} cannot be read: {problem}")

    def raw_rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a driver's query; on SQLite text is bytes, whatever they are."""
        driver = self._connection.connection.driver_connection
        with unreadable_rows.raw_text(driver, is_sqlite=self.dialect == "sqlite"):
            return self.rows(query, parameters)

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a driver's query as the driver returns them."""
        with self._connection.exec_driver_sql(query, tuple(parameters)) as result:
            return list(result.cursor.fetchall())

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Run a driver's statement; return how many rows it changed."""
        return self._connection.exec_driver_sql(statement, tuple(parameters)).rowcount

    def run_each(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run a driver's statement for each row of parameters; return all changes."""
        return self._connection.exec_driver_sql(statement, list(rows)).rowcount


def _table_of(statement: Select[Any]) -> str:
    return next((reported_name(each.table) for each in statement.selected_columns if hasattr(each, "table")), "")


def load(model: type[Record], row: Selected[*tuple[Any, ...]]) -> Record:
    """Build a detached record of a whole row."""
    return build_record(model, row._mapping)  # noqa: SLF001 - the documented way to a row's names, underscore and all


def build_record(model: type[Record], columns: Mapping[str, Any] | RowMapping) -> Record:
    """Build a detached record without validation; other columns are None.

    A constructor would cost 0.1 ms and more for each row of a table class.
    """
    nothing = _nothing(model)
    if issubclass(model, Row):
        return wrap_columns(model, {**nothing, **columns})
    mapped: Record = _manager(model).new_instance()
    mapped.__dict__.update(columns)
    return mapped


def wrap_columns(model: type[Plain], columns: dict[str, Any]) -> Plain:
    """Build a plain record without its constructor; take ownership of `columns`.

    They must be all of its columns.
    """
    record = object.__new__(model)
    record.__dict__ = columns
    return record


def values(record: Model, columns: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the record's columns by name, ready for an insert or update."""
    names = columns if columns is not None else columns_of(record.__class__)
    kept = record.__dict__  # no record belongs to a session, so that nothing is left to be loaded
    return {name: kept.get(name) for name in names}


@cache
def _manager(model: type[Model]) -> Any:
    configure_mappers()  # otherwise done by the first constructor
    return inspect(model).class_manager


@cache
def _nothing(model: type[Model]) -> Mapping[str, None]:
    return dict.fromkeys(columns_of(model))


class Database:
    """One database; writers take turns on SQLite, and none backs off.

    `postgresql://…` and `sqlite:///…` are all that a URL needs to say. Raises DatabaseUnsupported for any other.
    """

    def __init__(self, url: str, sealer: Sealer | None = None) -> None:
        """`sealer` seals what is written; without one, seals have no key."""
        self.url = url
        self.sealer = sealer or Sealer()
        self.engine = connected(url)
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        self._turn = WriteTurn(_file_of(self.engine.url.database)) if self._is_sqlite else None
        #: The turn to write: on SQLite one thread of one process at a time, in the order in which they asked.
        self.turn: AbstractContextManager[None] = self._turn or nullcontext()
        self.pool_limit = POOL_SIZE + POOL_OVERFLOW  #: connections of this process at most
        self.pool_waits = 0  #: units of work that found all of them in use, and waited
        self.unreadable: Counts = counts()  #: how often rows were met that cannot be read, by table
        self._noted: set[tuple[str, str]] = set()
        self.refusal: str | None = None  #: why the last write of this process was refused, where no write can succeed
        self._clocks: list[DatabaseClock] = []

    def clock(self, wall: Callable[[], datetime]) -> Callable[[], datetime]:
        """Return the clock by which work is claimed: the server's, on SQLite this one's."""
        if self._is_sqlite:
            return wall
        self._clocks.append(DatabaseClock(wall))
        return self._clocks[-1]

    @contextmanager
    def write(self) -> Iterator[Unit]:
        """Begin a unit of work: committed at the end of the block, rolled back on errors.

        On PostgreSQL it is READ COMMITTED: what a decision rests on is locked by whoever reads it. Raises
        StorageUnavailable when the database is away, busy for too long, full or read-only, or has ended the unit of
        work because of another. Where the connection is lost during the commit itself, nobody can say whether it was
        kept: every caller's repeat must be harmless.
        """
        try:
            with self.turn, translated(), self._connected() as connection:
                connection = connection.execution_options(receipted_write=True)
                with connection.begin():
                    self._look_at_the_clock(connection)
                    yield Unit(connection, self.sealer, self._note, leaves_out=False)
        except StorageUnavailable as fault:
            self.wrote(fault)
            raise
        self.wrote(None)

    @contextmanager
    def read(self) -> Iterator[Unit]:
        """Begin a unit of work on one snapshot, without writes; raises StorageUnavailable."""
        with translated(), self._connected() as connection:
            if not self._is_sqlite:
                connection = connection.execution_options(**_SNAPSHOT)
            with connection.begin():
                self._look_at_the_clock(connection)
                yield Unit(connection, self.sealer, self._note, leaves_out=True)

    def at_once(self, statement: Executable, parameters: Mapping[str, Any]) -> Selected[*tuple[Any, ...]] | None:
        """Run a statement in a commit of its own and return its first row.

        What it locks never waits for this process.

        PostgreSQL alone, whose answer is the commit's. Raises StorageUnavailable.
        """
        with translated(), self._connected() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT", receipted_write=True)
            return alone.execute(statement, parameters).first()

    def wrote(self, fault: StorageUnavailable | None) -> None:
        """Note the end of a write by any driver: whether the database takes writes."""
        if fault is None:
            self.refusal = None
        elif fault.refusal is not None:
            self.refusal = fault.refusal

    def takes_no_writes(self) -> str | None:
        """Return why the database takes no writes now; None where it does, or is unknown.

        storage_read_only or storage_full.

        Where the last write was refused it is tried again, by a row that is written as it is. Raises
        StorageUnavailable.
        """
        if not self._is_sqlite:
            with self.read() as unit:
                if unit.rows(_IS_READ_ONLY)[0][0]:
                    return "storage_read_only"
        if self.refusal is None:
            return None
        try:
            with self.write() as unit:
                unit.run("UPDATE alembic_version SET version_num = version_num")
        except StorageUnavailable as fault:
            return fault.refusal or self.refusal
        return None

    def _note(self, unreadable: UnreadableRecord) -> None:
        """Count an unreadable row, and log it once."""
        self.unreadable[unreadable.table, ""] += 1
        row = (unreadable.table, unreadable.row_id)
        if row not in self._noted and len(self._noted) < _MAX_NOTED:
            self._noted.add(row)
            log.error("storage.unreadable", table=unreadable.table, row=unreadable.row_id, problem=unreadable.words)

    def _look_at_the_clock(self, connection: Connection) -> None:
        for clock in self._clocks:
            clock.look(connection)

    def in_use(self) -> int:
        """Return how many connections are in use."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    def _connected(self) -> Connection:
        if self.in_use() >= self.pool_limit:
            self.pool_waits += 1
        return self.engine.connect()

    def close(self) -> None:
        """Close every pooled connection, and those that are in use when they come back."""
        event.listen(self.engine, "checkin", lambda _connection, record: record.invalidate())
        self.prepare_to_fork()

    def prepare_to_fork(self) -> None:
        """Close what a child process may not share: idle connections and locks."""
        self.engine.dispose()
        if self._turn is not None:
            self._turn.close()


def _file_of(database: str | None) -> Path | None:
    """Return the path of a SQLite database; None of one in memory."""
    if not database or database == ":memory:":
        return None
    return Path(unquote(database.removeprefix("file:").partition("?")[0]) if database.startswith("file:") else database)


def is_moved_partition(fault: BaseException | None) -> bool:
    """Return whether a row's partition gave up its range meanwhile; repeat then.

    PostgreSQL calls it a violated check, and names no constraint. `fault` is of either driver.
    """
    about = getattr(fault, "diag", fault)
    return getattr(fault, "sqlstate", None) == "23514" and getattr(about, "constraint_name", None) is None


#: PostgreSQL's serialization_failure and deadlock_detected.
_RIVALRY: Final = ("40001", "40P01")

#: PostgreSQL's lock_not_available and query_canceled: of one row or one statement, and not of the database.
_HELD: Final = ("55P03", "57014")


@contextmanager
def translated() -> Iterator[None]:
    """Translate driver errors of an unusable database to StorageUnavailable."""
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError) as fault:
        if is_moved_partition(fault.orig):
            moved = StorageUnavailable("a partition was made at that moment")
            moved.is_rivalry = True
            raise moved from None
        raise without_values(fault) from None  # a fault of one row or of the program, not of the database
    except (DBAPIError, sqlite3.OperationalError) as fault:
        if unreadable_rows.is_about_a_row(fault):
            raise UnreadableRow from None
        if isinstance(fault, sqlite3.OperationalError):  # of the driver's own cursor
            raise StorageUnavailable(f"the database refused: {type(fault).__name__}") from None
        # The statement and its parameters stay out of the message: they hold payloads.
        unavailable = StorageUnavailable(f"the database refused: {type(fault.orig).__name__}: {words(fault)}")
        unavailable.is_rivalry = getattr(fault.orig, "sqlstate", None) in _RIVALRY
        unavailable.is_held = getattr(fault.orig, "sqlstate", None) in _HELD
        unavailable.refusal = refusal_of(fault.orig)
        raise unavailable from None
    except PoolTimeout:
        raise StorageUnavailable("every connection to the database is in use") from None
    except PendingRollbackError:
        raise StorageUnavailable("the connection to the database was lost") from None
