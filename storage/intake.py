"""Intake: arrivals, committed in groups by the fastest driver (ADR 0019)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final, Protocol

import msgspec
import structlog

from statemachine.errors import ServiceError
from storage import hashing, inbox, migrate
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.inbox import Recorded, new_message
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
    """Build an arrival with the envelope of the message from `inbox.new_message`."""
    message_id, digest, told = message_id or new_id(), sha256(body).hexdigest(), _encode(headers)
    envelope = hashing.envelope_of(
        {
            "about": about,
            "account": account,
            "delivery_key": delivery_key,
            "digest": digest,
            "http_status": None,
            "id": message_id,
            "key_id": key_id,
            "kind": kind,
            "provider_time": provider_time,
            "received_at": received_at,
            "ref": None,
            "source": source,
            "variant_of": None,
        },
        told,
    )
    return Arrival(
        message_id,
        account,
        source,
        delivery_key,
        body,
        told.decode(),
        digest,
        envelope,
        received_at,
        key_id,
        provider_time,
        kind,
        about,
    )


def message_of(arrival: Arrival) -> InboxMessage:
    """Build the message of an arrival, for rare cases."""
    return new_message(
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


log = structlog.get_logger()

Outcome = Recorded | ServiceError


class Unstorable(ServiceError):
    """The database takes other messages and not this one; the log tells which."""

    code = "unstorable"


class Store(Protocol):
    """Commits arrivals. `lanes` batches may be under way at once."""

    lanes: int

    async def write(self, batch: Sequence[Arrival]) -> list[Outcome]:
        """Commit each arrival durably and once, as `inbox.record`, in the given order.

        Raises StorageUnavailable or SchemaOutdated: what was kept of it, if anything, is found by a repeat. Any other
        exception says that one of the batch cannot be stored; nothing of it was kept.
        """

    async def check(self) -> None:
        """Return where the database is usable.

        Raises SchemaOutdated or StorageUnavailable.
        """

    async def close(self) -> None:
        """Close the connections."""


@dataclass(slots=True)
class Settled:
    """Outcomes of a batch of which the database knew some arrivals."""

    outcomes: list[Recorded | None] = field(default_factory=list)  #: None: a variant, that `record_variants` records
    redeliveries: dict[str, tuple[int, datetime]] = field(default_factory=dict)  #: by message: how many, and the last


def settled(batch: Sequence[Arrival], known: Callable[[Arrival], tuple[str, str]]) -> Settled:
    """Compare arrivals with `known_delivery`: the message id and digest of each key."""
    result = Settled()
    counts: defaultdict[str, int] = defaultdict(int)
    for arrival in batch:
        first_id, digest = known(arrival)
        if first_id == arrival.id:
            result.outcomes.append(Recorded(arrival.id))
        elif digest == arrival.digest:
            counts[first_id] += 1
            result.redeliveries[first_id] = (counts[first_id], arrival.received_at)
            result.outcomes.append(Recorded(first_id, is_duplicate=True))
        else:
            result.outcomes.append(None)
    return result


def is_known(outcomes: Sequence[Recorded | None]) -> bool:
    """Return whether nothing of a batch was new; then the next is probably alike."""
    return all(outcome is None or outcome.is_duplicate for outcome in outcomes)


def record_variants(database: Database, batch: Sequence[Arrival], outcomes: Sequence[Recorded | None]) -> list[Outcome]:
    """Record arrivals with a known delivery key and other content.

    Returns all outcomes; each arrival fails alone.

    Each fails alone.
    """
    return [
        outcome if outcome is not None else _variant(database, arrival)
        for arrival, outcome in zip(batch, outcomes, strict=True)
    ]


def _variant(database: Database, arrival: Arrival) -> Outcome:
    try:
        with database.write() as unit:
            return inbox.record(unit, [message_of(arrival)])[0]
    except StorageUnavailable as fault:
        log.error("storage.unavailable", messages=1, error=fault.message)
        return StorageUnavailable()
    except Exception as fault:  # noqa: BLE001 - it must not fail its neighbours
        return unstorable(arrival, fault)


def unstorable(arrival: Arrival, fault: Exception) -> Unstorable:
    """Return the error for a message that cannot be stored, without its values."""
    log.error("delivery.unstorable", account=arrival.account, message_id=arrival.id, error=type(fault).__name__)
    return Unstorable()


def check_schema(database: Database) -> None:
    """As migrate.check."""
    migrate.check(database)
