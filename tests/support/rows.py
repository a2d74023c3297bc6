"""Rows put straight into the database, each with an id of the instant that it tells: for figures of times gone by."""

from sqlalchemy import insert

from storage.columns import table_of
from storage.database import made, values
from storage.ids import first_id, new_id
from storage.tables import (
    OutboxDeliveredTable,
    OutboxMessage,
    OutboxMessageTable,
    OutboxQueueTable,
    Payment,
    RejectedDelivery,
    Transition,
)
from tests.support.builders import a_poll
from tests.support.clock import START


def id_at(instant):
    """An id of its own that was made at that instant."""
    return first_id(instant)[:14] + "7" + new_id()[15:]


def add(unit, record, **asked):
    """`asked` are columns of when a payment was heard of and is asked about."""
    if isinstance(record, OutboxMessage):
        add_owed(unit, [record])
        return
    unit.execute(insert(table_of(type(record))), [values(record)])
    if isinstance(record, Payment):
        add(unit, a_poll(record, **asked))


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
    return made(
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
    return made(
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
