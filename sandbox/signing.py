"""Signatures of each provider, written from the dossiers; shared with nothing.

A signer takes the raw body and the instant to claim, and returns the headers to add.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from sandbox.times import iso_seconds

Signer = Callable[[bytes, datetime], dict[str, str]]


def hmac_sha256(secret: str, text: bytes) -> bytes:
    """HMAC-SHA256 keyed with the secret's own characters."""
    return hmac.new(secret.encode(), text, hashlib.sha256).digest()


def alternative_payments(secret: str) -> Signer:
    """Build `Authorization: Bearer <secret_key>`, or nothing without a secret."""
    return lambda _body, _at: {"Authorization": f"Bearer {secret}"} if secret else {}


def stable_genius(secret: str) -> Signer:
    """`X-StableGenius-Signature: sha256=<hex>` over `{unix}.{body}`."""

    def sign(body: bytes, at: datetime) -> dict[str, str]:
        stamp = str(int(at.timestamp()))
        digest = hmac_sha256(secret, stamp.encode() + b"." + body).hex()
        return {"X-StableGenius-Signature": f"sha256={digest}", "X-StableGenius-Timestamp": stamp}

    return sign


def payfield_digest(secret: str, text: bytes, digest: Literal["hex", "base64"]) -> str:
    """Encode the digest as the shop has it."""
    raw = hmac_sha256(secret, text)
    return raw.hex() if digest == "hex" else base64.b64encode(raw).decode()


def payfield(secret: str, digest: Literal["hex", "base64"]) -> Signer:
    """`X-Signature` over `X-Timestamp` and body, with nothing in between."""

    def sign(body: bytes, at: datetime) -> dict[str, str]:
        stamp = iso_seconds(at)
        return {
            "X-Timestamp": stamp,
            "X-Signature": payfield_digest(secret, stamp.encode() + body, digest),
        }

    return sign


def banked(secret: str) -> Signer:
    """`banked-signature: <unix>.<hex>` over `{unix}.{body}`, the key taken literally."""

    def sign(body: bytes, at: datetime) -> dict[str, str]:
        stamp = str(int(at.timestamp()))
        return {"banked-signature": f"{stamp}.{hmac_sha256(secret, stamp.encode() + b'.' + body).hex()}"}

    return sign
