"""When to ask about a payment next, by policy and by the plans that this process has read."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final, Generic, TypeVar

import structlog

from poller.hazard import BINS, Curve, Learnt
from statemachine.errors import ServiceError
from statemachine.phases import Phase
from storage import poll_plans, webhook_health
from storage.database import Database
from storage.poll_plans import Place
from storage.tables import Payment
from storage.tables_support import Hazard, PollPlan
from storage.types import PollPriority
from storage.webhook_health import PushWorth

Key = TypeVar("Key")

#: By what share of itself a wait may grow.
_SPREAD: Final = 0.2

UNPAID: Final = frozenset({Phase.OPEN, Phase.PROCESSING})

#: Ends without money after which money may come all the same.
_MAY_BE_LATE: Final = frozenset({Phase.EXPIRED, Phase.CANCELLED, Phase.FAILED})

#: A second of not knowing that a paid payment was settled or refunded weighs so much less than of one being paid.
_WEIGHT_OF_PAID: Final = 0.01


@dataclass(frozen=True, slots=True)
class Schedule:
    """How patiently an account is asked."""

    worth: float = 2.0  #: expected seconds of not knowing that justify a question even where the budget has room
    soonest: timedelta = timedelta(seconds=5)  #: between two questions about one payment
    longest: timedelta = timedelta(hours=12)  #: every open payment is asked about at least so often
    paid_every: timedelta = timedelta(days=1)  #: likewise, of a paid one that may still settle or be refunded
    give_up_after: timedelta | None = timedelta(days=30)  #: without a change; None: never
    late_checks: tuple[timedelta, ...] = (timedelta(hours=1), timedelta(days=1))  #: after an end without money
    after_expiry: timedelta = timedelta(seconds=5)  #: ask so long after an expiry that the provider announced
    retry_first: timedelta = timedelta(seconds=15)  #: after a question that failed; doubles
    retry_longest: timedelta = timedelta(hours=1)

    def has_given_up(self, changed_at: datetime, now: datetime) -> bool:
        """Whether the payment has been without a change for as long as we go on asking."""
        return self.give_up_after is not None and now - changed_at > self.give_up_after

    def floor(self, phase: Phase) -> timedelta:
        """The longest wait between two questions about a payment in this phase."""
        return self.longest if phase in UNPAID else self.paid_every

    def after_failure(
        self, failures: int, retry_after: float | None, may_retry: bool, now: datetime, jitter: float
    ) -> datetime:
        """The next question after one without an answer, and so many before it: as the provider says, else ever later.

        An error that a repeat cannot mend is asked again at the longest interval only, so that a mended
        configuration is noticed without flooding the provider. `jitter`, from 0 to 1, makes a wait up to a fifth
        longer, so that what failed together is not asked about together; the provider's own wait is a minimum.
        """
        if not may_retry:
            return now + self.retry_longest
        wait = min(self.retry_first.total_seconds() * 2 ** min(failures, 32), self.retry_longest.total_seconds())
        return now + timedelta(seconds=max(wait, retry_after or 0.0) * (1 + _SPREAD * jitter))


@dataclass(frozen=True, slots=True)
class Push:
    """What the provider's own sending is worth, as measured."""

    loss: float = 1.0  #: the share of changes that it does not tell
    lag: timedelta = timedelta(0)  #: nearly all that it tells has come by then


@dataclass(frozen=True)
class Outlook:
    """What is known of an account's payments of one kind in one state."""

    phase: Phase
    curve: Curve
    price: float  #: expected seconds of not knowing that one question costs
    push: Push = Push()
    stretch: float = 1.0  #: the longest waits are so many times as long, where the budget is short of them

    @cached_property
    def weight(self) -> float:
        """How much of the hazard counts: only what push would not tell us, and less where no money waits."""
        return weight(self.phase, self.push)

    @cached_property
    def first_age(self) -> float:
        """The age, in seconds, at which not knowing costs as much as asking, where the last we saw was its change."""
        return self.curve.when_unknowing(0.0, self.price, self.weight)


