"""The schedules that are compared: three that are in use elsewhere, and ours with the hazard given or learnt."""

import heapq
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from poller import schedule as poller_schedule
from poller.hazard import EDGES, HazardCurve, HazardSample, HazardUpdate
from poller.planner import PaymentGroup, solve_price
from poller.schedule import ChangeForecast, PollPolicy, PollTimes, PushEstimate
from statemachine.phases import Phase
from tests.benchmarks.polling.workloads import Mixture, Workload

_START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_PLAN_EVERY: Final = 60.0
_WINDOW: Final = 32


def _at(seconds: float) -> datetime:
    return _START + timedelta(seconds=seconds)


class Open:
    """A payment that is open as far as is known here."""

    __slots__ = ("arrived", "asked", "expires", "number", "polls", "silent")

    def __init__(self, number: int, arrived: float, expires: float) -> None:
        self.number, self.arrived, self.expires = number, arrived, expires
        self.asked: float | None = None
        self.polls = 0
        self.silent = PollTimes(_at(arrived), None, _at(expires))

    def note_unchanged(self, now: float) -> None:
        """The answer was that it is still open."""
        self.asked, self.polls = now, self.polls + 1
        self.silent = replace(self.silent, asked_at=_at(now))


class Asker(ABC):
    """Decides which payment the next question is about."""

    name: str

    def begin(self, workload: Workload, budget: float) -> None:  # noqa: B027 - few need to know
        """The run is about to begin."""

    @abstractmethod
    def opened(self, payment: Open, now: float) -> None:
        """A payment has come."""

    @abstractmethod
    def pick(self, now: float) -> Open | None:
        """The payment to ask about now; None: none is due."""

    @abstractmethod
    def due(self) -> float:
        """When pick() may find one next, if nothing else happens."""

    @abstractmethod
    def unchanged(self, payment: Open, now: float) -> None:
        """The answer: it is still open."""

    def changed(self, payment: Open, now: float, changed_at: float | None) -> None:  # noqa: B027 - most forget it
        """The payment has changed; `changed_at` is known where push told it."""


class RoundRobin(Asker):
    """Whoever was asked about longest ago."""

    name = "round robin"

    def begin(self, workload: Workload, budget: float) -> None:
        """Nobody is in the round yet."""
        self._round: deque[Open] = deque()
        self._gone: set[int] = set()

    def opened(self, payment: Open, now: float) -> None:
        """To the end of the round."""
        self._round.append(payment)

    def pick(self, now: float) -> Open | None:
        """The head of the round."""
        while self._round:
            payment = self._round.popleft()
            if payment.number not in self._gone:
                return payment
        return None

    def due(self) -> float:
        """Always, while anybody is in the round."""
        return 0.0 if self._round else math.inf

    def unchanged(self, payment: Open, now: float) -> None:
        """To the end of the round."""
        self._round.append(payment)

    def changed(self, payment: Open, now: float, changed_at: float | None) -> None:
        """Out of the round."""
        self._gone.add(payment.number)


class Timed(Asker):
    """Asks when a payment's own time has come, the longest overdue first."""

    def begin(self, workload: Workload, budget: float) -> None:
        """Nothing is due."""
        self._due: list[tuple[float, int, Open]] = []
        self._planned: dict[int, float] = {}

    def plan(self, payment: Open, at: float) -> None:
        """The payment is asked about then."""
        self._planned[payment.number] = at
        heapq.heappush(self._due, (at, payment.number, payment))

    def take(self, now: float, limit: int) -> list[Open]:
        """Up to so many that are due."""
        taken: list[Open] = []
        while self._due and self._due[0][0] <= now and len(taken) < limit:
            at, number, payment = heapq.heappop(self._due)
            if self._planned.get(number) == at:
                del self._planned[number]
                taken.append(payment)
        return taken

    def pick(self, now: float) -> Open | None:
        """The longest overdue."""
        return next(iter(self.take(now, 1)), None)

    def due(self) -> float:
        """When the earliest is due."""
        return self._due[0][0] if self._due else math.inf

    def changed(self, payment: Open, now: float, changed_at: float | None) -> None:
        """Not due any more."""
        self._planned.pop(payment.number, None)


class Fixed(Timed):
    """After a minute, then every five minutes."""

    name = "60 s, then 300 s"

    def opened(self, payment: Open, now: float) -> None:
        """After a minute."""
        self.plan(payment, now + 60.0)

    def unchanged(self, payment: Open, now: float) -> None:
        """After five more minutes."""
        self.plan(payment, now + 300.0)


class Exponential(Timed):
    """After 30 s, then each wait twice as long, up to an hour."""

    name = "30 s doubling to 1 h"

    def opened(self, payment: Open, now: float) -> None:
        """After half a minute."""
        self.plan(payment, now + 30.0)

    def unchanged(self, payment: Open, now: float) -> None:
        """After twice the wait before."""
        self.plan(payment, now + min(30.0 * 2**payment.polls, 3600.0))


