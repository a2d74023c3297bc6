"""Whether the loops of this process go on: each says so before every step."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

#: Loops whose one step may rightly take hours: a walk through what a provider has, or a partition that is moved.
_LONG: Final = ("reconcile.", "housekeeping")


class Pulse:
    """When each loop last began a step, by the name of its task."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._beats: dict[str, float] = {}
        self.failed: list[str] = []  #: loops that ended by a bug

    def beat(self) -> None:
        """The loop that calls this goes on."""
        task = asyncio.current_task()
        if task is not None:
            self._beats[task.get_name()] = self._monotonic()

    def stalled(self, seconds: float) -> list[str]:
        """Loops that began their last step longer ago."""
        since = self._monotonic() - seconds
        return [name for name, at in self._beats.items() if at < since and not name.startswith(_LONG)]
