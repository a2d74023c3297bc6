"""Rows put straight into the database, each with an id of the instant that it tells: for figures of times gone by."""

from sqlalchemy import insert, text

from storage.columns import table_of
from storage.database import build_record, values
from storage.ids import first_id, new_id
from storage.tables import (
    InboxMessage,
    OutboxDeliveredTable,
    OutboxMessage,
    OutboxMessageTable,
    OutboxQueueTable,
    Payment,
    RejectedDelivery,
    Transition,
)
from storage.tables_inbox import QueuedMessage, RecordedDecision, Redelivery
from tests.support import keeping
from tests.support.builders import a_poll
from tests.support.clock import START


def id_at(instant):
    """An id of its own that was made at that instant."""
    return first_id(instant)[:14] + "7" + new_id()[15:]


def add(unit, record, **asked):
    """Insert the row; of a message also what its status, attempts, decision and redeliveries say.

    `asked` are columns of when a payment was heard of and is asked about.
    """
    if isinstance(record, OutboxMessage):
        add_owed(unit, [record])
        return
    unit.execute(insert(table_of(type(record))), [values(record)])
    if isinstance(record, Payment):
        add(unit, a_poll(record, **asked))
    if not isinstance(record, InboxMessage):
        return
    queued = QueuedMessage(
        message_id=record.id,
        account=record.account,
        status=record.status,
        available_at=record.available_at or record.received_at,
        attempts=record.attempts,
        last_error=record.last_error,
        awaits=record.awaits,
    )
    if record.decision is not None or record.payment_id is not None:
        record.outcomes = record.outcomes or keeping.outcomes_of(record)
        add_decisions(unit, record)
        queued.readings = 1
    if record.status != "decided":
        unit.execute(insert(table_of(QueuedMessage)), [values(queued)])
    if record.redeliveries:
        counted = {name: getattr(record, name) for name in ("account", "redeliveries", "last_redelivered_at")}
        unit.execute(insert(table_of(Redelivery)), [{"message_id": record.id, **counted}])


def put_status(unit, status, only="true", **given):
    """Give these messages the status, past the worker: their rows of the queue say it, or go."""
    chosen = f"SELECT id FROM inbox_message WHERE {only}"  # noqa: S608 - a test's own
    if status == "decided":
        return unit.execute(text(f"DELETE FROM inbox_queue WHERE message_id IN ({chosen})"), given).rowcount  # noqa: S608
    query = (
        "INSERT INTO inbox_queue (message_id, account, status, available_at, attempts, claim_token, readings) "  # noqa: S608
        f"SELECT id, account, :status, received_at, 0, 1, 0 FROM inbox_message WHERE {only} "
        "ON CONFLICT (message_id) DO UPDATE SET status = excluded.status"
    )
    return unit.execute(text(query), {"status": status, **given}).rowcount


def add_decisions(unit, message):
    """Append the message's outcomes, without sealing them."""
    at = message.decided_at or message.received_at
    for number, entry in enumerate(message.outcomes, start=1):
        row = RecordedDecision(
            message_id=message.id,
            reading=1,
            number=number,
            statement=entry.get("number"),
            payment_id=entry.get("payment"),
            at=at,
            outcome=entry["outcome"],
            reason=entry["reason"],
            seal="",
        )
        unit.execute(insert(table_of(RecordedDecision)), [values(row)])


def add_owed(unit, messages):
    """Outbox messages as they are, waiting or delivered, whatever their seals are."""
    message, queue, delivered = map(table_of, (OutboxMessageTable, OutboxQueueTable, OutboxDeliveredTable))
    unit.execute(insert(message), [values(each, message.c.keys()) for each in messages])
    for each in messages:
        ends = {**values(each), "outbox_id": each.id, "seal": each.status_seal or ""}
        if each.status == "delivered":
            at = each.delivered_at or each.next_attempt_at
            unit.execute(insert(delivered), [{**_only(delivered, ends), "delivered_at": at}])
        else:
            is_first = each.next_attempt_at == each.created_at
            unit.execute(insert(queue), [{**_only(queue, ends), "is_first": is_first}])


def _only(table, row):
    return {name: value for name, value in row.items() if name in table.c}


def a_transition(payment, number, phase, at):
    return build_record(
        Transition,
        {
            "payment_id": payment.id,
            "number": number,
            "id": id_at(at),
            "account": payment.account,
            "to_state": f"{phase}-word",
            "phase": phase,
            "via": [],
            "forced": False,
            "cause": new_id(),
            "evidence": "",
            "source": "webhook",
            "reason": "a test",
            "recorded_at": at,
            "prev_hash": "",
            "hash": "",
        },
    )


def an_effect(**changes):
    at = changes.pop("at", START)
    return build_record(
        OutboxMessage,
        {
            "id": id_at(at),
            "payment_id": new_id(),
            "account": "acme",
            "effect": "payment.paid",
            "sink": "shop",
            "occurrence": 0,
            "cause": new_id(),
            "payload": "{}",
            "created_at": at,
            "seal": "",
            "status": "pending",
            "attempts": 0,
            "next_attempt_at": at,
            "claim_token": 0,
            "number": 1,
            **changes,
        },
    )


def a_rejection(**changes):
    at = changes.pop("at", START)
    return RejectedDelivery(
        **(
            {"id": id_at(at), "account": "acme", "received_at": at, "reason": "bad_signature", "client": "192.0.2.1"}
            | {"headers": [], "body": b""}
            | changes
        )
    )
