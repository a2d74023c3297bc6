"""What waits to be recorded: a message with the envelope that `inbox.record` would seal, at a tenth of the cost.

A record of the table would cost more than everything else that is done with a delivery before it is committed.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from storage import seals
from storage.ids import new_id
from storage.inbox import new_message
from storage.seals import microseconds
from storage.tables import InboxMessage


class Arrival(msgspec.Struct, gc=False, frozen=True):
    """One message before it is recorded, with everything that it is recorded with."""

    id: str
    account: str
    source: str
    delivery_key: str
    body: bytes
    headers: str  #: as JSON
    digest: str
    envelope: bytes  #: canonical; the store seals it
    received_at: datetime
    key_id: str | None
    provider_time: datetime | None
    kind: str | None
    about: str | None


class _Envelope(msgspec.Struct, gc=False):
    """InboxMessage.SEALED, in the order of the names."""

    about: str | None
    account: str
    delivery_key: str
    digest: str
    headers: msgspec.Raw
    http_status: None
    id: str
    key_id: str | None
    kind: str | None
    provider_time: int | None
    received_at: int
    ref: None
    source: str
    variant_of: None


_encode: Final = msgspec.json.Encoder().encode
_decode_headers: Final = msgspec.json.Decoder(list[tuple[str, str]]).decode


def arrived(
    *,
    account: str,
    source: str,
    delivery_key: str,
    body: bytes,
    received_at: datetime,
    headers: Sequence[tuple[str, str]] = (),
    key_id: str | None = None,
    provider_time: datetime | None = None,
    kind: str | None = None,
    about: str | None = None,
    message_id: str | None = None,
) -> Arrival:
    """The same message as `inbox.new_message` makes of the same, with the same envelope."""
    message_id, digest, told = message_id or new_id(), sha256(body).hexdigest(), _encode(headers)
    envelope = _Envelope(
        about,
        account,
        delivery_key,
        digest,
        msgspec.Raw(told),
        None,
        message_id,
        key_id,
        kind,
        None if provider_time is None else microseconds(provider_time),
        microseconds(received_at),
        None,
        source,
        None,
    )
    return Arrival(
        message_id,
        account,
        source,
        delivery_key,
        body,
        told.decode(),
        digest,
        _encode(envelope),
        received_at,
        key_id,
        provider_time,
        kind,
        about,
    )


def message_of(arrival: Arrival) -> InboxMessage:
    """The record, for what is rare."""
    message = new_message(
        message_id=arrival.id,
        account=arrival.account,
        source=arrival.source,
        delivery_key=arrival.delivery_key,
        body=arrival.body,
        received_at=arrival.received_at,
        headers=_decode_headers(arrival.headers),
        key_id=arrival.key_id,
        provider_time=arrival.provider_time,
        kind=arrival.kind,
        about=arrival.about,
    )
    if seals.envelope(message) != arrival.envelope:
        raise AssertionError("a message is sealed in two ways")
    return message
