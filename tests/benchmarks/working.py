"""The real worker: `python -m tests.benchmarks.working URL SECONDS` until nothing is pending, or for so long."""

import sys

from receipted import logs
from receipted.runtime import reduce_garbage_collection
from receipted.wiring import Service
from tests.benchmarks.config import settings
from tests.benchmarks.going import go

if __name__ == "__main__":
    logs.configure("info", "json")
    url, limit = sys.argv[1:]
    service = Service(settings(url))
    reduce_garbage_collection()
    go(*(service.inbox_worker().step for _ in range(service.batches())), seconds=float(limit))
