"""Rate limiter of an account's requests, shared by all processes through one row."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from providers.contract import Budget
from storage import rate_limits
from storage.database import Database
from storage.rate_limits import MAX_DELAY, Rate, Slot, SlotRequest

log = structlog.get_logger()

#: Set while requests may wait for all others of the account.
is_low_priority: ContextVar[bool] = ContextVar("patient", default=False)

#: The most extra seconds for sending that a caller gets after repeated misses; at least a window of the budget.
_MAX_EXTRA_S: Final = 1.0

#: The most seconds by which a reservation is requested before its slot begins, since it takes as long to arrive.
_MAX_LEAD_S: Final = 0.25
_LEAD_DECAY: Final = 0.8

_MAX_PAUSE_S: Final = MAX_DELAY.total_seconds()

#: The wait after which a pause may have begun that the reservation did not know of.
_RECHECK_WAIT_S: Final = 0.5

#: The duration of a reservation in a busy database.
_COMMIT_DURATION: Final = timedelta(milliseconds=50)
_MAX_TRIES: Final = 8


@contextmanager
def low_priority() -> Iterator[None]:
    """Send at low priority inside this block; never starved."""
    token = is_low_priority.set(True)
    try:
        yield
    finally:
        is_low_priority.reset(token)


@dataclass(slots=True)
class _Turn:
    """One slot on the event loop's clock."""

    limiter: "DatabaseRateLimiter"
    begins: float
    ends: float  #: it is too late to send from then on
    slot: Slot | None = None
    is_used: bool = False


def _concurrent_tries(rate: Rate | None) -> int:
    """Return how many low-priority callers of a process may try for a slot at once.

    One where slots are further apart than a commit takes, so that waiting callers cost the database nothing.
    """
    return min(math.ceil(_COMMIT_DURATION / rate.spacing), _MAX_TRIES) if rate else 1


class _Lateness:
    """Missed slots of one caller, and the extra time that it requests for the next.

    A slot that was missed costs one spacing, and extra time costs as much as it is: it is asked for sparingly at
    first, and without bound by the spacing after a few misses, so that even a process that is always late gets its
    turn.
    """

    def __init__(self, rate: Rate, max_extra: float, unused: Slot | None) -> None:
        self.unused = unused
        self.extra = 0.0
        self._bound = rate.spacing.total_seconds()
        self._max_extra = max_extra

    def accepts(self, turn: _Turn, now: float) -> bool:
        """Return whether the turn may be used at `now`; note the miss otherwise."""
        lateness = now - turn.ends
        if lateness <= 0:
            return True
        self._bound = min(2 * self._bound, self._max_extra)
        self.extra = min(max(2 * lateness, 2 * self.extra), self._bound)
        self.unused = turn.slot
        return False


#: The turn that this task waited for last.
_turn: ContextVar[_Turn | None] = ContextVar("turn", default=None)


