"""The inbox: recorded once, never changed, queued, claimed, decided, never lost."""

import secrets
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    case,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    union,
)
from sqlalchemy.dialects import postgresql, sqlite

from statemachine.phases import BY_WEIGHT, Outcome, Source
from storage import batches, hashing
from storage.columns import table_of
from storage.database import Unit, build_record, values
from storage.errors import LeaseLost, NotFound
from storage.ids import is_id, new_id
from storage.tables import InboxMessage, KnownDelivery, Transition
from storage.tables_inbox import QueuedMessage, RecordedDecision, Redelivery
from storage.types import InboxStatus

_table = table_of(InboxMessage)
_queue = table_of(QueuedMessage)
_decision = table_of(RecordedDecision)
_redelivery = table_of(Redelivery)
_known = table_of(KnownDelivery)
_transitions = table_of(Transition)


def weight_of(outcome: ColumnElement[str]) -> ColumnElement[int]:
    """Return the weight of an outcome; the smallest of a reading is its decision."""
    weights = ((outcome == each.value, at) for at, each in enumerate(BY_WEIGHT))
    return case(*weights, else_=len(BY_WEIGHT))


def _whole() -> Subquery:
    """Join the messages with queue, newest decisions and redeliveries."""
    of_message, said = _decision.alias("of_message"), _decision.alias("said")
    reading = select(func.max(of_message.c.reading)).where(of_message.c.message_id == _table.c.id)
    same = _decision.alias("of_reading")
    newest = select(same.c.number).where(same.c.message_id == said.c.message_id, same.c.reading == said.c.reading)
    newest = newest.order_by(weight_of(same.c.outcome), same.c.number).limit(1)
    payment = select(of_message.c.payment_id).where(of_message.c.message_id == _table.c.id)
    payment = payment.where(of_message.c.payment_id.is_not(None))
    payment = payment.order_by(of_message.c.reading.desc(), of_message.c.number).limit(1)
    is_done = or_(_queue.c.status.is_(None), _queue.c.status != InboxStatus.PENDING.value)

    def unless_pending(told: Any) -> Any:
        return case((is_done, told))

    dead = case((_queue.c.status == InboxStatus.DEAD.value, literal(Outcome.PARKED.value)))
    columns = (
        *_table.c,
        func.coalesce(_queue.c.status, literal(InboxStatus.DECIDED.value)).label("status"),
        func.coalesce(_queue.c.attempts, 0).label("attempts"),
        _queue.c.available_at,
        func.coalesce(_queue.c.claim_token, 0).label("claim_token"),
        func.coalesce(_queue.c.readings, 0).label("readings"),
        _queue.c.last_error,
        _queue.c.awaits,
        payment.scalar_subquery().label("payment_id"),
        unless_pending(func.coalesce(said.c.outcome, dead)).label("decision"),
        unless_pending(func.coalesce(said.c.reason, _queue.c.last_error)).label("reason"),
        unless_pending(said.c.at).label("decided_at"),
        func.coalesce(_redelivery.c.redeliveries, 0).label("redeliveries"),
        _redelivery.c.last_redelivered_at,
    )
    beside = _table.outerjoin(_queue, _queue.c.message_id == _table.c.id)
    beside = beside.outerjoin(_redelivery, _redelivery.c.message_id == _table.c.id)
    is_newest = (said.c.reading == reading.scalar_subquery(), said.c.number == newest.scalar_subquery())
    beside = beside.outerjoin(said, and_(said.c.message_id == _table.c.id, *is_newest))
    return select(*columns).select_from(beside).subquery("inbox_message")


#: Messages as they are read, each with its status, newest decision and redeliveries; all but `outcomes`.
WHOLE: Final = _whole()


#: What is shown of a message; the rest is for workers.
SHOWN: Final = tuple(each.name for each in fields(InboxMessage) if each.name != "readings")


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
    return build_record(
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
            "outcomes": [],
        },
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
        _add(unit, [message for message in messages if message.id in new])
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
        _add(unit, found)
    return len(found)


