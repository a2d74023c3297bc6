"""Connections to the two databases, set up so that what is committed is kept and nothing is waited for without end."""

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from storage.errors import DatabaseUnsupported

#: Seconds that another process may hold the write lock of a SQLite file, or a row of PostgreSQL, before we answer
#: "unavailable": shorter than a provider waits for its answer.
BUSY_SECONDS: Final = 5.0

#: Seconds that PostgreSQL lets a transaction of ours do nothing. Nothing is sent while one is open, so that its
#: process hangs, is stopped or has lost its network, and its row locks hold up everybody else.
_IDLE_SECONDS: Final = 60

#: Of every connection to PostgreSQL. A commit is on the disk, whatever the server's or the role's default is.
_SESSION: Final = {
    "synchronous_commit": "on",
    "lock_timeout": f"{int(BUSY_SECONDS * 1000)}ms",
    "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
    "timezone": "UTC",
}

#: Of libpq: a server that does not answer is noticed within half a minute, and not after the system's two hours.
_NETWORK: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "receipted",
}

_POSTGRESQL: Final = ("postgresql", "postgres", "postgresql+psycopg")


def connected(url: str) -> Engine:
    """The engine of a SQLite file or a PostgreSQL database; opens nothing yet. Raises DatabaseUnsupported."""
    try:
        parts = make_url(url)
    except ArgumentError:  # its message repeats the URL, which may hold a password
        raise DatabaseUnsupported("the database's URL cannot be read", param="database") from None
    if parts.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parts)
    if parts.drivername in _POSTGRESQL:
        return _postgresql(parts.set(drivername="postgresql+psycopg"))
    raise DatabaseUnsupported(
        "the database's URL begins with neither sqlite:// nor postgresql://", param="database"
    ) from None


def _postgresql(url: URL) -> Engine:
    try:
        engine = create_engine(
            url.set(query={**_NETWORK, **url.query}),
            pool_pre_ping=True,
            pool_timeout=BUSY_SECONDS,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
        )
    except ModuleNotFoundError:
        raise DatabaseUnsupported(
            "PostgreSQL needs its driver: install receipted with the extra postgres", param="database"
        ) from None

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.autocommit = True
        for name, value in _SESSION.items():
            dbapi_connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        dbapi_connection.autocommit = False

    return engine


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True)

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
