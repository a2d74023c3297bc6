"""The database and its units of work. On SQLite: WAL, synchronous=FULL, one writer at a time."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, Row, RowMapping, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import configure_mappers
from sqlalchemy.orm.attributes import manager_of_class
from sqlmodel import SQLModel

from storage.errors import StorageUnavailable

Record = TypeVar("Record", bound=SQLModel)

#: Seconds that another process may hold the write lock of a SQLite file before we answer "unavailable".
_BUSY_SECONDS = 5.0


class Unit:
    """One unit of work: what is done through it is committed together or not at all."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect.name

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


def load(model: type[Record], row: Row[*tuple[Any, ...]]) -> Record:
    """A detached record of a whole row."""
    return made(model, row._mapping)  # noqa: SLF001 - the documented way to a row's names, underscore and all


def made(model: type[Record], columns: Mapping[str, Any] | RowMapping) -> Record:
    """A detached record of these columns; others are None.

    What the constructor does besides would cost 0.1 ms and more for each row, and a table's records are not validated.
    """
    record: Record = _manager(model).new_instance()
    record.__dict__.update(columns)
    return record


def values(record: SQLModel, columns: Iterable[str] | None = None) -> dict[str, Any]:
    """The record's columns by name, ready for an insert or update."""
    names = columns if columns is not None else _columns(record.__class__)
    kept = record.__dict__  # no record belongs to a session, so that nothing is left to be loaded
    return {name: kept.get(name) for name in names}


@cache
def _manager(model: type[SQLModel]) -> Any:
    configure_mappers()  # otherwise done by the first constructor
    return manager_of_class(model)


@cache
def _columns(model: type[SQLModel]) -> tuple[str, ...]:
    return tuple(model.__table__.columns.keys())  # type: ignore[attr-defined]


class Database:
    """One database. `write()` serialises writers on SQLite, so that none of this process waits in back-off."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._writing = threading.Lock() if self.engine.dialect.name == "sqlite" else None

    @contextmanager
    def write(self) -> Iterator[Unit]:
        """A unit of work that commits at the end of the block, and rolls back on any exception.

        Raises StorageUnavailable when the database is away, locked by another process, full or read-only.
        """
        lock = self._writing
        if lock is not None:
            lock.acquire()
        try:
            with translated(), self.engine.connect() as connection:
                connection = connection.execution_options(receipted_write=True)
                with connection.begin():
                    yield Unit(connection)
        finally:
            if lock is not None:
                lock.release()

    @contextmanager
    def read(self) -> Iterator[Unit]:
        """A unit of work that sees one consistent snapshot and must not write."""
        with translated(), self.engine.connect() as connection, connection.begin():
            yield Unit(connection)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the driver says of a database that cannot be used is StorageUnavailable outside the block."""
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError):
        raise  # a fault of one row or of the program, not of the database
    except DBAPIError as fault:
        # The statement and its parameters stay out of the message: they hold payloads.
        raise StorageUnavailable(f"the database refused: {type(fault.orig).__name__}: {fault.orig}") from None


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        is_write = connection.get_execution_options().get("receipted_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    return engine
