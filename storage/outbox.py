"""The outbox: effects owed to each sink once, claimed under a lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import and_, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from storage import hashing
from storage.bulk import Columns, Insert, Update, instants
from storage.columns import columns_of, table_of
from storage.database import Unit, made, values
from storage.errors import EffectOvertaken, LeaseLost, NotFound
from storage.ids import WEBHOOK_PREFIX, is_id, new_id
from storage.readable import UnreadableRecord
from storage.tables import DeliveryAttempt, OutboxMessage
from storage.types import CLOCK_WAS_WRONG, OutboxStatus

_table = table_of(OutboxMessage)
_attempts = table_of(DeliveryAttempt)

_PENDING: Final = f"status = '{OutboxStatus.PENDING.value}'"
#: The same in words that fit no index: a row that is known is looked up, and not searched for among all that wait.
_STILL_PENDING: Final = f"coalesce({_PENDING}, false)"
#: Never claimed nor put off, and all others; each has an index that begins with the sink.
_FIRST_TRY: Final = "claim_token = 0"
_NEXT_TRY: Final = "claim_token > 0"
_AT_ONCE: Final = 1_000  #: ids that one statement looks for
#: Rows of each kind that one call of `defer_followers` looks at.
FOLLOWERS_BATCH_SIZE: Final = 1_000
_ROW: Final = Columns(table_of(OutboxMessage), columns_of(OutboxMessage))
_CLAIM: Final = Update(table_of(OutboxMessage), ("next_attempt_at", "claim_token"), ("id",))
_RELEASE: Final = Update(table_of(OutboxMessage), ("next_attempt_at",), ("id", "claim_token"), only=_STILL_PENDING)
_SETTLE: Final = Update(
    table_of(OutboxMessage),
    ("status", "attempts", "next_attempt_at", "last_error", "delivered_at", "seal"),
    ("id", "claim_token"),
    only=_STILL_PENDING,
)
_ATTEMPT: Final = columns_of(DeliveryAttempt)
_TRY: Final = Insert(table_of(DeliveryAttempt), _ATTEMPT)
_tried: Final = itemgetter(*_ATTEMPT)

#: No earlier message to the same sink is owed: about the same payment, or of the same alarm. Earlier by its number,
#: which is given while the payment is held: ids go by the clock of the process that made them.
_EARLIER: Final = (
    f"SELECT 1 FROM outbox_message AS earlier WHERE earlier.{_PENDING} "  # noqa: S608 - our own names
    "AND earlier.sink = outbox_message.sink "
    "AND (earlier.number, earlier.id) < (outbox_message.number, outbox_message.id) AND earlier.payment_id "
)
_IS_FIRST: Final = (
    f"NOT EXISTS ({_EARLIER} = outbox_message.payment_id) "
    f"AND (payment_id IS NOT NULL OR NOT EXISTS ({_EARLIER} IS NULL "
    "AND earlier.account = outbox_message.account AND earlier.effect = outbox_message.effect))"
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
    message.seal = unit.sealer.seal(hashing.owed(message.__dict__))
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    if payment_id is None:  # a unique constraint does not see NULL, a unique index over such rows does
        statement = dialect.insert(_table).on_conflict_do_nothing(
            index_elements=["cause", "effect", "sink"], index_where=_table.c.payment_id.is_(None)
        )
    else:
        statement = dialect.insert(_table).on_conflict_do_nothing(
            index_elements=["payment_id", "effect", "sink", "occurrence"]
        )
    done = unit.execute(statement.returning(_table.c.id), values(message)).scalar()
    return None if done is None else message.id


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
    return made(
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
        },
    )


def _next_number(unit: Unit, payment_id: str | None, account: str, effect: str) -> int:
    """Return the next number; an account's are locked until the unit of work ends."""
    alike = (
        (_table.c.payment_id == payment_id,)
        if payment_id is not None
        else (_table.c.payment_id.is_(None), _table.c.account == account, _table.c.effect == effect)
    )
    if payment_id is None and unit.dialect == "postgresql":
        unit.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"outbox:{account}:{effect}", 0))))
    return int(unit.execute(select(func.coalesce(func.max(_table.c.number), 0)).where(*alike)).scalar_one()) + 1


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
        smallest = f"SELECT min(sink) FROM outbox_message WHERE {_PENDING} AND {condition}"  # noqa: S608 - our own names
        query = (
            f"WITH RECURSIVE known(sink) AS (SELECT ({smallest}) UNION ALL "  # noqa: S608 - our own names
            f"SELECT ({smallest} AND outbox_message.sink > known.sink) FROM known WHERE known.sink IS NOT NULL) "
            f"SELECT count(*) FROM known WHERE sink IS NOT NULL AND {others}"
        )
        found += unit.rows(query, sinks)[0][0]
    return _claim(unit, now, lease, others, sinks, ClaimLimits(limit, limit, limit)) if found else []


