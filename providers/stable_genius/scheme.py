"""Stable Genius's signature: HMAC-SHA256 over timestamp, full stop and exact body."""

from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from providers.contract import Delivery, Verified
from providers.decoding import word
from providers.errors import DeliveryRejected
from providers.signing import KeyRing, Window, decode_signature, matching_key, unix_seconds

SIGNATURE_HEADER: Final = "x-stablegenius-signature"
TIMESTAMP_HEADER: Final = "x-stablegenius-timestamp"
_PREFIX: Final = "sha256="


class _Identified(msgspec.Struct):
    id: str


_identified: Final = msgspec.json.Decoder(_Identified)


def verify(delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
    """Verify a delivery and its age; raise DeliveryRejected and nothing else.

    The signature is judged before the window, so that a delivery called stale is an authentic one.
    Source: docs.stablegenius.co/api-reference/webhook-security.
    """
    signature = _given(delivery, SIGNATURE_HEADER, "signature_missing")
    stamp = _given(delivery, TIMESTAMP_HEADER, "timestamp_missing")
    stamped = unix_seconds(stamp)
    if not signature.startswith(_PREFIX):
        raise DeliveryRejected("signature_malformed")
    raw = decode_signature(signature.removeprefix(_PREFIX), "hex")
    key = matching_key(keys, now, raw, stamp.encode("ascii"), b".", delivery.body)
    window.check(stamped, now)
    return Verified(key.id, stamped)


def delivery_key(delivery: Delivery) -> str:
    """Return the event's `evt_` id, else a digest of the body; total, 200 characters.

    An id of any other form does not count: a payment intent's own id is the same in all of its events.
    """
    try:
        event_id = word(_identified.decode(delivery.body).id)
    except (ValueError, RecursionError):
        event_id = None
    if event_id is not None and event_id.startswith("evt_"):
        return event_id
    return "sha256:" + sha256(delivery.body).hexdigest()


def _given(delivery: Delivery, name: str, absent: str) -> str:
    value = delivery.header(name)
    if value is None:
        raise DeliveryRejected(absent)
    return value
