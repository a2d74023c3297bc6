"""What the worker needs to know of an account; put together by the application."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from providers.contract import Provider
from statemachine.phases import ConflictPolicy, Phase


class NextPoll(Protocol):
    """When a payment that has just been heard of is to be asked about; None for not at all."""

    def __call__(
        self,
        *,
        phase: Phase,
        is_terminal: bool,
        polls: int,
        changed_at: datetime,
        expires_at: datetime | None,
        now: datetime,
    ) -> datetime | None:
        """The instant of the next question."""


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How one account's statements are read and decided."""

    provider: Provider
    next_poll: NextPoll
    policy: ConflictPolicy = ConflictPolicy.REVIEW
    adopts_unknown: bool = True  #: a payment first heard of by webhook is tracked; else its messages are parked


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """The worker's own settings."""

    sinks: tuple[str, ...]  #: every effect is owed to each of them
    batch: int = 200
    lease: timedelta = timedelta(seconds=60)
    max_attempts: int = 12
    retry_first: timedelta = timedelta(seconds=1)
    retry_longest: timedelta = timedelta(hours=1)
    hint_asks: int = 50  #: how many open payments a hint without a name asks about
    create_grace: timedelta = timedelta(seconds=120)  #: how long a create call may take to be answered


Clock = Callable[[], datetime]
Accounts = Mapping[str, AccountRules]
