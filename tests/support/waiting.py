"""Waits for what another process does: by looking again and again, with a deadline."""

import threading
import time
from collections.abc import Callable

#: Seconds for whatever a test waits for. What is there costs nothing of it; a machine may have ten times its work.
DEADLINE_S = 60.0


def until(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Return when the condition holds; AssertionError, with what was waited for, when it does not in time."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        pause.wait(0.02)  # nothing sets it: another process's state sets no event here
