"""The turn to write to a SQLite file: one writer at a time, in order.

SQLite has a lock for that, and no queue: a process that finds it taken looks again after up to a tenth of a second, and
one that writes without a pause keeps all others from writing. So writers take turns before they ask for SQLite's lock,
by locks of the kernel (flock) on two empty files beside the database: `-turn` is held by the process that writes, and
`-next` by the one that writes after it, which is woken at once. Whoever has just written waits behind that one.
The kernel releases the locks of a process that ends, however it ends. Correctness rests on SQLite's lock alone: another
program that writes, or a process that does not find these files, is waited for as before.
"""

import errno
import fcntl
import os
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final

from storage import connections
from storage.errors import StorageUnavailable
from storage.private_files import PRIVATE_FILE

_REFUSALS: Final = {
    errno.EROFS: "storage_read_only",
    errno.EACCES: "storage_read_only",
    errno.EPERM: "storage_read_only",
    errno.ENOSPC: "storage_full",
    errno.EDQUOT: "storage_full",
}


class FairLock:
    """Held by one thread at a time, in the order in which they asked.

    Python's own lock goes to whoever is quickest, which is the thread that has just released it: one that writes
    without a pause would keep all others from writing.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_held = False

    def acquire(self, seconds: float) -> bool:
        """Return True once it is ours, or False where it is not within so many seconds."""
        with self._guard:
            if not self._is_held:
                self._is_held = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=max(seconds, 0.0)):  # released by the thread that hands the lock on
            return True
        with self._guard:
            if turn not in self._waiting:
                return True  # it was handed on at that moment
            self._waiting.remove(turn)
            return False

    def release(self) -> None:
        """Pass the lock on to the next thread."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_held = False


class WriteTurn:
    """Context manager in which no other thread or process of ours writes to the file.

    Entering raises StorageUnavailable after BUSY_SECONDS. Without a file it orders the threads of this process alone.
    """

    def __init__(self, database: Path | None) -> None:
        self._database = database
        self._threads = FairLock()
        self._files: _TurnFiles | None = None

    def __enter__(self) -> None:
        until = time.monotonic() + connections.BUSY_SECONDS
        if not self._threads.acquire(connections.BUSY_SECONDS):
            raise _busy()
        try:
            if self._database is not None:
                if self._files is None:
                    self._files = _TurnFiles(self._database)
                self._files.acquire(until)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, _kind: type[BaseException] | None, _fault: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._files is not None:
            self._files.release()
        self._threads.release()

    def close(self) -> None:
        """Close the files; they are opened again when the turn is next taken."""
        if self._files is not None:
            self._files.close()
            self._files = None


class _TurnFiles:
    """The locks on both files; for one thread of the process at a time."""

    def __init__(self, database: Path) -> None:
        """Open the files. Raises StorageUnavailable."""
        opened: list[int] = []
        try:
            opened.extend(_open(database.with_name(f"{database.name}{suffix}")) for suffix in ("-next", "-turn"))
            if (owner := _owner(database)) is not None:
                for descriptor in opened:
                    os.fchown(descriptor, *owner)
        except OSError as fault:
            for descriptor in opened:
                os.close(descriptor)
            raise _unavailable(fault) from None
        self._next, self._turn = opened
        self._close = weakref.finalize(self, _close, opened)
        self._guard = threading.Lock()
        self._asked, self._granted = threading.Lock(), threading.Lock()  # both are released to wake a thread
        self._asked.acquire()
        self._granted.acquire()
        self._waiter: threading.Thread | None = None
        self._is_asked = False  #: the waiter waits for the locks
        self._is_wanted = False  #: and a thread for the waiter
        self._fault: OSError | None = None  #: why the waiter has no locks to hand on
        self._is_closed = False

    def acquire(self, until: float) -> None:
        """Return once it is ours; raises StorageUnavailable where it is not until then."""
        try:
            if self._take(until):
                return
        except OSError as fault:
            raise _unavailable(fault) from None
        raise _busy()

    def _take(self, until: float) -> bool:
        """Return whether it is ours; raises OSError where the kernel gives no locks."""
        with self._guard:
            if not self._is_asked:
                if self._is_free():
                    return True
                self._ask()
            self._is_wanted = True
        if not self._granted.acquire(timeout=max(until - time.monotonic(), 0.0)):
            with self._guard:
                self._is_wanted = False
                if not self._granted.acquire(blocking=False):
                    return False
                # it was granted at that moment
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        return True

    def release(self) -> None:
        """Let the next process write."""
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files, and end the waiter once it has what it waits for."""
        with self._guard:
            self._is_closed = True
            if self._is_asked:
                return  # the waiter does it: a closed descriptor's number may soon be another file's
            self._close()
        self._asked.release()

    def _is_free(self) -> bool:
        """Take the turn, unless another process has it or is the next."""
        try:
            fcntl.flock(self._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        return True

    def _ask(self) -> None:
        """Let the waiter wait: flock has no timeout."""
        self._is_asked = True
        if self._waiter is None:
            self._waiter = threading.Thread(target=self._wait, name="turn", daemon=True)
            self._waiter.start()
        self._asked.release()

    def _wait(self) -> None:
        while True:
            self._asked.acquire()
            if self._is_closed:
                return
            fault: OSError | None = None
            try:
                fcntl.flock(self._next, fcntl.LOCK_EX)
                try:
                    fcntl.flock(self._turn, fcntl.LOCK_EX)
                finally:
                    fcntl.flock(self._next, fcntl.LOCK_UN)
            except OSError as found:  # the thread that waits is told, and the next one asks again
                fault = found
            with self._guard:
                self._is_asked = False
                if self._is_wanted:
                    self._is_wanted = False
                    self._fault = fault
                    self._granted.release()
                elif fault is None:
                    self.release()
                if self._is_closed:
                    self._close()
                    return


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)


def _owner(database: Path) -> tuple[int, int] | None:
    """Return user and group of the database where root asks.

    The files become theirs, as those that SQLite makes.
    """
    if os.geteuid() != 0:
        return None
    found = database.stat()
    return found.st_uid, found.st_gid


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _unavailable(fault: OSError) -> StorageUnavailable:
    unavailable = StorageUnavailable(f"the turn to write cannot be taken: {fault.strerror}")
    unavailable.refusal = _REFUSALS.get(fault.errno or 0)
    return unavailable


def _busy() -> StorageUnavailable:
    return StorageUnavailable(f"the database refused: another has been writing for {connections.BUSY_SECONDS:g} s")
