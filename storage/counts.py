"""Bounded and cheap counts for metrics, overview and alarms."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal_column, select, text, union_all

from statemachine import histograms
from statemachine.phases import ANSWERS, Phase, Source
from storage import inbox as storage_inbox
from storage import webhook_health
from storage.columns import table_of
from storage.database import Database, Unit
from storage.ids import first_id
from storage.tables import (
    InboxMessage,
    OutboxMessageTable,
    OutboxQueueTable,
    Payment,
    PaymentPoll,
    RejectedDelivery,
)
from storage.tables_inbox import QueuedMessage
from storage.tables_support import AccountBudget, PollPlan
from storage.types import InboxStatus, OutboxStatus, PollPriority

_inbox: Any = table_of(InboxMessage)
_outbox: Any = table_of(OutboxMessageTable)
_queue: Any = table_of(OutboxQueueTable)
_inbox_queue: Any = table_of(QueuedMessage)
_payment: Any = table_of(Payment)
_poll: Any = table_of(PaymentPoll)
_rejected: Any = table_of(RejectedDelivery)
_budget: Any = table_of(AccountBudget)
_plan: Any = table_of(PollPlan)

#: Rows beyond which nobody counts on.
COUNT_LIMIT: Final = 10_000

#: Seconds after which a statement is ended.
STATEMENT_TIMEOUT_S: Final = 2.0

#: Days of push that are looked at.
_WEBHOOK_DAYS: Final = 7


@contextmanager
def bounded_read(database: Database, seconds: float = STATEMENT_TIMEOUT_S) -> Iterator[Unit]:
    """Begin a unit of work whose statements end after so many seconds.

    Raises StorageUnavailable then, as where the database is away.
    """
    with database.read() as unit, unit.within(seconds):
        yield unit


@dataclass(frozen=True, slots=True)
class Queue:
    """Rows by status, up to a limit, and the time of the oldest pending one."""

    counts: dict[str, int]
    since: datetime | None


def inbox(unit: Unit) -> Queue:
    """Count pending, parked and dead messages, and find the oldest pending one."""
    counts = {
        status: _count_up_to_limit(unit, _inbox_queue, _is_literal(_inbox_queue.c.status, status))
        for status in ("pending", "parked", "dead")
    }
    return Queue(counts, pending_since(unit))


def pending_since(unit: Unit) -> datetime | None:
    """Return when the oldest undecided message was received; None without one."""
    query = select(_inbox.c.received_at).join(_inbox_queue, _inbox_queue.c.message_id == _inbox.c.id)
    query = query.where(_inbox_queue.c.message_id == _oldest_of_queue(InboxStatus.PENDING))
    found: datetime | None = next((row[0] for row in unit.each(query)), None)
    return found


def _oldest_of_queue(status: str) -> Any:
    ids = select(_inbox_queue.c.message_id).where(_is_literal(_inbox_queue.c.status, status))
    return ids.order_by(_inbox_queue.c.message_id).limit(1).scalar_subquery()


def outbox(unit: Unit) -> Queue:
    """Count pending and dead effects, and find how long the oldest pending one waits.

    The oldest is that of the first MOST pending ones.
    """
    counts = {
        status: _count_up_to_limit(unit, _queue, _is_literal(_queue.c.status, status)) for status in ("pending", "dead")
    }
    return Queue(counts, _waiting_effects(unit, OutboxStatus.PENDING).since)


def reviews(unit: Unit) -> dict[str, int]:
    """Open reviews by kind."""
    found = select(_payment.c.review).where(_payment.c.review.is_not(None)).limit(COUNT_LIMIT).subquery()
    return {row[0]: row[1] for row in unit.execute(select(found.c.review, func.count()).group_by(found.c.review))}


def quarantine(unit: Unit, accounts: Iterable[str]) -> dict[str, int]:
    """Rejected deliveries that are kept, by account."""
    return {account: _count_up_to_limit(unit, _rejected, _rejected.c.account == account) for account in accounts}


@dataclass(frozen=True, slots=True)
class PollingGauges:
    """Gauges of polling one account."""

    is_broken: bool  #: the breaker is open
    paused: timedelta  #: by the provider's wish
    backlog: timedelta  #: how far ahead turns are taken
    left: float | None  #: share of the budget; None without a limit, or before the first plan
    stretch: float | None


def polling_gauges(unit: Unit, now: datetime) -> dict[str, PollingGauges]:
    """By account that has ever been asked, or planned."""
    budgets = {row.account: row for row in unit.all(AccountBudget, select(_budget))}
    plans = {row.account: row for row in unit.all(PollPlan, select(_plan)) if row.account}
    return {account: _polling_gauges(budgets.get(account), plans.get(account), now) for account in {*budgets, *plans}}


@dataclass(frozen=True, slots=True)
class WebhookGauges:
    """Webhook reliability of one account, and its active alarms."""

    heard_at: datetime | None
    alarms: frozenset[str]
    loss: float | None
    lags: dict[str, timedelta]  #: by quantile


def webhook_gauges(unit: Unit, now: datetime) -> dict[str, WebhookGauges]:
    """Return the webhook gauges of every account that was ever measured.

    Of the last days, the recent ones weigh more in the loss.
    """
    found: dict[str, WebhookGauges] = {}
    today = now.date()
    for account, watch in webhook_health.watches(unit).items():
        rows = webhook_health.between(unit, account, today - timedelta(days=_WEBHOOK_DAYS), today)
        lags = histograms.merge_bins((row.lags, 1.0) for row in rows)
        quantiles = {share: histograms.bin_quantile(lags, float(share)) for share in ("0.5", "0.99")}
        found[account] = WebhookGauges(
            watch.heard_at,
            frozenset(watch.alarms),
            webhook_health.share_of(rows, today).loss,
            {share: lag for share, lag in quantiles.items() if lag is not None},
        )
    return found


def _is_literal(column: Any, word: str) -> ColumnElement[bool]:
    """Return the condition with the word written out, as in the index's own.

    SQLite takes no parameter for it, nor does a plan that is kept.
    """
    condition: ColumnElement[bool] = column == literal_column(f"'{word}'")
    return condition


def _count_up_to_limit(unit: Unit, table: Any, condition: ColumnElement[bool]) -> int:
    rows = select(literal_column("1")).select_from(table).where(condition).limit(COUNT_LIMIT).subquery()
    found: int = unit.execute(select(func.count()).select_from(rows)).scalar_one()
    return found


def _polling_gauges(budget: AccountBudget | None, plan: PollPlan | None, now: datetime) -> PollingGauges:
    none = timedelta(0)
    left = None
    if plan is not None and plan.allowed_per_second:
        left = min(max(1 - plan.wanted_per_second / plan.allowed_per_second, 0.0), 1.0)
    return PollingGauges(
        is_broken=budget is not None and budget.broken_at is not None,
        paused=max((budget.paused_until - now) if budget and budget.paused_until else none, none),
        backlog=max((budget.next_free_at - now) if budget else none, none),
        left=left,
        stretch=None if plan is None else plan.stretch,
    )


#: The phases in which money may still come, or not.
MOVING: Final = (Phase.OPEN, Phase.PROCESSING, Phase.AUTHORISED)

#: Who asks the provider, by the source of its recorded answer.
_ASKED: Final = tuple(sorted(source.value for source in ANSWERS))


class Bounded(NamedTuple):
    """A count up to a limit."""

    number: int
    is_more: bool  #: there are more than that


@dataclass(frozen=True, slots=True)
class Waiting:
    """The number of waiting rows, and the one that waits longest."""

    count: Bounded
    oldest_id: str | None = None
    since: datetime | None = None  #: of the oldest


@dataclass(frozen=True, slots=True)
class Overdue:
    """Questions of one account whose time has come."""

    count: Bounded
    since: datetime | None  #: when the longest overdue was due


@dataclass(frozen=True, slots=True)
class Breaking:
    """The state of one account's circuit breaker."""

    failures: int
    broken_at: datetime | None
    probe_at: datetime | None
    paused_until: datetime | None
    next_free_at: datetime


