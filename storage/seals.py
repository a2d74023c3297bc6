"""Digests over rows: the same values give the same digest on every database, and any changed value another."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlmodel import SQLModel

from storage.engine import values
from storage.tables import InboxMessage, OutboxMessage, Payment, Transition


def body_digest(body: bytes) -> str:
    """SHA-256 of the exact bytes, hex."""
    return sha256(body).hexdigest()


def envelope_digest(message: InboxMessage) -> str:
    """The digest that transitions rest on: everything that was recorded with the message, bytes included."""
    return _digest(message, InboxMessage.SEALED)


def decision_digest(message: InboxMessage) -> str:
    """The digest of what was decided about the message."""
    return _digest(message, InboxMessage.DECIDED)


def transition_hash(transition: Transition) -> str:
    """The link of the payment's chain: covers prev_hash, the content and the evidence."""
    return _digest(transition, Transition.SEALED)


def payment_seal(payment: Payment) -> str:
    """The digest of what the rules and the provider said about the payment."""
    return _digest(payment, Payment.SEALED)


def outbox_seal(message: OutboxMessage) -> str:
    """The digest of what is owed."""
    return _digest(message, OutboxMessage.SEALED)


def _digest(record: SQLModel, columns: Iterable[str]) -> str:
    return sha256(canonical(values(record, columns))).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON with sorted names and no white space; instants as microseconds since 1970."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return round((value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
    raise TypeError(f"{type(value).__name__} has no canonical form")
