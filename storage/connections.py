"""Connections to both databases, set up for durable commits and bounded waits."""

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from storage.errors import DatabaseUnsupported
from storage.postgresql_url import PostgresqlUrl, is_postgresql, read_url
from storage.private_files import make_file

#: Seconds that another process may hold the write lock of a SQLite file, or a row of PostgreSQL, before we answer
#: "unavailable": shorter than a provider waits for its answer.
BUSY_SECONDS: Final = 5.0

#: Seconds between two attempts to make a new SQLite file write ahead, while another connection does it.
_WAL_RETRY_S: Final = 0.01

#: Connections of one process: so many are kept, and so many more may be opened while all of them are in use.
POOL_SIZE: Final = 5
POOL_OVERFLOW: Final = 10

#: Statements that a connection to SQLite keeps prepared: those of storage/intake_sqlite.py, and room for others.
_PREPARED: Final = 400

#: Seconds that PostgreSQL lets a transaction of ours do nothing. Nothing is sent while one is open, so that its
#: process hangs, is stopped or has lost its network, and its row locks hold up everybody else.
_IDLE_SECONDS: Final = 15

#: Seconds that PostgreSQL has for one answer: to whether it is there, to what writes (longer than that may wait for a
#: lock), and to what only reads.
_ANSWER_TIMEOUTS_S: Final = {"idle": 2.0, "write": BUSY_SECONDS + 3.0, "read": 60.0}

#: Of every connection to PostgreSQL, whatever the server, the database, the role or a PG* variable sets: all that the
#: program reads or writes by. Left to the operator are search_path, default_transaction_read_only, tablespaces and what
#: concerns speed alone; lc_messages and session_replication_role are a superuser's to set.
SESSION: Final = {
    # A commit is on the disk, and on that of its synchronous standby where the server has one ...
    "synchronous_commit": "on",
    # ... and where it is not, the server warns of that: no warning may be left out.
    "client_min_messages": "warning",
    "lock_timeout": f"{int(BUSY_SECONDS * 1000)}ms",
    "statement_timeout": "0",  # we end what takes too long ourselves; a migration takes as long as it takes
    "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # How values are written as text, and read from it.
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "exit_on_error": "off",  # what one statement meets is no end of the connection
    # Nothing that is asked here is best answered by going through a table, but while it is small: and a plan of that
    # time is kept while the table grows.
    "enable_seqscan": "off",
}

#: What PostgreSQL 17 and newer have besides. An older one refuses a connection that begins with it.
_SINCE_17: Final = {"transaction_timeout": "0"}

#: Seconds after which a connection's plans are made anew. PostgreSQL does so where it has looked at a table again, a
#: minute later and more: until then, a day's new partition and whatever grows quickly are gone through as if they
#: were still as good as empty.
_PLANNED_FOR: Final = 10.0

#: Of libpq: a server that is gone is noticed within half a minute, and not after the system's two hours.
_NETWORK: Final = {
    "connect_timeout": "3",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "receipted",
}

#: Seconds for connecting to each of several servers: one that is away must not use up a provider's patience.
EACH_SECONDS: Final = "2"

#: PostgreSQL's "cannot execute … in a read-only transaction".
_READ_ONLY: Final = "25006"


def connected(url: str) -> Engine:
    """Create the engine of a SQLite file or a PostgreSQL database; opens nothing yet.

    Raises DatabaseUnsupported.
    """
    if is_postgresql(url):
        return _postgresql(read_url(url))
    try:
        parts = make_url(url)
    except ArgumentError:  # its message repeats the URL, which may hold a password
        raise DatabaseUnsupported("the database's URL cannot be read", param="database") from None
    if parts.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parts)
    raise DatabaseUnsupported(
        "the database's URL begins with neither sqlite:// nor postgresql://", param="database"
    ) from None