@dataclass(frozen=True, slots=True)
class SystemCounts:
    """Counts of the whole system at one instant."""

    open: dict[Phase, Bounded]
    reviews: Waiting
    dead_effects: Waiting
    dead_messages: Waiting
    parked_messages: Bounded
    pending_messages: Waiting
    pending_effects: Waiting
    overdue: dict[str, Overdue]  #: by account; only of those that were asked for
    budgets: dict[str, Breaking]  #: by account; only of those that have asked anything
    asked: dict[str, int] = field(default_factory=dict)  #: answers recorded in the last minute, by account
    has_payments: bool = True


def system_counts(unit: Unit, accounts: Sequence[str], now: datetime) -> SystemCounts:
    """Count everything in one snapshot.

    `accounts` are those whose questions matter.
    """
    return SystemCounts(
        open={phase: _count(unit, _payment, _is_literal(_payment.c.phase, phase)) for phase in MOVING},
        reviews=_reviews(unit),
        dead_effects=_waiting_effects(unit, OutboxStatus.DEAD),
        dead_messages=_queued(unit, InboxStatus.DEAD),
        parked_messages=_bounded(unit, _ids_of_queue(InboxStatus.PARKED)),
        pending_messages=_queued(unit, InboxStatus.PENDING),
        pending_effects=_waiting_effects(unit, OutboxStatus.PENDING),
        overdue={account: _overdue(unit, account, now) for account in accounts},
        budgets=_budgets(unit),
        asked=_asked(unit, now - timedelta(minutes=1)),
        has_payments=unit.execute(select(_payment.c.id).order_by(_payment.c.id).limit(1)).first() is not None,
    )


