"""How payments were first heard of to be paid: what push told by itself, and what had to be asked for."""

from collections import Counter
from typing import Final

from sqlalchemy import and_, func, select
from sqlalchemy.orm import aliased

from statemachine.phases import Outcome, Phase, Source
from storage.engine import Unit
from storage.tables import InboxMessageTable, PaymentTable, TransitionTable

_payment = PaymentTable.__table__  # type: ignore[attr-defined]
_move = TransitionTable.__table__  # type: ignore[attr-defined]
_cause = aliased(InboxMessageTable.__table__, name="cause")  # type: ignore[attr-defined]
_before = aliased(InboxMessageTable.__table__, name="before")  # type: ignore[attr-defined]

#: A payment that has come here was paid, whether or not that word was heard.
_WAS_PAID: Final = (Phase.PAID.value, Phase.SETTLED.value, Phase.REFUNDED.value)

#: What said it, by the source of the message that it rests on.
_WAYS: Final = {
    Source.WEBHOOK.value: "pushed",
    Source.CALLBACK.value: "pushed",
    Source.POLL.value: "asked",
    Source.LIST.value: "listed",
    Source.OPERATOR.value: "resolved",
}

#: Why it was asked, by the source of a hint that came between the question before and this one.
_AFTER: Final = {Source.WEBHOOK.value: "hinted", Source.CALLBACK.value: "hinted", Source.RETURN.value: "returned"}


def first_paid(unit: Unit) -> dict[str, Counter[str]]:
    """By account, how many payments were first heard of to be paid in which way.

    The ways: `pushed` (webhook or callback), `hinted` and `returned` (asked because one of these, or the returning
    payer, gave a hint), `asked` (by the schedule, or because somebody wanted to know), `listed` (reconciliation),
    `resolved` (a person's word) and `told` (the answer to another call of ours).
    """
    first = (
        select(_move.c.payment_id, func.min(_move.c.number).label("number"))
        .where(_move.c.phase.in_(_WAS_PAID))
        .group_by(_move.c.payment_id)
        .subquery()
    )
    hint = (  # the last thing before the answer, where that is a hint: an earlier answer was not of its asking
        select(_before.c.source)
        .where(
            _before.c.payment_id == _move.c.payment_id,
            _before.c.received_at <= _cause.c.received_at,
            _before.c.id != _cause.c.id,
            (_before.c.source == Source.POLL.value) | (_before.c.decision == Outcome.NOTED.value),
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
