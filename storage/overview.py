"""How everything stands now, for whoever looks first: what is open, what waits, what is stuck, what is late.

Each figure is read from an index that holds little else, and counts are bounded, so that a look costs the same however
much there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal_column, select, union_all

from statemachine.phases import Phase, Source
from storage.engine import Unit
from storage.ids import first_id
from storage.tables import InboxMessageTable, OutboxMessageTable, PaymentTable
from storage.tables_asking import AccountBudget
from storage.types import InboxStatus, OutboxStatus, PollPriority

_inbox: Any = InboxMessageTable.__table__  # type: ignore[attr-defined]
_outbox: Any = OutboxMessageTable.__table__  # type: ignore[attr-defined]
_payment: Any = PaymentTable.__table__  # type: ignore[attr-defined]
_budget: Any = AccountBudget.__table__  # type: ignore[attr-defined]

#: Rows beyond which a count says "more than".
MOST: Final = 10_000

#: The phases in which money may still come, or not.
MOVING: Final = (Phase.OPEN, Phase.PROCESSING)

#: Who asks the provider, by the source of its recorded answer.
_ASKED: Final = (Source.POLL.value, Source.LIST.value, Source.CREATE.value, Source.CANCEL.value)


class Bounded(NamedTuple):
    """How many there are, up to MOST."""

    number: int
    is_more: bool  #: there are more than that


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits: how many, and the one that has waited longest."""

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
    """What one account's budget row says."""

    failures: int
    broken_at: datetime | None
    probe_at: datetime | None
    paused_until: datetime | None
    next_free_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How everything stands at one instant."""

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


def standing(unit: Unit, accounts: Sequence[str], now: datetime) -> Standing:
    """Everything at once, in one snapshot; `accounts` are those whose questions matter."""
    return Standing(
        open={phase: _count(unit, _payment, _is(_payment.c.phase, phase)) for phase in MOVING},
        reviews=_reviews(unit),
        dead_effects=_waiting(unit, _outbox, _outbox.c.created_at, OutboxStatus.DEAD),
        dead_messages=_waiting(unit, _inbox, _inbox.c.received_at, InboxStatus.DEAD),
        parked_messages=_count(unit, _inbox, _is(_inbox.c.status, InboxStatus.PARKED)),
        pending_messages=_waiting(unit, _inbox, _inbox.c.received_at, InboxStatus.PENDING),
        pending_effects=_waiting(unit, _outbox, _outbox.c.created_at, OutboxStatus.PENDING, _outbox.c.next_attempt_at),
        overdue={account: _overdue(unit, account, now) for account in accounts},
        budgets=_budgets(unit),
        asked=_asked(unit, now - timedelta(minutes=1)),
        has_payments=unit.execute(select(_payment.c.id).order_by(_payment.c.id).limit(1)).first() is not None,
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """How one account is asked now."""

    overdue: Overdue
    budget: Breaking | None  #: None where it was never asked
    asked: int  #: answers recorded in the last minute


def asking(unit: Unit, account: str, now: datetime) -> Asking:
    """How the account is asked now."""
    asked = _asked(unit, now - timedelta(minutes=1)).get(account, 0)
    return Asking(_overdue(unit, account, now), _budgets(unit).get(account), asked)


#: Messages, of all accounts, that are looked through for the keys that verified them.
_KEYS_OF: Final = 5_000


def keys_used(unit: Unit, account: str) -> dict[str, tuple[int, datetime]]:
    """Which keys verified the account's deliveries lately: how many, and the last; among the newest messages of all."""
    names = (_inbox.c.account, _inbox.c.key_id, _inbox.c.received_at)
    newest = select(*names).order_by(_inbox.c.id.desc()).limit(_KEYS_OF).subquery()
    query = select(newest.c.key_id, func.count(), func.max(newest.c.received_at)).where(
        newest.c.account == account, newest.c.key_id.is_not(None)
    )
    return {row[0]: (row[1], row[2]) for row in unit.execute(query.group_by(newest.c.key_id))}


def _is(column: Any, word: str) -> ColumnElement[bool]:
    """The word as the index's own condition has it.

    SQLite takes no parameter for it, nor does a plan of PostgreSQL's that is made for every parameter.
    """
    condition: ColumnElement[bool] = column == literal_column(f"'{word}'")
    return condition


def _count(unit: Unit, table: Any, condition: ColumnElement[bool]) -> Bounded:
    return _bounded(unit, select(table.c.id).where(condition).order_by(table.c.id).limit(MOST + 1))


def _bounded(unit: Unit, query: Select[Any]) -> Bounded:
    found: int = unit.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    return Bounded(min(found, MOST), found > MOST)


def _waiting(unit: Unit, table: Any, since: Any, status: str, by: Any = None) -> Waiting:
    """In the order of the index. Where there are more than MOST, the oldest is that of the first of them."""
    query = select(table.c.id, since.label("since")).where(_is(table.c.status, status))
    return _oldest(unit, query.order_by(table.c.id if by is None else by).limit(MOST + 1))


def _oldest(unit: Unit, query: Select[Any]) -> Waiting:
    """The rows of an id and an instant: how many, and the one whose instant is the earliest."""
    found = query.subquery()
    count = _bounded(unit, query)
    if not count.number:
        return Waiting(count)
    first = unit.execute(select(found).order_by(found.c[1], found.c[0]).limit(1)).first()
    return Waiting(count, *first) if first is not None else Waiting(count)


def _reviews(unit: Unit) -> Waiting:
    query = select(_payment.c.id, _payment.c.review_opened_at).where(_payment.c.review.is_not(None))
    return _oldest(unit, query.limit(MOST + 1))


def _overdue(unit: Unit, account: str, now: datetime) -> Overdue:
    """By the index of who is asked next: each priority has its own beginning there."""
    at = _payment.c.next_poll_at
    asked = (_payment.c.account == account, at.is_not(None), at <= now, _payment.c.provider_ref.is_not(None))
    firsts = [
        select(
            select(at).where(*asked, _payment.c.poll_priority == int(priority)).order_by(at).limit(1).subquery().c[0]
        )
        for priority in PollPriority
    ]
    since = min(unit.execute(union_all(*firsts)).scalars(), default=None)
    if since is None:
        return Overdue(Bounded(0, is_more=False), None)
    priorities = _payment.c.poll_priority.in_([int(priority) for priority in PollPriority])
    return Overdue(_bounded(unit, select(_payment.c.id).where(*asked, priorities).limit(MOST + 1)), since)


def _budgets(unit: Unit) -> dict[str, Breaking]:
    names = ("failures", "broken_at", "probe_at", "paused_until", "next_free_at")
    rows = unit.execute(select(_budget.c.account, *(_budget.c[name] for name in names)))
    return {account: Breaking(*rest) for account, *rest in rows}


def _asked(unit: Unit, since: datetime) -> dict[str, int]:
    query = select(_inbox.c.account, func.count()).where(_inbox.c.id >= first_id(since), _inbox.c.source.in_(_ASKED))
    return {row[0]: row[1] for row in unit.execute(query.group_by(_inbox.c.account))}
