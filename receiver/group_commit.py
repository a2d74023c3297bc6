"""Group commit of arrivals, without artificial delay, answered within a bound."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from receiver.errors import IntakeFull
from statemachine.errors import ServiceError
from statemachine.histograms import Histogram
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.inbox import Recorded
from storage.intake import Arrival, Outcome, Store, unstorable

log = structlog.get_logger()

#: Messages committed at once; more wait for the next transaction.
_BATCH_SIZE: Final = 500

#: Arrivals that wait before a second batch is begun beside the one that is under way: two small ones cost more.
_SECOND_LANE_SIZE: Final = 64

#: Seconds after which a waiting delivery is answered 503, whatever the database does: providers wait for ten.
_COMMIT_TIMEOUT_S: Final = 8.0


#: Bounds of what is measured: seconds from a verified delivery to its answer, and messages of one commit.
WAIT_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Waiter(Protocol):
    """Receiver of the outcome of one arrival's commit."""

    def settle(self, outcome: Outcome) -> None:
        """Take the outcome, in the event loop; calls after the first change nothing."""


_Entry = tuple[Arrival, Waiter, float]  #: with the loop's time at which it came

#: Told of a batch and its outcomes, with the loop's times at which its commit began and ended.
Traced = Callable[[Sequence[_Entry], Sequence[Outcome], float, float], None]