@dataclass(frozen=True, slots=True)
class PollingCounts:
    """Counts of polling one account."""

    overdue: Overdue
    budget: Breaking | None  #: None where it was never asked
    asked: int  #: answers recorded in the last minute


def polling_counts(unit: Unit, account: str, now: datetime) -> PollingCounts:
    """Count how the account is polled now."""
    asked = _asked(unit, now - timedelta(minutes=1)).get(account, 0)
    return PollingCounts(_overdue(unit, account, now), _budgets(unit).get(account), asked)


#: Messages, of all accounts, that are looked through for the keys that verified them.
_KEYS_OF: Final = 5_000


def keys_used(unit: Unit, account: str) -> dict[str, tuple[int, datetime]]:
    """Return the keys that verified the account's newest deliveries, with counts.

    With each its last delivery; among the newest messages of all accounts.
    """
    names = (_inbox.c.account, _inbox.c.key_id, _inbox.c.received_at)
    newest = select(*names).order_by(_inbox.c.id.desc()).limit(_KEYS_OF).subquery()
    query = select(newest.c.key_id, func.count(), func.max(newest.c.received_at)).where(
        newest.c.account == account, newest.c.key_id.is_not(None)
    )
    return {row[0]: (row[1], row[2]) for row in unit.execute(query.group_by(newest.c.key_id))}


def _count(unit: Unit, table: Any, condition: ColumnElement[bool]) -> Bounded:
    return _bounded(unit, select(table.c.id).where(condition).order_by(table.c.id).limit(COUNT_LIMIT + 1))


def _bounded(unit: Unit, query: Select[Any]) -> Bounded:
    found: int = unit.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    return Bounded(min(found, COUNT_LIMIT), found > COUNT_LIMIT)


def _waiting(unit: Unit, table: Any, since: Any, status: str) -> Waiting:
    """Count in the order of the index; return the count and the oldest.

    Where there are more than MOST, the oldest is that of the first of them.
    """
    query = select(table.c.id, since.label("since")).where(_is_literal(table.c.status, status))
    return _oldest(unit, query.order_by(table.c.id).limit(COUNT_LIMIT + 1))


