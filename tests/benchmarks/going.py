"""Runs steps until nothing is left, from the moment that the word is given, and tells how many a second."""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Step = Callable[[], int]


def go(*steps: Step, seconds: float = 1e9) -> None:
    """One step of each to get warm; then "ready", a line on stdin, the rest side by side, and one line of JSON."""
    for step in steps:
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()

    def on(step: Step) -> tuple[int, float]:
        done, last = 0, started
        while (count := step()) and last - started < seconds:
            done += count
            last = time.perf_counter()
        return done, last

    first, *others = steps
    with ThreadPoolExecutor(len(steps)) as threads:
        beside = [threads.submit(on, step) for step in others]
        counts, ends = zip(on(first), *(each.result() for each in beside), strict=True)
    told = {"events": sum(counts), "seconds": max(ends) - started, "cpu": time.process_time() - cpu}
    print(json.dumps(told), flush=True)