class Ours(Timed):
    """The policy of this project, as poller/planner.py runs it: a price every minute, hazards given or learnt."""

    def __init__(self, *, learns: bool, schedule: PollPolicy | None = None) -> None:
        self.name = "ours, learning" if learns else "ours, hazard given"
        self._learns = learns
        self._schedule = schedule or PollPolicy()

    def begin(self, workload: Workload, budget: float) -> None:
        """The prior, or the truth."""
        super().begin(workload, budget)
        self._workload, self._allowed = workload, budget
        self._open: dict[int, Open] = {}
        self._push = (
            PushEstimate(workload.push_loss, timedelta(seconds=5 * workload.push_lag))
            if workload.push_loss
            else PushEstimate()
        )
        self._learnt = HazardSample()
        self._counted_at: float | None = None
        self._plan_at = 0.0
        self._left: list[tuple[float, float, float]] = []
        self.price = self._schedule.min_price
        self._outlook = self._replan(0.0)

    def opened(self, payment: Open, now: float) -> None:
        """As the policy says."""
        self._open[payment.number] = payment
        self._next(payment, now)

    def unchanged(self, payment: Open, now: float) -> None:
        """As the policy says."""
        self._next(payment, now)

    def changed(self, payment: Open, now: float, changed_at: float | None) -> None:
        """A lesson, unless it is the expiry that was announced."""
        super().changed(payment, now, changed_at)
        del self._open[payment.number]
        counted = max((self._counted_at or 0.0) - payment.arrived, 0.0)
        low = (payment.asked or payment.arrived) - payment.arrived
        high = min(now, payment.expires) - payment.arrived
        if changed_at is not None:
            low = high = changed_at - payment.arrived
        if self._learns:
            self._left.append((low, high, counted if now < payment.expires else -counted))

    def due(self) -> float:
        """When the earliest is due, or a plan is."""
        return min(super().due(), self._plan_at)

    def pick(self, now: float) -> Open | None:
        """The most urgent of what is due."""
        if now >= self._plan_at:
            self._outlook = self._replan(now)
        due = self.take(now, _WINDOW)
        if len(due) < 2:
            return due[0] if due else None
        entries = [(payment, self._outlook, payment.silent) for payment in due]
        chosen = poller_schedule.select_most_urgent(self._schedule, entries, 1, _at(now))
        later = {payment.number: at for payment, at in chosen.later}
        for payment in due:
            if not chosen.now or payment is not chosen.now[0]:
                at = later.get(payment.number)
                self.plan(payment, (at - _START).total_seconds() if at is not None else now)
        return chosen.now[0] if chosen.now else None

    def _next(self, payment: Open, now: float) -> None:
        found = poller_schedule.next_poll(self._schedule, self._outlook, payment.silent, _at(now))
        if found is not None:
            self.plan(payment, max((found.at - _START).total_seconds(), now))

    def _replan(self, now: float) -> ChangeForecast:
        counts = counted([payment.arrived for payment in self._open.values()], now)
        curve = self._learn(now, counts) if self._learns else truth(self._workload.mixture(now))
        weight = poller_schedule.weight(Phase.OPEN, self._push)
        group = PaymentGroup(
            counts,
            curve,
            weight,
            self._schedule.min_interval.total_seconds(),
            self._schedule.max_interval.total_seconds(),
        )
        self.price = solve_price([group], self._allowed, self._schedule.min_price).price
        self._plan_at = now + _PLAN_EVERY
        return ChangeForecast(Phase.OPEN, curve, self.price, self._push)

    def _learn(self, now: float, counts: list[int]) -> HazardCurve:
        curve = self._learnt.curve(Phase.OPEN)
        lesson = HazardUpdate(self._learnt, curve)
        for low, high, counted_to in self._left:
            if counted_to < 0.0:
                lesson.add_censored(high, -counted_to)
            else:
                lesson.add_change(low, high, counted_to)
        self._left = []
        if self._counted_at is not None:
            lesson.add_watched(counts, now - self._counted_at)
        self._counted_at = now
        self._learnt = lesson.result()
        return self._learnt.curve(Phase.OPEN)


def truth(mixture: Mixture) -> HazardCurve:
    """The true hazard of being paid, of those still open."""
    rates = []
    for start, end in zip(EDGES, (*EDGES[1:], EDGES[-1] * 2), strict=True):
        paid, still = mixture.paid_by(end) - mixture.paid_by(start), 1 - mixture.paid_by((start + end) / 2)
        rates.append(paid / still / (end - start))
    return HazardCurve(tuple(rates))


def counted(arrivals: Sequence[float], now: float) -> list[int]:
    """How many of those that came then, in order of time, are of an age in each bin."""
    beyond = [bisect_right(arrivals, now - edge) for edge in EDGES]
    return [older - oldest for older, oldest in zip(beyond, (*beyond[1:], 0), strict=True)]
