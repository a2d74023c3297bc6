"""The four providers' voices: what each would send and answer about one payment, in its own format, signed outside."""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from providers.contract import Delivery, Provider
from statemachine.lifecycle import Lifecycle
from tests.support.builders import PROVIDERS

SECRET = b"the-secret-of-the-account-under-test"
_PLAIN = (("host", "shop.example"), ("content-type", "application/json"))


@dataclass(frozen=True)
class Telling:
    """One thing that a provider says about a payment at one instant."""

    ref: str
    reference: str | None  #: None where the provider does not echo it
    state: str
    minor: int | None  #: None where it does not say how much
    at: datetime
    serial: str  #: tells this event from every other
    is_live: bool | None = None  #: None where it does not say whether the money is real


@dataclass(frozen=True)
class Voice:
    """One kind at one provider. Bodies are exact bytes; a body of None says that no webhook is sent of that state."""

    name: str
    kind: str
    webhook: Callable[[Telling], bytes | None]
    answer: Callable[[Telling], bytes]
    sign: Callable[[bytes, datetime], tuple[tuple[str, str], ...]]
    currency: str
    is_ref_ours: bool = False  #: the provider calls the payment by the merchant's reference
    is_kind_told: bool = True  #: a body alone is read as of this kind; else the URL it came to tells

    @property
    def provider(self) -> Provider:
        return PROVIDERS[self.name]

    @property
    def lifecycle(self) -> Lifecycle:
        return self.provider.lifecycles[self.kind]

    def delivery(self, body: bytes, at: datetime) -> Delivery:
        """The body as it is sent at that instant, authentic."""
        return Delivery(body, (*_PLAIN, *self.sign(body, at)))


def _json(content: dict[str, object]) -> bytes:
    return json.dumps({k: v for k, v in content.items() if v is not None}, separators=(",", ":")).encode()


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _hmac(*parts: bytes) -> str:
    return hmac.new(SECRET, b"".join(parts), hashlib.sha256).hexdigest()


def _seconds(at: datetime) -> str:
    return str(int(at.timestamp()))


# Stable Genius


def _intent(told: Telling) -> dict[str, object]:
    return {
        "id": told.ref,
        "object": "payment_intent",
        "status": told.state,
        "amount": None if told.minor is None else told.minor / 100,
        "currency": "usd",
        "metadata": {"reference": told.reference} if told.reference else {},
        "livemode": told.is_live,
    }


def _genius_webhook(told: Telling) -> bytes | None:
    event: dict[str, object] = {"id": f"evt_{told.serial}", "object": "event", "created_at": _iso(told.at)}
    if told.state == "settled":  # there is no such event of an intent: a settlement names nobody
        return _json({**event, "type": "settlement.completed", "data": {"id": f"set_{told.serial}"}})
    return _json({**event, "type": f"payment_intent.{told.state}", "data": _intent(told)})


def _genius_sign(body: bytes, at: datetime) -> tuple[tuple[str, str], ...]:
    stamp = _seconds(at)
    signature = _hmac(stamp.encode(), b".", body)
    return (("x-stablegenius-signature", f"sha256={signature}"), ("x-stablegenius-timestamp", stamp))


# Alternative Payments


def _request(told: Telling) -> dict[str, object]:
    return {
        "id": told.ref,
        "reference_id": told.reference,
        "status": told.state,
        "url": f"https://checkout.example/{told.ref}",
        "amount": None if told.minor is None else str(told.minor),
        "currency": "USD",
    }


def _alternative_webhook(told: Telling) -> bytes | None:
    data = {"id": f"pay_{told.serial}", "reference_id": told.reference, "total": 4.5}
    return _json({"topic": "payment_succeeded", "data": data}) if told.state == "paid" else None


def _alternative_sign(_body: bytes, _at: datetime) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {SECRET.decode()}"),)


# Payfield


def _operation(told: Telling) -> dict[str, object]:
    return {
        "id": int(hashlib.sha256(told.ref.encode()).hexdigest()[:8], 16),
        "external_id": told.ref,
        "status": told.state,
        "amount": None if told.minor is None else f"{told.minor // 100}.{told.minor % 100:02}",
        "currency": "INR",
        "updated_at": _iso(told.at),
    }


def _payfield_sign(body: bytes, at: datetime) -> tuple[tuple[str, str], ...]:
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (("x-timestamp", stamp), ("x-signature", _hmac(stamp.encode(), body)))


# Banked


def _session(told: Telling) -> dict[str, object]:
    return {
        "id": told.ref,
        "amount": told.minor,
        "currency": "GBP",
        "state": told.state,
        "reference": told.reference,
        "url": f"https://pay.example/checkout/{told.ref}",
        "live": bool(told.is_live),
    }


def _session_webhook(told: Telling) -> bytes | None:
    if told.state in ("initiated", "pending", "sent", "failed"):
        event = {"webhook_event": f"payment_{told.state}", "webhook_type": "payment_session"}
        return _json({**_session(told), **event})
    return None if told.state == "deleted" else _json(_session(told))


def _payin(told: Telling) -> dict[str, object]:
    return {
        "id": told.ref,
        "amount": told.minor,
        "currency": "GBP",
        "payment_identification": {"end_to_end_identification": told.reference} if told.reference else None,
        "status_details": {"status": told.state, "reason": None},
        "latest_error": None,
    }


def _payin_webhook(told: Telling) -> bytes | None:
    event = told.state.lower() if told.state not in ("CREATED", "AWAITING_AUTHORIZATION") else "updated"
    return _json(
        {
            "id": told.serial,
            "type": f"payment_{event}",
            "version": "v3",
            "data": {k: v for k, v in _payin(told).items() if v is not None},
        }
    )


def _banked_sign(body: bytes, at: datetime) -> tuple[tuple[str, str], ...]:
    stamp = _seconds(at)
    return (("banked-signature", f"{stamp}.{_hmac(stamp.encode(), b'.', body)}"),)


def _of(content: Callable[[Telling], dict[str, object]]) -> Callable[[Telling], bytes]:
    return lambda told: _json(content(told))


VOICES: dict[str, Voice] = {
    f"{voice.name}.{voice.kind}": voice
    for voice in (
        Voice(
            "alternative_payments",
            "payment_request",
            _alternative_webhook,
            _of(_request),
            _alternative_sign,
            "USD",
        ),
        Voice("stable_genius", "payment_intent", _genius_webhook, _of(_intent), _genius_sign, "USD"),
        Voice("payfield", "payin", _of(_operation), _of(_operation), _payfield_sign, "INR", is_ref_ours=True),
        Voice(
            "payfield",
            "payout",
            _of(_operation),
            _of(_operation),
            _payfield_sign,
            "INR",
            is_ref_ours=True,
            is_kind_told=False,
        ),
        Voice("banked", "payment_session", _session_webhook, _of(_session), _banked_sign, "GBP"),
        Voice("banked", "payin", _payin_webhook, _of(_payin), _banked_sign, "GBP"),
    )
}
