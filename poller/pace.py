"""An account's right to send, granted by one row in the database to every process that sends for it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from providers.contract import Budget
from storage import budget
from storage.engine import Database

log = structlog.get_logger()


class DatabasePace:
    """Requests leave one by one, evenly spaced, never more than the budget in any window of its length."""

    def __init__(
        self,
        database: Database,
        account: str,
        allowed: Budget | None,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._account = account
        self._interval = timedelta(seconds=allowed.seconds / allowed.requests) if allowed else timedelta(0)
        self._clock = clock
        self._sleep = sleep

    async def turn(self) -> None:
        """Wait until the account may send one more request. Raises StorageUnavailable."""
        slot = await asyncio.to_thread(self._reserve)
        wait = (slot - self._clock()).total_seconds()
        if wait > 0:
            await self._sleep(wait)

    async def pause(self, seconds: float) -> None:
        """Nobody may send for the account for so long: the provider said so."""
        log.warning("budget.paused", account=self._account, seconds=round(seconds, 3))
        await asyncio.to_thread(self._pause, seconds)

    def _reserve(self) -> datetime:
        if not self._interval:  # no limit is known, so only a pause can be in the way
            with self._database.read() as unit:
                return budget.paused_until(unit, self._account, self._clock()) or self._clock()
        with self._database.write() as unit:
            return budget.reserve(unit, self._account, self._clock(), self._interval)

    def _pause(self, seconds: float) -> None:
        now = self._clock()
        with self._database.write() as unit:
            budget.pause(unit, self._account, now, now + timedelta(seconds=seconds))