def _claim(
    unit: Unit, now: datetime, lease: timedelta, where: str, given: Sequence[str], limits: ClaimLimits
) -> list[OutboxMessage]:
    # A token of 0 is new, whatever the clock says that recorded it.
    first = _due(unit, f"{where} AND {_FIRST_TRY}", given, [], limits.total)
    alone = min(limits.retries_alone, limits.total - len(first))
    share = max(min(limits.retries, limits.total), alone)
    at = "?" if unit.dialect == "sqlite" else "%s::timestamptz"
    again = _due(unit, f"{where} AND {_NEXT_TRY} AND next_attempt_at <= {at}", given, [now], share)
    left = share - len(again)
    again += _due(unit, f"{where} AND {_NEXT_TRY} AND next_attempt_at > {at}", given, [now + CLOCK_WAS_WRONG], left)
    claimed = again + first[: limits.total - len(again)]
    for message in claimed:
        message.claim_token += 1
        message.next_attempt_at = now + lease
    _CLAIM(unit, ((m.next_attempt_at, m.claim_token, m.id) for m in claimed))
    return claimed


def _due(unit: Unit, where: str, given: Sequence[str], at: Sequence[datetime], limit: int) -> list[OutboxMessage]:
    """Lock up to `limit` of these messages that no earlier one holds up."""
    if limit <= 0:
        return []
    query = (
        f"SELECT {_ROW.expression(unit)} FROM outbox_message WHERE {where} AND {_PENDING} AND {_IS_FIRST} "  # noqa: S608
        f"ORDER BY outbox_message.next_attempt_at, outbox_message.id LIMIT {_mark(unit)}"
    )
    if unit.dialect != "sqlite":
        query += " FOR UPDATE SKIP LOCKED"
    unreadable: list[UnreadableRecord] = []
    found = _ROW.records(unit, OutboxMessage, query, [*given, *instants(unit.dialect, at), limit], unreadable)
    set_aside(unit, unreadable)
    return found


def _mark(unit: Unit) -> str:
    return "?" if unit.dialect == "sqlite" else "%s"


def defer_followers(unit: Unit, now: datetime, lease: timedelta, sink: str) -> int:
    """Delay messages behind an earlier one of their payment; return how many.

    They are due when that one is.

    Otherwise every claim would pass over them to find what can be delivered. Only those are put off whose earlier
    message is due after the longest lease, and so is not being delivered now. They keep their order by number.
    """
    is_sqlite = unit.dialect == "sqlite"
    at, mark = ("?", "?") if is_sqlite else ("%s::timestamptz", "%s")
    bounds = instants(unit.dialect, [now, now + lease])
    earlier = f"{_EARLIER.replace('SELECT 1', 'SELECT {}')} = outbox_message.payment_id"
    done = 0
    for condition, given in ((_FIRST_TRY, []), (f"{_NEXT_TRY} AND next_attempt_at <= {at}", bounds[:1])):
        seen = (
            f"SELECT id FROM outbox_message WHERE sink = {mark} AND {_PENDING} AND {condition} "  # noqa: S608
            f"ORDER BY next_attempt_at, id LIMIT {FOLLOWERS_BATCH_SIZE}{'' if is_sqlite else ' FOR UPDATE SKIP LOCKED'}"
        )
        done += unit.run(
            f"UPDATE outbox_message SET next_attempt_at = ({earlier.format('max(earlier.next_attempt_at)')}), "  # noqa: S608
            f"claim_token = CASE WHEN claim_token = 0 THEN 1 ELSE claim_token END "
            f"WHERE id IN ({seen}) AND EXISTS ({earlier.format('1')} AND earlier.next_attempt_at > {at})",
            [sink, *given, bounds[1]],
        )
    return done


