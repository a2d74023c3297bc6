"""What travels to a sink: the payment as it stood when the effect was owed, or an account's alarm."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from statemachine.money import from_minor
from statemachine.phases import Alarm
from statemachine.statements import AccountAlarm
from storage.tables import Payment

_encode: Final = msgspec.json.Encoder().encode


def payload(effect: str, payment: Payment, reason: str, now: datetime) -> str:
    """The JSON text of an effect; the same for every attempt and sink."""
    amount = None
    if payment.amount_minor is not None and payment.currency is not None:
        amount = from_minor(payment.amount_minor, payment.currency)
    return _text(
        effect,
        now,
        {
            "payment": payment.id,
            "account": payment.account,
            "kind": payment.kind,
            "provider_ref": payment.provider_ref,
            "reference": payment.reference,
            "amount_minor": payment.amount_minor,
            "amount": amount,
            "currency": payment.currency,
            "captured_minor": payment.captured_minor,
            "refunded_minor": payment.refunded_minor,
            "state": payment.state,
            "phase": payment.phase,
            "version": payment.version,
            "failure_reason": payment.failure_reason,
            "review": payment.review,
            "reason": reason,
        },
    )


def alarm_payload(account: str, alarm: AccountAlarm, now: datetime) -> str:
    """The JSON text of an effect about a whole account: which alarm, since when, whether it is over, and why.

    It names no payment, and a sink that knows payments only can tell it by that. Raises ValueError for no Alarm.
    """
    return _text(
        Alarm(alarm.alarm).effect,
        now,
        {
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
