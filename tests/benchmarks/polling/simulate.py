"""The simulator: deterministic, without a network, with a clock that jumps from one event to the next."""

import heapq
import math
from dataclasses import dataclass, field

from tests.benchmarks.polling.schedules import Asker, Open
from tests.benchmarks.polling.workloads import Change, Workload


@dataclass(slots=True)
class Run:
    """What came of one schedule."""

    questions: int = 0
    delays: list[tuple[float, float]] = field(default_factory=list)  #: (when paid, seconds until noticed)

    def of(self, start: float, end: float) -> list[float]:
        """The delays of what was paid in that time, sorted."""
        return sorted(delay for paid, delay in self.delays if start <= paid < end)


def simulate(workload: Workload, changes: list[Change], asker: Asker, budget: float) -> Run:
    """Run the arrivals under one schedule with so many questions a second, until the last payment is noticed."""
    asker.begin(workload, budget)
    run, gap = Run(), 1 / budget
    known: dict[int, Open] = {}
    pushes: list[tuple[float, int]] = []
    now, arrived, free_at = 0.0, 0, 0.0
    end = workload.days * 86_400.0
    while arrived < len(changes) or known:
        comes = changes[arrived].arrives if arrived < len(changes) else math.inf
        pushed = pushes[0][0] if pushes else math.inf
        asks = max(asker.due(), free_at)
        now = min(comes, pushed, max(asks, now))
        if now == comes:
            change = changes[arrived]
            payment = known[arrived] = Open(arrived, change.arrives, change.arrives + workload.mixture(comes).ttl)
            if change.pushed is not None:
                heapq.heappush(pushes, (change.pushed, arrived))
            asker.opened(payment, now)
            arrived += 1
        elif now == pushed:
            _, number = heapq.heappop(pushes)
            if number in known:
                _notice(run, known, changes[number], asker, known[number], now, changes[number].changes)
        else:
            asked = asker.pick(now)
            if asked is None:
                continue
            free_at = now + gap
            if now < end:
                run.questions += 1
            change = changes[asked.number]
            if change.changes <= now:
                _notice(run, known, change, asker, asked, now, None)
            else:
                asked.note_unchanged(now)
                asker.unchanged(asked, now)
    return run


def _notice(
    run: Run, known: dict[int, Open], change: Change, asker: Asker, payment: Open, now: float, at: float | None
) -> None:
    del known[payment.number]
    asker.changed(payment, now, at)
    if change.is_paid:
        run.delays.append((change.changes, now - change.changes))
