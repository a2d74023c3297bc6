"""Set the price of a poll for every account, once a minute in one process.

Learns first, from the transitions since the last time, when payments leave their states.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from poller.hazard import EDGES, HazardCurve, HazardSample, HazardUpdate
from poller.schedule import POLL_SOURCES, PUSH_SOURCES, PolledAccount, PushEstimate, sample_of, weight
from statemachine.phases import Phase
from storage import journals, poll_plans, webhook_health
from storage.database import Database
from storage.poll_plans import HazardKey, OpenPayments, StateLeft
from storage.tables_support import Hazard, PollPlan

log = structlog.get_logger()

_PLAN_INTERVAL: Final = timedelta(seconds=60)

#: Transitions that are learned from in one step; the others wait for the next.
_TRANSITIONS_BATCH_SIZE: Final = 20_000

#: A provider's own time of a change is earlier than our poll by at least this; else it is the time of the answer.
_MIN_CHANGE_AGE: Final = timedelta(seconds=1)

_PRICE_BISECTIONS: Final = 40
_MAX_PRICE: Final = 1e15

#: The share of the budget that the longest intervals may take.
_MAX_FLOOR_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class PaymentGroup:
    """Payments of one account, kind and state, counted by bin of age."""

    counts: Sequence[int]
    curve: HazardCurve
    weight: float  #: see schedule.weight
    min_interval: float  #: the least seconds between two polls of one payment
    max_interval: float  #: the most seconds between two polls of one payment


@dataclass(frozen=True, slots=True)
class AccountPrice:
    """Price of a poll, and the request rates that follow from it."""

    price: float  #: expected seconds of not knowing of a change that justify one poll
    wanted: float  #: polls per second at that price
    floor: float  #: polls per second that the longest intervals demand at any price
    stretch: float = 1.0  #: factor by which the longest intervals grow, since the budget is short


def solve_price(groups: Sequence[PaymentGroup], allowed: float | None, min_price: float) -> AccountPrice:
    """Return the lowest price, at least `min_price`, whose polls fit the allowed rate.

    The longest intervals may take up to nine tenths of the rate, so that no payment starves. Where they demand more,
    all of them are stretched by `stretch`: the rest is left for the payments that are likeliest to change.
    """
    bins = [
        (count, group.curve.rates[at] * group.weight, 1 / group.min_interval, 1 / group.max_interval)
        for group in groups
        for at, count in enumerate(group.counts)
        if count
    ]
    floor = sum(count * slowest for count, _, _, slowest in bins)
    stretch = 1.0 if allowed is None else max(1.0, floor / (allowed * _MAX_FLOOR_SHARE))
    bins = [(count, rate, fastest, slowest / stretch) for count, rate, fastest, slowest in bins]

    def wanted(price: float) -> float:
        return sum(
            count * min(fastest, max(slowest, math.sqrt(rate / (2 * price)))) for count, rate, fastest, slowest in bins
        )

    if allowed is None or wanted(min_price) <= allowed:
        return AccountPrice(min_price, wanted(min_price), floor, stretch)
    low, high = math.log(min_price), math.log(_MAX_PRICE)
    for _ in range(_PRICE_BISECTIONS):
        middle = (low + high) / 2
        if wanted(math.exp(middle)) > allowed:
            low = middle
        else:
            high = middle
    return AccountPrice(math.exp(high), wanted(math.exp(high)), floor, stretch)


class Planner:
    """Learn hazards and set prices. One of any number of processes works each minute."""

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, PolledAccount],
        allowed: Mapping[str, float | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._allowed = allowed  #: polls per second, by account
        self._clock = clock

    def step(self) -> int:
        """Plan every account if the last plan is a minute old; return the number planned.

        A crash in between costs this minute's plan and nothing else. Raises StorageUnavailable.
        """
        now = self._clock()
        with self._database.write() as unit:
            turn = poll_plans.begin(unit, now, _PLAN_INTERVAL)
        if turn is None:
            return 0
        with self._database.read() as unit:
            standing = poll_plans.standing(unit, now, EDGES)
            kept = poll_plans.hazards(unit)
            transitions, learned_to = poll_plans.lessons(unit, now, turn.learned_to, _TRANSITIONS_BATCH_SIZE)
            before = poll_plans.plans(unit)
            standing = {place: found for place, found in standing.items() if self._is_open(place)}
            logs = journals.states(unit)
            pushes = {
                (name, kind): self._accounts[name].push_estimate(
                    webhook_health.worth(unit, name, kind, now), logs.get(name), now
                )
                for name, kind in {(place.account, place.kind) for place in standing}
            }
        hazards = self._learn(standing, kept, transitions, now)
        asked = [name for name, account in self._accounts.items() if account.kinds]
        planned = [self._plan(account, standing, hazards, pushes, now) for account in asked]
        with self._database.write() as unit:
            poll_plans.keep(unit, planned, hazards.values(), learned_to)
        for plan in planned:
            _log_budget(plan, before.get(plan.account))
        return len(planned)

    def _is_open(self, place: HazardKey) -> bool:
        account = self._accounts.get(place.account)
        if account is None or place.kind not in account.kinds:
            return False
        return not account.is_terminal(place.kind, place.state or None)

    def _learn(
        self,
        standing: Mapping[HazardKey, OpenPayments],
        kept: Mapping[HazardKey, Hazard],
        transitions: list[StateLeft],
        now: datetime,
    ) -> dict[HazardKey, Hazard]:
        by_place: dict[HazardKey, list[StateLeft]] = defaultdict(list)
        for transition in transitions:
            if self._is_open(transition.place):
                by_place[transition.place].append(transition)
        return {
            place: _learned_hazard(place, standing.get(place), kept.get(place), by_place[place], now)
            for place in {*standing, *by_place}
        }

    def _plan(
        self,
        account: str,
        standing: Mapping[HazardKey, OpenPayments],
        hazards: Mapping[HazardKey, Hazard],
        pushes: Mapping[tuple[str, str], PushEstimate],
        now: datetime,
    ) -> PollPlan:
        policy = self._accounts[account].policy
        groups = [
            PaymentGroup(
                found.counts,
                _curve(hazards[place], Phase(found.phase)),
                weight(Phase(found.phase), pushes[account, place.kind]),
                policy.min_interval.total_seconds(),
                policy.floor(Phase(found.phase)).total_seconds(),
            )
            for place, found in standing.items()
            if place.account == account
        ]
        price = solve_price(groups, self._allowed[account], policy.min_price)
        return PollPlan(
            account=account,
            planned_at=now,
            price_seconds=price.price,
            watched=sum(sum(group.counts) for group in groups),
            wanted_per_second=price.wanted,
            floor_per_second=price.floor,
            stretch=price.stretch,
            allowed_per_second=self._allowed[account],
        )


def is_budget_short(plan: PollPlan) -> bool:
    """Return whether the budget cannot poll every payment in the longest interval."""
    return plan.stretch > 1.0


def _curve(row: Hazard, phase: Phase) -> HazardCurve:
    return sample_of(row).curve(phase)


def _learned_hazard(
    place: HazardKey, standing: OpenPayments | None, kept: Hazard | None, transitions: list[StateLeft], now: datetime
) -> Hazard:
    before = HazardSample() if kept is None else sample_of(kept)
    phase = Phase(standing.phase) if standing is not None else Phase.OPEN
    update = HazardUpdate(before, before.curve(phase))
    for transition in transitions:
        was_counted = kept is not None and transition.recorded_at > kept.learned_at - poll_plans.SETTLED_AFTER
        counted_to = (
            (kept.learned_at - transition.entered_at).total_seconds() if kept is not None and was_counted else 0.0
        )
        _add_transition(update, transition, max(counted_to, 0.0))
    if standing is not None:
        since = math.inf if kept is None else (now - kept.learned_at).total_seconds()
        update.add_watched(standing.counts, max(since, 0.0))  # no payment was counted before the first time
    sample = update.result()
    return Hazard(
        account=place.account,
        kind=place.kind,
        state=place.state,
        exposure=[round(seconds, 3) for seconds in sample.exposure],
        changes=[round(changes, 4) for changes in sample.changes],
        learned_at=now,
    )


def _add_transition(update: HazardUpdate, transition: StateLeft, counted_to: float) -> None:
    """Add one transition to the update: when the payment changed, as near as is known."""

    def age(at: datetime) -> float:
        return (at - transition.entered_at).total_seconds()

    recorded = age(transition.recorded_at)
    if transition.expires_at is not None and transition.entered_at < transition.expires_at <= transition.recorded_at:
        update.add_censored(min(age(transition.expires_at), recorded), counted_to)  # announced: no chance
    elif transition.source in PUSH_SOURCES:
        changed = min(age(transition.as_of or transition.recorded_at), recorded)
        update.add_change(changed, changed, counted_to)
    elif transition.source in POLL_SOURCES and transition.asked_at is not None:
        asked, seen = age(transition.asked_at), 0.0 if transition.seen_at is None else age(transition.seen_at)
        if transition.as_of is not None and transition.as_of < transition.asked_at - _MIN_CHANGE_AGE:
            asked = seen = age(transition.as_of)
        update.add_change(min(seen, asked), asked, counted_to)
    else:
        update.add_censored(recorded, counted_to)  # our own call, or a person's word: says nothing of payers


def _log_budget(plan: PollPlan, before: PollPlan | None) -> None:
    """Log when the budget gets too small for the longest intervals, or suffices again."""
    was_short = before is not None and is_budget_short(before)
    if is_budget_short(plan) and not was_short:
        log.warning(
            "budget.short",
            account=plan.account,
            watched=plan.watched,
            needed_per_second=round(plan.floor_per_second, 3),
            allowed_per_second=plan.allowed_per_second,
        )
    elif was_short and not is_budget_short(plan):
        log.info("budget.sufficed", account=plan.account, watched=plan.watched)
