"""Payfield's signature of callbacks and of our requests, and the delivery key."""

import base64
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from providers.contract import Delivery, Verified
from providers.errors import DeliveryRejected
from providers.signing import Encoding, KeyRing, Window, decode_signature, iso_instant, matching_key, unix_seconds

_MAX_KEY: Final = 200


def verify(delivery: Delivery, keys: KeyRing, window: Window, now: datetime, encoding: Encoding) -> Verified:
    """Verify a callback and its age; raise DeliveryRejected and nothing else.

    `X-Signature` is the HMAC-SHA256 by the webhook secret over `X-Timestamp`, exactly as sent, and the raw body with
    nothing between them. The provider names no window: the account's applies, in both directions.
    Source: https://bdt-hrs-external-documentation.pages.dev/docs/02-payouts/2.3-webhook-delivery
    """
    signature = delivery.header("x-signature")
    if signature is None:
        raise DeliveryRejected("signature_missing")
    stamp = delivery.header("x-timestamp")
    if stamp is None:
        raise DeliveryRejected("timestamp_missing")
    stamped = _instant(stamp)  # only ASCII comes through, so that the next line can encode it
    key = matching_key(keys, now, decode_signature(signature, encoding), stamp.encode("ascii"), delivery.body)
    window.check(stamped, now)
    return Verified(key.id, stamped)


def signature_text(raw: bytes, encoding: Encoding) -> str:
    """Encode the signature for a header."""
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode("ascii")


def _instant(stamp: str) -> datetime:
    return unix_seconds(stamp) if stamp.isdigit() else iso_instant(stamp)


class _Identity(msgspec.Struct):
    status: str
    updated_at: str
    id: int | str | None = None
    external_id: str | None = None


_identity: Final = msgspec.json.Decoder(_Identity)


def delivery_key(body: bytes) -> str:
    """Equal for a redelivery, at most 200 characters, total.

    Payfield sends no event id. An operation id, the merchant's id, a status and the time of the change name one event
    of one operation; the operation id keeps a payin and a payout with the same merchant's id apart. Where a part is
    missing, the body itself is the identity.
    """
    try:
        found = _identity.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return f"sha256:{sha256(body).hexdigest()}"
    if found.id is None and found.external_id is None:
        return f"sha256:{sha256(body).hexdigest()}"
    # JSON keeps the parts apart whatever they contain
    key = msgspec.json.encode([found.id, found.external_id, found.status, found.updated_at])
    text = key.decode()
    return text if len(key) <= _MAX_KEY and text.isprintable() else f"key-sha256:{sha256(key).hexdigest()}"
