"""When to ask about a payment that has been silent. Pure: time is passed in, and decides nothing about money."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from statemachine.phases import Phase

#: By what share of itself a wait may grow.
_SPREAD = 0.2

_UNPAID = frozenset({Phase.OPEN, Phase.PROCESSING})

#: Ends without money after which money may come all the same.
_MAY_BE_LATE = frozenset({Phase.EXPIRED, Phase.CANCELLED, Phase.FAILED})


@dataclass(frozen=True, slots=True)
class Schedule:
    """How patiently an account is asked."""

    first_after: timedelta = timedelta(seconds=60)  #: silence before the first question
    growth: float = 1.5  #: each further silence is so many times as long
    longest: timedelta = timedelta(hours=1)
    paid_every: timedelta = timedelta(hours=6)  #: a paid payment that may still settle or be refunded
    give_up_after: timedelta | None = timedelta(days=30)  #: without a change; None: never
    late_checks: tuple[timedelta, ...] = (timedelta(hours=1), timedelta(days=1))  #: after an end without money
    after_expiry: timedelta = timedelta(seconds=5)  #: ask so long after an expiry that the provider announced

    def next_poll(
        self,
        *,
        phase: Phase,
        is_terminal: bool,
        polls: int,
        changed_at: datetime,
        expires_at: datetime | None,
        now: datetime,
    ) -> datetime | None:
        """The instant of the next question; None where nothing more is expected or asking has gone on long enough."""
        if is_terminal:  # by age, not by number: a question that failed, or that a hint caused, is no late check
            checks = (changed_at + age for age in self.late_checks if phase in _MAY_BE_LATE)
            return min((at for at in checks if at > now), default=None)
        if self.has_given_up(changed_at, now):
            return None
        if phase not in _UNPAID:
            return now + self.paid_every
        seconds = self.first_after.total_seconds() * self.growth ** min(polls, 64)
        at = now + timedelta(seconds=min(seconds, self.longest.total_seconds()))
        if expires_at is not None and now < expires_at + self.after_expiry < at:
            return expires_at + self.after_expiry
        return at

    def has_given_up(self, changed_at: datetime, now: datetime) -> bool:
        """Whether the payment has been without a change for as long as we go on asking."""
        return self.give_up_after is not None and now - changed_at > self.give_up_after

    def after_failure(
        self, polls: int, retry_after: float | None, may_retry: bool, now: datetime, jitter: float
    ) -> datetime:
        """The instant of the next question after one without an answer: as the provider says, else ever later.

        An error that a repeat cannot mend is asked again at the longest interval only, so that a mended
        configuration is noticed without flooding the provider. `jitter`, from 0 to 1, makes a wait up to a fifth
        longer, so that what failed together is not asked about together; the provider's own wait is a minimum.
        """
        if not may_retry:
            return now + self.longest
        wait = min(self.first_after.total_seconds() / 4 * 2 ** min(polls, 32), self.longest.total_seconds())
        return now + timedelta(seconds=max(wait, retry_after or 0.0) * (1 + _SPREAD * jitter))
