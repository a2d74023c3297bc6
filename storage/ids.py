"""Ids of rows, in time order, and ids of effects, which follow from what they are."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

import msgspec
import uuid_utils

#: Before an id that travels, where a sink writes it as `webhook-id`. Source: Standard Webhooks, specification.
WEBHOOK_PREFIX: Final = "msg_"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ID: Final = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def new_id() -> str:
    """Create a UUIDv7 (RFC 9562) in canonical text; ids of a process sort by creation."""
    return str(uuid_utils.uuid7())


def effect_id(account: str, about: Sequence[str | int | bool], effect: str, occurrence: int) -> str:
    """Derive the id of an effect from its content alone.

    It is the same over retries, replays and restored backups. `about` names the payment by its kind and the provider's
    name of it, never by an id that was drawn here.
    """
    return _id_of("effect", account, list(about), effect, occurrence)


def webhook_id(effect: str, sink: str) -> str:
    """Derive the id of an effect for one sink: the idempotency key that travels."""
    return _id_of("webhook", effect, sink)


def _id_of(*parts: object) -> str:
    """Derive a UUIDv8 (RFC 9562) from the parts: SHA-256 cut to its 122 free bits.

    The parts are hashed as compact JSON in UTF-8.
    """
    text = sha256(msgspec.json.encode(parts)).hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def first_id(at: datetime) -> str:
    """Return the smallest id that may be made at that instant.

    Ids made before it are smaller.
    """
    ms = f"{int(at.timestamp() * 1000):012x}"
    return f"{ms[:8]}-{ms[8:]}-0000-0000-000000000000"


def is_id(text: str) -> bool:
    """Return whether the text may be the id of a row; PostgreSQL raises for any other."""
    return _ID.fullmatch(text) is not None


def instant_of(an_id: str) -> datetime:
    """Return when the id was made, by its maker's clock, to the millisecond.

    OverflowError beyond the year 9999.
    """
    return _EPOCH + timedelta(milliseconds=int(an_id.replace("-", "")[:12], 16))
