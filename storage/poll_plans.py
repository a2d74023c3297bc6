"""Input and output of the poll planner: open payments, lessons, hazards and plans."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import Model, table_of
from storage.database import Unit, values
from storage.tables import InboxMessage, Payment, PaymentPoll, Transition
from storage.tables_inbox import RecordedDecision
from storage.tables_support import Hazard, PollPlan
from storage.types import CLOCK_WAS_WRONG

_payments = table_of(Payment)
_polls = table_of(PaymentPoll)
_transitions = table_of(Transition)
_messages = table_of(InboxMessage)
_decisions = table_of(RecordedDecision)
_plans = table_of(PollPlan)
_hazards = table_of(Hazard)

#: The account whose row is the planner's own.
_PLANNER = ""

#: What was recorded within it may still be joined by an earlier id that another process commits later.
SETTLED_AFTER = timedelta(seconds=5)


class HazardKey(NamedTuple):
    """Payments that are planned alike: of one account, kind and state."""

    account: str
    kind: str
    state: str  #: "" before the provider's first word


@dataclass(frozen=True, slots=True)
class OpenPayments:
    """The payments of one place that are asked about."""

    phase: str
    counts: Sequence[int]  #: by bin of age since they entered the state


@dataclass(frozen=True, slots=True)
class StateLeft:
    """That one payment left its state, and what is known of when."""

    place: HazardKey
    source: str
    entered_at: datetime
    seen_at: datetime | None  #: the last question before, if there was one since it entered the state
    asked_at: datetime | None  #: of the question that told, if one did
    as_of: datetime | None  #: the provider's time of the change, or of the answer
    recorded_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to plan until the next turn is due."""

    learned_to: str | None  #: the transition up to which lessons were drawn


def begin(unit: Unit, now: datetime, every: timedelta) -> Turn | None:
    """Take the turn to plan, one process at a time; None where the last is recent."""
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    first = {"account": _PLANNER, "planned_at": now - every, "price_seconds": 0.0, "watched": 0}
    first |= {"wanted_per_second": 0.0, "floor_per_second": 0.0, "stretch": 1.0}
    unit.execute(dialect.insert(_plans).values(first).on_conflict_do_nothing())
    is_old = or_(_plans.c.planned_at <= now - every, _plans.c.planned_at > now + CLOCK_WAS_WRONG)
    taken = unit.execute(
        update(_plans).where(_plans.c.account == _PLANNER, is_old).values(planned_at=now).returning(_plans.c.learned_to)
    ).first()
    return None if taken is None else Turn(taken[0])


def standing(unit: Unit, now: datetime, edges: Sequence[float]) -> dict[HazardKey, OpenPayments]:
    """Count scheduled payments by bin of age, whose bounds are in seconds."""
    at = _payments.c.changed_at
    bins = case(
        *((at > now - timedelta(seconds=edge), number) for number, edge in enumerate(edges[1:])), else_=len(edges) - 1
    )
    columns = (_payments.c.account, _payments.c.kind, _payments.c.state, _payments.c.phase, bins.label("bin"))
    query = (
        select(*columns, func.count())
        .join(_polls, _polls.c.payment_id == _payments.c.id)
        .where(_polls.c.next_poll_at.is_not(None), _payments.c.provider_ref.is_not(None))
        .group_by(*columns)
    )
    counts: dict[tuple[HazardKey, str], list[int]] = defaultdict(lambda: [0] * len(edges))
    for account, kind, state, phase, number, count in unit.each(query):
        counts[HazardKey(account, kind, state or ""), phase][number] += count
    return {place: OpenPayments(phase, found) for (place, phase), found in counts.items()}


def lessons(unit: Unit, now: datetime, after: str | None, limit: int) -> tuple[list[StateLeft], str | None]:
    """Return up to `limit` changes of state after a transition, and the last one."""
    before = _transitions.alias("before")
    earlier = _messages.alias("earlier")
    about = select(_decisions.c.message_id).where(_decisions.c.payment_id == _transitions.c.payment_id)
    seen_at = (
        select(func.max(earlier.c.provider_time))
        .where(
            earlier.c.id.in_(about),
            earlier.c.source == "poll",
            earlier.c.id < _transitions.c.cause,
        )
        .scalar_subquery()
    )
    query = (
        select(
            _transitions.c.id,
            _payments.c.account,
            _payments.c.kind,
            _transitions.c.from_state,
            _transitions.c.source,
            before.c.recorded_at,
            seen_at,
            _messages.c.provider_time,
            _transitions.c.as_of,
            _transitions.c.recorded_at,
            _payments.c.expires_at,
        )
        .join(_payments, _payments.c.id == _transitions.c.payment_id)
        .join(_messages, _messages.c.id == _transitions.c.cause)
        .outerjoin(
            before,
            (before.c.payment_id == _transitions.c.payment_id) & (before.c.number == _transitions.c.number - 1),
        )
        .where(_transitions.c.recorded_at <= now - SETTLED_AFTER)
        .order_by(_transitions.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(_transitions.c.id > after)
    found: list[StateLeft] = []
    for row in unit.each(query):
        after = row[0]
        _, account, kind, state, source, entered_at, seen, asked_at, as_of, recorded_at, expires_at = row
        if state is not None and entered_at is not None:
            place = HazardKey(account, kind, state)
            found.append(StateLeft(place, source, entered_at, seen, asked_at, as_of, recorded_at, expires_at))
    return found, after


def hazards(unit: Unit) -> dict[HazardKey, Hazard]:
    """Return the learnt hazards by account, kind and state."""
    return {HazardKey(row.account, row.kind, row.state): row for row in unit.all(Hazard, select(_hazards))}


def plans(unit: Unit) -> dict[str, PollPlan]:
    """Return the accounts' plans."""
    found = unit.all(PollPlan, select(_plans).where(_plans.c.account != _PLANNER))
    return {plan.account: plan for plan in found}


def keep(unit: Unit, plans_: Iterable[PollPlan], hazards_: Iterable[Hazard], learned_to: str | None) -> None:
    """Store plans and hazards, and the transition up to which lessons are learnt."""
    for plan in plans_:
        _upsert(unit, _plans, ("account",), plan)
    for hazard in hazards_:
        _upsert(unit, _hazards, ("account", "kind", "state"), hazard)
    unit.execute(update(_plans).where(_plans.c.account == _PLANNER).values(learned_to=learned_to))


def _upsert(unit: Unit, table: Any, keys: tuple[str, ...], row: Model) -> None:
    """Insert or update by one statement: planners with wrong clocks may race."""
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    changed = values(row)
    others = {name: value for name, value in changed.items() if name not in keys}
    statement = dialect.insert(table).values(changed)
    unit.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=others))
