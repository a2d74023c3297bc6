"""Payloads and ids of effects, about a payment or an account's alarm."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from statemachine.effects import DueEffect
from statemachine.money import from_minor
from statemachine.observation import Decision
from statemachine.own_statements import AccountAlarm
from statemachine.phases import Alarm, Effect
from storage.ids import effect_id
from storage.tables import Payment
from worker.sums import as_kept

_encode: Final = msgspec.json.Encoder().encode

#: Suffixes of the names of effects about a review.
_OF_REVIEWS: Final = tuple(
    f".{effect.value.partition('.')[2]}" for effect in (Effect.REVIEW_REQUIRED, Effect.REVIEW_CLOSED)
)


class Closed(NamedTuple):
    """A closed review, which the payment no longer names."""

    review: str
    number: int  #: the payment's first review is 1


def closed_by(decision: Decision, payment: Payment) -> Closed | None:
    """Return the payment's review, if the decision closes or replaces it."""
    if payment.review is None or not (decision.closes_review or decision.review is not None):
        return None
    return Closed(payment.review, payment.reviews)


def with_closing(effects: Sequence[DueEffect]) -> tuple[DueEffect, ...]:
    """Insert `review_closed` after effects of fulfilment and before a new review."""
    rest = tuple(due for due in effects if due.effect is not Effect.REVIEW_REQUIRED)
    return (*rest, DueEffect(Effect.REVIEW_CLOSED), *effects[len(rest) :])


def occurrence_of(due: DueEffect, payment: Payment, closed: Closed | None) -> int:
    """Return a review's number, else what was decided."""
    if due.effect is Effect.REVIEW_REQUIRED:
        return payment.reviews
    return due.occurrence if closed is None else closed.number


def id_of(effect: str, payment: Payment, occurrence: int, closed: Closed | None = None) -> str:
    """Return the id of an effect, derived from the provider's id of the payment.

    The provider's id is unique. Before it is known, the reference of the create call stands for it, which names one
    payment too. An effect that was owed under the one is never owed under the other later, since each is owed once; and
    a payment that comes back after a restored backup has a provider's id. Reviews differ by their reason.
    """
    about = [payment.kind, payment.provider_ref or payment.reference or payment.id]
    review = closed.review if closed is not None else payment.review
    if effect.endswith(_OF_REVIEWS) and review is not None:
        about.append(review)
    return effect_id(payment.account, about, effect, occurrence)


def alarm_id(account: str, alarm: AccountAlarm) -> str:
    """Return the id of an effect about an account; an alarm's end has its own."""
    return effect_id(account, [alarm.since, alarm.is_over], Alarm(alarm.alarm).effect, 0)


def payload(
    effect: str,
    payment: Payment,
    due: DueEffect,
    reason: str,
    now: datetime,
    closed: Closed | None = None,
    *,
    effect_id: str,
) -> str:
    """Return the JSON text of an effect, the same for every attempt and sink.

    `closed` is the review that it is about.
    """
    review, number = closed or (payment.review, payment.reviews)
    return _text(
        effect,
        now,
        {
            "effect_id": effect_id,
            "payment": payment.id,
            "account": payment.account,
            "kind": payment.kind,
            "provider_ref": payment.provider_ref,
            "reference": payment.reference,
            "description": payment.description,
            "metadata": payment.merchant_metadata or {},
            "amount_minor": payment.amount_minor,
            "amount": _major(payment.amount_minor, payment.currency),
            "currency": payment.currency,
            "authorised_minor": payment.authorised_minor,
            "captured_minor": payment.captured_minor,
            "refunded_minor": payment.refunded_minor,
            "refunded": _major(payment.refunded_minor, payment.currency),
            "charged_back_minor": payment.charged_back_minor,
            "disputed_minor": payment.disputed_minor,
            "occurrence": due.occurrence,
            "part": None if due.part is None else as_kept(due.part),
            "change_minor": due.change_minor,
            "state": payment.state,
            "phase": payment.phase,
            "version": payment.version,
            "failure_reason": payment.failure_reason,
            "review": review,
            "review_number": number or None,
            "reason": reason,
        },
    )


def _major(minor: int | None, currency: str | None) -> str | None:
    return None if minor is None or currency is None else from_minor(minor, currency)


def alarm_payload(account: str, alarm: AccountAlarm, now: datetime) -> str:
    """Return the JSON text of an account's effect: alarm, begin, end and reason.

    It names no payment, and a sink that knows payments only can tell it by that. Raises ValueError for no Alarm.
    """
    return _text(
        Alarm(alarm.alarm).effect,
        now,
        {
            "effect_id": alarm_id(account, alarm),
            "account": account,
            "alarm": alarm.alarm,
            "since": alarm.since,
            "is_over": alarm.is_over,
            "reason": alarm.reason,
            "details": dict(alarm.details),
        },
    )


def _text(effect: str, now: datetime, data: Mapping[str, Any]) -> str:
    content = {"type": effect, "timestamp": now.isoformat(), "data": data}
    return _encode(content).decode()
