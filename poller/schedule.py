"""Decide when each payment is polled next, by policy and by the stored plans."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final, Generic, TypeVar

import structlog

from poller.hazard import BINS, HazardCurve, HazardSample
from statemachine.errors import ServiceError
from statemachine.phases import MOVING_PHASES, Phase, Source
from storage import journals, poll_plans, webhook_health
from storage.database import Database
from storage.journals import JournalState
from storage.poll_plans import HazardKey
from storage.tables import Payment, PaymentPoll
from storage.tables_support import Hazard, PollPlan
from storage.types import PollPriority
from storage.webhook_health import PushWorth

log = structlog.get_logger()

Key = TypeVar("Key")

#: Sources of statements that the provider sent by itself, and of what we found by asking.
PUSH_SOURCES: Final = frozenset({Source.WEBHOOK.value, Source.CALLBACK.value})
POLL_SOURCES: Final = frozenset({Source.POLL.value, Source.LIST.value, Source.JOURNAL.value})

UNPAID: Final = MOVING_PHASES

#: Ends without money after which money may still arrive.
_UNPAID_ENDS: Final = frozenset({Phase.EXPIRED, Phase.CANCELLED, Phase.FAILED})

#: The share of itself by which jitter may lengthen a wait.
_MAX_JITTER_SHARE: Final = 0.2

#: The weight of a missed settlement or refund relative to a missed payment.
_PAID_WEIGHT: Final = 0.01

#: However good push was, it may fail from now on.
_MIN_LOSS: Final = 0.01

#: Seconds, changes, prices and stretches beyond these are no measurements, and would overflow in calculations.
_MAX_QUANTITY: Final = 1e15
_MAX_STRETCH: Final = 1e4

#: Plans are read again when they are older.
_PLANS_MAX_AGE: Final = timedelta(seconds=30)

#: A journal that was read within so many intervals finds changes; later nothing is known of it.
JOURNAL_FRESH_INTERVALS: Final = 10

#: A planned poll that differs by more from what would be planned now was planned for another reason.
_PLAN_TOLERANCE: Final = timedelta(seconds=1)

#: Expiries from here on are a provider's "never"; a datetime may not be able to hold an instant after them.
_NO_EXPIRY_FROM: Final = datetime(9000, 1, 1, tzinfo=UTC)

#: Reasons for the next poll.
LIKELY_CHANGED: Final = "changed"  #: enough payments of this age have changed by then
MAX_INTERVAL: Final = "floor"  #: the longest interval is over
EXPIRED: Final = "expiry"  #: the provider announced that it expires shortly before
LATE_CHECK: Final = "late"  #: money may arrive after an end without money
UNHEARD: Final = "unheard"  #: no question: by then a person looks, since the provider cannot be asked

_PRIORITY_REASONS: Final = {
    PollPriority.PAYER: "a payer has come back",
    PollPriority.DOUBT: "a statement is to be confirmed",
    PollPriority.PERSON: "a person or a program has asked",
    PollPriority.HINT: "something has changed in the account",
}


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """Intervals, retries and limits for polling an account."""

    #: Expected seconds of not knowing of a change that justify a poll even where the budget has room.
    min_price: float = 2.0
    min_interval: timedelta = timedelta(seconds=5)  #: between two polls of one payment
    max_interval: timedelta = timedelta(hours=12)  #: the longest interval of an unpaid payment
    max_paid_interval: timedelta = timedelta(days=1)  #: likewise of a paid one that may still be settled or refunded
    give_up_after: timedelta | None = timedelta(days=30)  #: without a change; None: never
    late_checks: tuple[timedelta, ...] = (timedelta(hours=1), timedelta(days=1))  #: after an end without money
    after_expiry: timedelta = timedelta(seconds=5)  #: the wait after an expiry that the provider announced
    first_retry_wait: timedelta = timedelta(seconds=15)  #: after a failed poll; doubles
    max_retry_wait: timedelta = timedelta(hours=1)

    def has_given_up(self, changed_at: datetime, now: datetime) -> bool:
        """Return whether the payment has gone unchanged for longer than it is polled."""
        return self.give_up_after is not None and now - changed_at > self.give_up_after

    def floor(self, phase: Phase) -> timedelta:
        """Return the longest interval between two polls of a payment in this phase."""
        return self.max_interval if phase in UNPAID else self.max_paid_interval

    def after_failure(
        self, failures: int, retry_after: float | None, may_retry: bool, now: datetime, jitter: float
    ) -> datetime:
        """Return when to retry after a failed poll that followed `failures` others.

        The wait doubles up to `max_retry_wait`; the provider's `retry_after` is a minimum. An error that a repeat
        cannot mend is retried at the longest wait only, so that a mended configuration is noticed without flooding the
        provider. `jitter`, from 0 to 1, makes a wait up to a fifth longer, so that polls that failed together are not
        retried together.
        """
        if not may_retry:
            return now + self.max_retry_wait
        wait = min(self.first_retry_wait.total_seconds() * 2 ** min(failures, 32), self.max_retry_wait.total_seconds())
        return now + timedelta(seconds=max(wait, retry_after or 0.0) * (1 + _MAX_JITTER_SHARE * jitter))


@dataclass(frozen=True, slots=True)
class PushEstimate:
    """Measured reliability of an account's webhooks and callbacks."""

    loss: float = 1.0  #: the share of changes that no push reports
    lag: timedelta = timedelta(0)  #: within which nearly all pushes arrive


