"""Sums over a range of time: payments, deliveries, and first reports of payment."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, extract, false, func, or_, select
from sqlalchemy.orm import aliased

from statemachine.histograms import quantile
from statemachine.phases import WITHHOLDING, Outcome, Phase, Source
from storage.columns import table_of
from storage.database import Unit
from storage.ids import first_id
from storage.inbox import WHOLE
from storage.tables import InboxMessage, Payment, RejectedDelivery, Transition
from storage.tables_inbox import RecordedDecision
from storage.types import InboxStatus

_inbox: Any = WHOLE
_payment: Any = table_of(Payment)
_transition: Any = table_of(Transition)
_rejected: Any = table_of(RejectedDelivery)

#: What the provider sends by itself.
_PUSHED: Final = (Source.WEBHOOK.value, Source.CALLBACK.value)

_PAID: Final = (Phase.PAID.value, Phase.SETTLED.value)
_DOUBTFUL: Final = tuple(sorted(review.value for review in WITHHOLDING))

#: Sums are built of two, since SQLite's own may not be larger than an integer of 64 bits.
_PART: Final = 1_000_000

#: Seconds from receipt to decision, as the upper ends of bins; what took longer is in the last one.
LAG_EDGES: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Money(NamedTuple):
    """Whose money, of what, and whether it came or was given back."""

    account: str
    kind: str  #: lifecycle kind
    currency: str | None  #: None where nobody has said
    phase: Phase  #: PAID or REFUNDED


@dataclass(frozen=True, slots=True)
class Sum:
    """A number of payments and their sum."""

    payments: int = 0
    amount_minor: int = 0
    unpriced: int = 0  #: of the payments: without a known amount
    doubtful: int = 0  #: of the payments: a review withholds their goods now

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(
            self.payments + other.payments,
            self.amount_minor + other.amount_minor,
            self.unpriced + other.unpriced,
            self.doubtful + other.doubtful,
        )


def money(unit: Unit, since: datetime, until: datetime) -> dict[Money, Sum]:
    """Sum the payments that entered `paid` or `refunded` in a range.

    One settled without `paid` counts as paid. The range is from `since` until before `until`.

    By when it was recorded here. A payment counts as paid once, when it first did; its amount is what was captured,
    else what was asked for, as it is known now.
    """
    entered = _entered(since, until).subquery()
    columns = (entered.c.account, entered.c.kind, entered.c.currency, entered.c.what)
    query = select(
        *columns,
        func.count(),
        func.count(entered.c.amount),
        func.sum(entered.c.amount // _PART if unit.dialect == "sqlite" else entered.c.amount),
        func.sum(entered.c.amount % _PART),
        func.sum(entered.c.doubtful),
    ).group_by(*columns)
    return {
        Money(account, kind, currency, Phase(phase)): Sum(
            payments, _whole(unit, whole, rest), payments - priced, int(doubtful)
        )
        for account, kind, currency, phase, payments, priced, whole, rest, doubtful in unit.execute(query)
    }


@dataclass(frozen=True, slots=True)
class Entry:
    """One payment that a sum counts."""

    id: str  #: of the transition; later ones were recorded later
    recorded_at: datetime
    payment_id: str
    kind: str
    reference: str | None
    amount_minor: int | None
    currency: str | None
    state: str | None  #: now, in the provider's word
    review: str | None


def entries(
    unit: Unit, since: datetime, until: datetime, what: Sequence[Money], *, after: str | None, limit: int
) -> list[Entry]:
    """Return the payments that `money` counts, the newest first, before a given id."""
    found = _entered(since, until).subquery()
    wanted = [
        and_(
            found.c.account == one.account,
            found.c.kind == one.kind,
            found.c.currency == one.currency if one.currency is not None else found.c.currency.is_(None),
            found.c.what == one.phase.value,
        )
        for one in what
    ]
    names = ("id", "recorded_at", "payment_id", "kind", "reference", "amount", "currency", "state", "review")
    query = select(*(found.c[name] for name in names)).where(or_(false(), *wanted))
    if after is not None:
        query = query.where(found.c.id < after)
    return [Entry(*row) for row in unit.execute(query.order_by(found.c.id.desc()).limit(limit))]


def _entered(since: datetime, until: datetime) -> Select[Any]:
    """Select payments that entered `paid` for the first time, or entered `refunded`."""
    earlier = _transition.alias("earlier")
    was_paid = (
        select(earlier.c.number)
        .where(
            earlier.c.payment_id == _transition.c.payment_id,
            earlier.c.number < _transition.c.number,
            earlier.c.phase.in_((*_PAID, Phase.REFUNDED.value)),
        )
        .exists()
    )
    is_refund = _transition.c.phase == Phase.REFUNDED.value
    paid = func.coalesce(_payment.c.captured_minor, _payment.c.amount_minor)
    amount = case((is_refund, func.coalesce(_payment.c.refunded_minor, paid)), else_=paid)
    columns = [_payment.c[name] for name in ("kind", "currency", "reference", "state", "review")]
    return (
        select(
            _transition.c.id,
            _transition.c.recorded_at,
            _transition.c.payment_id,
            _transition.c.account,  # and not the payment's: SQLite would go through all of the account's payments
            *columns,
            case((is_refund, Phase.REFUNDED.value), else_=Phase.PAID.value).label("what"),
            amount.label("amount"),
            case((_payment.c.review.in_(_DOUBTFUL), 1), else_=0).label("doubtful"),
        )
        .join(_payment, _payment.c.id == _transition.c.payment_id)
        .where(*_between(_transition.c.id, since, until))
        .where(or_(is_refund, and_(_transition.c.phase.in_(_PAID), ~was_paid)))
    )


def _whole(unit: Unit, whole: Any, rest: Any) -> int:
    return int(whole or 0) * _PART + int(rest or 0) if unit.dialect == "sqlite" else int(whole or 0)


@dataclass(slots=True)
class Deliveries:
    """Deliveries within a range of time by their outcome now."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  #: by account and outcome
    lags: Counter[float | None] = field(default_factory=Counter)  #: decided ones, by LAG_EDGES; None: longer

    def __add__(self, other: "Deliveries") -> "Deliveries":
        return Deliveries(self.outcomes + other.outcomes, self.lags + other.lags)

    @property
    def is_final(self) -> bool:
        """True where every decision is made, as far as none waits for a person."""
        return not any(count for (_, outcome), count in self.outcomes.items() if outcome == InboxStatus.PENDING)


