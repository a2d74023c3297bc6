"""Signatures: rotating keys, HMAC, constant-time comparison, time windows."""

import base64
import binascii
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal

from providers.errors import DeliveryRejected

Encoding = Literal["hex", "base64"]


#: Length of a SHA-256 digest.
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Key:
    """One secret with a public id, valid from `not_before` until before `not_after`."""

    id: str
    secret: bytes = field(repr=False)
    not_before: datetime | None = None
    not_after: datetime | None = None
    _keyed: hmac.HMAC = field(init=False, repr=False, compare=False)  #: has taken the secret: half of the work

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keyed", hmac.new(self.secret, digestmod=sha256))

    def hmac(self, message: bytes) -> bytes:
        """Compute the raw HMAC-SHA256 of the message."""
        keyed = self._keyed.copy()
        keyed.update(message)
        return keyed.digest()

    def is_active(self, now: datetime) -> bool:
        """Return whether the key may verify a delivery received at this instant."""
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now < self.not_after)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one account; several are active at once while a key is rotated."""

    keys: tuple[Key, ...]

    def active(self, now: datetime) -> Iterator[Key]:
        """Return the keys valid at this instant, in configured order."""
        return (key for key in self.keys if key.is_active(now))


@dataclass(frozen=True, slots=True)
class Window:
    """Tolerated distance between a delivery's timestamp and its receipt."""

    past: timedelta = timedelta(seconds=300)
    future: timedelta = timedelta(seconds=300)

    def check(self, stamped: datetime, now: datetime) -> None:
        """Raise DeliveryRejected if the timestamp is outside its window.

        The bounds belong to the window.
        """
        if now - stamped > self.past:
            raise DeliveryRejected("timestamp_stale")
        if stamped - now > self.future:
            raise DeliveryRejected("timestamp_future")


def hmac_sha256(secret: bytes, *parts: bytes) -> bytes:
    """Return the raw HMAC-SHA256 of the concatenated parts."""
    return hmac.digest(secret, b"".join(parts), sha256)


def decode_signature(text: str, encoding: Encoding) -> bytes:
    """Decode a signature of exactly 32 bytes, else raise DeliveryRejected."""
    try:
        raw = bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise DeliveryRejected("signature_malformed") from None
    # bytes.fromhex skips white space, which is not part of a signature
    if len(raw) != _DIGEST_BYTES or (encoding == "hex" and len(text) != 2 * len(raw)):
        raise DeliveryRejected("signature_malformed")
    return raw


def matching_key(keys: KeyRing, now: datetime, signature: bytes, *parts: bytes) -> Key:
    """Return the active key whose HMAC over the parts equals the signature.

    Each key is compared in constant time.

    Raises DeliveryRejected: `no_active_key` where none is active, `signature_wrong` where none matches.
    """
    message = b"".join(parts)
    found: Key | None = None
    tried = False
    for key in keys.keys:
        if key.is_active(now):
            tried = True
            if hmac.compare_digest(key.hmac(message), signature) and found is None:
                found = key
    if found is None:
        raise DeliveryRejected("signature_wrong" if tried else "no_active_key")
    return found


@lru_cache(maxsize=1_000)  # the deliveries of one second say the same
def unix_seconds(text: str) -> datetime:
    """Parse ASCII digits as an aware instant, else raise DeliveryRejected."""
    if not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise DeliveryRejected("timestamp_malformed")
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (OverflowError, OSError, ValueError):
        raise DeliveryRejected("timestamp_malformed") from None


def iso_instant(text: str) -> datetime:
    """Parse ISO 8601 text with a zone; raise DeliveryRejected for anything else."""
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None or not text.isascii():
            raise DeliveryRejected("timestamp_malformed")
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise DeliveryRejected("timestamp_malformed") from None