def weight(phase: Phase, push: Push) -> float:
    """By what a hazard counts in that phase, where push tells some of the changes by itself."""
    return push.loss * (1.0 if phase in UNPAID else _WEIGHT_OF_PAID)


@dataclass(frozen=True, slots=True)
class Silent:
    """One payment as the policy sees it."""

    changed_at: datetime  #: when it entered its state
    asked_at: datetime | None  #: the instant of which the last answer said that it is still there
    expires_at: datetime | None = None  #: by the provider's word

    @property
    def seen_at(self) -> datetime:
        """The latest instant of which we know that it was still there."""
        return self.changed_at if self.asked_at is None or self.asked_at < self.changed_at else self.asked_at


@dataclass(frozen=True, slots=True)
class Next:
    """When the next question is due, and why then."""

    at: datetime
    reason: str  #: one of the REASONS


#: An expiry from then on is a provider's "never": an instant after it may be none that a datetime can hold.
_NEVER: Final = datetime(9000, 1, 1, tzinfo=UTC)

CHANGED: Final = "changed"  #: enough payments of this age have changed by then
FLOOR: Final = "floor"  #: nothing is asked about less often
EXPIRY: Final = "expiry"  #: the provider said that it ends shortly before
LATE: Final = "late"  #: money may come after an end without money


def next_question(schedule: Schedule, outlook: Outlook, silent: Silent, now: datetime) -> Next | None:
    """The next question about a payment that is not at its end; None where asking has gone on long enough.

    Never sooner than `schedule.soonest` after the last answer, nor than push would tell it by its own measured lag;
    never later than the floor; shortly after an expiry that the provider announced. May lie in the past.
    """
    if schedule.has_given_up(silent.changed_at, now):
        return None
    seen_at = silent.seen_at
    seen = (seen_at - silent.changed_at).total_seconds()
    age = outlook.curve.when_unknowing(seen, outlook.price, outlook.weight) if seen else outlook.first_age
    wait = max(schedule.soonest, outlook.push.lag if seen == 0.0 else timedelta(0))
    floor = max(schedule.floor(outlook.phase) * outlook.stretch, wait)
    found = Next(seen_at + floor, FLOOR)
    if age - seen < floor.total_seconds():
        found = Next(max(silent.changed_at + timedelta(seconds=age), seen_at + wait), CHANGED)
    if silent.expires_at is not None and silent.expires_at < _NEVER and outlook.phase in UNPAID:
        over = silent.expires_at + max(schedule.after_expiry, outlook.push.lag)
        if seen_at < over < found.at:
            found = Next(over, EXPIRY)
    return found


def late_check(schedule: Schedule, phase: Phase, changed_at: datetime, now: datetime) -> Next | None:
    """The next question about a payment at its end; None where money can no longer be late.

    By age, not by number: a question that failed, or that a hint caused, is no late check.
    """
    checks = (changed_at + age for age in schedule.late_checks if phase in _MAY_BE_LATE)
    at = min((at for at in checks if at > now), default=None)
    return None if at is None else Next(at, LATE)


def urgency(schedule: Schedule, outlook: Outlook, silent: Silent, now: datetime) -> float:
    """How much a question is worth now, in prices: where not all that is due can be asked, the greatest goes first.

    Grows without bound while a payment is not asked about, so that none starves.
    """
    seen_at = silent.seen_at
    seen, age = (seen_at - silent.changed_at).total_seconds(), (now - silent.changed_at).total_seconds()
    if age <= seen:
        return 0.0
    waited = (age - seen) / (schedule.floor(outlook.phase).total_seconds() * outlook.stretch)
    worth = outlook.curve.unknowing(seen, age) * outlook.weight / outlook.price
    if silent.expires_at is not None and outlook.phase in UNPAID and seen_at < silent.expires_at <= now:
        worth += 1.0 + (now - silent.expires_at).total_seconds() / outlook.price
    return max(worth, waited * waited)


