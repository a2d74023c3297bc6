"""What can go wrong with a SQLite file alone: read-only, locked, full, not there. Nothing is half written by it."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from storage import connections, inbox, intake_sqlite
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.intake import arrived
from tests.support.builders import a_message
from tests.support.clock import START
from tests.support.databases import copy_of


@pytest.fixture
def database(template, tmp_path):
    """A file of its own: other databases have no file that could be read-only, locked or full."""
    opened = copy_of(template, tmp_path / "contract.db")
    yield opened
    opened.close()


def path_of(database):
    return database.engine.url.database


def kept(path):
    with sqlite3.connect(path) as raw:
        found = raw.execute("SELECT count(*) FROM inbox_message").fetchone()[0]
    raw.close()
    return found


def record(database, *bodies):
    with database.write() as unit:
        for body in bodies:
            inbox.record(unit, [a_message(body=body)])


def test_a_read_only_file_is_unavailable_and_can_be_read(database):
    """Nothing is half written, and reading goes on."""
    record(database, b"{}")
    path = path_of(database)
    read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StorageUnavailable):
        record(read_only, b"{}")
    with read_only.read() as unit:
        assert len(inbox.find(unit)) == 1
    read_only.close()

    assert kept(path) == 1


def test_a_locked_file_is_unavailable(template, tmp_path, monkeypatch):
    """Another process that holds the lock for too long is answered with 503, not with a hang."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    path = tmp_path / "locked.db"
    shutil.copyfile(template, path)
    database = Database(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as raised:
        record(database, b"a secret of the payer")
    other.execute("ROLLBACK")
    other.close()

    assert "secret" not in str(raised.value)
    assert kept(path) == 0
    record(database, b"{}")
    database.close()
    assert kept(path) == 1


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(database):
    """A unit of work that does not fit is kept in no part, and the next one that fits is kept."""
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def bound(connection, _record, _proxy):
        connection.execute(f"PRAGMA max_page_count={pages + limit}")

    limit = 8
    connections.event.listen(database.engine, "checkout", bound)
    with pytest.raises(StorageUnavailable) as raised:
        record(database, b"small", b"x" * 200_000)

    assert "full" in raised.value.message
    assert kept(path_of(database)) == 0
    record(database, b"small")
    assert kept(path_of(database)) == 1


def test_a_folder_that_is_not_there_is_unavailable(tmp_path):
    """A path that cannot be opened is storage that is away."""
    nowhere = Database(f"sqlite:///{tmp_path}/not/there.db")
    with pytest.raises(StorageUnavailable), nowhere.read() as unit:
        inbox.find(unit)
    nowhere.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only /proc tells which files are open")
def test_a_batch_is_written_once_and_not_into_a_temporary_file_too(database):
    """SQLite would copy every page there before it is changed, so that one statement could be undone alone."""
    batch = [
        arrived(
            account="acme", source="webhook", delivery_key=f"{n * 7919 % 1009}", body=bytes(2000), received_at=START
        )
        for n in range(1000)
    ]
    connection = database.engine.raw_connection()
    driver = connection.driver_connection
    for begins in range(0, 1000, 250):
        driver.execute("BEGIN IMMEDIATE")
        intake_sqlite._record(driver, batch[begins : begins + 250], database.sealer.seal)
        intake_sqlite._record(driver, batch[begins : begins + 250], database.sealer.seal)  # as a repeat
        open_files = [path.readlink().name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        driver.execute("COMMIT")
        assert not [name for name in open_files if name.startswith("etilqs")]
    connection.close()
    assert kept(path_of(database)) == 1000


def test_a_new_file_that_another_writes_to_is_waited_for(tmp_path):
    """SQLite itself waits for nobody where a file is to be made one that writes ahead."""
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        writes = threading.Timer(0.2, other.execute, ["ROLLBACK"])
        writes.start()
        database = Database(f"sqlite:///{path}")
        with database.engine.connect() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        writes.join()
        database.close()

    assert mode == "wal"


def test_a_new_file_that_another_keeps_is_unavailable_in_time(tmp_path, monkeypatch):
    """The wait is as long as that for any other lock."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        database = Database(f"sqlite:///{path}")
        with pytest.raises(StorageUnavailable), database.read():
            pass
        database.close()
