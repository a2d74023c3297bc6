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

#: The longest waits between tries: of deciding and delivering, and of a side duty that meets a bug each time.
MAX_WAIT_S: Final = 5.0
MAX_DUTY_WAIT_S: Final = 60.0
#: More doublings would overflow a float before an outage of nine hours ends.
_MAX_DOUBLINGS: Final = 16

#: New objects after which garbage is collected; Python's default is 700. A batch of the worker makes many objects and
#: no cycles: collecting took a tenth of its time.
_GC_THRESHOLD: Final = 50_000

#: Seconds that a thread waits for Python's lock before it asks for it. By default 0.005, which is longer than a commit:
#: the thread that commits hands the lock over with each of its statements, and a busy event loop leaves it no gap; nor
#: does a batch that is decided leave the event loop one, which delivers effects.
_SWITCH_INTERVAL_S: Final = 0.0002

#: Seconds that threads have to end after everything else; none of our work runs in them by then.
THREADS_GRACE_S: Final = 3.0


class Wake:
    """Wake-up of one loop, from any thread; none is lost while the loop works.

    At most one in `gap` seconds: the first wakes at once, and those that come soon after it are one.
    """

    def __init__(self, gap: float = 0.0) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._gap = gap
        self._woken_at = -math.inf

    def __call__(self) -> None:
        """Wake the loop: there may be work."""
        if not self._event.is_set():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, at most `seconds` plus the gap."""
        # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the event, and the loop never ends.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        if (left := self._woken_at + self._gap - self._loop.time()) > 0:
            await asyncio.sleep(left)
        self._event.clear()
        self._woken_at = self._loop.time()


class ProcessWake:
    """Wake-up of a loop in another process, which is forked after this was made."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def __call__(self) -> None:
        """Wake the other process's loop: there may be work."""
        with suppress(BlockingIOError):  # the pipe is full of wake-ups
            os.write(self._writer, b".")

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` at each wake-up inside this block; some that come at once are one."""

        def read() -> None:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)
            wake()

        loop = asyncio.get_running_loop()
        loop.add_reader(self._reader, read)
        try:
            yield
        finally:
            loop.remove_reader(self._reader)


async def keep_stepping(
    name: str,
    step: Callable[[], Awaitable[int]],
    wake: Wake,
    tick: float,
    on_progress: Callable[[], None] = lambda: None,
    *,
    on_begin: Callable[[], None] = lambda: None,
    on_end: Callable[[Exception | None], None] = lambda _fault: None,
    max_wait: float = MAX_WAIT_S,
) -> None:
    """Run steps until cancelled; retry a failed step with growing waits.

    Whatever a step raises is logged. `on_progress` is called after each step that did something, `on_begin` before
    each and `on_end` after it, with what it raised. Waits grow to 5 s while storage is away, and to `max_wait` after
    any other exception: that is a bug, and its trace is in the log at the first, the tenth and every hundredth failure
    in a row.
    """
    failures = 0
    while True:
        on_begin()
        try:
            done = await step()
        except Exception as fault:  # noqa: BLE001 - no other duty waits because this one has met a bug
            failures += 1
            is_named = isinstance(fault, StorageUnavailable | LeaseLost)
            wait = min(tick * 2 ** min(failures, _MAX_DOUBLINGS), MAX_WAIT_S if is_named else max_wait)
            _log_failure(name, fault, failures, wait)
            on_end(fault)
            await asyncio.sleep(wait)
            continue
        failures = 0
        on_end(None)
        if done:
            on_progress()
        else:
            await wake.wait(tick)


def _log_failure(name: str, fault: Exception, failures: int, wait: float) -> None:
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
    """Yield an event that SIGTERM and SIGINT set, instead of ending the process.

    `on_signal` is called before. By Python's own handlers: the event loop's would wait for a handler of others' that
    holds it up.
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


def reduce_garbage_collection() -> None:
    """Freeze existing objects and collect new ones rarely; call once before working.

    Scanning the permanent objects again and again tripled the 99th percentile of intake.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Let threads wait for Python's lock for a short time only inside this block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def bounded_stop(seconds: float) -> Iterator[Callable[[], None]]:
    """Yield a callback that limits the time to leave this block, for a signal to stop.

    Once called, the process is ended after `seconds`. Its exit code is 0 then as well: what was accepted is committed,
    and what was cut off is resumed later.
    """
    timers: list[threading.Timer] = []

    def begin() -> None:
        if not timers:
            timers.append(_schedule_end(seconds, 0))

    try:
        yield begin
    finally:
        for timer in timers:
            timer.cancel()


def exit_process(code: int) -> NoReturn:
    """Exit with this code soon, even if threads go on in code that is not ours."""
    _schedule_end(THREADS_GRACE_S, code)
    sys.exit(code)  # waits for every thread; a daemon's, such as that timer's, ends with the process


def _schedule_end(seconds: float, code: int) -> threading.Timer:
    timer = threading.Timer(seconds, _end_now, (seconds, code))
    timer.daemon = True
    timer.name = "stop"
    timer.start()
    return timer


def _end_now(seconds: float, code: int) -> None:
    """End the process at once, and log the threads it did not wait for."""
    others = (threading.main_thread(), threading.current_thread())
    threads = sorted(each.name for each in threading.enumerate() if not each.daemon and each not in others)
    with suppress(Exception):
        log.warning("handler.abandoned", handlers=handler_sink.under_way(), threads=threads, seconds=seconds)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