@dataclass(frozen=True, slots=True)
class Chosen(Generic[Key]):
    """Who is asked about now, and who later than planned, since the price has risen."""

    now: list[Key]
    later: list[tuple[Key, datetime]]


def choose(
    schedule: Schedule, due: Sequence[tuple[Key, Outlook | None, Silent]], room: int, now: datetime
) -> Chosen[Key]:
    """Of what is due, the most urgent that there is room for. Who is in neither list stays due.

    A payment without an outlook is at its end: its late check is as urgent as what is just due.
    """
    if len(due) <= room:
        return Chosen([key for key, _, _ in due], [])
    ranked = sorted(
        (
            (1.0 if outlook is None else urgency(schedule, outlook, silent, now), at)
            for at, (_, outlook, silent) in enumerate(due)
        ),
        reverse=True,
    )
    later: list[tuple[Key, datetime]] = []
    for worth, at in ranked[room:]:
        key, outlook, silent = due[at]
        if outlook is None or worth >= 1.0:
            continue
        found = next_question(schedule, outlook, silent, now)
        if found is not None and found.at > now:
            later.append((key, found.at))
    return Chosen([due[at][0] for _, at in ranked[:room]], later)


def in_words(outlook: Outlook | None, silent: Silent, found: Next, state: str) -> str:
    """Why the next question is then, for people; `outlook` is None for a payment at its end."""
    if outlook is None or found.reason == LATE:
        return "it ended without money, and money may be late"
    if found.reason == EXPIRY:
        return "the provider said that it expires shortly before"
    age = (found.at - silent.changed_at).total_seconds()
    pushed = f"; push tells all but {outlook.push.loss:.0%}" if outlook.push.loss < 1.0 else ""
    words = f"{outlook.curve.changed_by(max(age, 0.0)):.0%} of payments have left {state} at that age{pushed}"
    return f"nothing is asked about less often; {words}" if found.reason == FLOOR else words


log = structlog.get_logger()

_FRESH_FOR: Final = timedelta(seconds=30)

#: A plan that is so far from what would be planned now was made for another reason than today's.
_MOVED: Final = timedelta(seconds=1)

#: Of seconds, changes, prices and stretches: what is more is no measurement, and would overflow what is made of it.
_MAX_QUANTITY: Final = 1e15
_MAX_STRETCH: Final = 1e4

#: However good push was, it may fail from now on.
_LEAST_LOSS: Final = 0.01

_WANTED: Final = {
    PollPriority.PAYER: "a payer has come back",
    PollPriority.DOUBT: "a statement is to be confirmed",
    PollPriority.PERSON: "somebody wants to know",
    PollPriority.HINT: "something has changed in the account",
}


@dataclass(frozen=True, slots=True)
class BookedAccount:
    """How one account is asked: its patience, and which states end asking."""

    schedule: Schedule
    is_terminal: Callable[[str, str | None], bool]  #: of kind and state
    kinds: tuple[str, ...] = ()  #: that its provider has


