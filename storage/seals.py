"""Digests over rows: the same values give the same digest on every database, and any changed value another."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import combinations
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import defstruct
from msgspec.structs import asdict
from sqlalchemy import JSON
from sqlmodel import SQLModel

from storage.columns import table_of
from storage.tables import InboxMessage, OutboxMessage, Payment, Transition
from storage.types import UtcDateTime


def body_digest(body: bytes) -> str:
    """SHA-256 of the exact bytes, hex."""
    return sha256(body).hexdigest()


def envelope_digest(message: InboxMessage) -> str:
    """The digest that transitions rest on: everything that was recorded with the message, bytes included."""
    return _of_envelope(message)


def decision_digest(message: InboxMessage) -> str:
    """The digest of what was decided about the message."""
    return _of_decision(message)


def transition_hash(transition: Transition) -> str:
    """The link of the payment's chain: covers prev_hash, the content and the evidence."""
    return _of_transition(transition)


def payment_seal(payment: Payment) -> str:
    """The digest of what the rules and the provider said about the payment."""
    return _of_payment(payment)


def outbox_seal(message: OutboxMessage) -> str:
    """The digest of what is owed."""
    return _of_outbox(message) if message.webhook_id is not None else _of_old_outbox(message)


class _Digest:
    """SHA-256, hex, over the canonical form of some columns of a record."""

    def __init__(self, model: type[SQLModel], columns: tuple[str, ...], if_any: tuple[str, ...] = ()) -> None:
        """`if_any` are columns that are left out of each record where they are None."""
        self._if_any = if_any
        self._with = {
            there: _Digest(model, (*columns, *there))
            for count in range(1, len(if_any) + 1)
            for there in combinations(if_any, count)
        }
        names = sorted(columns)  # once, and not for each digest
        kinds = [table_of(model).c[name].type for name in names]
        self._sealed = defstruct(f"{model.__name__}Sealed", [(name, object) for name in names])
        self._take: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*names)
        self._instants = tuple(at for at, kind in enumerate(kinds) if isinstance(kind, UtcDateTime))
        self._told = tuple(at for at, kind in enumerate(kinds) if isinstance(kind, JSON))

    def __call__(self, record: SQLModel) -> str:
        there = tuple([name for name in self._if_any if record.__dict__[name] is not None])
        if there:
            return self._with[there](record)
        found = list(self._take(record.__dict__))
        for at in self._instants:
            if found[at] is not None:
                found[at] = microseconds(found[at])
        # what stands elsewhere is text, a number, or nothing; anything else is left to those who know it
        is_plain = _PLAIN.issuperset(map(type, found))
        for at in self._told:
            is_plain = is_plain and (not found[at] or _is_plain(found[at]))
        content = self._sealed(*found)
        return sha256(_encode(content) if is_plain else canonical(asdict(content))).hexdigest()


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLOATS_ARE_EXACT: Final = 2**51
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_PLAIN: Final = _SCALARS | {list, dict}
_TEXT: Final = frozenset({str})
_encode: Final = msgspec.json.Encoder(order="deterministic").encode  #: names sorted; a structure's as it has them


def canonical(content: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON with sorted names and no white space; instants as microseconds since 1970."""
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
    """Whether both encoders write the same: msgspec writes fractions otherwise, and types that JSON does not know."""
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
    """What `canonical` means; it is some times slower."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_told).encode()


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return microseconds(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")


_of_envelope: Final = _Digest(InboxMessage, InboxMessage.SEALED)
_of_decision: Final = _Digest(InboxMessage, InboxMessage.DECIDED)
_of_transition: Final = _Digest(Transition, Transition.SEALED)
_of_payment: Final = _Digest(Payment, Payment.SEALED, Payment.SEALED_IF_ANY)
_of_outbox: Final = _Digest(OutboxMessage, OutboxMessage.SEALED)
_of_old_outbox: Final = _Digest(OutboxMessage, OutboxMessage.SEALED_AT_FIRST)