def set_aside(unit: Unit, unreadable: Sequence[UnreadableRecord]) -> None:
    """Mark unreadable messages dead, by the ids that their rows hold."""
    is_sqlite = unit.dialect == "sqlite"
    where = "CAST(id AS BLOB) = CAST(? AS BLOB)" if is_sqlite else "id = %s::uuid"
    for each in unreadable:
        unit.run(
            f"UPDATE outbox_message SET status = '{OutboxStatus.DEAD.value}', "  # noqa: S608 - our own names
            f"last_error = {'?' if is_sqlite else '%s'} WHERE {_PENDING} AND {where}",
            (each.words, each.raw["id"]),
        )


def put_off(unit: Unit, message: OutboxMessage, until: datetime) -> None:
    """Delay a claimed message whose attempt could not be recorded.

    Another worker's claim is left alone.

    Its last error stays that of its last try, as the audit proves; why it was put off is logged.
    """
    unit.execute(
        update(_table)
        .where(_table.c.id == message.id, _table.c.claim_token == message.claim_token)
        .values(next_attempt_at=until)
    )


def release(unit: Unit, messages: Sequence[OutboxMessage], now: datetime) -> None:
    """Make claimed and untried messages due at once, unless claimed by another since."""
    _RELEASE(unit, ((now, m.id, m.claim_token) for m in messages))


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
    for each in settlements:
        message, attempt = each.message, each.attempt
        attempt.id, attempt.outbox_id, attempt.number = new_id(), message.id, message.attempts + 1
        attempt.account = message.account
        attempt.seal = unit.sealer.seal(hashing.attempt(attempt))
    if _SETTLE(unit, [_settled(unit, each) for each in settlements]) != len(settlements):
        raise LeaseLost
    _TRY(unit, (_tried(each.attempt.__dict__) for each in settlements))


def _settled(unit: Unit, each: Settlement) -> tuple[Any, ...]:
    attempt, is_delivered = each.attempt, each.status is OutboxStatus.DELIVERED
    delivered_at = attempt.started_at + timedelta(milliseconds=attempt.duration_ms) if is_delivered else None
    status, error = each.status.value, attempt.error
    after = {"status": status, "attempts": attempt.number, "last_error": error, "delivered_at": delivered_at}
    seal = unit.sealer.seal(hashing.owed({**each.message.__dict__, **after}))
    moved = (status, attempt.number, each.next_attempt_at, error, delivered_at, seal)
    return (*moved, each.message.id, each.message.claim_token)


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
    seal = unit.sealer.seal(hashing.owed({**message.__dict__, "status": pending}))
    done = unit.execute(
        update(_table)
        .where(_table.c.id == message.id, _table.c.status == OutboxStatus.DEAD, _table.c.attempts == message.attempts)
        .values(status=pending, next_attempt_at=now, claim_token=_table.c.claim_token + 1, seal=seal)
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
    is_on_its_way = and_(
        _table.c.status == OutboxStatus.PENDING,
        _table.c.claim_token > _table.c.attempts,  # claimed and not settled yet, or put off behind an earlier one
        _table.c.next_attempt_at > now,
        text(_IS_FIRST),
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
        rows = unit.execute(select(_table.c.cause, _table.c.id).where(_table.c.id.in_(few)))
        found |= {(cause, owed_id) for cause, owed_id in rows}
    return found


def owed_under(unit: Unit, webhook_ids: Sequence[str]) -> set[str]:
    """Those of the ids that travel, or have travelled, with a message."""
    query = select(_table.c.webhook_id).where(_table.c.webhook_id.in_(webhook_ids))
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
    rows = unit.execute(select(_table.c.status, func.count()).group_by(_table.c.status))
    return {row[0]: row[1] for row in rows}
