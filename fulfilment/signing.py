"""Signatures by Standard Webhooks, for verification with any of its libraries."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from fulfilment.errors import InvalidSigningKey

#: Marks a symmetric key, and is no part of it. Source: Standard Webhooks, specification, "Secret serialization".
PREFIX: Final = "whsec_"
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 24, 64  #: bytes, by the same specification


class Signer:
    """Sign with every key, so that a receiver verifies with either in a rotation.

    Raises InvalidSigningKey at once when there is no key, or one that the specification does not permit; the message
    never holds any of it. Source: Standard Webhooks, specification, "Signature scheme".
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if isinstance(keys, str) or not keys:
            raise InvalidSigningKey("a sink needs a list of at least one signing key", param="keys")
        self._keys = tuple(_decoded(key, number) for number, key in enumerate(keys, start=1))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} keys)"

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """Return the `webhook-signature` header: a `v1,<base64>` for each key.

        In the order given, with spaces between.

        The same arguments give the same signature. `timestamp` is in whole seconds since 1970.
        """
        content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        digests = (hmac.digest(key, content, hashlib.sha256) for key in self._keys)
        return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _decoded(key: str, number: int) -> bytes:
    if not key.startswith(PREFIX):
        raise InvalidSigningKey(f"signing key {number} does not start with {PREFIX}", param="keys")
    text = key.removeprefix(PREFIX)
    try:
        # Padding is optional, as in the libraries of Standard Webhooks.
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSigningKey(f"signing key {number} is not base64 after {PREFIX}", param="keys") from None
    if not _MIN_KEY_BYTES <= len(found) <= _MAX_KEY_BYTES:
        raise InvalidSigningKey(
            f"signing key {number} has {len(found)} bytes instead of {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES}", param="keys"
        )
    return found
