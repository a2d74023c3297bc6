"""Metrics of this process, shared in memory with those that serve the same socket."""

import mmap
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from poller.polling import Poller
from receipted.metrics import catalogue
from receipted.metrics.catalogue import METRICS, Bounds, Metric, Rows, add, merged, packed, unpacked
from receipted.metrics.health import Pulse, family
from receiver.group_commit import GroupWriter
from receiver.intake import IntakeNotes
from statemachine.measures import Counts, Histogram, counts
from storage.database import Database
from worker.dispatch import Dispatcher
from worker.inbox_loop import InboxWorker

#: Bytes for one figure's place: two copies, of which one is whole whenever the other is being written.
_HALF: Final = 256 * 1024

_HEAD: Final = struct.Struct("<QII")  # generation, length, CRC-32


class Board:
    """So many places, each written by one process at a time and read by all. Make it before forking."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._memory = mmap.mmap(-1, places * 2 * _HALF)

    def write(self, place: int, content: bytes) -> bool:
        """The place holds the content; False where it is too large, and what was there stays."""
        if len(content) > _HALF - _HEAD.size:
            return False
        newest = max(self._halves(place), default=(0, 0, b""))
        at = self._at(place, 1 - newest[1] if newest[0] else 0)
        self._memory[at + _HEAD.size : at + _HEAD.size + len(content)] = content
        self._memory[at : at + _HEAD.size] = _HEAD.pack(newest[0] + 1, len(content), zlib.crc32(content))
        return True

    def read(self, place: int) -> bytes:
        """What was written last, whole; empty where nothing was."""
        newest = max(self._halves(place), default=None)
        return newest[2] if newest is not None else b""

    def others(self, place: int) -> Iterator[bytes]:
        """What stands in all other places."""
        return (found for each in range(self._places) if each != place and (found := self.read(each)))

    def _at(self, place: int, half: int) -> int:
        return (2 * place + half) * _HALF

    def _halves(self, place: int) -> Iterator[tuple[int, int, bytes]]:
        """Generation, which half, and content of those that are whole."""
        for half in (0, 1):
            at = self._at(place, half)
            generation, length, digest = _HEAD.unpack(self._memory[at : at + _HEAD.size])
            if generation and length <= _HALF - _HEAD.size:
                content = self._memory[at + _HEAD.size : at + _HEAD.size + length]
                if zlib.crc32(content) == digest:
                    yield generation, half, content


#: Seconds after which another process's levels, such as its queue, are those of a process that is gone.
_GONE: Final = 10.0

_ADDED: Final = {metric.name for metric in METRICS if metric.kind != "gauge"}


@dataclass
class Parts:
    """The parts of this process that count; each is named here when it is made."""

    notes: list[IntakeNotes] = field(default_factory=list)
    writers: list[GroupWriter] = field(default_factory=list)
    workers: list[InboxWorker] = field(default_factory=list)
    pollers: list[Poller] = field(default_factory=list)
    dispatchers: list[Dispatcher] = field(default_factory=list)
    pulse: Pulse = field(default_factory=Pulse)
    scrape_errors: Counts = field(default_factory=counts)  #: by which figures, and ""

    def held_payments(self) -> list[str]:
        """Payments that another session holds, so that what is about them waits."""
        return sorted({payment for worker in self.workers for payment in worker.held.copy()})


class ProcessFigures:
    """What this process has done since it began; with a board, what all have done whose places are on it."""

    def __init__(
        self,
        parts: Parts,
        database: Database,
        bounds: Bounds,
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
        self._board: Board | None = None
        self._place = 0
        self._inherited: Rows = {}

    def share(self, board: Board, place: int) -> None:
        """From now on `publish` tells the others; what the last process in this place had counted is kept."""
        self._board, self._place = board, place
        before = board.read(place)
        if before:
            rows, _ = unpacked(before)
            self._inherited = {name: series for name, series in rows.items() if name in _ADDED}

    def publish(self) -> None:
        """The others see this process's figures as they are now."""
        if self._board is not None:
            self._board.write(self._place, packed(self._own(), at=self._monotonic()))

    @property
    def is_shared(self) -> bool:
        """Whether there may be others."""
        return self._board is not None

    def rows(self) -> Rows:
        """The sums over all processes."""
        rows = merged([self._own(), *self._others()])
        add(rows, catalogue.BUILD, (self._version,), [1])
        return rows

    def _others(self) -> Iterable[Rows]:
        for content in self._board.others(self._place) if self._board is not None else ():
            rows, more = unpacked(content)
            is_gone = self._monotonic() - more["at"] > _GONE
            yield {name: series for name, series in rows.items() if name in _ADDED} if is_gone else rows

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
        return merged([rows, self._inherited])

    def _failing(self, rows: Rows) -> None:
        longest: dict[str, float] = {}
        for trouble in self._parts.pulse.troubles():
            name = family(trouble.loop)
            longest[name] = max(longest.get(name, 0.0), trouble.seconds)
        self._zeros(rows, catalogue.LOOP_FAILING)
        for name, seconds in longest.items():
            add(rows, catalogue.LOOP_FAILING, self._bounds.bounded(catalogue.LOOP_FAILING, (name,)), [seconds])

    def _zeros(self, rows: Rows, metric: Metric) -> None:
        """What has not happened yet is told too: a rate needs a number before the first."""
        for labels in self._bounds.every(metric):
            add(rows, metric, labels, [0])

    def _counts(self, rows: Rows, metric: Metric, found: Iterable[Counts], *, width: int = 2) -> None:
        """The first `width` words of each count are its labels."""
        self._zeros(rows, metric)
        for each in found:
            for labels, times in each.copy().items():
                add(rows, metric, self._bounds.bounded(metric, labels[:width]), [times])

    @staticmethod
    def _histogram(rows: Rows, metric: Metric, found: Iterable[Histogram]) -> None:
        add(rows, metric, (), [0.0] * (len(metric.bounds) + 2))
        for each in found:
            add(rows, metric, (), each.row())
