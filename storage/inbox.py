"""The inbox: recorded once, claimed under a lease, decided, never lost."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, CompoundSelect, func, insert, literal_column, or_, select, union, update
from sqlalchemy.dialects import postgresql, sqlite

from statemachine.phases import Source
from storage import hashing
from storage.columns import table_of
from storage.database import Unit, made, values
from storage.errors import LeaseLost, NotFound
from storage.ids import is_id, new_id
from storage.readable import UnreadableRecord
from storage.tables import InboxMessage, KnownDelivery, MessagePayment, Transition
from storage.types import CLOCK_WAS_WRONG, InboxStatus

_table = table_of(InboxMessage)
_known = table_of(KnownDelivery)
_also = table_of(MessagePayment)
_transitions = table_of(Transition)


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """The id of a recorded message, and whether the inbox held it already."""

    id: str
    is_duplicate: bool = False
    is_variant: bool = False  #: same delivery key, other content: kept as a message of its own


def new_message(
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
    ref: str | None = None,
    http_status: int | None = None,
    about: str | None = None,
    message_id: str | None = None,
) -> InboxMessage:
    """Build a message, ready to be recorded and sealed, with a new id unless given."""
    return made(
        InboxMessage,
        {
            "id": message_id or new_id(),
            "account": account,
            "source": source,
            "delivery_key": delivery_key,
            "body": body,
            "headers": [list(pair) for pair in headers],
            "digest": hashing.body_digest(body),
            "envelope_digest": "",
            "key_id": key_id,
            "received_at": received_at,
            "provider_time": provider_time,
            "kind": kind,
            "ref": ref,
            "http_status": http_status,
            "about": about,
            "available_at": received_at,
            "status": InboxStatus.PENDING.value,
            "attempts": 0,
            "claim_token": 0,
            "outcomes": [],
            "redeliveries": 0,
        },
    )


#: What a message has when it is recorded; the rest is NULL until it is decided or sent again.
_RECORDED = tuple(
    name
    for name in _table.columns.keys()  # noqa: SIM118 - not a dict
    if name
    not in {
        *("last_error", "awaits", "payment_id", "decision", "reason", "decided_at", "decision_digest"),
        *("last_redelivered_at", "scrubbed_at"),
    }
)


def record(unit: Unit, messages: Sequence[InboxMessage]) -> list[Recorded]:
    """Each message is in the inbox exactly once afterwards, in the given order.

    A delivery key that is there already with the same bytes is counted as a redelivery; with other bytes it is kept
    as a variant of the first. A repeat of this call changes nothing but the redelivery counts.
    """
    if not messages:
        return []
    keys = [_key_of(message, message.delivery_key) for message in messages]
    new = set(unit.execute(_insert_or_skip(unit).returning(_known.c.message_id), keys).scalars())
    if new:
        for message in messages:
            message.envelope_digest = unit.sealer.seal(hashing.envelope(message))
        unit.execute(insert(_table), [values(message, _RECORDED) for message in messages if message.id in new])
    return [Recorded(m.id) if m.id in new else _again(unit, m) for m in messages]


def record_unpushed(unit: Unit, messages: Sequence[InboxMessage]) -> int:
    """Record the events of a journal that are not in the inbox yet; return how many.

    One whose delivery key is known came by webhook, whatever its bytes: it is left alone.
    """
    if not messages:
        return 0
    keys = [_key_of(message, message.delivery_key) for message in messages]
    new = set(unit.execute(_insert_or_skip(unit).returning(_known.c.message_id), keys).scalars())
    found = [message for message in messages if message.id in new]
    for message in found:
        message.envelope_digest = unit.sealer.seal(hashing.envelope(message))
    if found:
        unit.execute(insert(_table), [values(message, _RECORDED) for message in found])
    return len(found)


def _key_of(message: InboxMessage, delivery_key: str) -> dict[str, Any]:
    return {
        "account": message.account,
        "delivery_key": delivery_key,
        "message_id": message.id,
        "digest": message.digest,
    }


def _insert_or_skip(unit: Unit) -> Any:
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    return dialect.insert(_known).on_conflict_do_nothing(index_elements=["account", "delivery_key"])


def _again(unit: Unit, message: InboxMessage) -> Recorded:
    first_id, digest = _by_key(unit, message.account, message.delivery_key) or (None, None)
    # the provider's log of events may write an event in other bytes than its webhook has
    is_variant = first_id is not None and digest != message.digest and not _is_logged(unit, first_id)
    if is_variant:
        key = f"{message.delivery_key[:200]}#{message.digest[:32]}"
        variant_id, _ = _by_key(unit, message.account, key) or (None, None)
        if variant_id is None:
            kept = made(InboxMessage, {**values(message), "delivery_key": key, "variant_of": first_id})
            kept.envelope_digest = unit.sealer.seal(hashing.envelope(kept))
            unit.execute(insert(_known), _key_of(kept, key))
            unit.execute(insert(_table), values(kept))
            return Recorded(message.id, is_variant=True)
        first_id = variant_id
    if first_id is None:
        raise LeaseLost("the inbox skipped a message that it does not hold")
    unit.execute(
        update(_table)
        .where(_table.c.id == first_id)
        .values(redeliveries=_table.c.redeliveries + 1, last_redelivered_at=message.received_at)
    )
    return Recorded(first_id, is_duplicate=True, is_variant=is_variant)


def _is_logged(unit: Unit, message_id: str) -> bool:
    """Return whether the message is an event of the provider's journal."""
    query = select(_table.c.source).where(_table.c.id == message_id)
    return unit.execute(query).scalar() == Source.JOURNAL


