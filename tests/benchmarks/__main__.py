"""`make bench`: every bar of speed, beside its bound and its peers, in one run; writes docs/performance.md.

A bar that is missed fails nothing. A wrong answer, or a delivery that was acknowledged and is not kept, does.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.benchmarks import delivering, growth, intake, memory, peers, together, worker
from tests.benchmarks.databases import Databases
from tests.benchmarks.figures import Part, Plan
from tests.benchmarks.report import About, save, show, write

#: Seconds that a whole run may take. What comes last makes do with what is left.
_WHOLE: Final = 570.0

Measure = Callable[[Databases, Plan, argparse.Namespace], Part]

#: In order, each with the seconds that it is planned to take. A round of:
#: intake: 8 runs of 1.5 s, 7 of 0.75 s, and half a second for each to make and sign its deliveries
#: processes: 2 runs of 1.5 s; peers: 3 of 1 s; together: 4 of 2.5 s, and what the worker has left
#: worker: 5 runs, then 4 in three rounds, of a second each and another to copy a database and to start; 20 to fill
#: delivering: 16 runs of 2.5 s, and 3 each to copy a database and to start; 10 to fill
#: memory: 10 s to open connections, 25 to deliver 450,000; growth: 60 to fill, 8 times 10 to measure
PARTS: Final[dict[str, tuple[int, Measure]]] = {
    "intake": (130, lambda databases, plan, _told: intake.measure(databases, plan, 1.5)),
    "processes": (25, lambda databases, plan, _told: intake.measure_processes(databases, plan, 1.5)),
    "peers": (30, lambda databases, plan, told: peers.measure(databases, plan, 1.0, told.peers)),
    "worker": (95, lambda databases, plan, _told: worker.measure(databases, plan)),
    "delivering": (110, lambda databases, plan, _told: delivering.measure(databases, plan, 2.5)),
    "together": (50, lambda databases, plan, _told: together.measure(databases, plan, 2.5)),
    "memory": (40, lambda databases, plan, _told: memory.measure(databases, seconds=plan.seconds)),
    "growth": (160, lambda databases, plan, _told: growth.measure(databases, seconds=plan.seconds)),
}


def main(arguments: Sequence[str]) -> int:
    """Print every part as it is done; 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="measure every bar of speed")
    parser.add_argument("--only", help=f"some of the parts, with commas: {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="a virtual environment with dj-stripe, gunicorn and psycopg")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    print(f"planned: {sum(PARTS[name][0] for name in wanted)} s")
    started, parts, load = time.monotonic(), [], os.getloadavg()[0]
    databases = Databases()
    try:
        for name in wanted:
            began = time.monotonic()
            databases.checkpoint()
            part = PARTS[name][1](databases, _plan(name, wanted, options.rounds, started), options)
            part.seconds = time.monotonic() - began
            show(part)
            parts.append(part)
        about = About.here(databases.version(), options.rounds, time.monotonic() - started, load)
    finally:
        databases.close()
    save("bench", parts, about)
    if not options.only:
        write("make bench", parts, about)
    faults = [fault for part in parts for fault in part.faults]
    bars = [bar for part in parts for bar in part.bars]
    print(f"\n{sum(bar.is_reached is True for bar in bars)} of {len(bars)} bars are reached\n{about}")
    if faults:
        print(f"{len(faults)} WRONG ANSWERS:", *faults, sep="\n")
    return 1 if faults else 0


def _plan(name: str, wanted: Sequence[str], rounds: int, started: float) -> Plan:
    """Its part of the seconds that are left, so that a slow machine makes fewer rounds and not a longer run."""
    left = started + _WHOLE - time.monotonic()
    later = wanted[wanted.index(name) :]
    return Plan(rounds, left * PARTS[name][0] / sum(PARTS[other][0] for other in later))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
