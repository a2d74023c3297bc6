"""Runs steps until nothing is left, from the moment that the word is given, and tells how many a second."""

import json
import sys
import time
from collections.abc import Callable


def go(step: Callable[[], int], *, seconds: float = 1e9) -> None:
    """One step to get warm; then "ready", a line on stdin, the rest, and one line of JSON."""
    step()
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu, done = time.perf_counter(), time.process_time(), 0
    last = started
    while (count := step()) and last - started < seconds:
        done += count
        last = time.perf_counter()
    print(json.dumps({"events": done, "seconds": last - started, "cpu": time.process_time() - cpu}), flush=True)
