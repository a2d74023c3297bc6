"""Running of a process: loops around steps, garbage collection, and bounded stop."""

import asyncio
import gc
import math
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

import structlog

from fulfilment import handler_sink
from statemachine.errors import ServiceError
from storage.errors import LeaseLost, StorageUnavailable

log = structlog.get_logger()

#: Seconds between two tries of what decides and delivers, and of a duty beside it that meets a bug again and again.
LONGEST_WAIT_S: Final = 5.0
LONGEST_DUTY_WAIT_S: Final = 60.0

_DOUBLINGS: Final = 16  #: more would overflow a float before an outage of nine hours ends


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
    stepped: Callable[[Exception | None], None] = lambda _fault: None,
    longest_wait: float = LONGEST_WAIT_S,
) -> None:
    """Step until cancelled, whatever a step raises: one that fails is logged and tried again, with growing waits.

    `then` is called after each step that did something, `beat` before each and `stepped` after it, with what it
    raised. Waits grow to 5 s while storage is away, and to `longest_wait` after any other exception: that is a bug, and
    its trace is in the log at the first, the tenth and every hundredth failure in a row.
    """
    failures = 0
    while True:
        beat()
        try:
            done = await step()
        except Exception as fault:  # noqa: BLE001 - no other duty waits because this one has met a bug
            failures += 1
            is_named = isinstance(fault, StorageUnavailable | LeaseLost)
            wait = min(tick * 2 ** min(failures, _DOUBLINGS), LONGEST_WAIT_S if is_named else longest_wait)
            _report(name, fault, failures, wait)
            stepped(fault)
            await asyncio.sleep(wait)
            continue
        failures = 0
        stepped(None)
        if done:
            then()
        else:
            await wake.wait(tick)


def _report(name: str, fault: Exception, failures: int, wait: float) -> None:
    if isinstance(fault, StorageUnavailable | LeaseLost):
        log.warning("service.waiting", loop=name, error=fault.code, seconds=wait)
        return
    is_traced = failures in (1, 10) or failures % 100 == 0
    error = fault.code if isinstance(fault, ServiceError) else type(fault).__name__
    log.error(
        "service.failed", loop=name, error=error, failures=failures, seconds=wait, exc_info=fault if is_traced else None
    )


@contextmanager
def until_signalled(on_signal: Callable[[], None] = lambda: None) -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending the process; `on_signal` is called before.

    By Python's own handlers: the event loop's would wait for a handler of others' that holds it up.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def signalled(_number: int, _frame: FrameType | None) -> None:
        on_signal()
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, signalled) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


#: Objects that have come and not gone, beyond which it looks; by default 700. A batch of the worker makes many, and no
#: cycle among them: looking through them took a tenth of its time.
_SELDOM: Final = 50_000


def collect_seldom() -> None:
    """What is there now is never looked through again, and what comes seldom; once, when a process is about to work.

    Looking through what stays again and again tripled the 99th percentile of the way in.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_SELDOM)


#: Seconds that threads have to end after everything else has ended. Nothing of ours is under way in them by then.
THREADS_GRACE_S: Final = 3.0


@contextmanager
def bounded_stop(seconds: float) -> Iterator[Callable[[], None]]:
    """Yield what a signal to stop calls: the process has left the block so many seconds later, or it is ended.

    Its exit code is 0 then as well: what was accepted is committed, and what was cut off is taken up again.
    """
    timers: list[threading.Timer] = []

    def begin() -> None:
        if not timers:
            timers.append(_end_after(seconds, 0))

    try:
        yield begin
    finally:
        for timer in timers:
            timer.cancel()


def leave(code: int) -> NoReturn:
    """End the process with this exit code, and soon, although threads may go on in code that is not ours."""
    _end_after(THREADS_GRACE_S, code)
    sys.exit(code)  # waits for every thread; a daemon's, such as that timer's, ends with the process


def _end_after(seconds: float, code: int) -> threading.Timer:
    timer = threading.Timer(seconds, _end, (seconds, code))
    timer.daemon = True
    timer.name = "stop"
    timer.start()
    return timer


def _end(seconds: float, code: int) -> None:
    """End the process where it stands, and name what it did not wait for."""
    others = (threading.main_thread(), threading.current_thread())
    threads = sorted(each.name for each in threading.enumerate() if not each.daemon and each not in others)
    with suppress(Exception):
        log.warning("handler.abandoned", handlers=handler_sink.under_way(), threads=threads, seconds=seconds)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
