"""Checkpoints of SQLite's write-ahead log beside the commits.

By default whoever commits past a thousand pages pays for all of them: every so many deliveries wait for it.
"""

import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import event

from storage.database import Database

log = structlog.get_logger()

#: Pages in the log that are not in the file, beyond which they are brought there, while others go on writing.
_PASSIVE_CHECKPOINT_PAGES: Final = 8_000

#: Pages in the log beyond which writing pauses for a moment, so that nothing is left in it and it begins anew: under
#: a load without a pause it would otherwise grow for ever.
_TRUNCATE_CHECKPOINT_PAGES: Final = 64_000

#: Seconds between two looks.
_CHECK_INTERVAL_S: Final = 0.25

#: Seconds without a commit after which the log is emptied, so that a quiet service has a short one.
_IDLE_TRUNCATE_S: Final = 30.0

#: Where the index of the log says how many pages are in it, and how many of them are in the file too.
#: Source: sqlite.org/walformat.html, "The WAL-Index File Format".
_IN_LOG: Final = slice(16, 20)
_IN_FILE: Final = slice(96, 100)


class Checkpoints:
    """Checkpoints the log in a thread of its own, from start() to stop()."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = database.engine.url.database or ""
        self._log = Path(f"{self._file}-wal")
        self._index = Path(f"{self._file}-shm")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pages = 0  #: in the log when it was last looked at
        self._quiet = 0.0

    def start(self) -> None:
        """Take checkpoints out of this process's commits. On PostgreSQL nothing."""
        if self._database.engine.dialect.name != "sqlite" or self._thread is not None:
            return

        @event.listens_for(self._database.engine, "checkout")
        def _leave_it(connection: Any, record: Any, _proxy: Any) -> None:
            if not self._stop.is_set() and not record.info.get("receipted_checkpoints"):
                connection.execute("PRAGMA wal_autocheckpoint=0")
                record.info["receipted_checkpoints"] = True

        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the last connection to close checkpoints what is left."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_CHECK_INTERVAL_S):
            try:
                self.step(_CHECK_INTERVAL_S)
            except Exception as fault:  # noqa: BLE001 - it is tried again, and commits go on meanwhile
                log.warning("storage.waiting", error=f"{type(fault).__name__}: {fault}")

    def step(self, passed: float) -> None:
        """Look once, `passed` seconds after the last time. Raises sqlite3.Error."""
        in_log, in_file = self.pages()
        has_changed, self._pages = in_log != self._pages, in_log
        self._quiet = 0.0 if has_changed else self._quiet + passed
        if in_log - in_file > _PASSIVE_CHECKPOINT_PAGES:
            self._checkpoint("PASSIVE")
        if in_log > _TRUNCATE_CHECKPOINT_PAGES:
            self._checkpoint("PASSIVE")  # so that the pause is short
            with self._database.turn:
                self._checkpoint("PASSIVE")
        elif self._quiet >= _IDLE_TRUNCATE_S and self._log.stat().st_size:
            self._quiet = 0.0
            with self._database.turn:
                self._checkpoint("TRUNCATE")

    def pages(self) -> tuple[int, int]:
        """Return the pages in the log, and how many of them are in the file too."""
        head = _head_of(self._index)
        if len(head) < _IN_FILE.stop:
            return 0, 0
        return int.from_bytes(head[_IN_LOG], sys.byteorder), int.from_bytes(head[_IN_FILE], sys.byteorder)

    def _checkpoint(self, mode: str) -> None:
        """Checkpoint PASSIVE, which blocks no writer, then TRUNCATE, which waits for none."""
        connection = sqlite3.connect(self._file, timeout=0.0, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")  # otherwise the log could be used again before it is safe
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            connection.close()


#: Indexes that were looked at, by their path. They stay open: whoever closes a file ends every lock that the whole
#: process has on it (POSIX), and the index is what SQLite locks. Another process could then write amid a transaction of
#: ours. Source: sqlite.org/howtocorrupt.html, "Posix advisory locks canceled by a separate thread doing close()".
_open: Final[dict[Path, int]] = {}
_opening: Final = threading.Lock()


def _head_of(index: Path) -> bytes:
    """Return the first bytes of an index; none where the file is missing.

    Only descriptors of deleted files are closed: closing one drops every lock that this process has on its file.
    """
    with _opening:
        for path, descriptor in list(_open.items()):
            if not _is_at(path, descriptor):
                os.close(_open.pop(path))
        if index not in _open:
            try:
                _open[index] = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
        return os.pread(_open[index], _IN_FILE.stop, 0)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def checkpointing(database: Database) -> Iterator[None]:
    """Within the block the log is looked after."""
    checkpoints = Checkpoints(database)
    checkpoints.start()
    try:
        yield
    finally:
        checkpoints.stop()