def _add(unit: Unit, messages: Sequence[InboxMessage]) -> None:
    """Insert sealed messages, each with its row of the queue."""
    unit.execute(insert(_table), [values(message) for message in messages])
    queued = [
        QueuedMessage(message_id=message.id, account=message.account, available_at=message.received_at)
        for message in messages
    ]
    unit.execute(insert(_queue), [values(row) for row in queued])


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
            kept = build_record(
                InboxMessage, {**values(message), "delivery_key": key, "variant_of": first_id, "outcomes": []}
            )
            kept.envelope_digest = unit.sealer.seal(hashing.envelope(kept))
            unit.execute(insert(_known), _key_of(kept, key))
            _add(unit, [kept])
            return Recorded(message.id, is_variant=True)
        first_id = variant_id
    if first_id is None:
        raise LeaseLost("the inbox skipped a message that it does not hold")
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    counted = dialect.insert(_redelivery).values(
        message_id=first_id, account=message.account, redeliveries=1, last_redelivered_at=message.received_at
    )
    changes = {"redeliveries": _redelivery.c.redeliveries + 1, "last_redelivered_at": message.received_at}
    unit.execute(counted.on_conflict_do_update(index_elements=["message_id"], set_=changes))
    return Recorded(first_id, is_duplicate=True, is_variant=is_variant)


def _is_logged(unit: Unit, message_id: str) -> bool:
    """Return whether the message is an event of the provider's journal."""
    query = select(_table.c.source).where(_table.c.id == message_id)
    return unit.execute(query).scalar() == Source.JOURNAL


def _by_key(unit: Unit, account: str, key: str) -> tuple[str, str] | None:
    query = select(_known.c.message_id, _known.c.digest)
    row = unit.execute(query.where(_known.c.account == account, _known.c.delivery_key == key)).first()
    return None if row is None else (row[0], row[1])


def id_of_key(unit: Unit, account: str, key: str) -> str | None:
    """Return the id of the message that has this delivery key; None for none."""
    found = _by_key(unit, account, key)
    return None if found is None else found[0]


def claim(
    unit: Unit, now: datetime, lease: timedelta, limit: int, *, only: Sequence[str] | None = None
) -> list[InboxMessage]:
    """Claim up to `limit` pending messages in order of arrival, until the lease ends.

    Each carries a `claim_token` that `finish` and `postpone` demand. Rows that cannot be read are set aside, dead.
    """
    claimed = batches.due(unit, now, limit, only=only)
    batches.lease(unit, claimed, now + lease)
    return claimed


def replay(unit: Unit, message_id: str, now: datetime) -> InboxMessage:
    """Make the message pending again; raises NotFound. History is not rewritten.

    NotFound also where retention has emptied its body: there is nothing left to be read.
    """
    message = get(unit, message_id)
    held = select(_table.c.scrubbed_at).where(_table.c.id == message.id)  # scrubbing waits for the same lock
    if unit.execute(held.with_for_update() if unit.dialect == "postgresql" else held).scalar() is not None:
        raise NotFound(
            f"the body of message {message_id} is gone by a rule of retention", param="message", code="body_scrubbed"
        )
    last = select(func.max(_decision.c.reading)).where(_decision.c.message_id == message.id)
    again = QueuedMessage(
        message_id=message.id,
        account=message.account,
        available_at=now,
        claim_token=1 + secrets.randbelow(_TOKENS),  # none that a worker may hold of the row before
        readings=unit.execute(last).scalar() or 0,
    )
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    changes = {
        "status": InboxStatus.PENDING.value,
        "awaits": None,
        "available_at": now,
        "attempts": 0,
        "claim_token": _queue.c.claim_token + 1,
    }
    queued = dialect.insert(_queue).values(values(again))
    unit.execute(queued.on_conflict_do_update(index_elements=["message_id"], set_=changes))
    return message


_TOKENS: Final = 2**30


def get(unit: Unit, message_id: str) -> InboxMessage:
    """One message; raises NotFound."""
    query = select(WHOLE).where(WHOLE.c.id == message_id)
    found = unit.first(InboxMessage, query) if is_id(message_id) else None
    if found is None:
        raise NotFound(f"no inbox message {message_id}", param="message")
    return with_outcomes(unit, [found])[0]


