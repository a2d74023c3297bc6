"""The feed as readers wait for it: whoever asks numbers what is committed, and many who wait look together."""

import asyncio
import time
from typing import Final

from api.parts import Parts
from storage import events

#: Seconds between two looks of a reader who waits; looks of several within it are one.
LOOK_EVERY: Final = 0.2


class Feed:
    """How far the feed goes. One for the process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
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
                self._last = await self._parts.in_thread(lambda: events.caught_up(self._parts.database))
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
