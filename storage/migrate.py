"""Migration of a database to the newest schema, and checks that it is there."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from storage.database import Database, translated
from storage.errors import DatabaseUnsupported, SchemaOutdated, StorageUnavailable
from storage.private_files import make_folder

#: The advisory lock of the process that migrates: the first bytes of the SHA-256 of "receipted migrate".
_MIGRATION_LOCK_ID: Final = 0x723CDBC223EAE0F

#: Time that a migration waits for another one, and between two attempts to get the lock.
_LOCK_DEADLINE_S: Final = 60
_LOCK_RETRY_S: Final = 0.1

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

#: Folders of revisions; tests add one to this list.
VERSION_FOLDERS: Final = [_MIGRATIONS / "versions"]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, VERSION_FOLDERS)).replace("%", "%%"))
    return config


def newest() -> str:
    """Return the revision that this program needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SchemaOutdated("this installation holds no migrations")
    return head


def current(database: Database) -> str | None:
    """Return the revision of the database, or None; raises StorageUnavailable."""
    with translated(), database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> str:
    """Bring the database to the newest schema; return its revision. A repeat is safe.

    Several processes may do it at once: one migrates, the others wait for it and find nothing left to do. On SQLite
    all migrations are one transaction. On PostgreSQL each is one, and one that runs beside the service is several; a
    crash costs the last of them, and the next call goes on from there. Raises StorageUnavailable, SchemaOutdated as
    `check_known` does, and DatabaseUnsupported as `check_encoding` does.
    """
    check_encoding(database)
    path = _file(database)
    if path is not None:
        make_folder(path.parent)
    check_known(current(database))
    if database.engine.dialect.name == "sqlite":
        _upgrade_sqlite(database)
    else:
        _upgrade_postgresql(database)
    return newest()


def _upgrade_sqlite(database: Database) -> None:
    with translated(), database.engine.connect() as opened:
        connection = opened.execution_options(receipted_write=True)
        with connection.begin():  # BEGIN IMMEDIATE: no other process migrates
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _upgrade_postgresql(database: Database) -> None:
    with translated(), _migration_lock(database) as check_lock, database.engine.connect() as opened:
        config = _config()
        config.attributes["connection"] = opened.execution_options(receipted_write=True, receipted_patience=None)
        config.attributes["check_lock"] = check_lock
        command.upgrade(config, "head")


@contextmanager
def _migration_lock(database: Database) -> Iterator[Callable[[], None]]:
    """Hold the migration lock; the callable it gives raises where it may be lost.

    The lock belongs to a transaction, so that it works behind a pooler of transactions too; that transaction does
    nothing else and outlives those of the migration. Processes poll for the lock: a query that waited for it would
    hold up CREATE INDEX CONCURRENTLY, which waits for every query, for ever.
    """
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    with database.engine.connect() as opened:
        guard = opened.execution_options(receipted_write=True)
        while True:
            held = guard.begin()
            if guard.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_MIGRATION_LOCK_ID})").scalar():
                break
            held.rollback()
            if time.monotonic() > deadline:
                raise StorageUnavailable("another process is migrating the database")
            time.sleep(_LOCK_RETRY_S)  # polled, so that the wait ends at the deadline

        def check_lock() -> None:
            # Not a SELECT: its snapshot would last until the next statement, and CREATE INDEX waits for snapshots.
            guard.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")

        check_lock()
        yield check_lock
        held.rollback()


def _file(database: Database) -> Path | None:
    """Return the file of a SQLite database; None for one in memory or on a server."""
    url = database.engine.url
    is_file = url.drivername.startswith("sqlite") and url.database and url.database != ":memory:"
    return Path(url.database) if is_file and url.database else None


def is_absent(database: Database) -> bool:
    """Return whether the database is a missing SQLite file; any query would create it."""
    path = _file(database)
    return path is not None and not path.exists()


def check_encoding(database: Database) -> None:
    """Return when the database stores all of Unicode.

    Raises DatabaseUnsupported where its encoding is not UTF8.

    The encoding cannot be changed afterwards: LATIN1 lacks most of the world's letters, and SQL_ASCII does not say
    what its bytes mean. Every encoding of SQLite stores all of Unicode.
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


def check_known(revision: str | None) -> None:
    """Return when the revision can be migrated from.

    Raises SchemaOutdated for one that this program does not have.

    Such a database was made by a newer version, or by one before the first release, whose schemas are not migrated.
    """
    if revision is not None and revision not in _revisions():
        raise SchemaOutdated(
            f"the database is at revision {revision}, which this program does not know: it was made by a newer "
            "version, or by one before the first release, and is not migrated; run the version that made it, or begin "
            "with an empty database"
        )


def _revisions() -> frozenset[str]:
    return frozenset(each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions())


def check(database: Database) -> None:
    """Return when the schema is the one that this program needs.

    Raises SchemaOutdated otherwise.

    Raises DatabaseUnsupported as `check_encoding` does.
    """
    check_encoding(database)
    found, needed = current(database), newest()
    check_known(found)
    if found != needed:
        raise SchemaOutdated(
            f"the database is at {found or 'nothing'}, this program needs {needed}: run receipted migrate"
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """A migration that is not applied yet."""

    revision: str
    says: str
    is_online: bool  #: runs beside the program of the revision before; otherwise that program is stopped first


def pending(database: Database) -> list[Pending]:
    """List the migrations that `upgrade` would apply, in order.

    Raises StorageUnavailable, and SchemaOutdated as `check_known` does.
    """
    found = None if is_absent(database) else current(database)
    check_known(found)
    is_server = database.engine.dialect.name == "postgresql"
    script = ScriptDirectory.from_config(_config())
    revisions = script.iterate_revisions("head", found or "base")
    return [
        Pending(each.revision, each.doc, is_server and getattr(each.module, "is_online", False))
        for each in reversed(list(revisions))
    ]