def get_many(unit: Unit, message_ids: Sequence[str]) -> dict[str, InboxMessage]:
    """Those of the messages that exist, by id."""
    found = _read(unit, select(WHOLE).where(WHOLE.c.id.in_(message_ids)))
    return {message.id: message for message in found}


def _read(unit: Unit, query: Select[Any]) -> list[InboxMessage]:
    return with_outcomes(unit, unit.all(InboxMessage, query))


#: Messages whose decisions one statement reads: both databases bound its parameters.
_IDS_PER_STATEMENT: Final = 1_000


def with_outcomes(unit: Unit, messages: list[InboxMessage]) -> list[InboxMessage]:
    """Add to each message of `WHOLE` what was decided about it, in order."""
    for message in messages:
        message.outcomes = []
    by_id = {message.id: message for message in messages}
    ids = list(by_id)
    for at in range(0, len(ids), _IDS_PER_STATEMENT):
        for row in decisions(unit, ids[at : at + _IDS_PER_STATEMENT]):
            by_id[row.message_id].outcomes.append(entry(row))
    return messages


def decisions(unit: Unit, message_ids: Sequence[str]) -> list[RecordedDecision]:
    """Return every decision about the messages, in order by message."""
    query = select(_decision).where(_decision.c.message_id.in_(message_ids))
    return unit.all(RecordedDecision, query.order_by(_decision.c.message_id, _decision.c.reading, _decision.c.number))


def entry(row: RecordedDecision) -> dict[str, Any]:
    """Return the decision as one of a message's `outcomes`."""
    found: dict[str, Any] = {"outcome": row.outcome, "reason": row.reason, "at": row.at.isoformat()}
    if row.payment_id is not None:
        found["payment"] = row.payment_id
    if row.statement is not None:
        found["number"] = row.statement
    return {**found, **(row.details or {}), **found}


def of_payment(unit: Unit, payment_id: str) -> list[InboxMessage]:
    """Every message that was decided about the payment, in order of arrival."""
    query = select(WHOLE).where(WHOLE.c.id.in_(decided_about([payment_id])))
    return _read(unit, query.order_by(WHOLE.c.id))


def decided_about(payment_ids: Sequence[str]) -> Select[tuple[str]]:
    """Return ids of messages that were decided about one of the payments.

    The payment need not be the first that the message names.
    """
    return select(_decision.c.message_id).where(_decision.c.payment_id.in_(payment_ids))


def concerning(unit: Unit, payment_id: str) -> list[InboxMessage]:
    """Return every message about the payment in order of arrival.

    It was decided about the payment, changed it, or waits and names it.
    """
    ids = concerning_ids(unit, payment_id)
    return _read(unit, select(WHOLE).where(WHOLE.c.id.in_(ids)).order_by(WHOLE.c.id))


def concerning_ids(unit: Unit, payment_id: str) -> list[str]:
    """Return ids of the messages that `concerning` returns, in order of arrival."""
    return sorted(unit.execute(union(*about(payment_id))).scalars())


def about(payment_id: str) -> tuple[Select[Any], ...]:
    """Select ids of messages that were decided about the payment or changed it.

    Also of those that name it and wait. The status stands in the statement, so that SQLite sees that its partial index
    has them.
    """
    waits = _queue.c.status == literal_column("'pending'")
    return (
        decided_about([payment_id]),
        select(_queue.c.message_id)
        .join(_table, _table.c.id == _queue.c.message_id)
        .where(_table.c.about == payment_id, waits),
        select(_transitions.c.cause).where(_transitions.c.payment_id == payment_id),
    )


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
    query = select(WHOLE).order_by(WHOLE.c.id).limit(limit)
    if after:
        query = query.where(WHOLE.c.id > after)
    for column, wanted in ((WHOLE.c.account, account), (WHOLE.c.status, status), (WHOLE.c.source, source)):
        if wanted is not None:
            query = query.where(column == wanted)
    return _read(unit, query)


def depth(unit: Unit) -> dict[str, int]:
    """Count the messages by status."""
    rows = unit.execute(select(_queue.c.status, func.count()).group_by(_queue.c.status))
    found = {row[0]: row[1] for row in rows}
    decided = unit.execute(select(func.count()).select_from(_table)).scalar_one() - sum(found.values())
    return {**found, InboxStatus.DECIDED.value: decided} if decided else found
