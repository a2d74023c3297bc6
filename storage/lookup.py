"""Finds records by a part of their id, as people copy it."""

from typing import Any

from sqlalchemy import Column, String, cast, func, or_, select

from storage.columns import table_of
from storage.engine import Unit
from storage.tables import InboxMessage, OperatorAction, OutboxMessage, Payment, RejectedDelivery
from storage.tables_api import ApiKey
from storage.tables_asking import Reconciliation
from storage.tables_audit import AuditRun
from storage.tables_console import ConsoleSession

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
