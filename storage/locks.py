"""A lock that is given to whoever has waited longest."""

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """Held by one thread at a time, in the order in which they asked.

    Python's own lock goes to whoever is quickest, which is the thread that has just released it: one that writes
    without a pause would keep all others from writing.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_held = False

    def acquire(self) -> None:
        """Return when it is ours."""
        with self._guard:
            if not self._is_held:
                self._is_held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # released by whoever hands the lock on

    def release(self) -> None:
        """It is the next one's."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, _kind: type[BaseException] | None, _fault: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()
