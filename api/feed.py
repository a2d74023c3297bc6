"""State of the feed that its readers share: its end and their keys."""

import asyncio
import time
from typing import Final

from api.deps import ApiDeps
from api.errors import CursorAhead
from storage import api_keys, event_feed
from storage.database import Unit
from storage.errors import NotFound
from storage.event_feed import Cursor

#: Seconds between two polls of the database for readers who wait; several readers share one poll.
POLL_INTERVAL_S: Final = 0.2

#: Seconds within which a revoked or expired key ends what is still read with it.
KEY_CHECK_INTERVAL_S: Final = 1.0


class Feed:
    """End of the feed, and the keys of those who wait for more. One for the process."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
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
            found = looked_at, await self._deps.in_thread(lambda: self._is_good(key_id))
            self._keys = {name: kept for name, kept in self._keys.items() if kept[0] >= oldest} | {key_id: found}
        return found[1]

    def _is_good(self, key_id: str) -> bool:
        with self._deps.database.read() as unit:
            try:
                return api_keys.is_good(api_keys.get(unit, key_id), self._deps.clock())
            except NotFound:
                return False

    async def last(self) -> int:
        """Return the number of the newest effect, after all that is committed got one.

        Raises StorageUnavailable.
        """
        asked_at = time.monotonic()
        async with self._turn:
            if self._seen_at < asked_at:  # else another reader polled while this one waited for its turn
                looked_at = time.monotonic()
                self._last = await self._deps.in_thread(lambda: event_feed.caught_up(self._deps.database))
                self._seen_at = looked_at
            return self._last

    async def beyond(self, number: int, deadline: float) -> int:
        """Return last() once it is above the number, or the deadline has passed.

        The deadline is an instant of time.monotonic(). Raises StorageUnavailable.
        """
        while (last := await self.last()) <= number:
            left = deadline - time.monotonic()
            if left <= 0:
                return last
            await asyncio.sleep(min(POLL_INTERVAL_S, left))
        return last


def require_held(unit: Unit, after: Cursor) -> None:
    """Raise CursorAhead where the database is older than what was read of it."""
    if event_feed.holds(unit, after):
        return
    last = event_feed.last_number(unit)
    why = f"the feed ends at {last}" if after.number > last else f"at {after.number} it is not the feed that was read"
    raise CursorAhead(f"{why}: begin anew from 0", param="after")