@dataclass(frozen=True)
class ChangeForecast:
    """Expected changes of an account's payments of one kind and state."""

    phase: Phase
    curve: HazardCurve
    price: float  #: expected seconds of not knowing of a change that justify one poll
    push: PushEstimate = PushEstimate()
    stretch: float = 1.0  #: factor of the longest intervals where the budget is too small for them

    @cached_property
    def weight(self) -> float:
        """The share of the hazard that counts: changes that no push reports."""
        return weight(self.phase, self.push)

    @cached_property
    def first_poll_age(self) -> float:
        """The age in seconds at which the first poll of a payment in this state is due."""
        return self.curve.age_at_staleness(0.0, self.price, self.weight)


def weight(phase: Phase, push: PushEstimate) -> float:
    """Return the factor for the hazard of payments in this phase, given their push."""
    return push.loss * (1.0 if phase in UNPAID else _PAID_WEIGHT)


@dataclass(frozen=True, slots=True)
class PollTimes:
    """The instants of one payment that decide its next poll."""

    changed_at: datetime  #: when it entered its state
    asked_at: datetime | None  #: for which the last answer said that it is still in that state
    expires_at: datetime | None = None  #: as the provider announced

    @property
    def seen_at(self) -> datetime:
        """The latest instant at which the payment is known to have been in its state."""
        return self.changed_at if self.asked_at is None or self.asked_at < self.changed_at else self.asked_at


@dataclass(frozen=True, slots=True)
class NextPoll:
    """Due time of the next poll, and the reason for it."""

    at: datetime
    reason: str  #: LIKELY_CHANGED, MAX_INTERVAL, EXPIRED, LATE_CHECK or UNHEARD


def next_poll(policy: PollPolicy, forecast: ChangeForecast, times: PollTimes, now: datetime) -> NextPoll | None:
    """Return the next poll of a payment that is not at its end; None once given up.

    Never sooner than `policy.min_interval` after the last answer, nor before push would report the change by its own
    measured lag; never later than the floor; shortly after an expiry that the provider announced. May lie in the past.
    """
    if policy.has_given_up(times.changed_at, now):
        return None
    seen_at = times.seen_at
    seen = (seen_at - times.changed_at).total_seconds()
    age = forecast.curve.age_at_staleness(seen, forecast.price, forecast.weight) if seen else forecast.first_poll_age
    wait = max(policy.min_interval, forecast.push.lag if seen == 0.0 else timedelta(0))
    floor = max(policy.floor(forecast.phase) * forecast.stretch, wait)
    found = NextPoll(seen_at + floor, MAX_INTERVAL)
    if age - seen < floor.total_seconds():
        found = NextPoll(max(times.changed_at + timedelta(seconds=age), seen_at + wait), LIKELY_CHANGED)
    if times.expires_at is not None and times.expires_at < _NO_EXPIRY_FROM and forecast.phase in UNPAID:
        over = times.expires_at + max(policy.after_expiry, forecast.push.lag)
        if seen_at < over < found.at:
            found = NextPoll(over, EXPIRED)
    return found


def unheard_check(policy: PollPolicy, phase: Phase, changed_at: datetime) -> NextPoll | None:
    """Return when a payment that cannot be asked about has been silent for too long.

    None for one that is paid or ended: its provider may never say more.
    """
    if policy.give_up_after is None or phase not in UNPAID:
        return None
    return NextPoll(changed_at + policy.give_up_after, UNHEARD)


def late_check(policy: PollPolicy, phase: Phase, changed_at: datetime, now: datetime) -> NextPoll | None:
    """Return the next poll of a payment at its end; None if no late money can come.

    Chosen by age, not by count: a poll that failed, or that a hint caused, is not a late check.
    """
    checks = (changed_at + age for age in policy.late_checks if phase in _UNPAID_ENDS)
    at = min((at for at in checks if at > now), default=None)
    return None if at is None else NextPoll(at, LATE_CHECK)


