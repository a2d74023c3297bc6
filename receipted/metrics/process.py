"""Metrics and health of this process, shared in memory with its group."""

import mmap
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from poller.polling import Poller
from receipted.metrics import catalogue
from receipted.metrics.catalogue import METRICS, LabelBounds, Metric, Rows, add, decode_rows, encode_rows, sum_rows
from receipted.metrics.health import Health, LoopMonitor, loop_family
from receiver.group_commit import GroupWriter
from receiver.intake import IntakeNotes
from statemachine.histograms import Counts, Histogram, counts
from storage.database import Database
from worker.dispatch import Dispatcher
from worker.inbox_loop import InboxWorker

#: Bytes of one copy of a slot; a slot has two, of which one is whole while the other is being written.
_COPY_BYTES: Final = 256 * 1024
_COPY_HEADER: Final = struct.Struct("<QII")  # generation, length, CRC-32

#: Seconds after which another process's gauges, such as its queue, no longer count.
_PROCESS_TIMEOUT_S: Final = 10.0
_SUMMED: Final = {metric.name for metric in METRICS if metric.kind != "gauge"}


class SharedSnapshots:
    """Slots of shared memory, each written by one process and read by all.

    Make it before forking. The memory is anonymous: it ends with the processes, so that there is no file to be cleared
    away, none of another run is mistaken for one of this, and kill -9 costs one second's figures.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, slots * 2 * _COPY_BYTES)

    def write(self, slot: int, content: bytes) -> bool:
        """Write the content to the slot; return False, keeping the old, if it is too big."""
        if len(content) > _COPY_BYTES - _COPY_HEADER.size:
            return False
        newest = max(self._whole_copies(slot), default=(0, 0, b""))
        at = self._at(slot, 1 - newest[1] if newest[0] else 0)
        self._memory[at + _COPY_HEADER.size : at + _COPY_HEADER.size + len(content)] = content
        self._memory[at : at + _COPY_HEADER.size] = _COPY_HEADER.pack(newest[0] + 1, len(content), zlib.crc32(content))
        return True

    def read(self, slot: int) -> bytes:
        """Return what was written last, whole; empty where nothing was."""
        newest = max(self._whole_copies(slot), default=None)
        return newest[2] if newest is not None else b""

    def others(self, slot: int) -> Iterator[bytes]:
        """Yield the content of all other slots."""
        return (found for each in range(self._slots) if each != slot and (found := self.read(each)))

    def _at(self, slot: int, copy: int) -> int:
        return (2 * slot + copy) * _COPY_BYTES

    def _whole_copies(self, slot: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield generation, copy number and content of the copies that are whole."""
        for copy in (0, 1):
            at = self._at(slot, copy)
            generation, length, digest = _COPY_HEADER.unpack(self._memory[at : at + _COPY_HEADER.size])
            if generation and length <= _COPY_BYTES - _COPY_HEADER.size:
                content = self._memory[at + _COPY_HEADER.size : at + _COPY_HEADER.size + length]
                if zlib.crc32(content) == digest:
                    yield generation, copy, content


@dataclass
class MetricSources:
    """Counting parts of this process; each registers here when it is made."""

    notes: list[IntakeNotes] = field(default_factory=list)
    writers: list[GroupWriter] = field(default_factory=list)
    workers: list[InboxWorker] = field(default_factory=list)
    pollers: list[Poller] = field(default_factory=list)
    dispatchers: list[Dispatcher] = field(default_factory=list)
    pulse: LoopMonitor = field(default_factory=LoopMonitor)
    scrape_errors: Counts = field(default_factory=counts)  #: by which figures, and ""

    def held_payments(self) -> list[str]:
        """Return payments whose messages wait, since another session holds them."""
        return sorted({payment for worker in self.workers for payment in worker.held.copy()})


