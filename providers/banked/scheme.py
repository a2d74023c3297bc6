"""Banked's webhook signature, and the identity of what a webhook delivers."""

from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from providers.contract import Delivery, Verified
from providers.errors import DeliveryRejected
from providers.signing import KeyRing, Window, decode_signature, matching_key, unix_seconds

_MAX_KEY: Final = 200


def verify(delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
    """Verify a webhook and its age; raise DeliveryRejected and nothing else.

    `banked-signature: <unix seconds>.<hex>`: HMAC-SHA256 over the seconds, a full stop and the raw body, keyed with
    the signature key's literal text even where that looks like hex. The provider leaves the age to the receiver.
    Source: https://developer.banked.com/docs/verifying-webhook-signatures
    """
    header = delivery.header("banked-signature")
    if header is None:
        raise DeliveryRejected("signature_missing")
    stamp, stop, signature = header.partition(".")
    if not stop:
        raise DeliveryRejected("signature_malformed")
    stamped = unix_seconds(stamp)  # only ASCII digits come through, so that the next line can encode them
    key = matching_key(keys, now, decode_signature(signature, "hex"), stamp.encode("ascii"), b".", delivery.body)
    window.check(stamped, now)
    return Verified(key.id, stamped)


class _Identity(msgspec.Struct):
    id: str
    version: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    type: str | None = None
    state: str | None = None
    webhook_event: str | None = None
    webhook_type: str | None = None
    webook_type: str | None = None


_identity: Final = msgspec.json.Decoder(_Identity)


def delivery_key(body: bytes) -> str | None:
    """Equal for a redelivery, at most 200 characters, total.

    A v3 envelope has an event id. A v2 body has none: the resource's id and type with the event, else the state, name
    it. The body's digest is no part of that, so that the same event with other content is seen as what it is. None
    where a body has no such parts.
    """
    try:
        found = _identity.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if found.version == "v3" or (bytes(found.data).startswith(b"{") and found.type is not None):
        parts: list[str | None] = ["v3", found.id]
    elif found.webhook_event is not None or found.state is not None:
        # the redacted twin of an event differs in nothing but the spelling of its type's name
        parts = ["v2", found.id, found.webhook_event or found.state, found.webhook_type, found.webook_type]
    else:
        return None
    key = msgspec.json.encode(parts)  # JSON keeps the parts apart whatever they contain
    text = key.decode()
    return text if len(key) <= _MAX_KEY and text.isprintable() else f"key-sha256:{sha256(key).hexdigest()}"
