"""The outbox: effects owed to each sink once, claimed under a lease."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage import hashing
from storage.bulk import Columns, Delete, Insert, Update, array, instants
from storage.columns import columns_of, table_of
from storage.database import Unit, build_record, values
from storage.errors import EffectOvertaken, LeaseLost, NotFound
from storage.ids import WEBHOOK_PREFIX, is_id, new_id
from storage.tables import DeliveryAttempt, OutboxDeliveredTable, OutboxMessage, OutboxMessageTable, OutboxQueueTable
from storage.types import CLOCK_WAS_WRONG, OutboxStatus
from storage.unreadable_rows import UnreadableRecord, dashed

_table = table_of(OutboxMessage)  #: the view of all messages
_message = table_of(OutboxMessageTable)
_queue = table_of(OutboxQueueTable)
_attempts = table_of(DeliveryAttempt)

_PENDING: Final = f"status = '{OutboxStatus.PENDING.value}'"
#: The same in words that fit no index: a row that is known is looked up, and not searched for among all that wait.
_STILL_PENDING: Final = f"coalesce({_PENDING}, false)"
#: Neither tried nor put off, and all others; each has an index that begins with the sink.
_FIRST_TRY: Final = "is_first"
_NEXT_TRY: Final = "NOT is_first"
_AT_ONCE: Final = 1_000  #: ids that one statement looks for
#: Rows of each kind that one call of `defer_followers` looks at.
FOLLOWERS_BATCH_SIZE: Final = 1_000
_ROW: Final = Columns(table_of(OutboxMessage), columns_of(OutboxMessage))
_CLAIM: Final = Update(_queue, ("lease_ends_at",), ("outbox_id",), more="claim_token = claim_token + 1")
_LEASE: Final = Update(_queue, ("lease_ends_at",), ("outbox_id", "claim_token"), only=_STILL_PENDING)
_KEEP: Final = Update(
    _queue,
    ("status", "attempts", "last_error", "seal", "next_attempt_at", "lease_ends_at"),
    ("outbox_id", "claim_token"),
    more="is_first = false",
    only=_STILL_PENDING,
)
_REMOVE: Final = Delete(_queue, ("outbox_id", "claim_token"), only=_STILL_PENDING)
_DELIVERED: Final = Insert(table_of(OutboxDeliveredTable), ("outbox_id", "attempts", "delivered_at", "seal"))
_ATTEMPT: Final = columns_of(DeliveryAttempt)
_TRY: Final = Insert(table_of(DeliveryAttempt), _ATTEMPT)
_tried: Final = itemgetter(*_ATTEMPT)

_OWED_NAMES: Final = (*OutboxMessage.SEALED, "seal")
_OWE: Final = Insert(_message, _OWED_NAMES)
_owed: Final = itemgetter(*_OWED_NAMES)
#: What the queue has of a message too: its order, and what claims and lists look for.
_COPIED: Final = ("payment_id", "account", "effect", "sink", "number")
_ENQUEUE: Final = Insert(
    _queue,
    ("outbox_id", *_COPIED, "status", "attempts", "seal", "next_attempt_at"),
    {"claim_token": "0", "is_first": "true"},
)
_queued: Final = itemgetter("id", *_COPIED, "status", "attempts", "status_seal", "next_attempt_at")

#: No earlier message to the same sink is owed: about the same payment, or of the same alarm. Earlier by its number,
#: which is given while the payment is held: ids go by the clock of the process that made them.
_EARLIER: Final = (
    f"SELECT 1 FROM outbox_queue AS earlier WHERE earlier.{_PENDING} "  # noqa: S608 - our own names
    "AND earlier.sink = outbox_queue.sink "
    "AND (earlier.number, earlier.outbox_id) < (outbox_queue.number, outbox_queue.outbox_id) AND earlier.payment_id "
)
_IS_FIRST: Final = (
    f"NOT EXISTS ({_EARLIER} = outbox_queue.payment_id) "
    f"AND (payment_id IS NOT NULL OR NOT EXISTS ({_EARLIER} IS NULL "
    "AND earlier.account = outbox_queue.account AND earlier.effect = outbox_queue.effect))"
)


def owe(
    unit: Unit,
    *,
    payment_id: str | None,
    account: str,
    effect: str,
    sink: str,
    occurrence: int,
    cause: str,
    payload: str,
    now: datetime,
    webhook_id: str | None = None,
) -> str | None:
    """Owe the effect to the sink exactly once; return its id, or None if it was owed.

    One that is about an account (`payment_id` is None) is owed once for each cause: an alarm may come again. Without a
    `webhook_id` it travels under its own id, which a restored backup does not give again.
    """
    message = new_message(
        payment_id=payment_id,
        account=account,
        effect=effect,
        sink=sink,
        occurrence=occurrence,
        cause=cause,
        payload=payload,
        now=now,
        webhook_id=webhook_id,
        number=_next_number(unit, payment_id, account, effect),
    )
    _seal(unit, message)
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    if payment_id is None:  # a unique constraint does not see NULL, a unique index over such rows does
        statement = dialect.insert(_message).on_conflict_do_nothing(
            index_elements=["cause", "effect", "sink"], index_where=_message.c.payment_id.is_(None)
        )
    else:
        statement = dialect.insert(_message).on_conflict_do_nothing(
            index_elements=["payment_id", "effect", "sink", "occurrence"]
        )
    done = unit.execute(statement.returning(_message.c.id), values(message, _OWED_NAMES)).scalar()
    if done is None:
        return None
    _ENQUEUE(unit, [_queued(message.__dict__)])
    return message.id


def owe_all(unit: Unit, messages: Sequence[OutboxMessage]) -> None:
    """Seal and insert new messages; IntegrityError where one was owed already."""
    for message in messages:
        _seal(unit, message)
    _OWE(unit, (_owed(message.__dict__) for message in messages))
    _ENQUEUE(unit, (_queued(message.__dict__) for message in messages))


def _seal(unit: Unit, message: OutboxMessage) -> None:
    message.seal = unit.sealer.seal(hashing.outbox_message(message.__dict__))
    message.status_seal = unit.sealer.seal(hashing.outbox_status(message.__dict__))


def new_message(
    *,
    payment_id: str | None,
    account: str,
    effect: str,
    sink: str,
    occurrence: int,
    cause: str,
    payload: str,
    now: datetime,
    webhook_id: str | None,
    number: int,
) -> OutboxMessage:
    """Build an outbox message, ready to be stored and sealed."""
    return build_record(
        OutboxMessage,
        {
            "id": new_id(),
            "payment_id": payment_id,
            "account": account,
            "effect": effect,
            "sink": sink,
            "occurrence": occurrence,
            "cause": cause,
            "payload": payload,
            "created_at": now,
            "status": OutboxStatus.PENDING.value,
            "attempts": 0,
            "next_attempt_at": now,
            "claim_token": 0,
            "webhook_id": webhook_id,
            "number": number,
            "seal": "",
            "status_seal": "",
        },
    )


def _next_number(unit: Unit, payment_id: str | None, account: str, effect: str) -> int:
    """Return the next number; an account's are locked until the unit of work ends."""
    alike = (
        (_message.c.payment_id == payment_id,)
        if payment_id is not None
        else (_message.c.payment_id.is_(None), _message.c.account == account, _message.c.effect == effect)
    )
    if payment_id is None and unit.dialect == "postgresql":
        unit.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"outbox:{account}:{effect}", 0))))
    return int(unit.execute(select(func.coalesce(func.max(_message.c.number), 0)).where(*alike)).scalar_one()) + 1


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """Limits of one claim for one sink."""

    total: int
    retries: int  #: messages that are tried again, while others wait for their first try
    retries_alone: int  #: the same while no other waits