class ProcessFigures:
    """Metrics of this process since its start, or of all processes of its group."""

    def __init__(
        self,
        parts: MetricSources,
        database: Database,
        bounds: LabelBounds,
        *,
        version: str,
        queue: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._database = database
        self._bounds = bounds
        self._version = version
        self._queue = queue
        self._monotonic = monotonic
        self._board: SharedSnapshots | None = None
        self._slot = 0
        self._inherited: Rows = {}

    def join(self, board: SharedSnapshots, slot: int) -> None:
        """Share figures in this slot; keep the counts of the slot's last process."""
        self._board, self._slot = board, slot
        before = board.read(slot)
        if before:
            rows, _ = decode_rows(before)
            self._inherited = {name: series for name, series in rows.items() if name in _SUMMED}

    def publish(self, health: Health | None) -> None:
        """Write this process's figures for the others, and its health if it works."""
        if self._board is not None:
            self._board.write(self._slot, encode_rows(self._own(), at=self._monotonic(), health=health))

    @property
    def is_shared(self) -> bool:
        """True if other processes may share figures."""
        return self._board is not None

    def others_health(self) -> list[tuple[float, Health]]:
        """Return the health of the others that work, each with its age in seconds."""
        shared = [decode_rows(content)[1] for content in self._shared()]
        now = self._monotonic()
        return [(now - more["at"], Health(**more["health"])) for more in shared if more["health"] is not None]

    def rows(self) -> Rows:
        """Return the sums over all processes."""
        rows = sum_rows([self._own(), *self._others()])
        add(rows, catalogue.BUILD, (self._version,), [1])
        return rows

    def _others(self) -> Iterable[Rows]:
        for content in self._shared():
            rows, more = decode_rows(content)
            is_gone = self._monotonic() - more["at"] > _PROCESS_TIMEOUT_S
            yield {name: series for name, series in rows.items() if name in _SUMMED} if is_gone else rows

    def _shared(self) -> Iterable[bytes]:
        return self._board.others(self._slot) if self._board is not None else ()

    def _own(self) -> Rows:
        parts = self._parts
        rows: Rows = {}
        if parts.notes:
            self._counts(rows, catalogue.DELIVERIES, (notes.answered for notes in parts.notes))
            self._counts(rows, catalogue.UNVERIFIED, (notes.unverified for notes in parts.notes))
            self._histogram(rows, catalogue.INTAKE, (writer.seconds for writer in parts.writers))
            self._histogram(rows, catalogue.INTAKE_BATCH, (writer.batches for writer in parts.writers))
            add(rows, catalogue.INTAKE_QUEUE, (), [sum(writer.depth() for writer in parts.writers)])
            add(rows, catalogue.INTAKE_LIMIT, (), [self._queue])
        if parts.workers:
            self._counts(rows, catalogue.DECISIONS, (worker.decisions for worker in parts.workers))
            self._histogram(rows, catalogue.DECIDED, (worker.seconds for worker in parts.workers))
        if parts.pollers:
            self._counts(rows, catalogue.POLLS, (poller.asked for poller in parts.pollers))
            logs = (poller.journal.read for poller in parts.pollers if poller.journal is not None)
            self._counts(rows, catalogue.JOURNAL_EVENTS, logs)
        if parts.dispatchers:
            self._counts(rows, catalogue.ATTEMPTS, (dispatcher.attempts for dispatcher in parts.dispatchers))
        self._counts(rows, catalogue.LOOP_FAILURES, [parts.pulse.failures])
        self._failing(rows)
        self._counts(rows, catalogue.UNREADABLE, [self._database.unreadable], width=1)
        add(rows, catalogue.POOL_IN_USE, (), [self._database.in_use()])
        add(rows, catalogue.POOL_SIZE, (), [self._database.pool_limit])
        add(rows, catalogue.POOL_WAITS, (), [self._database.pool_waits])
        add(rows, catalogue.PROCESSES, (), [1])
        add(rows, catalogue.CPU, (), [time.process_time()])
        self._zeros(rows, catalogue.SCRAPE_ERRORS)
        for (figures, _), times in parts.scrape_errors.copy().items():
            add(rows, catalogue.SCRAPE_ERRORS, self._bounds.bounded(catalogue.SCRAPE_ERRORS, (figures,)), [times])
        return sum_rows([rows, self._inherited])

    def _failing(self, rows: Rows) -> None:
        longest: dict[str, float] = {}
        for failure in self._parts.pulse.failures_now():
            name = loop_family(failure.loop)
            longest[name] = max(longest.get(name, 0.0), failure.seconds)
        self._zeros(rows, catalogue.LOOP_FAILING)
        for name, seconds in longest.items():
            add(rows, catalogue.LOOP_FAILING, self._bounds.bounded(catalogue.LOOP_FAILING, (name,)), [seconds])

    def _zeros(self, rows: Rows, metric: Metric) -> None:
        """Add zeros for what has not happened yet: a rate needs a number before the first."""
        for labels in self._bounds.every(metric):
            add(rows, metric, labels, [0])

    def _counts(self, rows: Rows, metric: Metric, found: Iterable[Counts], *, width: int = 2) -> None:
        """Add the counts; the first `width` words of each are its labels."""
        self._zeros(rows, metric)
        for each in found:
            for labels, times in each.copy().items():
                add(rows, metric, self._bounds.bounded(metric, labels[:width]), [times])

    @staticmethod
    def _histogram(rows: Rows, metric: Metric, found: Iterable[Histogram]) -> None:
        add(rows, metric, (), [0.0] * (len(metric.bounds) + 2))
        for each in found:
            add(rows, metric, (), each.row())
