"""The planner: once a minute, in one of all processes, it learns what changed when and sets every account's price."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from poller.hazard import EDGES, Curve, Learnt, Lesson
from poller.schedule import BookedAccount, Push, learnt_of, push_of, weight
from statemachine.phases import Phase
from storage import poll_plans, webhook_health
from storage.database import Database
from storage.poll_plans import Left, Place, Standing
from storage.tables_support import Hazard, PollPlan

_STEPS: Final = 40
_DEAREST: Final = 1e15

#: Of the budget, what the longest waits may take at most.
_FLOOR_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Group:
    """The payments of one account, kind and state: how many stand in each bin of age."""

    counts: Sequence[int]
    curve: Curve
    weight: float  #: see policy.weight
    soonest: float  #: seconds between two questions about one payment, at least
    longest: float  #: and at most


@dataclass(frozen=True, slots=True)
class Priced:
    """The price, and what it leads to."""

    price: float  #: expected seconds of not knowing that one question costs
    wanted: float  #: questions per second at that price
    floor: float  #: questions per second that the longest waits demand at any price
    stretch: float = 1.0  #: by what the longest waits must be longer than they should be, since the budget is short


def price_of(groups: Sequence[Group], allowed: float | None, worth: float) -> Priced:
    """The lowest price, and none below `worth`, at which no more questions are wanted than are allowed per second.

    The longest waits may take up to nine tenths of that, so that no payment starves. Where they demand more, all of
    them are stretched, and `stretch` says by how much: the rest stays with what is likeliest to change.
    """
    bins = [
        (count, group.curve.rates[at] * group.weight, 1 / group.soonest, 1 / group.longest)
        for group in groups
        for at, count in enumerate(group.counts)
        if count
    ]
    floor = sum(count * slowest for count, _, _, slowest in bins)
    stretch = 1.0 if allowed is None else max(1.0, floor / (allowed * _FLOOR_SHARE))
    bins = [(count, rate, fastest, slowest / stretch) for count, rate, fastest, slowest in bins]

    def wanted(price: float) -> float:
        return sum(
            count * min(fastest, max(slowest, math.sqrt(rate / (2 * price)))) for count, rate, fastest, slowest in bins
        )

    if allowed is None or wanted(worth) <= allowed:
        return Priced(worth, wanted(worth), floor, stretch)
    low, high = math.log(worth), math.log(_DEAREST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if wanted(math.exp(middle)) > allowed:
            low = middle
        else:
            high = middle
    return Priced(math.exp(high), wanted(math.exp(high)), floor, stretch)


log = structlog.get_logger()

_EVERY: Final = timedelta(seconds=60)

#: Lessons drawn in one turn; what is left waits for the next one.
_LESSONS: Final = 20_000

#: An answer's own time of the change, where it gives one, is earlier than the question by at least so much.
_DISTINCT: Final = timedelta(seconds=1)

#: Who says of their own accord when a payment changed; the rest is asked, or is our own doing.
_PUSHED: Final = frozenset({"webhook", "callback"})
_ASKED: Final = frozenset({"poll", "list"})


class Planner:
    """Learns and prices. Any number of processes may step; one of them works each minute."""

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, BookedAccount],
        allowed: Mapping[str, float | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._allowed = allowed  #: questions per second, by account
        self._clock = clock

    def step(self) -> int:
        """Every account is planned anew, if the last time was a minute ago; returns how many.

        A crash in between costs this minute's plan and nothing else. Raises StorageUnavailable.
        """
        now = self._clock()
        with self._database.write() as unit:
            turn = poll_plans.begin(unit, now, _EVERY)
        if turn is None:
            return 0
        with self._database.read() as unit:
            standing = poll_plans.standing(unit, now, EDGES)
            kept = poll_plans.hazards(unit)
            left, learned_to = poll_plans.lessons(unit, now, turn.learned_to, _LESSONS)
            before = poll_plans.plans(unit)
            pushes = {
                (account, kind): push_of(webhook_health.worth(unit, account, kind, now))
                for account, kind in {(place.account, place.kind) for place in standing}
            }
        standing = {place: found for place, found in standing.items() if self._is_open(place)}
        hazards = self._learn(standing, kept, left, now)
        planned = [self._plan(account, standing, hazards, pushes, now) for account in self._accounts]
        with self._database.write() as unit:
            poll_plans.keep(unit, planned, hazards.values(), learned_to)
        for plan in planned:
            _tell(plan, before.get(plan.account))
        return len(planned)

    def _is_open(self, place: Place) -> bool:
        account = self._accounts.get(place.account)
        return account is not None and not account.is_terminal(place.kind, place.state or None)

    def _learn(
        self, standing: Mapping[Place, Standing], kept: Mapping[Place, Hazard], left: list[Left], now: datetime
    ) -> dict[Place, Hazard]:
        by_place: dict[Place, list[Left]] = defaultdict(list)
        for lesson in left:
            if self._is_open(lesson.place):
                by_place[lesson.place].append(lesson)
        return {
            place: _lesson(place, standing.get(place), kept.get(place), by_place[place], now)
            for place in {*standing, *by_place}
        }

    def _plan(
        self,
        account: str,
        standing: Mapping[Place, Standing],
        hazards: Mapping[Place, Hazard],
        pushes: Mapping[tuple[str, str], Push],
        now: datetime,
    ) -> PollPlan:
        schedule = self._accounts[account].schedule
        groups = [
            Group(
                found.counts,
                _curve(hazards[place], Phase(found.phase)),
                weight(Phase(found.phase), pushes[account, place.kind]),
                schedule.soonest.total_seconds(),
                schedule.floor(Phase(found.phase)).total_seconds(),
            )
            for place, found in standing.items()
            if place.account == account
        ]
        priced: Priced = price_of(groups, self._allowed[account], schedule.worth)
        return PollPlan(
            account=account,
            planned_at=now,
            price_seconds=priced.price,
            watched=sum(sum(group.counts) for group in groups),
            wanted_per_second=priced.wanted,
            floor_per_second=priced.floor,
            stretch=priced.stretch,
            allowed_per_second=self._allowed[account],
        )


def is_short(plan: PollPlan) -> bool:
    """Whether the budget does not even allow every open payment to be asked about in the longest wait."""
    return plan.stretch > 1.0


def _curve(row: Hazard, phase: Phase) -> Curve:
    return learnt_of(row).curve(phase)


def _lesson(place: Place, standing: Standing | None, kept: Hazard | None, left: list[Left], now: datetime) -> Hazard:
    before = Learnt() if kept is None else learnt_of(kept)
    phase = Phase(standing.phase) if standing is not None else Phase.OPEN
    lesson = Lesson(before, before.curve(phase))
    for one in left:
        was_counted = kept is not None and one.recorded_at > kept.learned_at - poll_plans.SETTLED_AFTER
        counted_to = (kept.learned_at - one.entered_at).total_seconds() if kept is not None and was_counted else 0.0
        _draw(lesson, one, max(counted_to, 0.0))
    if standing is not None:
        since = math.inf if kept is None else (now - kept.learned_at).total_seconds()
        lesson.watched(standing.counts, max(since, 0.0))  # nobody was counted before the first time
    learnt = lesson.learnt()
    return Hazard(
        account=place.account,
        kind=place.kind,
        state=place.state,
        exposure=[round(seconds, 3) for seconds in learnt.exposure],
        changes=[round(changes, 4) for changes in learnt.changes],
        learned_at=now,
    )


def _draw(lesson: Lesson, left: Left, counted_to: float) -> None:
    """One lesson: when the payment changed, as near as is known."""

    def age(at: datetime) -> float:
        return (at - left.entered_at).total_seconds()

    recorded = age(left.recorded_at)
    if left.expires_at is not None and left.entered_at < left.expires_at <= left.recorded_at:
        lesson.ended(min(age(left.expires_at), recorded), counted_to)  # announced: no chance
    elif left.source in _PUSHED:
        changed = min(age(left.as_of or left.recorded_at), recorded)
        lesson.changed(changed, changed, counted_to)
    elif left.source in _ASKED and left.asked_at is not None:
        asked, seen = age(left.asked_at), 0.0 if left.seen_at is None else age(left.seen_at)
        if left.as_of is not None and left.as_of < left.asked_at - _DISTINCT:
            asked = seen = age(left.as_of)
        lesson.changed(min(seen, asked), asked, counted_to)
    else:
        lesson.ended(recorded, counted_to)  # our own call, or a person's word: says nothing of payers


def _tell(plan: PollPlan, before: PollPlan | None) -> None:
    """The log says when the budget has become too small for the longest wait, and when it is enough again."""
    was_short = before is not None and is_short(before)
    if is_short(plan) and not was_short:
        log.warning(
            "budget.short",
            account=plan.account,
            watched=plan.watched,
            needed_per_second=round(plan.floor_per_second, 3),
            allowed_per_second=plan.allowed_per_second,
        )
    elif was_short and not is_short(plan):
        log.info("budget.sufficed", account=plan.account, watched=plan.watched)