def urgency(policy: PollPolicy, forecast: ChangeForecast, times: PollTimes, now: datetime) -> float:
    """Return the value of polling now, in units of the price; the highest goes first.

    Grows without bound while a payment is not polled, so that none starves.
    """
    seen_at = times.seen_at
    seen, age = (seen_at - times.changed_at).total_seconds(), (now - times.changed_at).total_seconds()
    if age <= seen:
        return 0.0
    waited = (age - seen) / (policy.floor(forecast.phase).total_seconds() * forecast.stretch)
    min_price = forecast.curve.expected_staleness(seen, age) * forecast.weight / forecast.price
    if times.expires_at is not None and forecast.phase in UNPAID and seen_at < times.expires_at <= now:
        min_price += 1.0 + (now - times.expires_at).total_seconds() / forecast.price
    return max(min_price, waited * waited)


@dataclass(frozen=True, slots=True)
class SelectedPolls(Generic[Key]):
    """Payments to poll now, and those postponed because the price has risen."""

    now: list[Key]
    later: list[tuple[Key, datetime]]


def select_most_urgent(
    policy: PollPolicy, due: Sequence[tuple[Key, ChangeForecast | None, PollTimes]], room: int, now: datetime
) -> SelectedPolls[Key]:
    """Select the most urgent of the due payments for which there is room.

    A payment in neither list stays due. One without a forecast is at its end: its late check is as urgent as what is
    just due.
    """
    if len(due) <= room:
        return SelectedPolls([key for key, _, _ in due], [])
    ranked = sorted(
        (
            (1.0 if forecast is None else urgency(policy, forecast, times, now), at)
            for at, (_, forecast, times) in enumerate(due)
        ),
        reverse=True,
    )
    later: list[tuple[Key, datetime]] = []
    for min_price, at in ranked[room:]:
        key, forecast, times = due[at]
        if forecast is None or min_price >= 1.0:
            continue
        found = next_poll(policy, forecast, times, now)
        if found is not None and found.at > now:
            later.append((key, found.at))
    return SelectedPolls([due[at][0] for _, at in ranked[:room]], later)


def explain(forecast: ChangeForecast | None, times: PollTimes, found: NextPoll, state: str) -> str:
    """Explain in words why a poll is planned; a payment at its end has no `forecast`."""
    if found.reason == UNHEARD:
        return "the provider cannot be asked: a person is to look if it has said nothing by then"
    if forecast is None or found.reason == LATE_CHECK:
        return "it ended without money, and money may be late"
    if found.reason == EXPIRED:
        return "the provider said that it expires shortly before"
    age = (found.at - times.changed_at).total_seconds()
    pushed = f"; pushes report all but {forecast.push.loss:.0%}" if forecast.push.loss < 1.0 else ""
    words = f"{forecast.curve.changed_by(max(age, 0.0)):.0%} of payments have left {state} at that age{pushed}"
    return f"nothing is asked about less often; {words}" if found.reason == MAX_INTERVAL else words


@dataclass(frozen=True, slots=True)
class PolledAccount:
    """The polling policy, terminal states and askable kinds of one account."""

    policy: PollPolicy
    is_terminal: Callable[[str, str | None], bool]  #: of kind and state
    kinds: frozenset[str]  #: that its provider can be asked about
    journal_interval: timedelta | None = None  #: between two looks at its journal; None where it has none

    def push_estimate(self, measured: PushWorth, journal: JournalState | None, now: datetime) -> PushEstimate:
        """Return what finds changes without a question: push, and a journal read lately."""
        interval, read_at = self.journal_interval, None if journal is None else journal.read_at
        if interval is None or read_at is None or now - read_at > JOURNAL_FRESH_INTERVALS * interval:
            return push_estimate_of(measured)
        return PushEstimate(_MIN_LOSS, interval)


