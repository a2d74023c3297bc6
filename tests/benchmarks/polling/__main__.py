"""`make bench-poll`: every schedule on every workload; writes the table in docs/polling.md and holds the bars."""

import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.benchmarks.polling.report import BUDGETS, SEED, as_few, askers, bars, measure, write
from tests.benchmarks.polling.workloads import WORKLOADS


def main() -> int:
    """Print everything; 1 where a promise is broken."""
    order = [
        (workload, budget, number) for workload in WORKLOADS for budget in BUDGETS for number in range(len(askers()))
    ]
    print(f"seed {SEED}; delays in seconds from being paid until noticed, after the first simulated day")
    found = {}
    with ProcessPoolExecutor() as pool:
        slowest_first = sorted(order, key=lambda one: -one[2])
        asked = {pool.submit(measure, *one): one for one in slowest_first}
        for done in as_completed(asked):
            one = found[asked[done]] = done.result()
            figures = f"mean {one.mean:7.1f}  p50 {one.p50:7.1f}  p95 {one.p95:7.1f}  p99 {one.p99:7.1f}"
            print(
                f"{one.workload:14}{one.budget:g}/s  {one.schedule:22}{figures}  questions {one.questions:9,}",
                flush=True,
            )
    figures = [found[one] for one in order]
    kept = bars(figures, measure(*as_few(figures)))
    print("\n".join(map(str, kept)))
    write(figures, kept)
    return 0 if all(one.is_kept for one in kept) else 1


if __name__ == "__main__":
    sys.exit(main())