def claim(unit: Unit, now: datetime, lease: timedelta, sink: str, limits: ClaimLimits) -> list[OutboxMessage]:
    """Claim pending messages of the sink that are due, leased to the caller alone.

    What has never been tried comes first; what is tried again has a share beside it, so that neither waits for the
    other. Per payment in order: a message waits while an earlier one to the same sink is pending. One about an account
    waits for its own alarm's earlier ones only, so that its end is never sent before its beginning, and a sink that
    does not take one kind of alarm still receives the others. Rows that cannot be read are set aside, dead, and hold
    up no other.
    """
    mark = _mark(unit)
    return _claim(unit, now, lease, f"sink = {mark}", [sink], limits)


def claim_of_others(
    unit: Unit, now: datetime, lease: timedelta, sinks: Sequence[str], limit: int
) -> list[OutboxMessage]:
    """Claim as `claim` for any sink but these; quick where nothing is owed."""
    marks = ", ".join([_mark(unit)] * len(sinks))
    others = f"sink NOT IN ({marks})" if sinks else "true"
    found = 0
    for condition in (_FIRST_TRY, _NEXT_TRY):  # from one name to the next, whatever is owed to each
        smallest = f"SELECT min(sink) FROM outbox_queue WHERE {_PENDING} AND {condition}"  # noqa: S608 - our own names
        query = (
            f"WITH RECURSIVE known(sink) AS (SELECT ({smallest}) UNION ALL "  # noqa: S608 - our own names
            f"SELECT ({smallest} AND outbox_queue.sink > known.sink) FROM known WHERE known.sink IS NOT NULL) "
            f"SELECT count(*) FROM known WHERE sink IS NOT NULL AND {others}"
        )
        found += unit.rows(query, sinks)[0][0]
    return _claim(unit, now, lease, others, sinks, ClaimLimits(limit, limit, limit)) if found else []