class PollSchedule:
    """Schedule of polls, from the policies and the planner's rows. Thread-safe."""

    def __init__(
        self, database: Database, accounts: Mapping[str, PolledAccount], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._clock = clock
        self._refresh_lock = threading.Lock()
        self._read_at: datetime | None = None
        self._learnt: dict[HazardKey, HazardSample] = {}
        self._plans: dict[str, PollPlan] = {}
        self._pushes: dict[tuple[str, str], PushEstimate] = {}
        self._forecasts: dict[tuple[str, str, str, str], ChangeForecast] = {}  #: by account, kind, state and phase

    def policy(self, account: str) -> PollPolicy:
        """Return the account's polling policy."""
        return self._accounts[account].policy

    def can_ask(self, payment: Payment) -> bool:
        """Return whether the provider can be asked about payments of this kind."""
        return payment.kind in self._accounts[payment.account].kinds

    def is_terminal(self, payment: Payment) -> bool:
        """Return whether the payment is in a terminal state of its lifecycle."""
        return self._accounts[payment.account].is_terminal(payment.kind, payment.state)

    def next_poll(self, payment: Payment, poll: PaymentPoll, now: datetime) -> NextPoll | None:
        """Return the next poll of the payment as it is; None if none is needed."""
        policy = self.policy(payment.account)
        if not self.can_ask(payment):
            return unheard_check(policy, Phase(payment.phase), payment.changed_at)
        forecast = self.forecast(payment)
        if forecast is None:
            return late_check(policy, Phase(payment.phase), payment.changed_at, now)
        return next_poll(policy, forecast, poll_times_of(payment, poll), now)

    def next_at(self, payment: Payment, poll: PaymentPoll, now: datetime) -> datetime | None:
        """Return the instant of `next_poll`, at the earliest now."""
        found = self.next_poll(payment, poll, now)
        return None if found is None else max(found.at, now)

    def forecast(self, payment: Payment) -> ChangeForecast | None:
        """Return the change forecast for such payments; None for a payment at its end."""
        if self.is_terminal(payment):
            return None
        self._refresh()
        key = (payment.account, payment.kind, payment.state or "", payment.phase)
        found = self._forecasts.get(key)
        if found is None:
            place, phase = HazardKey(*key[:3]), Phase(payment.phase)
            plan = self._plans.get(place.account)
            if plan is not None and not (_is_quantity(plan.price_seconds) and 1.0 <= plan.stretch <= _MAX_STRETCH):
                plan = None
            found = self._forecasts[key] = ChangeForecast(
                phase,
                self._learnt.get(place, HazardSample()).curve(phase),
                self._accounts[place.account].policy.min_price if plan is None else plan.price_seconds,
                self._pushes.get((place.account, place.kind), PushEstimate()),
                1.0 if plan is None else plan.stretch,
            )
        return found

    def explain_next_poll(self, payment: Payment, poll: PaymentPoll, now: datetime) -> str | None:
        """Explain the payment's planned poll in words; None where none is planned."""
        if poll.next_poll_at is None:
            return None
        if poll.poll_priority != PollPriority.SCHEDULE:
            return _PRIORITY_REASONS[PollPriority(poll.poll_priority)]
        if not self.can_ask(payment):
            return explain(None, poll_times_of(payment, poll), NextPoll(poll.next_poll_at, UNHEARD), "")
        found, forecast = self.next_poll(payment, poll, now), self.forecast(payment)
        if poll.poll_error is not None:
            return "the last question failed"
        if found is None or abs(found.at - poll.next_poll_at) > _PLAN_TOLERANCE:
            found = NextPoll(poll.next_poll_at, LATE_CHECK if forecast is None else LIKELY_CHANGED)
        return explain(forecast, poll_times_of(payment, poll), found, payment.state or "the first state")

    def _refresh(self) -> None:
        """Read the plans again if they are older than 30 seconds; never raises.

        Deciding about a payment also sets its next poll: it must not fail because the planner's rows cannot be read.
        The previous plans stand until the next try.
        """
        if self._is_fresh():
            return
        with self._refresh_lock:
            if self._is_fresh():  # another thread was faster
                return
            try:
                self._read()
            except Exception as fault:  # noqa: BLE001 - see above; the planner meets it too, and reports it
                log.warning("budget.unreadable", error=fault.code if isinstance(fault, ServiceError) else repr(fault))
            self._read_at = self._clock()

    def _is_fresh(self) -> bool:
        return self._read_at is not None and abs(self._clock() - self._read_at) < _PLANS_MAX_AGE

    def _read(self) -> None:
        now = self._clock()
        with self._database.read() as unit:
            hazards, planned, logs = poll_plans.hazards(unit), poll_plans.plans(unit), journals.states(unit)
            pushes = {
                (name, kind): account.push_estimate(webhook_health.worth(unit, name, kind, now), logs.get(name), now)
                for name, account in self._accounts.items()
                for kind in account.kinds
            }
        self._learnt = {place: sample_of(row) for place, row in hazards.items()}
        self._plans, self._pushes = planned, pushes
        self._forecasts = {}


def sample_of(row: Hazard) -> HazardSample:
    """Return the hazard sample of a row; empty if its bins or values are not valid."""
    if len(row.exposure) != BINS or len(row.changes) != BINS:
        return HazardSample()
    if not all(_is_quantity(each) for each in (*row.exposure, *row.changes)):
        return HazardSample()
    return HazardSample(tuple(row.exposure), tuple(row.changes))


def _is_quantity(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= _MAX_QUANTITY


def push_estimate_of(min_price: PushWorth) -> PushEstimate:
    """Return the estimate to plan with: never certain; no push where none is measured."""
    if min_price.loss is None:
        return PushEstimate()
    return PushEstimate(max(min_price.loss, _MIN_LOSS), min_price.lag_p99 or timedelta(0))


def poll_times_of(payment: Payment, poll: PaymentPoll) -> PollTimes:
    """Return the payment's instants that the policy needs."""
    return PollTimes(payment.changed_at, poll.asked_at, payment.expires_at)
