"""Ticking: a loop around a step, woken early when there is work, patient when storage is away, stopped in order."""

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from storage.errors import LeaseLost, StorageUnavailable

log = structlog.get_logger()

_LONGEST_WAIT = 5.0
_DOUBLINGS = 16  #: more would overflow a float before an outage of nine hours ends


class Wake:
    """Wakes one loop, from any thread; a wake-up while it works is not lost.

    At most once in `gap` seconds: the first wakes at once, and those that come soon after it are one.
    """

    def __init__(self, gap: float = 0.0) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._gap = gap
        self._woken_at = -math.inf

    def __call__(self) -> None:
        """There may be work."""
        if not self._event.is_set():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Return when woken, at the latest after so many seconds and the gap."""
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the event, and the loop never ends.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        if (left := self._woken_at + self._gap - self._loop.time()) > 0:
            await asyncio.sleep(left)
        self._event.clear()
        self._woken_at = self._loop.time()


async def keep_stepping(
    name: str,
    step: Callable[[], Awaitable[int]],
    wake: Wake,
    tick: float,
    then: Callable[[], None] = lambda: None,
    *,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Step until cancelled. `then` is called after each step that did something, `beat` before each.

    While storage is away the waits grow to 5 s. Any other exception ends the loop, and with it the process: a bug
    must be seen, and nothing is lost by a restart.
    """
    failures = 0
    while True:
        beat()
        try:
            done = await step()
        except (StorageUnavailable, LeaseLost) as fault:
            failures += 1
            wait = min(tick * 2 ** min(failures, _DOUBLINGS), _LONGEST_WAIT)
            log.warning("service.waiting", loop=name, error=fault.code, seconds=wait)
            await asyncio.sleep(wait)
            continue
        failures = 0
        if done:
            then()
        else:
            await wake.wait(tick)


@contextmanager
def until_signalled() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending the process."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
