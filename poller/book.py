"""The plans as this process knows them: what to expect of each payment, read again from the database every while."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from poller import policy
from poller.hazard import BINS, Learnt
from poller.policy import Next, Outlook, Push, Schedule, Silent
from statemachine.errors import ServiceError
from statemachine.phases import Phase
from storage import poll_plans, webhook_health
from storage.database import Database
from storage.poll_plans import Place
from storage.tables import Payment
from storage.tables_support import Hazard, PollPlan
from storage.types import PollPriority
from storage.webhook_health import PushWorth

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
            return policy.late_check(schedule, Phase(payment.phase), payment.changed_at, now)
        return policy.next_question(schedule, outlook, silent_of(payment), now)

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
            found = Next(payment.next_poll_at, policy.LATE if outlook is None else policy.CHANGED)
        return policy.in_words(outlook, silent_of(payment), found, payment.state or "the first state")

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
