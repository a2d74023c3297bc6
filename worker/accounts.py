"""Rules of an account and settings of the worker, assembled by the application."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from providers.contract import Capability, Provider
from statemachine.observation import Observation
from statemachine.phases import ConflictPolicy, PartialCapture
from storage.tables import Payment, PaymentPoll

#: Time of the next question about a payment after a statement at that instant; None for no question.
NextPoll = Callable[[Payment, PaymentPoll, datetime], datetime | None]


@dataclass(frozen=True)
class AccountRules:
    """Rules for parsing and deciding one account's statements."""

    provider: Provider
    next_poll: NextPoll
    policy: ConflictPolicy = ConflictPolicy.REVIEW
    adopts_unknown: bool = True  #: a payment first heard of by webhook is tracked; else its messages are parked
    believes_push: bool = True  #: what a delivery says is decided; else it is only a reason to ask
    partial_capture: PartialCapture = PartialCapture.REVIEW
    tolerance_minor: int = 0  #: by how much money may differ from what was asked for
    is_live: bool | None = None  #: whether the money is real, by the account's environment; None: not compared

    def can_ask(self, kind: str) -> bool:
        """Return whether the provider can be asked about payments of this kind."""
        return kind in self._asked_kinds

    def asking(self, payment: Payment) -> str:
        """Return in words whether the provider is asked when there is a reason to."""
        if not self.can_ask(payment.kind):
            return "cannot be asked"
        return "is asked" if payment.provider_ref else "cannot be asked before it has named the payment"

    @cached_property
    def _asked_kinds(self) -> frozenset[str]:
        return self.provider.capabilities().get(Capability.ASK, frozenset())

    def is_other_environment(self, observation: Observation) -> bool:
        """Return whether a statement says test of a live account, or the reverse."""
        told = observation.is_live
        return told is not None and self.is_live is not None and told is not self.is_live


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """Settings of the worker."""

    sinks: tuple[str, ...]  #: an effect is owed to each of them that takes it
    takes: Callable[[str, str], bool] = lambda _sink, _effect: True  #: whether a sink takes an effect, by their names
    batch: int = 500
    lease: timedelta = timedelta(seconds=60)
    max_attempts: int = 12
    retry_first: timedelta = timedelta(seconds=1)
    retry_longest: timedelta = timedelta(hours=1)
    hint_asks: int = 50  #: how many open payments a hint without a name asks about
    create_grace: timedelta = timedelta(seconds=120)  #: how long a create call may take to be answered


Clock = Callable[[], datetime]
Accounts = Mapping[str, AccountRules]
