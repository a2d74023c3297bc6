"""The turn to write to a SQLite file. Two turns on one file exclude each other as those of two processes do."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage import connections
from storage.errors import StorageUnavailable
from storage.write_turn import FairLock, WriteTurn
from tests.support.serving import eventually

#: Holds the turn until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from storage.write_turn import WriteTurn
with WriteTurn(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "receipted.db"
    path.touch()
    return path


@pytest.fixture
def turns(file):
    """Makes turns as of so many processes."""
    made = []

    def make():
        made.append(WriteTurn(file))
        return made[-1]

    yield make
    for turn in made:
        turn.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)


def test_another_waits_and_is_woken(turns):
    """Whoever comes second has the turn as soon as the first is done, and not before."""
    first, second, order = turns(), turns(), []

    def write():
        with second:
            order.append("second")

    with first:
        thread = threading.Thread(target=write)
        thread.start()
        eventually(lambda: second._files is not None and second._files._is_wanted)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_one_that_writes_without_a_pause_starves_no_other(turns):
    """Once another is the next, the first has its turn behind that one, however quickly it asks again."""
    greedy, patient = turns(), turns()
    order = []

    def write():
        with patient:
            order.append("patient")

    for _ in range(20):
        with greedy:
            order.append("greedy")
            thread = threading.Thread(target=write)
            thread.start()
            eventually(
                lambda: patient._files is not None and patient._files._is_asked and _is_locked(patient._files._next)
            )
        with greedy:
            order.append("greedy again")
        thread.join()
    assert order == ["greedy", "patient", "greedy again"] * 20


def _is_locked(descriptor):
    """Whether somebody holds the lock on the file of this descriptor."""
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(other)
    return False


@pytest.mark.usefixtures("impatient")
def test_a_turn_that_does_not_come_is_unavailable_and_leaves_nothing_behind(turns):
    """Who gave up has not the turn later on, when it comes; and the next who asks has it."""
    first, second, third = turns(), turns(), turns()
    with first:
        for _ in range(2):
            with pytest.raises(StorageUnavailable, match="has been writing"), second:
                pass
    eventually(lambda: not second._files._is_asked)
    with third:
        pass
    with second:
        pass


@pytest.mark.usefixtures("impatient")
def test_a_thread_that_waits_behind_another_gives_up_in_time_too(file):
    """The bound is that of the whole wait, behind threads and behind processes."""
    turn = WriteTurn(file)
    failed = threading.Event()

    def write():
        try:
            with turn:
                pass
        except StorageUnavailable:
            failed.set()

    with turn:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert failed.is_set()
    with turn:
        pass
    turn.close()


def test_the_turn_of_a_killed_process_is_free(file):
    """No lock outlives its process, however that ends."""
    turn = WriteTurn(file)
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        taken = threading.Event()

        def write():
            with turn:
                taken.set()

        thread = threading.Thread(target=write)
        thread.start()
        eventually(lambda: turn._files is not None and turn._files._is_wanted)
        assert not taken.is_set()
        os.kill(holder.pid, signal.SIGKILL)
        thread.join()
    assert taken.is_set()
    turn.close()


def test_closing_while_another_writes_leaves_no_lock(turns):
    """What was waited for and is wanted no more is given up again."""
    first, second, third = turns(), turns(), turns()
    with first:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections, "BUSY_SECONDS", 0.01)
            with pytest.raises(StorageUnavailable), second:
                pass
        files = second._files
        second.close()
    files._waiter.join()
    with third:
        pass


def test_threads_have_the_lock_in_the_order_in_which_they_asked():
    """Nobody is overtaken, and who gives up is passed over."""
    lock, order = FairLock(), []
    assert lock.acquire(0)
    threads = []
    for number in range(5):

        def take(number=number):
            assert lock.acquire(30)
            order.append(number)
            lock.release()

        threads.append(threading.Thread(target=take))
        threads[-1].start()
        eventually(lambda: len(lock._waiting) == number + 1)  # noqa: B023 - called before it is another
    assert not lock.acquire(0)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(5))


@pytest.mark.parametrize("file_with_fault", ["-next", "-turn"])
def test_a_kernel_without_locks_is_told_and_asked_again(turns, monkeypatch, file_with_fault):
    """A fault while waiting for another process ends neither the wait of others nor the thread that waits."""
    first, second = turns(), turns()
    flock, faults = fcntl.flock, [OSError(errno.ENOLCK, "No locks available")]

    def refuse(descriptor, operation):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if operation == fcntl.LOCK_EX and name.endswith(file_with_fault) and faults:
            raise faults.pop()
        flock(descriptor, operation)

    with first:
        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(StorageUnavailable, match="No locks available"), second:
            pass
    assert faults == []
    with second:
        pass
    with first:
        pass