#: The outcome of what failed verification, beside those of statemachine.phases.Outcome, `pending` and `dead`.
REJECTED: Final = "rejected"


def deliveries(unit: Unit, since: datetime, until: datetime) -> Deliveries:
    """Count deliveries received in a range, by account and outcome.

    What was rejected counts as far as it is still in quarantine. What was sent again is no delivery more.
    """
    found = Deliveries()
    outcome = case(
        (_inbox.c.status.in_((InboxStatus.PENDING.value, InboxStatus.DEAD.value)), _inbox.c.status),
        else_=_inbox.c.decision,
    ).label("outcome")
    lag = _seconds_between(unit, _inbox.c.received_at, _inbox.c.decided_at)
    place = case(*((lag <= edge, number) for number, edge in enumerate(LAG_EDGES)), else_=len(LAG_EDGES)).label("bin")
    seen = (
        select(_inbox.c.account, outcome, _inbox.c.decided_at, place)
        .where(*_between(_inbox.c.id, since, until), _inbox.c.source.in_(_PUSHED))
        .subquery()
    )
    columns = (seen.c.account, seen.c.outcome, seen.c.bin)
    query = select(*columns, func.count(), func.count(seen.c.decided_at)).group_by(*columns)
    for account, name, number, count, decided in unit.execute(query):
        found.outcomes[account, name] += count
        if decided:
            found.lags[LAG_EDGES[number] if number < len(LAG_EDGES) else None] += decided
    rejected = select(_rejected.c.account, func.count()).where(*_between(_rejected.c.id, since, until))
    for account, count in unit.execute(rejected.group_by(_rejected.c.account)):
        found.outcomes[account, REJECTED] += count
    return found


