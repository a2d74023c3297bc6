"""Alternative Payments' webhook authentication: a static secret, no signature."""

import hmac
from datetime import datetime
from hashlib import sha256
from typing import Final

from providers.contract import Delivery, Verified
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing

_SCHEME: Final = "Bearer "


def verify(delivery: Delivery, keys: KeyRing, now: datetime) -> Verified:
    """Verify that the sender knows the secret; raise only DeliveryRejected.

    Says nothing about the body or its age: whoever has seen one delivery can send any other, so what a delivery says
    is only ever a reason to ask. Source: docs.alternativepayments.io/getting-started/webhooks.
    """
    given = delivery.header("authorization")
    if given is None:
        raise DeliveryRejected("signature_missing")
    if not given.startswith(_SCHEME) or len(given) == len(_SCHEME):
        raise DeliveryRejected("signature_malformed")
    try:
        token = given.removeprefix(_SCHEME).encode("latin-1")
    except UnicodeEncodeError:
        raise DeliveryRejected("signature_malformed") from None
    return Verified(_key_with(keys, now, token).id)


def delivery_key(delivery: Delivery) -> str:
    """Return the digest of the body, since no id is documented; 71 characters, total.

    Two events with the same bytes count as one delivery, which costs nothing where a delivery is only a hint.
    """
    return "sha256:" + sha256(delivery.body).hexdigest()


def _key_with(keys: KeyRing, now: datetime, token: bytes) -> Key:
    # Digests have one length, so the time of a comparison tells nothing of the secret's.
    given = sha256(token).digest()
    active = list(keys.active(now))
    if not active:
        raise DeliveryRejected("no_active_key")
    matching = [key for key in active if hmac.compare_digest(sha256(key.secret).digest(), given)]
    if not matching:
        raise DeliveryRejected("signature_wrong")
    return matching[0]