def _claim(
    unit: Unit, now: datetime, lease: timedelta, where: str, given: Sequence[str], limits: ClaimLimits
) -> list[OutboxMessage]:
    # What was never put off is due, whatever the clock says that recorded it.
    first = _due(unit, f"{where} AND {_FIRST_TRY}", given, [], now, limits.total)
    alone = min(limits.retries_alone, limits.total - len(first))
    share = max(min(limits.retries, limits.total), alone)
    at = _at(unit)
    again = _due(unit, f"{where} AND {_NEXT_TRY} AND next_attempt_at <= {at}", given, [now], now, share)
    beyond, left = now + CLOCK_WAS_WRONG, share - len(again)
    again += _due(unit, f"{where} AND {_NEXT_TRY} AND next_attempt_at > {at}", given, [beyond], now, left)
    ids = again + first[: limits.total - len(again)]
    _CLAIM(unit, ((now + lease, each) for each in ids))
    return _claimed(unit, ids)


def _due(unit: Unit, where: str, given: Sequence[str], at: Sequence[datetime], now: datetime, limit: int) -> list[str]:
    """Lock up to `limit` of these messages; return their ids.

    Nobody leases them, and no earlier one holds them up.
    """
    if limit <= 0:
        return []
    is_sqlite = unit.dialect == "sqlite"
    is_free = f"(lease_ends_at IS NULL OR lease_ends_at <= {_at(unit)} OR lease_ends_at > {_at(unit)})"
    query = (
        f"SELECT {'CAST(outbox_id AS BLOB)' if is_sqlite else 'outbox_id::text'} FROM outbox_queue "  # noqa: S608
        f"WHERE {where} AND {_PENDING} AND {is_free} AND {_IS_FIRST} "
        f"ORDER BY next_attempt_at, outbox_id LIMIT {_mark(unit)}"
    )
    if not is_sqlite:
        query += " FOR UPDATE SKIP LOCKED"
    bounds = instants(unit.dialect, [*at, now, now + CLOCK_WAS_WRONG])
    rows = unit.rows(query, [*given, *bounds, limit])
    return _ids_of_sqlite(unit, rows) if is_sqlite else [row[0] for row in rows]