def _waiting_effects(unit: Unit, status: OutboxStatus) -> Waiting:
    """Count as `_waiting`, by the indexes of the queue; an id is time.

    Of pending ones the index goes by payment, and of so many the oldest payment's is taken for the oldest.
    """
    by = _queue.c.payment_id if status is OutboxStatus.PENDING else _queue.c.outbox_id
    query = select(_queue.c.outbox_id).where(_is_literal(_queue.c.status, status)).order_by(by).limit(COUNT_LIMIT + 1)
    found = query.subquery()
    oldest = select(found.c.outbox_id).order_by(found.c.outbox_id).limit(1).scalar_subquery()
    first = unit.execute(select(_outbox.c.id, _outbox.c.created_at).where(_outbox.c.id == oldest)).first()
    return Waiting(_bounded(unit, query)) if first is None else Waiting(_bounded(unit, query), *first)


def _ids_of_queue(status: str) -> Select[Any]:
    query = select(_inbox_queue.c.message_id).where(_is_literal(_inbox_queue.c.status, status))
    return query.order_by(_inbox_queue.c.message_id).limit(COUNT_LIMIT + 1)


def _queued(unit: Unit, status: str) -> Waiting:
    """Count the messages of a status; the oldest has the smallest id."""
    count = _bounded(unit, _ids_of_queue(status))
    oldest = select(_inbox.c.id, _inbox.c.received_at).where(_inbox.c.id == _oldest_of_queue(status))
    first = unit.execute(oldest).first() if count.number else None
    return Waiting(count, *first) if first is not None else Waiting(count)


def _oldest(unit: Unit, query: Select[Any]) -> Waiting:
    """Return how many rows of id and instant there are, and the earliest."""
    found = query.subquery()
    count = _bounded(unit, query)
    if not count.number:
        return Waiting(count)
    first = unit.execute(select(found).order_by(found.c[1], found.c[0]).limit(1)).first()
    return Waiting(count, *first) if first is not None else Waiting(count)


def _reviews(unit: Unit) -> Waiting:
    query = select(_payment.c.id, _payment.c.review_opened_at).where(_payment.c.review.is_not(None))
    return _oldest(unit, query.limit(COUNT_LIMIT + 1))


def _overdue(unit: Unit, account: str, now: datetime) -> Overdue:
    """By the index of who is asked next: each priority has its own beginning there."""
    at = _poll.c.next_poll_at
    asked = (_poll.c.account == account, at.is_not(None), at <= now)
    firsts = [
        select(select(at).where(*asked, _poll.c.poll_priority == int(priority)).order_by(at).limit(1).subquery().c[0])
        for priority in PollPriority
    ]
    since = min(unit.execute(union_all(*firsts)).scalars(), default=None)
    if since is None:
        return Overdue(Bounded(0, is_more=False), None)
    priorities = _poll.c.poll_priority.in_([int(priority) for priority in PollPriority])
    return Overdue(_bounded(unit, select(_poll.c.payment_id).where(*asked, priorities).limit(COUNT_LIMIT + 1)), since)


def _budgets(unit: Unit) -> dict[str, Breaking]:
    names = ("failures", "broken_at", "probe_at", "paused_until", "next_free_at")
    rows = unit.execute(select(_budget.c.account, *(_budget.c[name] for name in names)))
    return {account: Breaking(*rest) for account, *rest in rows}


def _asked(unit: Unit, since: datetime) -> dict[str, int]:
    query = select(_inbox.c.account, func.count()).where(_inbox.c.id >= first_id(since), _inbox.c.source.in_(_ASKED))
    return {row[0]: row[1] for row in unit.execute(query.group_by(_inbox.c.account))}


_PUSHED = (Source.WEBHOOK.value, Source.CALLBACK.value)


