"""Seals over rows: equal values give equal seals on every database.

The functions say what of a row is sealed, as canonical bytes; `Sealer` seals them.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import defstruct

from storage.columns import Model, table_of
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OperatorAction,
    OutboxMessage,
    Payment,
    PaymentPoll,
    RejectedDelivery,
    Transition,
)
from storage.tables_inbox import RecordedDecision
from storage.tables_support import AuditRun, RetentionRun
from storage.types import UtcDateTime


def body_digest(body: bytes) -> str:
    """SHA-256 of the exact bytes, hex."""
    return sha256(body).hexdigest()


class Sealer:
    """Seals of rows: HMAC-SHA-256 with a key outside the database, or plain SHA-256.

    The first key seals and every key opens, so that keys can be rotated. A row that is sealed without a key can be
    sealed again by anybody who may write rows; one that is sealed with a key cannot.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]] = ()) -> None:
        """Take keys as (id, secret), the one that seals first."""
        self._keys = tuple((key_id, hmac.new(secret, digestmod=sha256)) for key_id, secret in keys)

    @property
    def is_keyed(self) -> bool:
        """True where what is sealed now cannot be sealed by others."""
        return bool(self._keys)

    def seal(self, content: bytes) -> str:
        """Hex, 64 characters."""
        if not self._keys:
            return sha256(content).hexdigest()
        return _sealed(self._keys[0][1], content)

    def key_of(self, content: bytes, seal: str | None) -> str | None:
        """Return the id of the key that sealed the content.

        "" for a seal without a key, None for a seal of other content.
        """
        if seal is None:
            return None
        for key_id, keyed in self._keys:
            if _sealed(keyed, content) == seal:
                return key_id
        return "" if sha256(content).hexdigest() == seal else None


def _sealed(keyed: hmac.HMAC, content: bytes) -> str:
    """Seal by a copy of a hash that has taken its key, half of the work."""
    seal = keyed.copy()
    seal.update(content)
    return seal.hexdigest()


class _Content:
    """The canonical bytes of some columns of a record."""

    def __init__(self, model: type[Model], columns: Sequence[str], beside: Sequence[str] = ()) -> None:
        """`beside` are names of texts and numbers that are no columns of the record."""
        names = sorted((*columns, *beside))  # once, and not for each record
        self._sealed = defstruct(f"{model.__name__}Sealed", [(name, object) for name in names])
        self._take: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*names)
        kinds = [None if name in beside else table_of(model).c[name].type for name in names]
        self._instants = tuple(at for at, kind in enumerate(kinds) if isinstance(kind, UtcDateTime))

    def __call__(self, columns: Mapping[str, Any]) -> bytes:
        found = list(self._take(columns))
        for at in self._instants:
            if found[at] is not None:
                found[at] = microseconds(found[at])
        return _encode(self._sealed(*found))


class _Envelope(msgspec.Struct, gc=False):
    """InboxMessage.SEALED, in the order of the names."""

    about: str | None
    account: str
    delivery_key: str
    digest: str
    headers: msgspec.Raw
    http_status: int | None
    id: str
    key_id: str | None
    kind: str | None
    provider_time: int | None
    received_at: int
    ref: str | None
    source: str
    variant_of: str | None


def envelope(message: InboxMessage) -> bytes:
    """Serialize all that was recorded with the message.

    Transitions and decisions rest on its seal. The body is covered by its digest.
    """
    return envelope_of(message.__dict__)


def envelope_of(message: Mapping[str, Any], headers: bytes | None = None) -> bytes:
    """Serialize as `envelope`, from columns; `headers` where they are JSON already."""
    provider_time = message["provider_time"]
    return _encode(
        _Envelope(
            message["about"],
            message["account"],
            message["delivery_key"],
            message["digest"],
            msgspec.Raw(_encode(message["headers"]) if headers is None else headers),
            message["http_status"],
            message["id"],
            message["key_id"],
            message["kind"],
            None if provider_time is None else microseconds(provider_time),
            microseconds(message["received_at"]),
            message["ref"],
            message["source"],
            message["variant_of"],
        )
    )


def decision(made: Mapping[str, Any], envelope_digest: str, count: int) -> bytes:
    """Serialize a decision, with the seal of the message that it rests on.

    `count` is how many decisions the reading came to, so that none of them can be taken away.
    """
    return _of_decision({**made, "envelope_digest": envelope_digest, "count": count})


def transition(link: Transition) -> bytes:
    """Serialize a link of the payment's chain: its columns, prev_hash and evidence."""
    return _of_transition(link.__dict__)


def payment(found: Payment) -> bytes:
    """Serialize what the rules and the provider said about the payment."""
    return _of_payment(found.__dict__)


def payment_poll(found: PaymentPoll) -> bytes:
    """Serialize when the payment was last heard of, and how often."""
    return _of_payment_poll(found.__dict__)


def outbox_message(columns: Mapping[str, Any]) -> bytes:
    """Serialize an outbox message, without its status."""
    return _of_outbox(columns)


def outbox_status(columns: Mapping[str, Any]) -> bytes:
    """Serialize the status of an outbox message, whether it waits or was delivered."""
    return _of_outbox_status(columns)


def attempt(tried: DeliveryAttempt) -> bytes:
    """Serialize one attempt to deliver an effect."""
    return _of_attempt(tried.__dict__)


def rejected(delivery: RejectedDelivery) -> bytes:
    """Serialize a delivery in quarantine, its body by digest."""
    columns = {name: delivery.__dict__.get(name) for name in RejectedDelivery.SEALED}
    return canonical({**columns, "body": body_digest(delivery.body)})


def action(done: OperatorAction, previous: str) -> bytes:
    """Serialize an operator action, after the seal of the action before."""
    return canonical({**{name: done.__dict__.get(name) for name in OperatorAction.SEALED}, "previous": previous})


def retention_run(run: RetentionRun) -> bytes:
    """Serialize a run of retention."""
    return _of_retention(run.__dict__)


def audit_run(run: AuditRun) -> bytes:
    """Serialize a run of the audit."""
    return _of_audit(run.__dict__)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode  #: names sorted; a structure's as it has them


def canonical(content: Mapping[str, Any]) -> bytes:
    """Encode as UTF-8 JSON, names sorted, no white space, instants in microseconds.

    Instants count from 1970.
    """
    plain = {name: microseconds(value) if isinstance(value, datetime) else value for name, value in content.items()}
    return _encode(plain)


def microseconds(at: datetime) -> int:
    """Since 1970; raises TypeError for an instant without a zone."""
    return (at - _EPOCH) // _MICROSECOND


_of_decision: Final = _Content(RecordedDecision, RecordedDecision.SEALED, beside=("envelope_digest", "count"))
_of_transition: Final = _Content(Transition, Transition.SEALED)
_of_payment: Final = _Content(Payment, Payment.SEALED)
_of_payment_poll: Final = _Content(PaymentPoll, PaymentPoll.SEALED)
_of_outbox: Final = _Content(OutboxMessage, OutboxMessage.SEALED)
_of_outbox_status: Final = _Content(OutboxMessage, OutboxMessage.SEALED_STATUS)
_of_attempt: Final = _Content(DeliveryAttempt, DeliveryAttempt.SEALED)
_of_retention: Final = _Content(RetentionRun, RetentionRun.SEALED)
_of_audit: Final = _Content(AuditRun, AuditRun.SEALED)
