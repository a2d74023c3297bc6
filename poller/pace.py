"""An account's right to send, granted by one row in the database to every process that sends for it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from providers.contract import Budget
from storage import budget
from storage.engine import Database
from storage.slots import Rate, Slot

log = structlog.get_logger()

#: Whether what is being done may wait until everybody else of the account has been served.
patient: ContextVar[bool] = ContextVar("patient", default=False)

#: The most extra time for sending that somebody asks for who was too late, in windows and in seconds.
_MOST_EXTRA_WINDOWS: Final = 1.0
_MOST_EXTRA_SECONDS: Final = 1.0


@contextmanager
def patiently() -> Iterator[None]:
    """What is sent within the block lets everybody else of the account go first, and is not starved by them."""
    token = patient.set(True)
    try:
        yield
    finally:
        patient.reset(token)


@dataclass(slots=True)
class _Turn:
    """One slot, on the event loop's clock."""

    pace: "DatabasePace"
    begins: float
    ends: float  #: it is too late to send from then on
    slot: Slot | None = None
    is_used: bool = False


#: The turn that this task waited for last.
_turn: ContextVar[_Turn | None] = ContextVar("turn", default=None)


class DatabasePace:
    """In no window of the budget's length do more requests leave than it allows, of all processes together.

    That holds for requests that `turn()` was awaited for and that leave right after `leave()`, however late a task
    wakes up, whichever process dies, and whatever the hosts' clocks say (on PostgreSQL). A clock that is set forward
    under SQLite may bring two requests together, once. Without a budget only the provider's pauses are kept.
    """

    def __init__(
        self,
        database: Database,
        account: str,
        allowed: Budget | None,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        patient_share: int = 5,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._account = account
        self._rate = Rate.of(allowed.requests, allowed.seconds, patient_share) if allowed else None
        self._most_extra = max(_MOST_EXTRA_WINDOWS * allowed.seconds if allowed else 0.0, _MOST_EXTRA_SECONDS)
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._patients = asyncio.Lock()  # of this process one patient caller at a time tries for a slot
        self._extra = 0.0  #: seconds that senders of this process are given on top, since they were late

    async def turn(self) -> None:
        """Wait until the account may send one more request. Raises StorageUnavailable.

        Nothing but this task waits, and a task that is cancelled loses its slot and nobody else's.
        """
        _turn.set(await self._next_turn())

    async def leave(self) -> None:
        """Return when the request may leave now, and not later: at once, if the task's turn has not passed meanwhile.

        To be awaited once for each request, as its first byte is about to be sent: connecting, fetching a token and a
        busy process take time, and a turn that is used late would bring two requests together. A turn that has passed,
        or was used, or was never waited for, is replaced by another. Raises StorageUnavailable.
        """
        turn = _turn.get()
        if turn is None or turn.pace is not self or turn.is_used:
            turn = await self._next_turn()
        elif asyncio.get_running_loop().time() > turn.ends:
            turn = await self._next_turn(unused=turn.slot)
        turn.is_used = True
        _turn.set(turn)

    async def pause(self, seconds: float) -> None:
        """Nobody may send for the account for so long, turns that are waited for included: the provider said so."""
        log.warning("budget.paused", account=self._account, seconds=round(seconds, 3))
        await asyncio.to_thread(self._pause, seconds)

    async def _next_turn(self, unused: Slot | None = None) -> _Turn:
        if self._rate is None:
            await self._wait_out_a_pause()
            return _Turn(self, 0.0, float("inf"))
        if not patient.get():
            return await self._urgent_turn(self._rate, unused)
        async with self._patients:
            return await self._patient_turn(self._rate, unused)

    async def _urgent_turn(self, rate: Rate, unused: Slot | None) -> _Turn:
        time = asyncio.get_running_loop().time
        while True:
            turn, _ = await asyncio.to_thread(self._reserve, rate, time, unused, is_patient=False)
            wait = turn.begins - time()
            if wait > 0:
                await self._sleep(wait)
                if await asyncio.to_thread(self._pause_left):
                    continue  # said meanwhile: the slot lies within the pause, and the next one does not
            if self._is_in_time(turn, time()):
                return turn
            unused = turn.slot

    async def _patient_turn(self, rate: Rate, unused: Slot | None) -> _Turn:
        time = asyncio.get_running_loop().time
        jitter = rate.grace.total_seconds() / 2
        while True:
            wait = await asyncio.to_thread(self._worth_trying, rate, unused)
            if wait is None:
                turn, wait = await asyncio.to_thread(self._reserve, rate, time, unused, is_patient=True)
                if wait is None:
                    if self._is_in_time(turn, time()):
                        return turn
                    unused = turn.slot
                    continue
            # Processes that wait for the same slot try for it one after the other, well before it is too late.
            await self._sleep(wait + self._rng.uniform(0, jitter))

    def _is_in_time(self, turn: _Turn, now: float) -> bool:
        """Whether the slot may be used; whoever was too late is given more time in the next, so that nobody starves."""
        late = now - turn.ends
        if late <= 0:
            self._extra = self._extra / 2 if self._extra > 0.001 else 0.0
            return True
        self._extra = min(max(2 * late, 2 * self._extra), self._most_extra)
        return False

    def _reserve(
        self, rate: Rate, time: Callable[[], float], unused: Slot | None, *, is_patient: bool
    ) -> tuple[_Turn, float | None]:
        """A turn, and None where it is granted; else the seconds until it is worth trying again."""
        extra = timedelta(seconds=self._extra)
        with self._database.write() as unit:
            budget.hold(unit, self._account, self._clock())
            before = time()  # the slot's instant was reckoned between these two, and is taken to be the safer one
            slot = budget.reserve(
                unit, self._account, self._clock(), rate, is_patient=is_patient, extra=extra, unused=unused
            )
            after = time()
        wait = slot.wait.total_seconds()
        turn = _Turn(self, after + wait if wait > 0 else before, before + slot.good_for.total_seconds(), slot)
        return turn, None if slot.is_granted else wait

    def _worth_trying(self, rate: Rate, unused: Slot | None) -> float | None:
        with self._database.read() as unit:
            wait = budget.worth_trying(unit, self._account, self._clock(), rate, unused=unused)
        return None if wait is None else wait.total_seconds()

    async def _wait_out_a_pause(self) -> None:
        while left := await asyncio.to_thread(self._pause_left):
            await self._sleep(left)

    def _pause_left(self) -> float:
        with self._database.read() as unit:
            return budget.pause_left(unit, self._account, self._clock()).total_seconds()

    def _pause(self, seconds: float) -> None:
        with self._database.write() as unit:
            budget.pause(unit, self._account, self._clock(), timedelta(seconds=seconds))