class Book:
    """Says when the next question about a payment is due. Safe to be used by any thread."""

    def __init__(
        self, database: Database, accounts: Mapping[str, BookedAccount], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._clock = clock
        self._reading = threading.Lock()
        self._read_at: datetime | None = None
        self._learnt: dict[Place, Learnt] = {}
        self._plans: dict[str, PollPlan] = {}
        self._pushes: dict[tuple[str, str], Push] = {}
        self._outlooks: dict[tuple[str, str, str, str], Outlook] = {}  #: by account, kind, state and phase

    def schedule(self, account: str) -> Schedule:
        """The account's patience."""
        return self._accounts[account].schedule

    def is_terminal(self, payment: Payment) -> bool:
        """Whether the provider expects no more of it."""
        return self._accounts[payment.account].is_terminal(payment.kind, payment.state)

    def next_question(self, payment: Payment, now: datetime) -> Next | None:
        """The next question about the payment as it is; None where nothing more is expected or asking has ended."""
        schedule, outlook = self.schedule(payment.account), self.outlook(payment)
        if outlook is None:
            return late_check(schedule, Phase(payment.phase), payment.changed_at, now)
        return next_question(schedule, outlook, silent_of(payment), now)

    def next_at(self, payment: Payment, now: datetime) -> datetime | None:
        """The instant of `next_question`, and never one that has passed."""
        found = self.next_question(payment, now)
        return None if found is None else max(found.at, now)

    def outlook(self, payment: Payment) -> Outlook | None:
        """What is known of payments such as this one; None where the payment is at its end."""
        if self.is_terminal(payment):
            return None
        self._refresh()
        key = (payment.account, payment.kind, payment.state or "", payment.phase)
        found = self._outlooks.get(key)
        if found is None:
            place, phase = Place(*key[:3]), Phase(payment.phase)
            plan = self._plans.get(place.account)
            if plan is not None and not (_is_quantity(plan.price_seconds) and 1.0 <= plan.stretch <= _MAX_STRETCH):
                plan = None
            found = self._outlooks[key] = Outlook(
                phase,
                self._learnt.get(place, Learnt()).curve(phase),
                self._accounts[place.account].schedule.worth if plan is None else plan.price_seconds,
                self._pushes.get((place.account, place.kind), Push()),
                1.0 if plan is None else plan.stretch,
            )
        return found

    def why(self, payment: Payment, now: datetime) -> str | None:
        """Why the next question is when it is, in words; None where none is planned."""
        if payment.next_poll_at is None:
            return None
        if payment.poll_priority != PollPriority.SCHEDULE:
            return _WANTED[PollPriority(payment.poll_priority)]
        found, outlook = self.next_question(payment, now), self.outlook(payment)
        if payment.poll_error is not None:
            return "the last question failed"
        if found is None or abs(found.at - payment.next_poll_at) > _MOVED:
            found = Next(payment.next_poll_at, LATE if outlook is None else CHANGED)
        return in_words(outlook, silent_of(payment), found, payment.state or "the first state")

    def _refresh(self) -> None:
        """Read what was learnt again where that is half a minute old; without a fault, whatever becomes of it.

        Deciding about a payment asks when to ask next: it must not fail because what the planner keeps cannot be read.
        What was known before stands until the next try.
        """
        if self._is_fresh():
            return
        with self._reading:
            if self._is_fresh():  # another thread was quicker
                return
            try:
                self._read()
            except Exception as fault:  # noqa: BLE001 - see above; the planner meets it too, and reports it
                log.warning("budget.unreadable", error=fault.code if isinstance(fault, ServiceError) else repr(fault))
            self._read_at = self._clock()

    def _is_fresh(self) -> bool:
        return self._read_at is not None and abs(self._clock() - self._read_at) < _FRESH_FOR

    def _read(self) -> None:
        now = self._clock()
        with self._database.read() as unit:
            hazards, planned = poll_plans.hazards(unit), poll_plans.plans(unit)
            pushes = {
                (name, kind): push_of(webhook_health.worth(unit, name, kind, now))
                for name, account in self._accounts.items()
                for kind in account.kinds
            }
        self._learnt = {place: learnt_of(row) for place, row in hazards.items()}
        self._plans, self._pushes = planned, pushes
        self._outlooks = {}


def learnt_of(row: Hazard) -> Learnt:
    """What a row says; nothing where it was written for other bins than ours, or holds what is no quantity."""
    if len(row.exposure) != BINS or len(row.changes) != BINS:
        return Learnt()
    if not all(_is_quantity(each) for each in (*row.exposure, *row.changes)):
        return Learnt()
    return Learnt(tuple(row.exposure), tuple(row.changes))


def _is_quantity(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= _MAX_QUANTITY


def push_of(worth: PushWorth) -> Push:
    """What the policy may count on: some is always doubted, and where there is no push, nothing."""
    if worth.loss is None:
        return Push()
    return Push(max(worth.loss, _LEAST_LOSS), worth.lag_p99 or timedelta(0))


def silent_of(payment: Payment) -> Silent:
    """The payment as the policy sees it."""
    return Silent(payment.changed_at, payment.asked_at, payment.expires_at)
