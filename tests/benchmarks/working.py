"""The real worker: `python -m tests.benchmarks.working URL SECONDS` steps until nothing is pending, or for so long."""

import sys

from receipted import logs
from receipted.wiring import Service
from tests.benchmarks.config import settings
from tests.benchmarks.going import go

if __name__ == "__main__":
    logs.configure("info", "json")
    url, limit = sys.argv[1:]
    go(Service(settings(url)).inbox_worker().step, seconds=float(limit))