def _ids_of_sqlite(unit: Unit, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the ids, with dashes; set aside what is none."""
    texts = [(raw, raw.decode(errors="replace")) for (raw,) in rows]
    wrong = [raw for raw, text in texts if not is_id(dashed(text))]
    unreadable = [UnreadableRecord("outbox_queue", {"id": raw}, "outbox_id", "is no id") for raw in wrong]
    unit.set_aside(unreadable, [])
    set_aside(unit, unreadable)
    return [dashed(text) for raw, text in texts if raw not in wrong]


def _claimed(unit: Unit, ids: Sequence[str]) -> list[OutboxMessage]:
    """Read messages by their ids, in that order; set aside what cannot be read."""
    if not ids:
        return []
    among, given = "= ANY(%s::uuid[])", array("uuid", ids)
    if unit.dialect == "sqlite":
        among, given = "IN (SELECT value FROM json_each(?))", json.dumps([each.replace("-", "") for each in ids])
    query = f"SELECT {_ROW.expression(unit)} FROM outbox WHERE outbox.id {among}"  # noqa: S608 - our own names
    unreadable: list[UnreadableRecord] = []
    found = {message.id: message for message in _ROW.records(unit, OutboxMessage, query, [given], unreadable)}
    set_aside(unit, unreadable)
    is_sqlite = unit.dialect == "sqlite"
    lost = [each.replace("-", "") if is_sqlite else each for each in ids if each not in found]
    set_aside(unit, [UnreadableRecord("outbox_queue", {"id": raw}, "outbox_id", "names no message") for raw in lost])
    return [found[each] for each in ids if each in found]


def _at(unit: Unit) -> str:
    return "?" if unit.dialect == "sqlite" else "%s::timestamptz"


def _mark(unit: Unit) -> str:
    return "?" if unit.dialect == "sqlite" else "%s"


def defer_followers(unit: Unit, now: datetime, lease: timedelta, sink: str) -> int:
    """Delay messages behind an earlier one of their payment; return how many.

    They are due when that one is.

    Otherwise every claim would pass over them to find what can be delivered. Only those are put off whose earlier
    message is due after the longest lease, and so is not being delivered now. They keep their order by number.
    """
    is_sqlite = unit.dialect == "sqlite"
    at, mark = _at(unit), _mark(unit)
    bounds = instants(unit.dialect, [now, now + lease])
    earlier = f"{_EARLIER.replace('SELECT 1', 'SELECT {}')} = outbox_queue.payment_id"
    due = "coalesce(earlier.lease_ends_at, earlier.next_attempt_at)"
    done, locking = 0, "" if is_sqlite else "FOR UPDATE SKIP LOCKED"
    for condition, given in ((_FIRST_TRY, []), (f"{_NEXT_TRY} AND next_attempt_at <= {at}", bounds[:1])):
        seen = (
            f"SELECT outbox_id FROM outbox_queue WHERE sink = {mark} AND {_PENDING} AND {condition} "  # noqa: S608
            f"ORDER BY next_attempt_at, outbox_id LIMIT {FOLLOWERS_BATCH_SIZE} {locking}"
        )
        done += unit.run(
            f"UPDATE outbox_queue SET next_attempt_at = ({earlier.format(f'max({due})')}), "  # noqa: S608
            "is_first = false, claim_token = CASE WHEN claim_token = 0 THEN 1 ELSE claim_token END "
            f"WHERE outbox_id IN ({seen}) AND EXISTS ({earlier.format('1')} AND {due} > {at})",
            [sink, *given, bounds[1]],
        )
    return done


def set_aside(unit: Unit, unreadable: Sequence[UnreadableRecord]) -> None:
    """Mark unreadable messages dead, by the ids that their rows hold."""
    is_sqlite = unit.dialect == "sqlite"
    where = "CAST(outbox_id AS BLOB) = CAST(? AS BLOB)" if is_sqlite else "outbox_id = %s::uuid"
    for each in unreadable:
        unit.run(
            f"UPDATE outbox_queue SET status = '{OutboxStatus.DEAD.value}', "  # noqa: S608 - our own names
            f"last_error = {'?' if is_sqlite else '%s'} WHERE {_PENDING} AND {where}",
            (each.words, each.raw["id"]),
        )


def postpone(unit: Unit, message: OutboxMessage, until: datetime) -> None:
    """Delay a claimed message whose attempt could not be recorded.

    Another worker's claim is left alone.

    Its last error stays that of its last try, as the audit proves; why it was put off is logged.
    """
    _LEASE(unit, [(until, message.id, message.claim_token)])


def release(unit: Unit, messages: Sequence[OutboxMessage]) -> None:
    """Let go of claimed and untried messages, unless claimed by another since."""
    _LEASE(unit, ((None, m.id, m.claim_token) for m in messages))


@dataclass(frozen=True, slots=True)
class Settlement:
    """The attempt at one claimed message, and its status from then on."""

    message: OutboxMessage
    attempt: DeliveryAttempt
    status: OutboxStatus
    next_attempt_at: datetime


def settle(
    unit: Unit,
    message: OutboxMessage,
    attempt: DeliveryAttempt,
    *,
    status: OutboxStatus,
    next_attempt_at: datetime,
) -> None:
    """Store the attempt and the message's status; raises LeaseLost after a takeover."""
    settle_all(unit, [Settlement(message, attempt, status, next_attempt_at)])


def settle_all(unit: Unit, settlements: Sequence[Settlement]) -> None:
    """Store attempts and statuses; raises LeaseLost where one was claimed since.

    Then nothing of the unit of work may be kept.
    """
    delivered, kept = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for each in settlements:
        message, attempt = each.message, each.attempt
        attempt.id, attempt.outbox_id, attempt.number = new_id(), message.id, message.attempts + 1
        attempt.account = message.account
        attempt.seal = unit.sealer.seal(hashing.attempt(attempt))
        status, is_delivered = each.status.value, each.status is OutboxStatus.DELIVERED
        at = attempt.started_at + timedelta(milliseconds=attempt.duration_ms) if is_delivered else None
        number, error = attempt.number, attempt.error
        after = {"id": message.id, "status": status, "attempts": number, "delivered_at": at, "last_error": error}
        seal = unit.sealer.seal(hashing.outbox_status(after))
        if is_delivered:
            delivered.append((message.id, message.claim_token, number, at, seal))
        else:
            kept.append((status, number, error, seal, each.next_attempt_at, None, message.id, message.claim_token))
    if _REMOVE(unit, (row[:2] for row in delivered)) + _KEEP(unit, kept) != len(settlements):
        raise LeaseLost
    _DELIVERED(unit, ((message_id, *end) for message_id, _, *end in delivered))
    _TRY(unit, (_tried(each.attempt.__dict__) for each in settlements))


def redrive(unit: Unit, message_id: str, now: datetime, *, overtaken: bool = False) -> OutboxMessage:
    """Make the dead message pending with all attempts; raises NotFound if not dead.

    Raises EffectOvertaken where its sink has had a later effect of its payment, unless `overtaken` ones are meant too.
    """
    message = get(unit, message_id)
    is_dead = message.status == OutboxStatus.DEAD
    if is_dead and not overtaken and (later := _later(unit, message, now)) is not None:
        raise EffectOvertaken(
            f"{message.effect} is older than {later.effect}, which {message.sink} "
            f"{'has had' if later.status == OutboxStatus.DELIVERED else 'is being given'} of the same "
            f"{'payment' if message.payment_id else 'account'}: say that overtaken ones are meant too, "
            "if what takes it goes by data.version",
            param="overtaken",
        )
    pending = OutboxStatus.PENDING.value
    seal = unit.sealer.seal(hashing.outbox_status({**message.__dict__, "status": pending}))
    is_dead_still = (_queue.c.status == OutboxStatus.DEAD, _queue.c.attempts == message.attempts)
    done = unit.execute(
        update(_queue)
        .where(_queue.c.outbox_id == message.id, *is_dead_still)
        .values(status=pending, next_attempt_at=now, is_first=False, claim_token=_queue.c.claim_token + 1, seal=seal)
    )
    if done.rowcount != 1:
        raise NotFound(f"no dead outbox message {message_id}", param="message", code="outbox_message_not_dead")
    return get(unit, message.id)


def _later(unit: Unit, message: OutboxMessage, now: datetime) -> OutboxMessage | None:
    """Return later messages that the sink has had or is being given."""
    alike = (
        (_table.c.payment_id == message.payment_id,)
        if message.payment_id is not None
        else (
            _table.c.payment_id.is_(None),
            _table.c.account == message.account,
            _table.c.effect == message.effect,
        )
    )
    is_on_its_way = _table.c.id.in_(
        select(_queue.c.outbox_id).where(_queue.c.status == OutboxStatus.PENDING, _queue.c.lease_ends_at > now)
    )
    query = select(_table).where(
        *alike,
        _table.c.sink == message.sink,
        or_(
            _table.c.number > message.number,
            and_(_table.c.number == message.number, _table.c.id > message.id),
        ),
        or_(_table.c.status == OutboxStatus.DELIVERED, is_on_its_way),
    )
    return unit.first(OutboxMessage, query.order_by(_table.c.number, _table.c.id).limit(1))


def get(unit: Unit, message_id: str) -> OutboxMessage:
    """One message by its own id or the one that it travels under; raises NotFound."""
    found, given = None, message_id.removeprefix(WEBHOOK_PREFIX)
    if is_id(given):
        query = select(_table)
        found = unit.first(OutboxMessage, query.where(_table.c.id == given))
        found = found or unit.first(OutboxMessage, query.where(_table.c.webhook_id == given))
    if found is None:
        raise NotFound(f"no outbox message {message_id}", param="message")
    return found


def of_payment(unit: Unit, payment_id: str) -> list[OutboxMessage]:
    """Everything owed for the payment, in order."""
    query = select(_table).where(_table.c.payment_id == payment_id).order_by(_table.c.number, _table.c.id)
    return unit.all(OutboxMessage, query)


def of_accounts(unit: Unit, *, after: str = "", limit: int = 100) -> list[OutboxMessage]:
    """Return messages about accounts and no payment, after a given id."""
    query = select(_table).where(_table.c.payment_id.is_(None)).order_by(_table.c.id).limit(limit)
    return unit.all(OutboxMessage, query.where(_table.c.id > after) if after else query)


def causes_of(unit: Unit, owed_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Return (cause, id) of the existing messages.

    What is no id at all, as in a tampered row, does not exist.
    """
    ids, found = [owed_id for owed_id in owed_ids if is_id(owed_id)], set[tuple[str, str]]()
    for at in range(0, len(ids), _AT_ONCE):
        few = ids[at : at + _AT_ONCE]
        rows = unit.execute(select(_message.c.cause, _message.c.id).where(_message.c.id.in_(few)))
        found |= {(cause, owed_id) for cause, owed_id in rows}
    return found


def owed_under(unit: Unit, webhook_ids: Sequence[str]) -> set[str]:
    """Those of the ids that travel, or have travelled, with a message."""
    query = select(_message.c.webhook_id).where(_message.c.webhook_id.in_(webhook_ids))
    return {str(found) for found in unit.execute(query).scalars()}


def attempts_of(
    unit: Unit, message_ids: Sequence[str], aside: list[UnreadableRecord] | None = None
) -> list[DeliveryAttempt]:
    """Every try of these messages, in order. Rows that cannot be read go to `aside`."""
    query = select(_attempts).where(_attempts.c.outbox_id.in_(message_ids))
    query = query.order_by(_attempts.c.outbox_id, _attempts.c.number)
    return unit.all(DeliveryAttempt, query, aside)


def find(
    unit: Unit, *, status: str | None = None, sink: str | None = None, after: str = "", limit: int = 100
) -> list[OutboxMessage]:
    """Messages in order of creation after a given id."""
    query = select(_table).order_by(_table.c.id).limit(limit)
    if after:
        query = query.where(_table.c.id > after)
    wanted: tuple[tuple[Any, str | None], ...] = ((_table.c.status, status), (_table.c.sink, sink))
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    return unit.all(OutboxMessage, query)


def depth(unit: Unit) -> dict[str, int]:
    """Count the messages by status."""
    rows = unit.execute(select(_queue.c.status, func.count()).group_by(_queue.c.status))
    found = {str(status): int(number) for status, number in rows}
    delivered: int = unit.execute(select(func.count()).select_from(table_of(OutboxDeliveredTable))).scalar_one()
    return {**found, OutboxStatus.DELIVERED.value: delivered} if delivered else found