@dataclass(slots=True)
class AccountCounts:
    """Counts of one account."""

    sources: Counter[str] = field(default_factory=Counter)  #: inbox messages by source
    statuses: Counter[str] = field(default_factory=Counter)  #: inbox messages by status
    decisions: Counter[str] = field(default_factory=Counter)  #: inbox messages by decision
    redeliveries: int = 0  #: of webhooks and callbacks; what we ourselves said twice is none
    rejected: int = 0  #: in quarantine
    phases: Counter[str] = field(default_factory=Counter)  #: payments by phase
    reviews: int = 0  #: payments that need review now
    owed: Counter[str] = field(default_factory=Counter)  #: outbox messages by status


def by_account(unit: Unit) -> dict[str, AccountCounts]:
    """Count the rows of every account that has any."""
    found: dict[str, AccountCounts] = {}

    def of(account: str) -> AccountCounts:
        return found.setdefault(account, AccountCounts())

    whole = storage_inbox.WHOLE
    columns = (whole.c.account, whole.c.source, whole.c.status, whole.c.decision)
    query = select(*columns, func.count(), func.sum(whole.c.redeliveries)).group_by(*columns)
    for account, source, status, decision, count, redeliveries in unit.execute(query):
        counts = of(account)
        counts.sources[source] += count
        counts.statuses[status] += count
        counts.decisions[decision or "none"] += count
        counts.redeliveries += redeliveries if source in _PUSHED else 0
    phases = select(_payment.c.account, _payment.c.phase, func.count(), func.count(_payment.c.review)).group_by(
        _payment.c.account, _payment.c.phase
    )
    for account, phase, count, reviews in unit.execute(phases):
        of(account).phases[phase] += count
        of(account).reviews += reviews
    owed = select(_outbox.c.account, func.count()).group_by(_outbox.c.account)
    for account, count in unit.execute(owed):
        of(account).owed[OutboxStatus.DELIVERED.value] += count
    waiting = select(_queue.c.account, _queue.c.status, func.count()).group_by(_queue.c.account, _queue.c.status)
    for account, status, count in unit.execute(waiting):
        of(account).owed[status] += count
        of(account).owed[OutboxStatus.DELIVERED.value] -= count
    rejected = select(_rejected.c.account, func.count()).group_by(_rejected.c.account)
    for account, count in unit.execute(rejected):
        of(account).rejected = count
    return found


#: Rows beyond which nobody counts on.
DEAD_COUNT_LIMIT: Final = 1000

#: As the partial indexes have it: SQLite does not see that a value that is bound is one of theirs.
_STUCK: Final = text("(status = 'parked' OR status = 'dead')")
_DEAD: Final = text("status = 'dead'")


@dataclass(frozen=True, slots=True)
class Dead:
    """Dead messages and effects of an account, up to a limit of each."""

    messages: int
    effects: int  #: about payments; an alarm that was not told begets none
    sinks: tuple[str, ...] = ()  #: to which those effects are owed


def dead_of_account(unit: Unit, account: str) -> Dead:
    """Count the dead messages and effects of the account, by the indexes of dead rows."""
    is_dead = (_inbox_queue.c.status == InboxStatus.DEAD, _inbox_queue.c.account == account)
    messages = select(_inbox_queue.c.message_id).where(_STUCK, *is_dead).limit(DEAD_COUNT_LIMIT).subquery()
    is_dead = (_queue.c.status == OutboxStatus.DEAD, _queue.c.account == account)
    effects = (
        select(_queue.c.sink)
        .where(_DEAD, *is_dead, _queue.c.payment_id.is_not(None))
        .limit(DEAD_COUNT_LIMIT)
        .subquery()
    )
    by_sink = unit.execute(select(effects.c.sink, func.count()).group_by(effects.c.sink).order_by(effects.c.sink)).all()
    number = unit.execute(select(func.count()).select_from(messages)).scalar_one()
    return Dead(number, sum(count for _, count in by_sink), tuple(sink for sink, _ in by_sink))
