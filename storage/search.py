"""Search by an id, the provider's name for something, or the merchant's own reference."""

from typing import Any, Final

from sqlalchemy import Column, ColumnElement, String, cast, func, or_, select

from statemachine.names import is_line
from storage.columns import table_of
from storage.database import Unit
from storage.ids import WEBHOOK_PREFIX, is_id
from storage.tables import (
    InboxMessage,
    KnownDelivery,
    MessagePayment,
    OperatorAction,
    OutboxMessage,
    Payment,
    RejectedDelivery,
)
from storage.tables_support import ApiKey, AuditRun, ConsoleSession, Reconciliation

_payment = table_of(Payment)
_inbox = table_of(InboxMessage)
_outbox = table_of(OutboxMessage)
_action = table_of(OperatorAction)
_also = table_of(MessagePayment)
_known = table_of(KnownDelivery)

#: Rows that one search finds at most, the newest first.
MOST: Final = 1_000

#: Longer than any value that is searched.
_MAX_NAME_CHARS: Final = 255


def payment_ids(unit: Unit, words: str) -> list[str]:
    """Payments of that id, provider's name, alias or reference."""
    if not _is_kept(words):
        return []
    found = set(whole_id(words))
    known = places(unit)
    names = _spellings(words)
    for account in {account for account, _ in known}:
        found |= _ids(unit, _payment.c.id, _payment.c.account == account, _payment.c.alias.in_(names))
    for account, kind in known:
        place = (_payment.c.account == account) & (_payment.c.kind == kind)
        for column in (_payment.c.provider_ref, _payment.c.reference):
            found |= _ids(unit, _payment.c.id, place, column.in_(names))
    return sorted(found, reverse=True)[:MOST]


def message_ids(unit: Unit, words: str) -> list[str]:
    """Inbox messages of that id or delivery key, and those about the payments that are found by it."""
    return _about(unit, _inbox, words, _delivered(unit, words))


def owed_ids(unit: Unit, words: str) -> list[str]:
    """Outbox messages of that id, of that `webhook-id`, and those about the payments that are found by it."""
    travels_as = words.removeprefix(WEBHOOK_PREFIX)
    named = _ids(unit, _outbox.c.id, _outbox.c.webhook_id == travels_as) if is_id(travels_as) else set()
    return _about(unit, _outbox, words, named | set(whole_id(travels_as)))


def action_ids(unit: Unit, words: str) -> list[str]:
    """What people did about the thing of that id."""
    if not _is_kept(words):
        return []
    return sorted(_ids(unit, _action.c.id, _action.c.subject.in_(_spellings(words))), reverse=True)


def whole_id(words: str) -> list[str]:
    """The id that it is, or none."""
    word = words.strip().lower()
    return [word] if is_id(word) else []


def places(unit: Unit) -> list[tuple[str, str]]:
    """The accounts and kinds of which there are payments; each takes one step down an index."""
    found: list[tuple[str, str]] = []
    while (place := _place_after(unit, found[-1] if found else None)) is not None:
        found.append(place)
    return found


def _place_after(unit: Unit, place: tuple[str, str] | None) -> tuple[str, str] | None:
    """Of the same account first: two pairs that are compared are more than SQLite looks for in an index."""
    columns = (_payment.c.account, _payment.c.kind)
    query = select(*columns).order_by(*columns).limit(1)
    if place is None:
        wanted = [query]
    else:
        is_next = (_payment.c.account == place[0], _payment.c.kind > place[1])
        wanted = [query.where(*is_next), query.where(_payment.c.account > place[0])]
    rows = (unit.execute(each).first() for each in wanted)
    return next(((row[0], row[1]) for row in rows if row is not None), None)


def _about(unit: Unit, table: Any, words: str, found: set[str]) -> list[str]:
    if not _is_kept(words):
        return []
    about = payment_ids(unit, words)
    found = {*found, *whole_id(words), *_ids(unit, table.c.id, table.c.payment_id.in_(about))}
    if table is _inbox:
        found |= _ids(unit, _also.c.message_id, _also.c.payment_id.in_(about))
    return sorted(found, reverse=True)[:MOST]


def _delivered(unit: Unit, words: str) -> set[str]:
    if not _is_kept(words):
        return set()
    return {
        each
        for account in _delivering(unit)
        for each in _ids(
            unit, _known.c.message_id, _known.c.account == account, _known.c.delivery_key.in_(_spellings(words))
        )
    }


def _delivering(unit: Unit) -> list[str]:
    """The accounts of which there are messages."""
    found: list[str] = []
    while True:
        query = select(_known.c.account).where(_known.c.account > (found[-1] if found else ""))
        account = unit.execute(query.order_by(_known.c.account).limit(1)).scalar()
        if account is None:
            return found
        found.append(account)


def _ids(unit: Unit, column: Any, *conditions: ColumnElement[bool]) -> set[str]:
    return {str(found) for found in unit.execute(select(column).where(*conditions).limit(MOST)).scalars()}


def _spellings(words: str) -> list[str]:
    """As it was typed and without the blanks around it: they may be the name's, or come of copying it."""
    return sorted({words, words.strip()})


def _is_kept(words: str) -> bool:
    """Whether a column may hold it at all: PostgreSQL refuses what no text may have, and so would say no more."""
    return bool(words) and is_line(words, _MAX_NAME_CHARS)


Found = (
    Payment
    | InboxMessage
    | OutboxMessage
    | RejectedDelivery
    | Reconciliation
    | ApiKey
    | ConsoleSession
    | OperatorAction
    | AuditRun
)

_WHOLE = 32  #: hexadecimal digits of a UUID


def ids_with(unit: Unit, model: type[Found], part: str, *, limit: int) -> list[str]:
    """Up to `limit` ids, in order, that are, begin with or end with these lower-case hexadecimal digits, no dashes."""
    column = table_of(model).c.id
    if len(part) == _WHOLE:
        query = select(column).where(or_(*(each == part for each in _whole_names(model))))
    else:
        digits = [func.replace(cast(each, String), "-", "") for each in _whole_names(model)]
        begins = (each.startswith(part, autoescape=True) for each in digits)
        ends = (each.endswith(part, autoescape=True) for each in digits)
        query = select(column).where(or_(*begins, *ends))
    return list(unit.execute(query.order_by(column).limit(limit)).scalars())


def _whole_names(model: type[Found]) -> list[Column[Any]]:
    """The columns that a whole id may stand in: an effect has the id that sinks are given, too."""
    columns = table_of(model).c
    return [columns.id, columns.webhook_id] if model is OutboxMessage else [columns.id]