def _by_key(unit: Unit, account: str, key: str) -> tuple[str, str] | None:
    query = select(_known.c.message_id, _known.c.digest)
    row = unit.execute(query.where(_known.c.account == account, _known.c.delivery_key == key)).first()
    return None if row is None else (row[0], row[1])


def claim(
    unit: Unit,
    now: datetime,
    lease: timedelta,
    limit: int,
    *,
    only: Sequence[str] | None = None,
    aside: list[UnreadableRecord] | None = None,
) -> list[InboxMessage]:
    """Claim up to `limit` pending messages in order of arrival, until the lease ends.

    Each carries a `claim_token` that `finish` and `retry` demand. Rows that cannot be read go to `aside`.
    """
    due = select(_table).where(_table.c.status == InboxStatus.PENDING, _is_due(now)).order_by(_table.c.id).limit(limit)
    if only is not None:
        due = due.where(_table.c.id.in_(only))
    if unit.dialect == "postgresql":
        due = due.with_for_update(skip_locked=True)
    claimed = unit.all(InboxMessage, due, aside)
    if claimed:
        unit.execute(
            update(_table)
            .where(_table.c.id.in_([m.id for m in claimed]))
            .values(available_at=now + lease, claim_token=_table.c.claim_token + 1)
        )
    for message in claimed:
        message.claim_token += 1
    return claimed


def _is_due(now: datetime) -> ColumnElement[bool]:
    """Return the condition of a message that is due, or was never claimed."""
    at = _table.c.available_at
    return or_(at <= now, _table.c.claim_token == 0, at > now + CLOCK_WAS_WRONG)


#: What was decided before stands in `outcomes` and in the history; the message itself is undecided again.
_PENDING_AGAIN: dict[str, Any] = {
    "status": InboxStatus.PENDING,
    "awaits": None,
    "decision": None,
    "reason": None,
    "decided_at": None,
    "decision_digest": None,
}


def replay(unit: Unit, message_id: str, now: datetime) -> InboxMessage:
    """Make the message pending again; raises NotFound. History is not rewritten.

    NotFound also where retention has emptied its body: there is nothing left to be read.
    """
    message = get(unit, message_id)
    done = unit.execute(
        update(_table)
        .where(_table.c.id == message.id, _table.c.scrubbed_at.is_(None))
        .values(**_PENDING_AGAIN, available_at=now, attempts=0, claim_token=_table.c.claim_token + 1)
    )
    if done.rowcount != 1:
        raise NotFound(
            f"the body of message {message_id} is gone by a rule of retention", param="message", code="body_scrubbed"
        )
    return message


def get(unit: Unit, message_id: str) -> InboxMessage:
    """One message; raises NotFound."""
    found = unit.first(InboxMessage, select(_table).where(_table.c.id == message_id)) if is_id(message_id) else None
    if found is None:
        raise NotFound(f"no inbox message {message_id}", param="message")
    return found


def get_many(unit: Unit, message_ids: Sequence[str]) -> dict[str, InboxMessage]:
    """Those of the messages that exist, by id."""
    found = unit.all(InboxMessage, select(_table).where(_table.c.id.in_(message_ids)))
    return {message.id: message for message in found}


def of_payment(unit: Unit, payment_id: str) -> list[InboxMessage]:
    """Every message that was decided about the payment, in order of arrival."""
    query = select(_table).where(_table.c.id.in_(decided_about([payment_id])))
    return unit.all(InboxMessage, query.order_by(_table.c.id))


def decided_about(payment_ids: Sequence[str]) -> CompoundSelect[tuple[str]]:
    """Return ids of messages that were decided about one of the payments.

    The payment need not be the first that the message names.
    """
    return union(
        select(_table.c.id).where(_table.c.payment_id.in_(payment_ids)),
        select(_also.c.message_id).where(_also.c.payment_id.in_(payment_ids)),
    )


def concerning(unit: Unit, payment_id: str) -> list[InboxMessage]:
    """Return every message about the payment in order of arrival.

    It was decided about the payment, changed it, or waits and names it.
    """
    ids = concerning_ids(unit, payment_id)
    return unit.all(InboxMessage, select(_table).where(_table.c.id.in_(ids)).order_by(_table.c.id))


def concerning_ids(unit: Unit, payment_id: str) -> list[str]:
    """Return ids of the messages that `concerning` returns, in order of arrival."""
    ids = (
        select(_table.c.id).where(_table.c.payment_id == payment_id),
        select(_also.c.message_id).where(_also.c.payment_id == payment_id),
        select(_table.c.id).where(_table.c.about == payment_id, _table.c.status == literal_column("'pending'")),
        select(_transitions.c.cause).where(_transitions.c.payment_id == payment_id),
    )
    return sorted(unit.execute(union(*ids)).scalars())


def find(
    unit: Unit,
    *,
    account: str | None = None,
    status: str | None = None,
    source: str | None = None,
    after: str = "",
    limit: int = 100,
) -> list[InboxMessage]:
    """Messages in order of arrival after a given id."""
    query = select(_table).order_by(_table.c.id).limit(limit)
    if after:
        query = query.where(_table.c.id > after)
    for column, wanted in ((_table.c.account, account), (_table.c.status, status), (_table.c.source, source)):
        if wanted is not None:
            query = query.where(column == wanted)
    return unit.all(InboxMessage, query)


def depth(unit: Unit) -> dict[str, int]:
    """Count the messages by status."""
    rows = unit.execute(select(_table.c.status, func.count()).group_by(_table.c.status))
    return {row[0]: row[1] for row in rows}
