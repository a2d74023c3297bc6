"""Rate limits that are really enforced, per key."""

import math
import time
from collections import deque
from collections.abc import Callable


def scaled_window(limit: int, seconds: float, speed: float) -> tuple[int, float]:
    """Scale a limit to `speed`.

    The window shrinks, but not below a second; from there on the count grows instead.

    A window of a few milliseconds would measure the network's jitter and not the client.
    """
    window = seconds / speed
    return (limit, window) if window >= 1 else (math.floor(limit / window), 1.0)


class SlidingWindow:
    """At most `limit` calls per key in any `seconds`; refused ones are not counted."""

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.seconds, self._clock = limit, seconds, clock
        self._calls: dict[str, deque[float]] = {}

    def admit(self, key: str) -> bool:
        """Return whether the call may pass, and count it."""
        at, calls = self._clock(), self._calls.setdefault(key, deque())
        while calls and calls[0] <= at - self.seconds:
            calls.popleft()
        if len(calls) >= self.limit:
            return False
        calls.append(at)
        return True


class FixedWindow:
    """At most `limit` calls per key in a window of `seconds`.

    The window opens with the key's first call.
    """

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self.limit, self.seconds, self._clock = limit, seconds, clock
        self._windows: dict[str, tuple[float, int]] = {}

    def admit(self, key: str) -> float | None:
        """Admit a call (None), or return the unix time at which the window resets."""
        at = self._clock()
        opened, used = self._windows.get(key, (at, 0))
        if at >= opened + self.seconds:
            opened, used = at, 0
        if used >= self.limit:
            return opened + self.seconds
        self._windows[key] = (opened, used + 1)
        return None
