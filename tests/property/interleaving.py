"""Several processes' work at once on PostgreSQL, one statement at a time, in an order that a seed decides."""

import random
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from sqlalchemy import Connection, event

from storage.database import Database

#: Seconds after which a statement without an answer is looked at: does it wait for a lock?
_PATIENCE: Final = 0.004

#: Seconds after which the whole is stuck, and the test fails.
_DEADLINE: Final = 60.0

_WAITING = "SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s) AND wait_event_type = 'Lock'"


class _Place(Enum):
    GATE = "before a statement or a commit"
    UNDER_WAY = "in the database, or between two statements"
    BLOCKED = "waits for a lock that another holds"
    ENDED = "ended"


class _Worker(threading.Thread):
    """One part of the work; `fault` is what ended it, if anything did."""

    def __init__(self, work: Callable[[], Any], changed: threading.Condition) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._changed = changed
        self.place = _Place.UNDER_WAY
        self.pid = 0  #: of its connection's server process
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as fault:  # noqa: BLE001 - whatever a worker dies of is what the test is about
            self.fault = fault
        self.enter(_Place.ENDED)

    def enter(self, place: _Place) -> None:
        with self._changed:
            self.place = place
            self._changed.notify_all()

    def stop_at_gate(self, pid: int) -> None:
        """Return when it is let through."""
        self.pid = pid
        self.enter(_Place.GATE)
        with self._changed:
            assert self._changed.wait_for(lambda: self.place is not _Place.GATE, _DEADLINE), "nobody opened the gate"


class Interleaving:
    """Runs work in threads of its own. Between two statements of one any number of the others' may come.

    Who waits for a row lock, as PostgreSQL says, lets the others go on, since one of them holds it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed = threading.Condition()
        self.switches = 0  #: how often another than the last one went on
        self.waits = 0  #: how often somebody was seen to wait for a lock
        event.listen(database.engine, "before_cursor_execute", self._before_statement)
        event.listen(database.engine, "commit", self._before_commit)

    def run(self, rng: random.Random, *works: Callable[[], Any]) -> list[BaseException | None]:
        """All of it is done; returns what each was ended by."""
        workers = [_Worker(work, self._changed) for work in works]
        for worker in workers:
            worker.start()
        last, until = None, time.monotonic() + _DEADLINE
        while waiting := self._at_a_gate(workers, until):
            chosen = rng.choice(waiting)
            self.switches += last not in (None, chosen)
            last = chosen
            chosen.enter(_Place.UNDER_WAY)
        for worker in workers:
            worker.join()
        return [worker.fault for worker in workers]

    def _at_a_gate(self, workers: list[_Worker], until: float) -> list[_Worker]:
        """Those that may go on, once nobody's next step is open; none when all have ended."""
        while time.monotonic() < until:
            with self._changed:
                if self._changed.wait_for(lambda: not _are(workers, _Place.UNDER_WAY), _PATIENCE):
                    waiting = _are(workers, _Place.GATE)
                    if waiting or not _are(workers, _Place.BLOCKED):
                        return waiting
                    self._changed.wait(_PATIENCE)  # all wait for locks: the server ends one of them, or lets one go on
                    continue
                under_way = {worker.pid: worker for worker in _are(workers, _Place.UNDER_WAY)}
            blocked = self._blocked(list(under_way))
            with self._changed:
                for pid in blocked:
                    if under_way[pid].place is _Place.UNDER_WAY:
                        under_way[pid].place = _Place.BLOCKED
                        self.waits += 1
        raise AssertionError(f"stuck: {[worker.place.value for worker in workers]}")

    def _blocked(self, pids: list[int]) -> list[int]:
        with self._database.engine.connect() as connection:
            return [row[0] for row in connection.exec_driver_sql(_WAITING, (pids,))]

    def _before_statement(self, connection: Connection, *_: Any) -> None:
        self._before_commit(connection)

    def _before_commit(self, connection: Connection) -> None:
        worker = threading.current_thread()
        driver = connection.connection.driver_connection
        if isinstance(worker, _Worker) and driver is not None:
            worker.stop_at_gate(driver.info.backend_pid)


def _are(workers: list[_Worker], place: _Place) -> list[_Worker]:
    return [worker for worker in workers if worker.place is place]