class GroupWriter:
    """Record the messages of all requests of this process.

    Load makes batches; an idle service commits at once.
    """

    def __init__(
        self, store: Store, *, queue: int, on_recorded: Callable[[], None], traced: Traced = lambda *_: None
    ) -> None:
        self._store = store
        self._queue = queue
        self._on_recorded = on_recorded
        self._traced = traced
        self._waiting: deque[_Entry] = deque()
        self._lanes: set[asyncio.Task[None] | None] = set()
        self._under_way: dict[int, Sequence[_Entry]] = {}
        self._is_called = False
        self._watch: asyncio.TimerHandle | None = None
        self._is_schema_checked = False
        self.seconds = Histogram(WAIT_BOUNDS_S)
        self.batches = Histogram(BATCH_BOUNDS)
        self._now = 0.0  #: the loop's time of the first that came in this turn of the event loop

    def submit(self, arrival: Arrival, waiter: Waiter) -> None:
        """Queue the arrival; its waiter is settled by the durable commit or its failure.

        After a failure nothing is known to be kept of it.

        A waiter that is not interested any more leaves its batch alone: the message may be recorded all the same,
        which a redelivery then finds. Raises IntakeFull: then nothing is kept, and the waiter is told nothing.
        """
        if len(self._waiting) >= self._queue:
            raise IntakeFull
        if not self._is_called:
            self._is_called = True
            loop = asyncio.get_running_loop()
            self._now = loop.time()
            loop.call_soon(self._begin)
        self._waiting.append((arrival, waiter, self._now))

    async def record(self, arrival: Arrival) -> Recorded:
        """Record the arrival, durably committed on return.

        Raises StorageUnavailable, SchemaOutdated, Unstorable or IntakeFull: nothing is known to be kept of it.
        """
        waiter = _Future(asyncio.get_running_loop().create_future())
        self.submit(arrival, waiter)
        return await waiter.recorded

    def depth(self) -> int:
        """Return the number of arrivals that are in no batch yet."""
        return len(self._waiting)

    async def close(self) -> None:
        """Commit everything that waits, then close the store."""
        while self._lanes or self._waiting:
            self._begin()
            await asyncio.wait({lane for lane in self._lanes if lane is not None})
        if self._watch is not None:
            self._watch.cancel()
        await self._store.close()

    def _begin(self) -> None:
        """Begin a batch of what came within one turn of the event loop."""
        self._is_called = False
        lanes = len(self._lanes)
        if self._waiting and (not lanes or (lanes < self._store.lanes and len(self._waiting) >= _SECOND_LANE_SIZE)):
            task = asyncio.create_task(self._drain())
            self._lanes.add(task)
            if self._watch is None:
                self._watch = asyncio.get_running_loop().call_later(_COMMIT_TIMEOUT_S / 8, self._fail_overdue)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_SIZE))]
                self._under_way[id(batch)] = batch
                began = asyncio.get_running_loop().time()
                try:
                    outcomes = await self._commit([arrival for arrival, _, _ in batch])
                finally:
                    self._under_way.pop(id(batch), None)
                if self._waiting:  # the database is to have the next batch while the answers to this one are written
                    asyncio.get_running_loop().call_soon(self._settle, batch, outcomes, began)
                else:
                    self._settle(batch, outcomes, began)
        finally:
            self._lanes.discard(asyncio.current_task())
            if self._waiting:
                self._begin()

    def _settle(self, batch: Sequence[_Entry], outcomes: Sequence[Outcome], began: float) -> None:
        for (_, waiter, _), outcome in zip(batch, outcomes, strict=True):
            waiter.settle(outcome)
        now = asyncio.get_running_loop().time()
        self._measure(batch, now)
        self._traced(batch, outcomes, began, now)
        self._on_recorded()

    def _measure(self, batch: Sequence[_Entry], now: float) -> None:
        """Measure the waits, together for those of one turn of the event loop."""
        since, times = batch[0][2], 0
        self.batches.add(len(batch))
        for _, _, came in batch:
            if came != since:
                self.seconds.add(now - since, times)
                since, times = came, 0
            times += 1
        self.seconds.add(now - since, times)

    async def _commit(self, batch: Sequence[Arrival]) -> list[Outcome]:
        """Return an outcome for each message; one that cannot be stored fails alone."""
        try:
            if not self._is_schema_checked:
                await self._store.check()
                self._is_schema_checked = True
            return await self._store.write(batch)
        except (StorageUnavailable, SchemaOutdated) as fault:
            self._is_schema_checked = self._is_schema_checked and not isinstance(fault, SchemaOutdated)
            log.error("storage.unavailable", messages=len(batch), error=fault.message)
            return [type(fault)() for _ in batch]
        except Exception as fault:  # noqa: BLE001 - a poison message must not fail its neighbours
            if len(batch) == 1:
                return [unstorable(batch[0], fault)]
        half = len(batch) // 2
        return [*await self._commit(batch[:half]), *await self._commit(batch[half:])]

    def _fail_overdue(self) -> None:
        """Fail arrivals that have waited too long; a redelivery finds their outcome."""
        loop = asyncio.get_running_loop()
        self._watch = None
        since = loop.time() - _COMMIT_TIMEOUT_S
        late = 0
        for number, batch in list(self._under_way.items()):
            if batch[0][2] < since:
                del self._under_way[number]
                for _, waiter, _ in batch:
                    waiter.settle(StorageUnavailable())
                late += len(batch)
        while self._waiting and self._waiting[0][2] < since:
            self._waiting.popleft()[1].settle(StorageUnavailable())
            self.seconds.add(_COMMIT_TIMEOUT_S)
            late += 1
        if late:
            log.error("storage.unavailable", messages=late, error=f"no answer within {_COMMIT_TIMEOUT_S:g} s")
        if self._lanes or self._waiting:
            self._watch = loop.call_later(_COMMIT_TIMEOUT_S / 8, self._fail_overdue)


class _Future:
    """A waiter that is awaited."""

    __slots__ = ("recorded",)

    def __init__(self, recorded: asyncio.Future[Recorded]) -> None:
        self.recorded = recorded

    def settle(self, outcome: Outcome) -> None:
        """See Waiter."""
        if self.recorded.done():
            return  # its request was cancelled
        if isinstance(outcome, ServiceError):
            self.recorded.set_exception(outcome)
        else:
            self.recorded.set_result(outcome)
