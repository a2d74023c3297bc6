"""Seals over rows: equal values give equal seals on every database.

The functions say what of a row is sealed, as canonical bytes; `Sealer` seals them.
"""

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import combinations
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import defstruct
from msgspec.structs import asdict
from sqlalchemy import JSON

from storage.columns import Model, table_of
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OperatorAction,
    OutboxMessage,
    Payment,
    RejectedDelivery,
    Transition,
)
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
        self._keys = tuple(keys)
        self._key = self._keys[0][1] if self._keys else None

    @property
    def is_keyed(self) -> bool:
        """True where what is sealed now cannot be sealed by others."""
        return self._key is not None

    def seal(self, content: bytes) -> str:
        """Hex, 64 characters."""
        if self._key is None:
            return sha256(content).hexdigest()
        return hmac.digest(self._key, content, "sha256").hex()

    def key_of(self, content: bytes, seal: str | None) -> str | None:
        """Return the id of the key that sealed the content.

        "" for a seal without a key, None for a seal of other content.
        """
        if seal is None:
            return None
        for key_id, key in self._keys:
            if hmac.digest(key, content, "sha256").hex() == seal:
                return key_id
        return "" if sha256(content).hexdigest() == seal else None


class _Content:
    """The canonical bytes of some columns of a record."""

    def __init__(self, model: type[Model], columns: tuple[str, ...], if_any: tuple[str, ...] = ()) -> None:
        """`if_any` are columns that are left out of each record where they are None."""
        self._if_any = if_any
        self._with = {
            there: _Content(model, (*columns, *there))
            for count in range(1, len(if_any) + 1)
            for there in combinations(if_any, count)
        }
        names = sorted(columns)  # once, and not for each record
        kinds = [table_of(model).c[name].type for name in names]
        self._sealed = defstruct(f"{model.__name__}Sealed", [(name, object) for name in names])
        self._take: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*names)
        self._instants = tuple(at for at, kind in enumerate(kinds) if isinstance(kind, UtcDateTime))
        self._told = tuple(at for at, kind in enumerate(kinds) if isinstance(kind, JSON))

    def __call__(self, columns: Mapping[str, Any]) -> bytes:
        there = tuple([name for name in self._if_any if columns[name] is not None])
        if there:
            return self._with[there](columns)
        found = list(self._take(columns))
        for at in self._instants:
            if found[at] is not None:
                found[at] = microseconds(found[at])
        # what stands elsewhere is text, a number, or nothing; anything else is left to those who know it
        is_plain = _PLAIN.issuperset(map(type, found))
        for at in self._told:
            is_plain = is_plain and (not found[at] or _is_plain(found[at]))
        content = self._sealed(*found)
        return _encode(content) if is_plain else canonical(asdict(content))


def envelope(message: InboxMessage) -> bytes:
    """Serialize all that was recorded with the message; transitions rest on its seal.

    The body is covered by its digest.
    """
    return _of_envelope(message.__dict__)


def decision(message: InboxMessage) -> bytes:
    """Serialize what was decided about the message."""
    return _of_decision(message.__dict__)


def transition(link: Transition) -> bytes:
    """Serialize a link of the payment's chain: its columns, prev_hash and evidence."""
    return _of_transition(link.__dict__)


def payment(found: Payment) -> bytes:
    """Serialize what the rules and the provider said about the payment."""
    return _of_payment(found.__dict__)


def owed(columns: Mapping[str, Any]) -> bytes:
    """Serialize an outbox message and the state of its delivery.

    It is given as columns, since a claim knows both.
    """
    return _of_outbox(columns) if columns["webhook_id"] is not None else _of_old_outbox(columns)


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
_FLOATS_ARE_EXACT: Final = 2**51
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_PLAIN: Final = _SCALARS | {list, dict}
_TEXT: Final = frozenset({str})
_encode: Final = msgspec.json.Encoder(order="deterministic").encode  #: names sorted; a structure's as it has them


def canonical(content: Mapping[str, Any]) -> bytes:
    """Encode as UTF-8 JSON, names sorted, no white space, instants in microseconds.

    Instants count from 1970.
    """
    plain = {}
    for name, value in content.items():
        kind = type(value)
        if kind in _SCALARS:
            plain[name] = value
        elif kind is datetime:
            plain[name] = microseconds(value)
        elif _is_plain(value):
            plain[name] = value
        else:
            return _slowly(content)
    return _encode(plain)


def microseconds(at: datetime) -> int:
    """Since 1970; raises TypeError for an instant without a zone.

    Exact until 2041. What was sealed first went through a float, and later instants are sealed as they were then.
    """
    since = at - _EPOCH
    exact = since // _MICROSECOND
    if -_FLOATS_ARE_EXACT < exact < _FLOATS_ARE_EXACT:
        return exact
    return round(since.total_seconds() * 1_000_000)


def _is_plain(value: Any) -> bool:
    """Return whether msgspec writes the value as the standard library does.

    It writes fractions otherwise, and types that JSON does not know.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list:
        return False
    return all(map(_is_plain, [each for each in value if type(each) not in _SCALARS]))


def _slowly(content: Mapping[str, Any]) -> bytes:
    """Encode by the standard library, which defines `canonical`."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_told).encode()


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return microseconds(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")


_of_envelope: Final = _Content(InboxMessage, InboxMessage.SEALED)
_of_decision: Final = _Content(InboxMessage, InboxMessage.DECIDED)
_of_transition: Final = _Content(Transition, Transition.SEALED)
_of_payment: Final = _Content(Payment, Payment.SEALED, Payment.SEALED_IF_ANY)
_of_outbox: Final = _Content(OutboxMessage, OutboxMessage.SEALED)
_of_old_outbox: Final = _Content(OutboxMessage, OutboxMessage.SEALED_AT_FIRST)
_of_attempt: Final = _Content(DeliveryAttempt, DeliveryAttempt.SEALED)
_of_retention: Final = _Content(RetentionRun, RetentionRun.SEALED)
_of_audit: Final = _Content(AuditRun, AuditRun.SEALED)
