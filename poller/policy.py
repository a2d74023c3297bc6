"""When to ask about a payment. Pure: time is passed in, and decides nothing about money (rule R6).

A question is worth asking when the payment has most likely changed. With hazard h of changing, asking at a rate that
goes with sqrt(h) makes the mean delay until we notice least, at any given number of questions; that is what asking
whenever the expected seconds of not knowing reach one price amounts to, whatever the shape of h. The price is the
account's: the higher, the fewer questions (poller/price.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final, Generic, TypeVar

from poller.hazard import Curve
from statemachine.phases import Phase

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
