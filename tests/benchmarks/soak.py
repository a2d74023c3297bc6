"""`make bench-soak`: memory after five million deliveries beside that after half a million, on both databases."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.benchmarks import memory
from tests.benchmarks.databases import BOTH, Databases
from tests.benchmarks.figures import Part
from tests.benchmarks.report import About, save, show, write

_FIRST: Final = 500_000
_LAST: Final = 5_000_000


def main(arguments: Sequence[str]) -> int:
    """Print what was found; 1 where an answer was wrong or a delivery lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description="measure growth of memory")
    parser.add_argument("--deliveries", type=int, default=_LAST)
    options = parser.parse_args(arguments)
    started, load = time.monotonic(), os.getloadavg()[0]
    databases = Databases()
    part = Part("soak", "Memory over millions of deliveries", memory.ABOUT)
    try:
        for kind in BOTH:
            memory.grow(part, databases, kind, min(_FIRST, options.deliveries // 2), options.deliveries)
        about = About.here(databases.version(), 1, time.monotonic() - started, load)
    finally:
        databases.close()
    part.seconds = time.monotonic() - started
    show(part)
    save("bench-soak", [part], about)
    if options.deliveries >= _LAST:
        write("make bench-soak", [part], about)
    return 1 if part.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
