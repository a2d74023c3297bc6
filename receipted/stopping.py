"""The end of a process in bounded time, whatever threads and handlers that are not ours go on doing."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import structlog

from fulfilment import handler_sink

log = structlog.get_logger()

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
