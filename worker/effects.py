"""What travels to a sink: the payment as it stood when the effect was owed."""

import json
from datetime import datetime

from statemachine.money import from_minor
from storage.tables import Payment


def payload(effect: str, payment: Payment, reason: str, now: datetime) -> str:
    """The JSON text of an effect; the same for every attempt and sink."""
    amount = None
    if payment.amount_minor is not None and payment.currency is not None:
        amount = from_minor(payment.amount_minor, payment.currency)
    return json.dumps(
        {
            "type": effect,
            "timestamp": now.isoformat(),
            "data": {
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
        },
        separators=(",", ":"),
        ensure_ascii=False,
    )
