"""Figures of the whole database for metrics: each cheap however much there is, and ended when it takes too long.

Counts are bounded and read from partial indexes that hold little else. What is not worth a scan is not told.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, func, literal_column, select

from storage import histogram, push
from storage.engine import Database, Unit
from storage.tables import InboxMessageTable, OutboxMessageTable, PaymentTable, RejectedDelivery
from storage.tables_asking import AccountBudget, PollPlan

_inbox: Any = InboxMessageTable.__table__  # type: ignore[attr-defined]
_outbox: Any = OutboxMessageTable.__table__  # type: ignore[attr-defined]
_payment: Any = PaymentTable.__table__  # type: ignore[attr-defined]
_rejected: Any = RejectedDelivery.__table__  # type: ignore[attr-defined]
_budget: Any = AccountBudget.__table__  # type: ignore[attr-defined]
_plan: Any = PollPlan.__table__  # type: ignore[attr-defined]

#: Rows beyond which nobody counts on.
MOST: Final = 10_000

#: Seconds after which a statement is ended.
PATIENCE: Final = 2.0

#: Days of push that are looked at.
_DAYS: Final = 7


@contextmanager
def brief(database: Database, seconds: float = PATIENCE) -> Iterator[Unit]:
    """A unit of work that reads, and whose statements are ended after so many seconds.

    Raises StorageUnavailable then, as where the database is away.
    """
    with database.read() as unit, unit.within(seconds):
        yield unit


@dataclass(frozen=True, slots=True)
class Queue:
    """How many rows stand in each status, up to MOST, and since when the oldest pending one does."""

    counts: dict[str, int]
    since: datetime | None


def inbox(unit: Unit) -> Queue:
    """The inbox: pending, parked and dead messages; since when the oldest pending one is here."""
    counts = {status: _count(unit, _inbox, _is(_inbox.c.status, status)) for status in ("pending", "parked", "dead")}
    return Queue(counts, pending_since(unit))


def pending_since(unit: Unit) -> datetime | None:
    """When the oldest message was received that is not decided; None where all are."""
    query = select(_inbox.c.received_at).where(_is(_inbox.c.status, "pending")).order_by(_inbox.c.id).limit(1)
    found: datetime | None = next((row[0] for row in unit.each(query)), None)
    return found


def outbox(unit: Unit) -> Queue:
    """The outbox: pending and dead effects; since when the oldest of the first MOST pending ones has been owed."""
    counts = {status: _count(unit, _outbox, _is(_outbox.c.status, status)) for status in ("pending", "dead")}
    due = select(_outbox.c.id).where(_is(_outbox.c.status, "pending"))
    found = due.order_by(_outbox.c.next_attempt_at, _outbox.c.id).limit(MOST).subquery()
    oldest = select(found.c.id).order_by(found.c.id).limit(1).scalar_subquery()  # an id is time
    since: datetime | None = unit.execute(select(_outbox.c.created_at).where(_outbox.c.id == oldest)).scalar()
    return Queue(counts, since)


def reviews(unit: Unit) -> dict[str, int]:
    """Open reviews by kind."""
    found = select(_payment.c.review).where(_payment.c.review.is_not(None)).limit(MOST).subquery()
    return {row[0]: row[1] for row in unit.execute(select(found.c.review, func.count()).group_by(found.c.review))}


def quarantine(unit: Unit, accounts: Iterable[str]) -> dict[str, int]:
    """Rejected deliveries that are kept, by account."""
    return {account: _count(unit, _rejected, _rejected.c.account == account) for account in accounts}


@dataclass(frozen=True, slots=True)
class Asking:
    """What is known of asking one account."""

    is_broken: bool  #: the breaker is open
    paused: timedelta  #: by the provider's wish
    backlog: timedelta  #: how far ahead turns are taken
    left: float | None  #: share of the budget; None without a limit, or before the first plan
    stretch: float | None


def asking(unit: Unit, now: datetime) -> dict[str, Asking]:
    """By account that has ever been asked, or planned."""
    budgets = {row.account: row for row in unit.all(AccountBudget, select(_budget))}
    plans = {row.account: row for row in unit.all(PollPlan, select(_plan)) if row.account}
    return {account: _asking(budgets.get(account), plans.get(account), now) for account in {*budgets, *plans}}


@dataclass(frozen=True, slots=True)
class Pushing:
    """What one account's push is worth, and which of its alarms stand."""

    heard_at: datetime | None
    alarms: frozenset[str]
    loss: float | None
    lags: dict[str, timedelta]  #: by quantile


def pushing(unit: Unit, now: datetime) -> dict[str, Pushing]:
    """By account that was ever measured; of the last days, the recent ones weighing more in the loss."""
    found: dict[str, Pushing] = {}
    today = now.date()
    for account, watch in push.watches(unit).items():
        rows = push.between(unit, account, today - timedelta(days=_DAYS), today)
        lags = histogram.merged((row.lags, 1.0) for row in rows)
        quantiles = {share: histogram.quantile(lags, float(share)) for share in ("0.5", "0.99")}
        found[account] = Pushing(
            watch.heard_at,
            frozenset(watch.alarms),
            push.share_of(rows, today).loss,
            {share: lag for share, lag in quantiles.items() if lag is not None},
        )
    return found


def _is(column: Any, word: str) -> ColumnElement[bool]:
    """The word as the index's own condition has it: SQLite takes no parameter for it, nor does a plan that is kept."""
    condition: ColumnElement[bool] = column == literal_column(f"'{word}'")
    return condition


def _count(unit: Unit, table: Any, condition: ColumnElement[bool]) -> int:
    rows = select(table.c.id).where(condition).limit(MOST).subquery()
    found: int = unit.execute(select(func.count()).select_from(rows)).scalar_one()
    return found


def _asking(budget: AccountBudget | None, plan: PollPlan | None, now: datetime) -> Asking:
    none = timedelta(0)
    left = None
    if plan is not None and plan.allowed_per_second:
        left = min(max(1 - plan.wanted_per_second / plan.allowed_per_second, 0.0), 1.0)
    return Asking(
        is_broken=budget is not None and budget.broken_at is not None,
        paused=max((budget.paused_until - now) if budget and budget.paused_until else none, none),
        backlog=max((budget.next_free_at - now) if budget else none, none),
        left=left,
        stretch=None if plan is None else plan.stretch,
    )