def libpq_words(url: PostgresqlUrl) -> dict[str, str]:
    """Return psycopg's connection parameters: the URL's over our defaults."""
    ours = {**_NETWORK, "connect_timeout": EACH_SECONDS} if len(url.hosts) > 1 else _NETWORK
    return {**ours, **url.keywords()}


def _postgresql(url: PostgresqlUrl) -> Engine:
    try:
        # The driver is an extra.
        from storage.psycopg_connection import BoundedConnection, Opener  # noqa: PLC0415

        engine = create_engine(
            "postgresql+psycopg://",  # the dialect alone: several servers are more than SQLAlchemy's URL can say
            pool_pre_ping=True,
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=BUSY_SECONDS,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
        )
    except ModuleNotFoundError:
        raise DatabaseUnsupported(
            "PostgreSQL needs its driver: install receipted with the extra postgres", param="database"
        ) from None
    opener = Opener(url)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, _given: Any, keywords: dict[str, Any]) -> BoundedConnection:
        return opener.open(keywords, _ANSWER_TIMEOUTS_S["idle"])

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # By SQLAlchemy's connection: what a driver's own cursor raises here would be nobody's StorageUnavailable.
        options, driver = connection.get_execution_options(), connection.connection.driver_connection
        is_write = options.get("receipted_write", False)
        if driver is not None:
            driver.patience = options.get("receipted_patience", _ANSWER_TIMEOUTS_S["write" if is_write else "read"])
        if url.is_pooled:
            connection.exec_driver_sql(configure(is_local=True))
        else:
            _replan(connection)

    @event.listens_for(engine, "reset")
    def _reset(dbapi_connection: Any, _record: Any, _state: Any) -> None:
        dbapi_connection.patience = _ANSWER_TIMEOUTS_S["idle"]

    @event.listens_for(engine, "handle_error")
    def _moved(context: ExceptionContext) -> None:
        """Discard every connection to a server that was demoted: writes go elsewhere."""
        options = context.connection.get_execution_options() if context.connection is not None else {}
        is_refused = getattr(context.original_exception, "sqlstate", None) == _READ_ONLY
        if is_refused and not options.get("postgresql_readonly", False):
            context.is_disconnect = True

    return engine


def session_of(major: int) -> dict[str, str]:
    """Return what is set for a session of a server of this major version."""
    return SESSION if major < 17 else {**SESSION, **_SINCE_17}


def configure(*, is_local: bool) -> str:
    """Return the statement that sets all of it, for a session or a transaction."""
    scope = "true" if is_local else "false"
    ours = (f"set_config('{name}', '{value}', {scope})" for name, value in SESSION.items())
    newer = (
        f"CASE WHEN current_setting('{name}', true) IS NOT NULL THEN set_config('{name}', '{value}', {scope}) END"
        for name, value in _SINCE_17.items()
    )
    return f"SELECT {', '.join((*ours, *newer))}"


def _replan(connection: Connection) -> None:
    now = time.monotonic()
    if now >= connection.info.get("receipted_replans_at", now):
        connection.info["receipted_replans_at"] = now + _PLANNED_FOR
        connection.exec_driver_sql("DISCARD PLANS")


def _sqlite(url: URL) -> Engine:
    # Whoever writes next takes the connection that wrote last: any other has forgotten the pages that it knew.
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "cached_statements": _PREPARED},
        hide_parameters=True,
        poolclass=QueuePool,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "do_connect")
    def _make_private(_dialect: Any, _record: Any, _given: Any, _named: Any) -> None:
        # SQLite would make it with what the umask leaves, and gives its -wal and -shm the same mode
        path = Path(url.database) if url.database and url.database != ":memory:" else None
        if path is not None and not path.exists() and path.parent.is_dir():
            make_file(path)

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves
        cursor = dbapi_connection.cursor()
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        is_write = connection.get_execution_options().get("receipted_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    return engine


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Write ahead; raises OperationalError where another holds the file too long.

    Where several processes open a new file at once, SQLite lets one change the mode and waits for none.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_WAL_RETRY_S)  # polled: nobody tells when the file is free
