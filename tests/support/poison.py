"""Rows that cannot be read: one for each column of each table, put past every check that would refuse them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Table, insert, text

from storage import columns
from storage.columns import Model, table_of
from storage.database import Database, Unit, values
from storage.ids import new_id
from storage.inbox import new_message
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OutboxMessageTable,
    OutboxQueueTable,
    Payment,
    PaymentPoll,
    RejectedDelivery,
    Transition,
)
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.tables_support import AccountBudget, Hazard, PollPlan, PushQuality, PushWatch, Reconciliation, RetentionRun
from storage.unreadable_rows import kind_of
from tests.support.databases import unguarded

#: Every table that a loop reads rows of.
MODELS: Final[tuple[type[Model], ...]] = (
    InboxMessage,
    QueuedMessage,
    RecordedDecision,
    Payment,
    PaymentPoll,
    OutboxMessageTable,
    DeliveryAttempt,
    Transition,
    RejectedDelivery,
    AccountBudget,
    PollPlan,
    Hazard,
    PushWatch,
    PushQuality,
    Reconciliation,
    RetentionRun,
)

#: On SQLite a column takes anything; on PostgreSQL only what its type holds, which is still more than we can read.
_ON_SQLITE: Final = {
    "uuid": "CAST(x'ff41' AS TEXT)",
    "text": "CAST(x'ff41' AS TEXT)",
    "timestamptz": "'no time'",
    "date": "'no day'",
    "json": "'[1'",
    "integer": "'abc'",
    "bigint": "x'00'",
    "float": "'abc'",
    "bytea": "5",
    "boolean": "'abc'",
}
_ON_POSTGRESQL: Final = {"timestamptz": "'infinity'", "date": "'infinity'", "json": "'\"no list\"'"}
_WORDS: Final = {("inbox_message", "source"), ("decision", "outcome"), ("payment", "phase"), ("transition", "phase")}

#: Of a row that no statement of a loop finds when they are not as they should be.
SELECTED_BY: Final = {
    ("inbox_queue", "status"),
    ("inbox_queue", "available_at"),
    ("payment", "account"),
    ("payment", "poll_priority"),
    ("payment", "provider_ref"),
}


def columns_of(model: type[Model], dialect: str) -> Iterator[tuple[str, str]]:
    """The columns that can be poisoned, each with the expression that does it."""
    table = table_of(model)
    poison = _ON_SQLITE if dialect == "sqlite" else _ON_POSTGRESQL
    for name in columns.columns_of(model):
        kind = kind_of(table, name)
        if kind in poison:
            yield name, poison[kind]
        elif (table.name, name) in _WORDS:
            yield name, "'nonsense'"


def plant(database: Database, account: str, ref: str) -> list[tuple[str, str, str]]:
    """A row of each table for each column that can be poisoned: table, column, and the row's healthy id."""
    planted = []
    with database.write() as unit:
        dialect = unit.dialect
        unguarded(unit)
        for model in MODELS:
            for number, (column, poison) in enumerate(columns_of(model, dialect)):
                row = _healthy(model, account, f"{ref}-{number}", number)
                unit.execute(insert(table_of(model)), [row])
                if model is OutboxMessageTable:
                    unit.execute(insert(table_of(OutboxQueueTable)), [_queued(row)])
                _beside(unit, model, row, account)
                _poison(unit, table_of(model), row, column, poison)
                planted.append((table_of(model).name, column, str(row.get("id", row.get("message_id", "")))))
    return planted


def _queued(message: dict[str, Any]) -> dict[str, Any]:
    copied = {name: message[name] for name in ("payment_id", "account", "effect", "sink", "number")}
    status = {"status": "pending", "attempts": 0, "seal": "", "claim_token": 0, "is_first": True}
    return {**copied, **status, "outbox_id": message["id"], "next_attempt_at": message["created_at"]}


def _beside(unit: Unit, model: type[Model], row: dict[str, Any], account: str) -> None:
    """What belongs to the row: a message waits, and what waits or was decided is a message's."""
    if model is InboxMessage:
        queued = _healthy(QueuedMessage, account, "", 0) | {"message_id": row["id"]}
        unit.execute(insert(table_of(QueuedMessage)), [queued])
    elif model in (QueuedMessage, RecordedDecision):
        message = _healthy(InboxMessage, account, "", 0) | {"id": row["message_id"]}
        unit.execute(insert(table_of(InboxMessage)), [message])


def _poison(unit: Unit, table: Table, row: dict[str, Any], column: str, poison: str) -> None:
    where = [key.name for key in table.primary_key]
    matches = " AND ".join(f"{name} = :{name}" for name in where)
    keys = {name: row[name] for name in where}
    if unit.dialect == "sqlite":
        keys = {
            name: value.replace("-", "") if kind_of(table, name) == "uuid" else value for name, value in keys.items()
        }
        keys = {name: str(value) if kind_of(table, name) == "date" else value for name, value in keys.items()}
    change = f"UPDATE {table.name} SET {column} = {poison} WHERE {matches}"  # noqa: S608 - our own names
    done = unit.execute(text(change), keys)
    assert done.rowcount == 1, (table.name, column)


def _healthy(model: type[Model], account: str, ref: str, number: int) -> dict[str, Any]:
    now = datetime.now(UTC) - timedelta(seconds=5)
    if model is InboxMessage:
        message = new_message(account=account, source="webhook", delivery_key=new_id(), body=b"{}", received_at=now)
        return values(message)
    row: dict[str, Any] = {}
    table = table_of(model)
    for name in columns.columns_of(model):
        column = table.c[name]
        kind = kind_of(table, name)
        if kind == "uuid":
            row[name] = new_id()
        elif column.nullable:
            row[name] = None
        elif kind == "json":
            row[name] = {} if name in {"facts", "lags", "skews", "rhythm", "unverified", "alarms", "counts"} else []
        else:
            row[name] = {"timestamptz": now, "date": now.date(), "bytea": b"{}", "text": "x", "boolean": False}.get(
                kind, 0
            )
    row |= {"account": account} if "account" in row else {}
    row |= {
        Payment: {"kind": "payment_intent", "provider_ref": ref, "phase": "open", "state": "awaiting_payment"},
        OutboxMessageTable: {"effect": "payment.paid", "sink": "shop", "payload": "{}", "number": 1},
        QueuedMessage: {"status": "pending"},
        RecordedDecision: {"outcome": "noted", "reading": 1, "number": 1},
        Transition: {"phase": "open", "number": 1},
        AccountBudget: {"account": f"{account}-{ref}"},
        PollPlan: {"account": f"{account}-{ref}", "stretch": 1.0},
        Hazard: {"kind": ref},
        PushWatch: {"account": f"{account}-{ref}"},
        PushQuality: {"kind": ref},
        Reconciliation: {"status": "failed"},
        RetentionRun: {"rule": "known", "status": "done"},
    }.get(model, {})  # type: ignore[call-overload]
    if model is Payment:
        row["next_poll_at"] = now
        row["poll_priority"] = number % 5
    return {name: value for name, value in row.items() if name in table.c}
