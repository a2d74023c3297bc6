"""Brings a database to the newest schema, and says whether it is there."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from storage.database import Database, translated
from storage.errors import DatabaseUnsupported, SchemaOutdated, StorageUnavailable
from storage.private_files import make_folder

#: The advisory lock of whoever migrates: the first bytes of the SHA-256 of "receipted migrate".
_MIGRATING: Final = 0x723CDBC223EAE0F

#: Seconds that a migration waits for another one, and after which it looks again.
_PATIENCE_SECONDS: Final = 60
_LOOK_SECONDS: Final = 0.1


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def newest() -> str:
    """The revision that this program needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SchemaOutdated("this installation holds no migrations")
    return head


def current(database: Database) -> str | None:
    """The revision of the database; None where it is empty. Raises StorageUnavailable."""
    with translated(), database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database, *, to: str = "head") -> str:
    """The database has the newest schema afterwards, or that of `to`; a repeat changes nothing. Returns the newest.

    Several processes may do it at once: one migrates, the others wait for it and find nothing left to do. On SQLite
    all migrations are one transaction. On PostgreSQL each is one, and one that runs beside the service is many; a
    crash costs the last of them, and the next call goes on from there. Raises StorageUnavailable, and
    DatabaseUnsupported as `check_encoding` does.
    """
    check_encoding(database)
    path = _file(database)
    if path is not None:
        make_folder(path.parent)
    if database.engine.dialect.name == "sqlite":
        _at_once(database, to)
    else:
        _beside_others(database, to)
    return newest()


def _at_once(database: Database, to: str) -> None:
    with translated(), database.engine.connect() as opened:
        # A large table takes as long as it takes.
        connection = opened.execution_options(receipted_write=True)
        with _keys_unenforced(connection), connection.begin():  # BEGIN IMMEDIATE: nobody else migrates
            config = _config()
            config.attributes["connection"] = connection
            before = _dangling(connection)
            command.upgrade(config, to)
            if lost := _dangling(connection) - before:
                raise SchemaOutdated(f"nothing was migrated: rows of {', '.join(lost)} would point to nothing")


def _beside_others(database: Database, to: str) -> None:
    with translated(), _alone(database) as still_alone, database.engine.connect() as opened:
        config = _config()
        config.attributes["connection"] = opened.execution_options(receipted_write=True, receipted_patience=None)
        config.attributes["still_alone"] = still_alone
        command.upgrade(config, to)


@contextmanager
def _alone(database: Database) -> Iterator[Callable[[], None]]:
    """Nobody else migrates within the block; what it is given raises where that is not sure any more.

    The lock is a transaction's, so that a pooler of transactions keeps it too, and that transaction does nothing else:
    it outlives those of the migration. Who waits asks again and again: a query that waits would hold up the building
    of an index, which waits for every query, for ever.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with database.engine.connect() as opened:
        guard = opened.execution_options(receipted_write=True)
        while True:
            held = guard.begin()
            if guard.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_MIGRATING})").scalar():
                break
            held.rollback()
            if time.monotonic() > deadline:
                raise StorageUnavailable("another process is migrating the database")
            time.sleep(_LOOK_SECONDS)  # asked, and not waited for in the database: see above

        def still_alone() -> None:
            # Not a SELECT: its snapshot would last until the next statement, and building an index waits for that.
            guard.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")

        still_alone()
        yield still_alone
        held.rollback()


def _dangling(connection: Connection) -> Counter[str]:
    """How many rows of each table of a SQLite database point to a row that is not there."""
    return Counter(str(row[0]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check"))


@contextmanager
def _keys_unenforced(connection: Connection) -> Iterator[None]:
    """SQLite alters a table by copying it, which foreign keys would forbid; they hold again after the block.

    Source: sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes".
    """
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _file(database: Database) -> Path | None:
    """Where a SQLite database is kept; None for one in memory or on a server."""
    url = database.engine.url
    is_file = url.drivername.startswith("sqlite") and url.database and url.database != ":memory:"
    return Path(url.database) if is_file and url.database else None


def is_absent(database: Database) -> bool:
    """Whether the database is a SQLite file that is not there; asking anything else would make an empty one."""
    path = _file(database)
    return path is not None and not path.exists()


def check_encoding(database: Database) -> None:
    """Return when the database keeps every text; raises DatabaseUnsupported where its encoding is not UTF8.

    Nothing can be done about it afterwards: in LATIN1 most names of the world have no place, and SQL_ASCII says
    nothing of what its bytes mean. SQLite's encodings keep all of Unicode.
    """
    if database.engine.dialect.name != "postgresql":
        return
    with translated(), database.engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise DatabaseUnsupported(
            f"the database's encoding is {encoding}, and must be UTF8: make one by CREATE DATABASE ... ENCODING 'UTF8' "
            "TEMPLATE template0",
            param="database",
        )


def check(database: Database) -> None:
    """Return when the database has the schema that this program needs; raises SchemaOutdated otherwise.

    Raises DatabaseUnsupported as `check_encoding` does.
    """
    check_encoding(database)
    found, needed = current(database), newest()
    if found != needed:
        raise SchemaOutdated(
            f"the database is at {found or 'nothing'}, this program needs {needed}: run receipted migrate"
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """A migration that the database has not had."""

    revision: str
    says: str
    is_online: bool  #: runs beside the program of the revision before; otherwise that one is stopped first


def pending(database: Database) -> list[Pending]:
    """The migrations that `upgrade` would do, in order. Raises StorageUnavailable."""
    found = None if is_absent(database) else current(database)
    is_server = database.engine.dialect.name == "postgresql"
    script = ScriptDirectory.from_config(_config())
    revisions = script.iterate_revisions("head", found or "base")
    return [
        Pending(each.revision, each.doc, is_server and getattr(each.module, "is_online", False))
        for each in reversed(list(revisions))
    ]
