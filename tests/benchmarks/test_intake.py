"""Durable deliveries per second, beside the same application with storage switched off, and a bare endpoint."""

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.benchmarks.served import MODES

ROOT = Path(__file__).parents[2]
ROUNDS = 3
SECONDS = 2.0
CONNECTIONS = (1, 64)
#: Signed ahead for each run: more than any server here answers in that time.
PREPARED = {1: 12_000, 64: 40_000}

LEGEND = """
durable  the application as `receipted web` serves it: HTTP, HMAC-SHA256 over the body, one JSON log line, and SQLite
         in WAL with synchronous=FULL: the delivery is committed, with fsync, before the 200.
off      the same application, signature check and log line included; its writer commits nothing.
bare     an endpoint of Starlette that reads the body and answers 200: no signature, no log, no storage.
Medians of {rounds} interleaved rounds of {seconds:g} s; load and server share {cores} cores. Ratios are within a round.
"""


@contextmanager
def served(mode: str, folder: Path) -> Iterator[int]:
    """The server in a process of its own; yields its port."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.served", mode, str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
        )
    with process:
        try:
            assert process.stdout is not None
            port = urlsplit(process.stdout.readline().decode()).port
            assert port is not None, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
    assert process.returncode == 0


def delivered(port: int, connections: int, *, seconds: float, prepared: int) -> dict[str, Any]:
    """One run of the load generator, in a process of its own."""
    numbers = (port, connections, seconds, prepared)
    command = [sys.executable, "-m", "tests.benchmarks.load", *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_intake(tmp_path: Path) -> None:
    """Every answer is 200 and every acknowledged delivery is stored; the figures are printed, and are no gate."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {(mode, c): [] for c in CONNECTIONS for mode in MODES}
    with ExitStack() as stack:
        ports = {mode: stack.enter_context(served(mode, tmp_path / mode)) for mode in MODES}
        warm_ups = {mode: delivered(port, 8, seconds=1.0, prepared=3000) for mode, port in ports.items()}
        for number in range(ROUNDS):
            for connections in CONNECTIONS:
                for mode in MODES[number:] + MODES[:number]:  # nobody is always the first
                    run = delivered(ports[mode], connections, seconds=SECONDS, prepared=PREPARED[connections])
                    runs[mode, connections].append(run)
    figures = [_figures(runs, mode, connections) for connections in CONNECTIONS for mode in MODES]
    _print(figures)
    target = ROOT / "var" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    about = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    target.write_text(json.dumps({"about": about, "rounds": ROUNDS, "seconds": SECONDS, "figures": figures}, indent=1))
    assert {"200"} == {status for found in runs.values() for run in found for status in run["answers"]}
    durable = [warm_ups["durable"], *(run for connections in CONNECTIONS for run in runs["durable", connections])]
    acknowledged = sum(run["answers"]["200"] for run in durable)
    with closing(sqlite3.connect(tmp_path / "durable" / "receipted.db")) as database:
        assert (acknowledged,) == database.execute("SELECT count(*) FROM inbox_message").fetchone()
    with closing(sqlite3.connect(tmp_path / "off" / "receipted.db")) as database:
        assert database.execute("SELECT count(*) FROM inbox_message").fetchone() == (0,)


def _figures(runs: dict[tuple[str, int], list[dict[str, Any]]], mode: str, connections: int) -> dict[str, Any]:
    own = runs[mode, connections]

    def median(name: str) -> float:
        return statistics.median(run[name] for run in own)

    def ratio(to: str) -> float:
        pairs = zip(own, runs[to, connections], strict=True)
        return statistics.median(run["per_second"] / other["per_second"] for run, other in pairs)

    return {
        "mode": mode,
        "connections": connections,
        "per_second": round(median("per_second")),
        "p50_ms": round(median("p50_ms"), 2),
        "p99_ms": round(median("p99_ms"), 2),
        "of_off": round(ratio("off"), 2),
        "of_bare": round(ratio("bare"), 2),
    }


def _print(figures: list[dict[str, Any]]) -> None:
    print(LEGEND.format(rounds=ROUNDS, seconds=SECONDS, cores=os.cpu_count()))
    print("connections  mode      deliveries/s   p50 ms   p99 ms   of off   of bare")
    for row in figures:
        print(
            f"{row['connections']:>11}  {row['mode']:<8}  {row['per_second']:>12,}  {row['p50_ms']:>7.2f}  "
            f"{row['p99_ms']:>7.2f}  {row['of_off']:>7.2f}  {row['of_bare']:>8.2f}"
        )
