"""An account's right to send, granted by one row in the database to every process that sends for it."""

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
from storage.rate_limits import LONGEST, Rate, Slot, Wish

log = structlog.get_logger()

#: Whether what is being done may wait until everybody else of the account has been served.
patient: ContextVar[bool] = ContextVar("patient", default=False)

#: The most extra seconds for sending that somebody asks for who was too late again and again; a window at least.
_MOST_EXTRA: Final = 1.0


#: Seconds by which a reservation may be asked for before its slot begins, since it takes as long to arrive.
_MOST_LEAD: Final = 0.25
_FADING: Final = 0.8

_LONGEST_PAUSE: Final = LONGEST.total_seconds()

#: Seconds of waiting after which a pause may have been said that the reservation did not know of.
_LONG_WAIT: Final = 0.5

#: How long a reservation takes where the database has much to do.
_COMMIT: Final = timedelta(milliseconds=50)
_MOST_TRIES: Final = 8


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


def _tries_at_once(rate: Rate | None) -> int:
    """How many patient callers of a process try for a slot at once: one, where slots are further apart than a commit
    takes, so that those who wait cost the database nothing.
    """
    return min(math.ceil(_COMMIT / rate.spacing), _MOST_TRIES) if rate else 1


class _Lateness:
    """Of one who waits for a turn: the slot that it was too late for, and how much more time it asks for in the next.

    A slot that was missed costs one spacing, and extra time costs as much as it is: it is asked for sparingly at
    first, and without bound by the spacing after a few misses, so that even a process that is always late gets its
    turn.
    """

    def __init__(self, rate: Rate, most: float, unused: Slot | None) -> None:
        self.unused = unused
        self.extra = 0.0
        self._bound = rate.spacing.total_seconds()
        self._most = most

    def allows(self, turn: _Turn, now: float) -> bool:
        """Whether the turn may be used."""
        late = now - turn.ends
        if late <= 0:
            return True
        self._bound = min(2 * self._bound, self._most)
        self.extra = min(max(2 * late, 2 * self.extra), self._bound)
        self.unused = turn.slot
        return False


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
        self._most_extra = max(allowed.seconds if allowed else 0.0, _MOST_EXTRA)
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._patients = asyncio.Semaphore(_tries_at_once(self._rate))
        self._waiting = 0  #: patient callers of this process
        self._is_contended = False  #: another process had the slot that a patient caller of this one came for
        self._free_at = 0.0  #: by the event loop's clock: when the slot after that of the last patient caller begins
        self._paused_until = 0.0  #: by the event loop's clock: as this process was told
        self._lead = 0.0  #: seconds that a reservation takes to arrive, of late

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
        """Nobody may send for the account for so long: the provider said so. Raises StorageUnavailable.

        Turns that are waited for are put off too; in other processes, those that begin in less than half a second may
        still be used.
        """
        log.warning("budget.paused", account=self._account, seconds=round(seconds, 3))
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + min(seconds, _LONGEST_PAUSE))
        await asyncio.to_thread(self._pause, seconds)

    async def _next_turn(self, unused: Slot | None = None) -> _Turn:
        if self._rate is None:
            await self._wait_out_a_pause()
            return _Turn(self, 0.0, float("inf"))
        if not patient.get():
            return await self._urgent_turn(self._rate, unused)
        self._waiting += 1
        try:
            async with self._patients:
                return await self._patient_turn(self._rate, unused)
        finally:
            self._waiting -= 1

    async def _urgent_turn(self, rate: Rate, unused: Slot | None) -> _Turn:
        time, late = asyncio.get_running_loop().time, _Lateness(rate, self._most_extra, unused)
        while True:
            turn, _ = await self._reserved(rate, late, is_patient=False)
            if await self._is_paused_before(turn.begins):
                continue  # said since: the slot lies within the pause, and the next one does not
            if late.allows(turn, time()):
                return turn

    async def _patient_turn(self, rate: Rate, unused: Slot | None) -> _Turn:
        time, late = asyncio.get_running_loop().time, _Lateness(rate, self._most_extra, unused)
        jitter = rate.grace.total_seconds() / 2
        if unused is not None:
            self._free_at = 0.0  # it may be had back at once
        while True:
            wait = self._free_at - self._lead - time()
            if wait <= 0 and self._is_contended:
                wait = await asyncio.to_thread(self._worth_trying, rate, late)
            if wait <= 0:
                turn, wait = await self._reserved(rate, late, is_patient=True)
                self._is_contended = wait > 0
                if wait <= 0:
                    if await self._is_paused_before(turn.begins):
                        continue
                    if late.allows(turn, time()):
                        return turn
                    self._free_at = 0.0
                    continue
            # Processes that wait for the same slot try for it one after the other, well before it is too late.
            await self._sleep(wait + self._rng.uniform(0, jitter))

    async def _reserved(self, rate: Rate, late: "_Lateness", *, is_patient: bool) -> tuple[_Turn, float]:
        """A turn, and 0 where it is granted; else the seconds until it is worth trying again."""
        time, wish = asyncio.get_running_loop().time, self._wish(late, is_patient=is_patient)
        slot, before, after = await asyncio.to_thread(self._reserve, rate, time, wish)
        self._lead = min(max(time() - before, _FADING * self._lead), _MOST_LEAD)
        wait = slot.wait.total_seconds()
        if not slot.is_granted:
            return _Turn(self, 0.0, 0.0), wait
        if is_patient:
            self._free_at = before + wait + rate.spacing.total_seconds()
        return _Turn(self, after + wait, before + slot.good_for.total_seconds(), slot), 0.0

    def _reserve(self, rate: Rate, time: Callable[[], float], wish: Wish) -> tuple[Slot, float, float]:
        """A slot, which was reckoned from an instant between these two: of both the safer one counts."""
        with self._database.write() as unit:
            rate_limits.hold(unit, self._account, self._clock())
            before = time()
            slot = rate_limits.reserve(unit, self._account, self._clock(), rate, wish)
            return slot, before, time()

    def _wish(self, late: "_Lateness", *, is_patient: bool) -> Wish:
        lead, extra = timedelta(seconds=self._lead), timedelta(seconds=late.extra)
        return Wish(is_patient, is_patient and self._waiting > 1, lead, extra, late.unused)

    async def _is_paused_before(self, begins: float) -> bool:
        """Wait until then, or until a pause is over that was said meanwhile, by any process; True for that."""
        time = asyncio.get_running_loop().time
        if begins - time() > _LONG_WAIT:  # what was reserved a moment ago knows of every pause
            await self._sleep(begins - time() - _LONG_WAIT / 2)
            if await asyncio.to_thread(self._pause_left):
                return True  # the next reservation is told for how long
        if begins > time():
            await self._sleep(begins - time())
        if time() >= self._paused_until:
            return False
        await self._sleep(self._paused_until - time())
        return True

    def _worth_trying(self, rate: Rate, late: "_Lateness") -> float:
        wish = self._wish(late, is_patient=True)
        with self._database.read() as unit:
            wait = rate_limits.worth_trying(unit, self._account, self._clock(), rate, wish)
        return 0.0 if wait is None else wait.total_seconds()

    async def _wait_out_a_pause(self) -> None:
        while left := await asyncio.to_thread(self._pause_left):
            await self._sleep(left)

    def _pause_left(self) -> float:
        with self._database.read() as unit:
            return rate_limits.pause_left(unit, self._account, self._clock()).total_seconds()

    def _pause(self, seconds: float) -> None:
        with self._database.write() as unit:
            rate_limits.pause(unit, self._account, self._clock(), timedelta(seconds=seconds))
