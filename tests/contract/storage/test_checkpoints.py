"""SQLite's log of writes: no commit pays for it, and it does not grow for ever."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from storage import inbox, wal_checkpoints
from storage.database import Database
from storage.wal_checkpoints import Checkpoints, checkpointing
from tests.support.builders import a_message
from tests.support.databases import copy_of
from tests.support.serving import eventually


@pytest.fixture
def opened(template, tmp_path):
    database = copy_of(template, tmp_path / "checkpoints.db")
    yield database
    database.close()


def record(database: Database, number: int = 1) -> None:
    for _ in range(number):
        with database.write() as unit:
            inbox.record(unit, [a_message(body=b"x" * 4000)])


def log_of(database: Database) -> Path:
    return Path(f"{database.engine.url.database}-wal")


def test_commits_leave_the_log_alone(opened, monkeypatch):
    """Far beyond SQLite's own thousand pages nothing is in the file, as long as nobody has looked."""
    monkeypatch.setattr(wal_checkpoints, "_CHECK_INTERVAL_S", 60.0)
    looked = Checkpoints(opened)
    with checkpointing(opened):
        record(opened, 400)
        in_log, in_file = looked.pages()
    assert in_log > 1200
    assert in_file == 0


def test_many_pages_are_brought_into_the_file_beside_a_writer(opened, monkeypatch):
    """While a write transaction is open, which a commit of another would have to wait for."""
    monkeypatch.setattr(wal_checkpoints, "_PASSIVE_CHECKPOINT_PAGES", 20)
    record(opened, 20)
    looked = Checkpoints(opened)
    before = looked.pages()
    with opened.write() as unit:
        inbox.record(unit, [a_message()])
        looked.step(1.0)
        assert looked.pages() == (before[0], before[0])
    assert before[1] == 0


def test_under_a_load_without_pause_the_log_begins_anew(opened, monkeypatch):
    """Beyond a bound writing waits its turn, and the log is used from its beginning again."""
    monkeypatch.setattr(wal_checkpoints, "_PASSIVE_CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(wal_checkpoints, "_TRUNCATE_CHECKPOINT_PAGES", 200)
    monkeypatch.setattr(wal_checkpoints, "_CHECK_INTERVAL_S", 0.01)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            record(opened)

    largest, looked = 0, Checkpoints(opened)
    restarts: list[int] = []

    def has_begun_anew() -> bool:
        nonlocal largest
        now = looked.pages()[0]
        if now < largest:
            restarts.append(largest)
            largest = 0
        largest = max(largest, now)
        return len(restarts) >= 3

    with checkpointing(opened):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            eventually(has_begun_anew)
        finally:
            stop.set()
            writer.join()
    assert max(restarts) < 4000
    with closing(sqlite3.connect(opened.engine.url.database)) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_quiet_service_has_no_log(opened):
    """After half a minute without a commit it is emptied; nothing is lost by that."""
    record(opened, 5)
    looked = Checkpoints(opened)
    looked.step(1.0)
    assert log_of(opened).stat().st_size > 0
    looked.step(31.0)
    assert log_of(opened).stat().st_size == 0
    with opened.read() as unit:
        assert len(inbox.find(unit)) == 5


def test_a_look_leaves_the_locks_to_sqlite(opened):
    """Another process cannot write amid a transaction of ours, however often the log is looked at."""
    looked = Checkpoints(opened)
    record(opened)
    with opened.write() as unit:
        inbox.record(unit, [a_message()])
        before = looked.pages()
        looked.pages()
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run(
            [sys.executable, "-c", code, opened.engine.url.database], capture_output=True, text=True, check=False
        )
    assert before[0] > 0
    assert "database is locked" in other.stderr
