"""Whether the loops of this process go on: each says so before every step, and says what made one fail."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from statemachine.errors import ServiceError
from statemachine.measures import Counts, counts

#: Loops whose one step may rightly take hours: a walk through what a provider has, or a partition that is moved.
_LONG: Final = ("reconcile.", "housekeeping")

#: Loops that decide and deliver; all others are duties beside them.
MAIN: Final = frozenset({"inbox", "outbox"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """A loop that has done nothing but fail for a while, and goes on trying."""

    loop: str
    error: str  #: code of a named failure, or the exception's type
    failures: int  #: in a row
    seconds: float  #: since the first of them
    is_bug: bool  #: of the last: no failure that has a name

    @property
    def is_main(self) -> bool:
        """Whether it is a loop that decides or delivers."""
        return family(self.loop) in MAIN


@dataclass(slots=True)
class _Failing:
    began: float
    failures: int = 0
    error: str = ""
    is_bug: bool = False


class Pulse:
    """When each loop last began a step, and which of them fail, by the names of their tasks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._beats: dict[str, float] = {}
        self._failing: dict[str, _Failing] = {}
        self.failed: list[str] = []  #: loops that have ended, which only a bug of the loop itself can do
        self.failures: Counts = counts()  #: by family of loops, and "storage" or "bug"

    def beat(self) -> None:
        """The loop that calls this goes on."""
        task = asyncio.current_task()
        if task is not None:
            self._beats[task.get_name()] = self._monotonic()

    def stalled(self, seconds: float) -> list[str]:
        """Loops that began their last step longer ago."""
        since = self._monotonic() - seconds
        return [name for name, at in self._beats.items() if at < since and not name.startswith(_LONG)]

    def stepped(self, fault: Exception | None) -> None:
        """The loop that calls this has ended a step, with this exception or without one."""
        task = asyncio.current_task()
        if task is None:
            return
        name = task.get_name()
        if fault is None:
            self._failing.pop(name, None)
            return
        failing = self._failing.setdefault(name, _Failing(self._monotonic()))
        failing.failures += 1
        failing.is_bug = not isinstance(fault, ServiceError)
        failing.error = fault.code if isinstance(fault, ServiceError) else type(fault).__name__
        self.failures[family(name), "bug" if failing.is_bug else "storage"] += 1

    def troubles(self) -> list[Trouble]:
        """The loops that fail now."""
        now = self._monotonic()
        return [
            Trouble(name, found.error, found.failures, max(now - found.began, 0.0), found.is_bug)
            for name, found in self._failing.copy().items()
        ]


def family(loop: str) -> str:
    """The loop's name without its number or account."""
    return loop.partition(".")[0]