def lag_quantile(lags: Mapping[float | None, int], share: float) -> float | None:
    """Return the upper end in seconds of the bin at a quantile; None beyond all bins."""
    return quantile(((edge, lags.get(edge, 0)) for edge in (*LAG_EDGES, None)), share)


def _between(column: ColumnElement[str], since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    return column >= first_id(since), column < first_id(until)


def _seconds_between(unit: Unit, earlier: Any, later: Any) -> ColumnElement[Any]:
    if unit.dialect == "sqlite":
        return (func.julianday(later) - func.julianday(earlier)) * 86_400
    return extract("epoch", later - earlier)


_move = table_of(Transition)
_cause = aliased(table_of(InboxMessage), name="cause")
_before = aliased(table_of(InboxMessage), name="before")
_said = aliased(table_of(RecordedDecision), name="said")

#: A payment that has come here was paid, whether or not that word was heard.
_WAS_PAID: Final = (Phase.PAID.value, Phase.SETTLED.value, Phase.REFUNDED.value)

#: What said it, by the source of the message that it rests on.
_WAYS: Final = {
    Source.WEBHOOK.value: "pushed",
    Source.CALLBACK.value: "pushed",
    Source.POLL.value: "asked",
    Source.LIST.value: "listed",
    Source.JOURNAL.value: "logged",
    Source.OPERATOR.value: "resolved",
}

#: Why it was asked, by the source of a hint that came between the question before and this one.
_AFTER: Final = {Source.WEBHOOK.value: "hinted", Source.CALLBACK.value: "hinted", Source.RETURN.value: "returned"}


def first_paid(unit: Unit) -> dict[str, Counter[str]]:
    """By account, how many payments were first heard of to be paid in which way.

    The ways: `pushed` (webhook or callback), `hinted` and `returned` (asked because one of these, or the returning
    payer, gave a hint), `asked` (by the schedule, or because somebody wanted to know), `listed` (reconciliation),
    `logged` (the provider's log of events), `resolved` (a person's word) and `told` (the answer to another call of
    ours).
    """
    first = (
        select(_move.c.payment_id, func.min(_move.c.number).label("number"))
        .where(_move.c.phase.in_(_WAS_PAID))
        .group_by(_move.c.payment_id)
        .subquery()
    )
    hint = (  # the last thing before the answer, where that is a hint: an earlier answer was not of its asking
        select(_before.c.source)
        .join(_said, _said.c.message_id == _before.c.id)
        .where(
            _said.c.payment_id == _move.c.payment_id,
            _before.c.received_at <= _cause.c.received_at,
            _before.c.id != _cause.c.id,
            (_before.c.source == Source.POLL.value) | (_said.c.outcome == Outcome.NOTED.value),
        )
        .order_by(_before.c.received_at.desc(), _before.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    each = (
        select(_payment.c.account, _move.c.source, hint.label("before"))
        .join(first, and_(first.c.payment_id == _move.c.payment_id, first.c.number == _move.c.number))
        .join(_payment, _payment.c.id == _move.c.payment_id)
        .join(_cause, _cause.c.id == _move.c.cause)
        .subquery()
    )
    ways = (each.c.account, each.c.source, each.c.before)
    found: dict[str, Counter[str]] = {}
    for account, source, before, count in unit.execute(select(*ways, func.count()).group_by(*ways)):
        way = _WAYS.get(source, "told")
        found.setdefault(account, Counter())[_AFTER.get(before, way) if way == "asked" else way] += count
    return found
