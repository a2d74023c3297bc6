"""The database and its units of work. On SQLite one writer at a time, on PostgreSQL row locks."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection, CursorResult, Executable, RowMapping
from sqlalchemy import Row as Selected
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, PendingRollbackError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import configure_mappers
from sqlalchemy.orm.attributes import manager_of_class
from sqlalchemy.pool import QueuePool
from sqlmodel import SQLModel

from storage.columns import Row
from storage.connections import POOL_OVERFLOW, POOL_SIZE, connected
from storage.errors import StorageUnavailable
from storage.faults import without_values, words
from storage.locks import FairLock

Record = TypeVar("Record", bound=SQLModel)

#: A reader sees one instant on PostgreSQL too; a writer sees what is committed, and locks the rows that it decides by.
_SNAPSHOT: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


#: Instructions of SQLite's between two looks at the clock.
_STEPS: Final = 10_000


class Unit:
    """One unit of work: what is done through it is committed together or not at all."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect.name

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Statements of the block are ended after so many seconds; the unit of work raises StorageUnavailable then."""
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

    def all(self, model: type[Record], statement: Executable) -> list[Record]:
        """Every row of a statement that selects whole rows of the model."""
        return [load(model, row) for row in self.execute(statement)]

    def first(self, model: type[Record], statement: Executable) -> Record | None:
        """The first row, or None."""
        row = self.execute(statement).first()
        return None if row is None else load(model, row)

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query in the driver's own words, as the driver returns them."""
        with self._connection.exec_driver_sql(query, tuple(parameters)) as result:
            return list(result.cursor.fetchall())

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """A statement in the driver's own words; returns how many rows it changed."""
        return self._connection.exec_driver_sql(statement, tuple(parameters)).rowcount

    def run_each(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """A statement in the driver's own words for each row of parameters; how many rows it changed in all."""
        return self._connection.exec_driver_sql(statement, list(rows)).rowcount


def load(model: type[Record], row: Selected[*tuple[Any, ...]]) -> Record:
    """A detached record of a whole row."""
    return made(model, row._mapping)  # noqa: SLF001 - the documented way to a row's names, underscore and all


def made(model: type[Record], columns: Mapping[str, Any] | RowMapping) -> Record:
    """A detached record of these columns; others are None.

    What the constructor does besides would cost 0.1 ms and more for each row, and a table's records are not validated.
    """
    if issubclass(model, Row):
        return unwatched(model, {**_nothing(model), **columns})
    mapped: Record = _manager(model).new_instance()
    mapped.__dict__.update(columns)
    return mapped


def unwatched(model: type[Record], columns: dict[str, Any]) -> Record:
    """A detached record of a Row's class, with these as all of its columns; the dictionary becomes its own."""
    record: Record = _new(model)
    _said(record, set())
    _more(record, None)
    _private(record, None)
    record.__dict__ = columns
    return record


# What pydantic keeps of each record besides its values; left unset they cannot be read.
_new: Final[Any] = object.__new__
_said, _more, _private = (
    BaseModel.__dict__[name].__set__
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def values(record: SQLModel, columns: Iterable[str] | None = None) -> dict[str, Any]:
    """The record's columns by name, ready for an insert or update."""
    names = columns if columns is not None else columns_of(record.__class__)
    kept = record.__dict__  # no record belongs to a session, so that nothing is left to be loaded
    return {name: kept.get(name) for name in names}


@cache
def _manager(model: type[SQLModel]) -> Any:
    configure_mappers()  # otherwise done by the first constructor
    return manager_of_class(model)


@cache
def columns_of(model: type[SQLModel]) -> tuple[str, ...]:
    """The names of the model's columns, in order."""
    return tuple(model.model_fields)


@cache
def _nothing(model: type[SQLModel]) -> Mapping[str, None]:
    return dict.fromkeys(columns_of(model))


class Database:
    """One database. `write()` serialises writers on SQLite, so that none of this process waits in back-off.

    `postgresql://…` and `sqlite:///…` are all that a URL needs to say. Raises DatabaseUnsupported for any other.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = connected(url)
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        #: The turn to write, within this process: on SQLite one at a time, in the order in which they asked.
        self.turn: AbstractContextManager[None] = FairLock() if self._is_sqlite else nullcontext()
        self.pool_limit = POOL_SIZE + POOL_OVERFLOW  #: connections of this process at most
        self.pool_waits = 0  #: units of work that found all of them in use, and waited

    @contextmanager
    def write(self) -> Iterator[Unit]:
        """A unit of work that commits at the end of the block, and rolls back on any exception.

        On PostgreSQL it is READ COMMITTED: what a decision rests on is locked by whoever reads it. Raises
        StorageUnavailable when the database is away, busy for too long, full or read-only, or has ended the unit of
        work because of another. Where the connection is lost during the commit itself, nobody can say whether it was
        kept: every caller's repeat must be harmless.
        """
        with self.turn, translated(), self._connected() as connection:
            connection = connection.execution_options(receipted_write=True)
            with connection.begin():
                yield Unit(connection)

    @contextmanager
    def read(self) -> Iterator[Unit]:
        """A unit of work that sees one consistent snapshot and must not write. Raises StorageUnavailable."""
        with translated(), self._connected() as connection:
            if not self._is_sqlite:
                connection = connection.execution_options(**_SNAPSHOT)
            with connection.begin():
                yield Unit(connection)

    def at_once(self, statement: Executable, parameters: Mapping[str, Any]) -> Selected[*tuple[Any, ...]] | None:
        """The first row of a statement that commits itself, so that what it locks never waits for this process.

        PostgreSQL alone, whose answer is the commit's. Raises StorageUnavailable.
        """
        with translated(), self._connected() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT", receipted_write=True)
            return alone.execute(statement, parameters).first()

    def in_use(self) -> int:
        """Connections that somebody works with now."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    def _connected(self) -> Connection:
        if self.in_use() >= self.pool_limit:
            self.pool_waits += 1
        return self.engine.connect()

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def is_moved_partition(fault: BaseException | None) -> bool:
    """Whether a row was on its way to a partition that gave up its range meanwhile; a repeat finds the right one.

    PostgreSQL calls it a violated check, and names no constraint. `fault` is of either driver.
    """
    about = getattr(fault, "diag", fault)
    return getattr(fault, "sqlstate", None) == "23514" and getattr(about, "constraint_name", None) is None


#: PostgreSQL's serialization_failure and deadlock_detected.
_RIVALRY: Final = ("40001", "40P01")


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the driver says of a database that cannot be used is StorageUnavailable outside the block."""
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError) as fault:
        if is_moved_partition(fault.orig):
            moved = StorageUnavailable("a partition was made at that moment")
            moved.is_rivalry = True
            raise moved from None
        raise without_values(fault) from None  # a fault of one row or of the program, not of the database
    except DBAPIError as fault:
        # The statement and its parameters stay out of the message: they hold payloads.
        unavailable = StorageUnavailable(f"the database refused: {type(fault.orig).__name__}: {words(fault)}")
        unavailable.is_rivalry = getattr(fault.orig, "sqlstate", None) in _RIVALRY
        raise unavailable from None
    except PoolTimeout:
        raise StorageUnavailable("every connection to the database is in use") from None
    except PendingRollbackError:
        raise StorageUnavailable("the connection to the database was lost") from None
