"""Brings a database to the newest schema, and says whether it is there."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url

from storage.connections import BUSY_SECONDS
from storage.engine import Database, translated
from storage.errors import SchemaOutdated
from storage.schema import metadata

#: The advisory lock of whoever migrates: the first bytes of the SHA-256 of "receipted migrate".
_MIGRATING: Final = 0x723CDBC223EAE0F

#: Seconds that a migration waits for another one.
_PATIENCE_SECONDS: Final = 60


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

    Several processes may do it at once: one migrates, the others wait for it and find nothing left to do. All
    migrations are one transaction, so that a crash leaves the schema as it was. Raises StorageUnavailable.
    """
    path = _file(database)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    config = _config()
    with translated(), database.engine.connect() as opened:
        connection = opened.execution_options(receipted_write=True)
        with _keys_unenforced(connection), connection.begin():
            _wait_for_others(connection)
            config.attributes["connection"] = connection
            before = _dangling(connection)
            command.upgrade(config, to)
            if lost := _dangling(connection) - before:
                raise SchemaOutdated(f"nothing was migrated: rows of {', '.join(lost)} would point to nothing")
    return newest()


def _wait_for_others(connection: Connection) -> None:
    """Nobody else migrates until the transaction ends; SQLite's BEGIN IMMEDIATE has seen to that already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
        # Whoever waits for a table to change it holds up everybody who comes after.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS:.0f}s'")


def _dangling(connection: Connection) -> Counter[str]:
    """How many rows of each table point to a row that is not there; on PostgreSQL none ever does."""
    if connection.dialect.name != "sqlite":
        return Counter()
    return Counter(str(row[0]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check"))


@contextmanager
def _keys_unenforced(connection: Connection) -> Iterator[None]:
    """SQLite alters a table by copying it, which foreign keys would forbid; they hold again after the block.

    Source: sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes". Nothing on other databases.
    """
    driver = connection.connection.driver_connection
    if connection.dialect.name != "sqlite" or driver is None:
        yield
        return
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _file(database: Database) -> Path | None:
    """Where a SQLite database is kept; None for one in memory or on a server."""
    url = make_url(database.url)
    is_file = url.drivername.startswith("sqlite") and url.database and url.database != ":memory:"
    return Path(url.database) if is_file and url.database else None


def is_absent(database: Database) -> bool:
    """Whether the database is a SQLite file that is not there; asking anything else would make an empty one."""
    path = _file(database)
    return path is not None and not path.exists()


def check(database: Database) -> None:
    """Return when the database has the schema that this program needs; raises SchemaOutdated otherwise."""
    found, needed = current(database), newest()
    if found != needed:
        raise SchemaOutdated(
            f"the database is at {found or 'nothing'}, this program needs {needed}: run receipted migrate"
        )


def drift(database: Database) -> list[str]:
    """What the tables declare and the migrated database lacks, or the other way round; empty where they agree."""
    with database.engine.connect() as connection:
        return [str(difference) for difference in compare_metadata(MigrationContext.configure(connection), metadata)]
