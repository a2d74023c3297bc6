"""Counts for people: what came, what was decided, what is owed, by account."""

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import func, select

from statemachine.phases import Source
from storage.engine import Unit
from storage.tables import InboxMessageTable, OutboxMessageTable, PaymentTable, RejectedDelivery

_inbox = InboxMessageTable.__table__  # type: ignore[attr-defined]
_payment = PaymentTable.__table__  # type: ignore[attr-defined]
_outbox = OutboxMessageTable.__table__  # type: ignore[attr-defined]
_rejected = RejectedDelivery.__table__  # type: ignore[attr-defined]

_PUSHED = (Source.WEBHOOK.value, Source.CALLBACK.value)


@dataclass(slots=True)
class AccountCounts:
    """How much of everything one account has."""

    sources: Counter[str] = field(default_factory=Counter)  #: inbox messages by source
    statuses: Counter[str] = field(default_factory=Counter)  #: inbox messages by status
    decisions: Counter[str] = field(default_factory=Counter)  #: inbox messages by decision
    redeliveries: int = 0  #: of webhooks and callbacks; what we ourselves said twice is none
    rejected: int = 0  #: in quarantine
    phases: Counter[str] = field(default_factory=Counter)  #: payments by phase
    reviews: int = 0  #: payments that need review now
    owed: Counter[str] = field(default_factory=Counter)  #: outbox messages by status


def by_account(unit: Unit) -> dict[str, AccountCounts]:
    """Counts of every account that has anything."""
    found: dict[str, AccountCounts] = {}

    def of(account: str) -> AccountCounts:
        return found.setdefault(account, AccountCounts())

    columns = (_inbox.c.account, _inbox.c.source, _inbox.c.status, _inbox.c.decision)
    query = select(*columns, func.count(), func.sum(_inbox.c.redeliveries)).group_by(*columns)
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
    owed = select(_outbox.c.account, _outbox.c.status, func.count()).group_by(_outbox.c.account, _outbox.c.status)
    for account, status, count in unit.execute(owed):
        of(account).owed[status] += count
    rejected = select(_rejected.c.account, func.count()).group_by(_rejected.c.account)
    for account, count in unit.execute(rejected):
        of(account).rejected = count
    return found
