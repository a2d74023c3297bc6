"""The feed as readers wait for it: whoever asks numbers what is committed, and many who wait look together."""

import asyncio
import time
from typing import Final

from api.parts import Parts
from storage import events

#: Seconds between two looks of a reader who waits; looks of several within it are one.
LOOK_EVERY: Final = 0.2


#: Of one look, so that the first reader of a long history has an answer in time; the next looks go on.
_BATCHES: Final = 10


class Feed:
    """How far the feed goes. One for the process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._database = parts.database
        self._turn = asyncio.Lock()
        self._seen_at = float("-inf")
        self._last = 0
        self.waiting = 0

    async def last(self) -> int:
        """The number of the newest effect, after what is committed now was numbered. Raises StorageUnavailable."""
        asked_at = time.monotonic()
        async with self._turn:
            if self._seen_at < asked_at:  # else somebody looked while we stood in line, and saw all that we would
                looked_at = time.monotonic()
                self._last = await self._parts.in_thread(self._look)
                self._seen_at = looked_at
            return self._last

    async def beyond(self, number: int, deadline: float) -> int:
        """As last(), once there is more than that number, or the deadline (of time.monotonic()) has passed."""
        while (last := await self.last()) <= number:
            left = deadline - time.monotonic()
            if left <= 0:
                return last
            await asyncio.sleep(min(LOOK_EVERY, left))
        return last

    def _look(self) -> int:
        with self._database.read() as unit:
            is_behind, last = events.is_unnumbered(unit), events.last_number(unit)
        for _ in range(_BATCHES if is_behind else 0):
            with self._database.write() as unit:
                count = events.number(unit)
                last = events.last_number(unit)
            if count < events.BATCH:
                break
        return last
