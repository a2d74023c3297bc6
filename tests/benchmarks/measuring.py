"""One run of the load generator against one server, and rounds in which nobody is always the first."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from tests.benchmarks.config import ROOT
from tests.benchmarks.servers import Served

Item = TypeVar("Item")

#: Deliveries made ahead for a second, until the first run has told how many are answered.
_FIRST_GUESS: Final = 26_000
#: How many more are made ahead than were answered in the run before.
_RESERVE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured in one run."""

    per_second: float
    p50_ms: float
    p99_ms: float
    server_us: float  #: processor time of the server for each delivery
    generator_us: float  #: and of the load generator
    acknowledged: int


@dataclass
class Target:
    """A server under measurement: how fast it was, what it has acknowledged, and what went wrong."""

    name: str
    served: Served
    path: str = "/webhooks/sg"
    dialect: str = "stable_genius"
    acknowledged: int = 0  #: deliveries under ids of their own
    faults: list[str] = field(default_factory=list)
    _pace: dict[Any, float] = field(default_factory=dict)

    def run(
        self,
        connections: int,
        seconds: float,
        *,
        rate: float = 0,
        again: int = 0,
        number: int = 0,
        warm_up: int = 0,
        most: float = _FIRST_GUESS,
        seed: str = "",
    ) -> Run:
        """Deliver for so long, in a closed loop unless a rate is given.

        `again`: only so many, over and over. `number`: until so many are delivered, if that is sooner. `seed`: of
        the payments that `events.payments` tells.
        """
        pace = rate or self._pace.get(connections, most)
        number = number or again or int(pace * seconds * (1.1 if rate else _RESERVE)) + connections + 500
        options: list[tuple[str, object]] = [
            *(("--port", self.served.port), ("--path", self.path), ("--dialect", self.dialect)),
            *(("--connections", connections), ("--seconds", seconds), ("--number", number)),
            *(("--warm-up", warm_up), ("--rate", rate)),
        ]
        words = [str(word) for option in options for word in option] + (["--again"] if again else [])
        words += ["--seed", seed] if seed else []
        before = self.served.cpu()
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.generator", *words], stdout=subprocess.PIPE, check=True, cwd=ROOT
        )
        told = json.loads(done.stdout)
        answered = max(1, sum(told["answers"].values()))
        if not again:
            self._pace[connections] = told["per_second"]
        self.acknowledged += min(told["acknowledged"], again) if again else told["acknowledged"]
        self._judge(told, connections)
        return Run(
            per_second=told["per_second"],
            p50_ms=told["p50_ms"],
            p99_ms=told["p99_ms"],
            server_us=(self.served.cpu() - before) / answered * 1e6,
            generator_us=told["cpu_us"],
            acknowledged=told["acknowledged"],
        )

    def _judge(self, told: dict[str, Any], connections: int) -> None:
        """Anything but a 2xx is a fault: a figure may be missed, an answer may not."""
        wrong = {status: number for status, number in told["answers"].items() if not status.startswith("2")}
        if wrong or told["broken"]:
            self.faults.append(f"{self.name} at {connections}: {wrong or ''} and {told['broken']} broken connections")


def rounds(items: Sequence[Item], number: int, seconds: float = math.inf) -> Iterator[tuple[int, Item]]:
    """Every item once in each round, with the number of the round; each round begins with another one.

    No round is begun that would not end in the time, if it took as long as the one before; the first always is.
    """
    until, began = time.monotonic() + seconds, time.monotonic()
    for count in range(number):
        took, began = time.monotonic() - began, time.monotonic()
        if count and began + took > until:
            return
        first = count % len(items)
        for item in (*items[first:], *items[:first]):
            yield count, item
