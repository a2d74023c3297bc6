"""The feed as readers wait for it: whoever asks numbers what is committed, and many who wait look together."""

import asyncio
import time
from typing import Final

from api.parts import Parts
from storage import api_keys, event_feed
from storage.errors import NotFound

#: Seconds between two looks of a reader who waits; looks of several within it are one.
LOOK_EVERY: Final = 0.2

#: Seconds within which a revoked or expired key ends what is still read with it.
KEY_CHECK_INTERVAL_S: Final = 1.0


class Feed:
    """How far the feed goes. One for the process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._turn = asyncio.Lock()
        self._seen_at = float("-inf")
        self._last = 0
        self._keys: dict[str, tuple[float, bool]] = {}  # by id: when the key was looked at, and whether it was good
        self.waiting = 0

    async def is_good(self, key_id: str) -> bool:
        """Return True where the key was good KEY_CHECK_INTERVAL_S ago or later.

        However many readers a key has in this process, it is looked at once in that time. Raises StorageUnavailable.
        """
        oldest = time.monotonic() - KEY_CHECK_INTERVAL_S
        found = self._keys.get(key_id)
        if found is None or found[0] < oldest:
            looked_at = time.monotonic()
            found = looked_at, await self._parts.in_thread(lambda: self._is_good(key_id))
            self._keys = {name: kept for name, kept in self._keys.items() if kept[0] >= oldest} | {key_id: found}
        return found[1]

    def _is_good(self, key_id: str) -> bool:
        with self._parts.database.read() as unit:
            try:
                return api_keys.is_good(api_keys.get(unit, key_id), self._parts.clock())
            except NotFound:
                return False

    async def last(self) -> int:
        """The number of the newest effect, after what is committed now was numbered. Raises StorageUnavailable."""
        asked_at = time.monotonic()
        async with self._turn:
            if self._seen_at < asked_at:  # else somebody looked while we stood in line, and saw all that we would
                looked_at = time.monotonic()
                self._last = await self._parts.in_thread(lambda: event_feed.caught_up(self._parts.database))
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