class DatabaseRateLimiter:
    """Limit the requests of all processes to the budget, in any window of its length.

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
        low_priority_share: int = 5,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._account = account
        self._rate = Rate.of(allowed.requests, allowed.seconds, low_priority_share) if allowed else None
        self._max_extra = max(allowed.seconds if allowed else 0.0, _MAX_EXTRA_S)
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._low_priority_tries = asyncio.Semaphore(_concurrent_tries(self._rate))
        self._waiting = 0  #: low-priority callers of this process
        self._is_contended = False  #: another process took the slot that a low-priority caller of this one wanted
        self._free_at = 0.0  #: start of the slot after that of the last low-priority caller, by the event loop's clock
        self._paused_until = 0.0  #: by the event loop's clock, as known to this process
        self._lead = 0.0  #: seconds that a reservation takes to arrive, of late

    async def turn(self) -> None:
        """Wait until the account may send one more request. Raises StorageUnavailable.

        Only this task waits, and a task that is cancelled loses only its own slot.
        """
        _turn.set(await self._next_turn())

    async def leave(self) -> None:
        """Return when the request may leave now: at once while the task's turn is valid.

        To be awaited once for each request, as its first byte is about to be sent: connecting, fetching a token and a
        busy process take time, and a turn that is used late would bring two requests together. A turn that has passed,
        or was used, or was never waited for, is replaced by another. Raises StorageUnavailable.
        """
        turn = _turn.get()
        if turn is None or turn.limiter is not self or turn.is_used:
            turn = await self._next_turn()
        elif asyncio.get_running_loop().time() > turn.ends:
            turn = await self._next_turn(unused=turn.slot)
        turn.is_used = True
        _turn.set(turn)

    async def pause(self, seconds: float) -> None:
        """Pause the account's requests, as the provider asked. Raises StorageUnavailable.

        Waiting turns are put off too; in other processes, those that begin in less than half a second may still be
        used.
        """
        log.warning("budget.paused", account=self._account, seconds=round(seconds, 3))
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + min(seconds, _MAX_PAUSE_S))
        await asyncio.to_thread(self._pause, seconds)

    async def _next_turn(self, unused: Slot | None = None) -> _Turn:
        if self._rate is None:
            await self._wait_out_pause()
            return _Turn(self, 0.0, float("inf"))
        if not is_low_priority.get():
            return await self._urgent_turn(self._rate, unused)
        self._waiting += 1
        try:
            async with self._low_priority_tries:
                return await self._low_priority_turn(self._rate, unused)
        finally:
            self._waiting -= 1

    async def _urgent_turn(self, rate: Rate, unused: Slot | None) -> _Turn:
        time, lateness = asyncio.get_running_loop().time, _Lateness(rate, self._max_extra, unused)
        while True:
            turn, _ = await self._try_reserve(rate, lateness, is_low_priority=False)
            if await self._wait_for_turn(turn.begins):
                continue  # begun since: the slot lies within the pause, and the next one does not
            if lateness.accepts(turn, time()):
                return turn

    async def _low_priority_turn(self, rate: Rate, unused: Slot | None) -> _Turn:
        time, lateness = asyncio.get_running_loop().time, _Lateness(rate, self._max_extra, unused)
        jitter = rate.grace.total_seconds() / 2
        if unused is not None:
            self._free_at = 0.0  # the unused slot may be returned at once
        while True:
            wait = self._free_at - self._lead - time()
            if wait <= 0 and self._is_contended:
                wait = await asyncio.to_thread(self._seconds_until_free, rate, lateness)
            if wait <= 0:
                turn, wait = await self._try_reserve(rate, lateness, is_low_priority=True)
                self._is_contended = wait > 0
                if wait <= 0:
                    if await self._wait_for_turn(turn.begins):
                        continue
                    if lateness.accepts(turn, time()):
                        return turn
                    self._free_at = 0.0
                    continue
            # Processes that wait for the same slot try for it one after the other, well before it is too late.
            await self._sleep(wait + self._rng.uniform(0, jitter))

    async def _try_reserve(self, rate: Rate, lateness: _Lateness, *, is_low_priority: bool) -> tuple[_Turn, float]:
        """Reserve a turn; return it with 0, or with the seconds until the next try."""
        time, request = asyncio.get_running_loop().time, self._slot_request(lateness, is_low_priority=is_low_priority)
        slot, before, after = await asyncio.to_thread(self._reserve, rate, time, request)
        self._lead = min(max(time() - before, _LEAD_DECAY * self._lead), _MAX_LEAD_S)
        wait = slot.wait.total_seconds()
        if not slot.is_granted:
            return _Turn(self, 0.0, 0.0), wait
        if is_low_priority:
            self._free_at = before + wait + rate.spacing.total_seconds()
        return _Turn(self, after + wait, before + slot.good_for.total_seconds(), slot), 0.0

    def _reserve(self, rate: Rate, time: Callable[[], float], request: SlotRequest) -> tuple[Slot, float, float]:
        """Reserve a slot; return it with the instants between which its wait was computed.

        Of the two the caller uses the safer one.
        """
        with self._database.write() as unit:
            rate_limits.hold(unit, self._account, self._clock())
            before = time()
            slot = rate_limits.reserve(unit, self._account, self._clock(), rate, request)
            return slot, before, time()

    def _slot_request(self, lateness: _Lateness, *, is_low_priority: bool) -> SlotRequest:
        lead, extra = timedelta(seconds=self._lead), timedelta(seconds=lateness.extra)
        return SlotRequest(is_low_priority, is_low_priority and self._waiting > 1, lead, extra, lateness.unused)

    async def _wait_for_turn(self, begins: float) -> bool:
        """Wait until `begins`; return True if a pause came meanwhile and is over."""
        time = asyncio.get_running_loop().time
        if begins - time() > _RECHECK_WAIT_S:  # a new reservation knows of every pause
            await self._sleep(begins - time() - _RECHECK_WAIT_S / 2)
            if await asyncio.to_thread(self._pause_left):
                return True  # the next reservation says for how long
        if begins > time():
            await self._sleep(begins - time())
        if time() >= self._paused_until:
            return False
        await self._sleep(self._paused_until - time())
        return True

    def _seconds_until_free(self, rate: Rate, lateness: _Lateness) -> float:
        request = self._slot_request(lateness, is_low_priority=True)
        with self._database.read() as unit:
            wait = rate_limits.worth_trying(unit, self._account, self._clock(), rate, request)
        return 0.0 if wait is None else wait.total_seconds()

    async def _wait_out_pause(self) -> None:
        while left := await asyncio.to_thread(self._pause_left):
            await self._sleep(left)

    def _pause_left(self) -> float:
        with self._database.read() as unit:
            return rate_limits.pause_left(unit, self._account, self._clock()).total_seconds()

    def _pause(self, seconds: float) -> None:
        with self._database.write() as unit:
            rate_limits.pause(unit, self._account, self._clock(), timedelta(seconds=seconds))
