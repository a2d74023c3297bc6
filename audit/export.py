"""Export of the history as JSON lines, which can be checked without this program."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from storage import inbox, outbox, payment_polls, payments, transitions
from storage.columns import reported_name, table_of
from storage.database import Database, Unit, values
from storage.tables import InboxMessage, OutboxMessage, Payment, PaymentPoll, Transition
from storage.tables_inbox import RecordedDecision

_PAGE_SIZE = 200


def export(database: Database, payment_id: str | None = None) -> Iterator[str]:
    """Yield one JSON object a line: rows of one payment, or of everything.

    They are of one snapshot, with digests and bytes. Raises NotFound.

    Each payment is followed by when it was heard of, its messages with their decisions, its transitions and outbox
    messages. Of everything,
    outbox messages about accounts come last, each after the message that caused it.
    """
    with database.read() as unit:
        if payment_id is not None:
            yield from _payment_lines(unit, payment_id)
            return
        after = ""
        while page := payments.find(unit, after=after, limit=_PAGE_SIZE):
            for payment in page:
                yield from _payment_lines(unit, payment.id)
            after = page[-1].id
        yield from _account_lines(unit)


def _account_lines(unit: Unit) -> Iterator[str]:
    after, last_cause = "", ""
    while page := outbox.of_accounts(unit, after=after, limit=_PAGE_SIZE):
        causes = inbox.get_many(unit, [message.cause for message in page])
        for message in page:
            if message.cause != last_cause and message.cause in causes:  # what one message caused stands together
                yield _line(causes[message.cause])
                for decision in inbox.decisions(unit, [message.cause]):
                    yield _line(decision)
            last_cause = message.cause
            yield _line(message)
        after = page[-1].id


def _payment_lines(unit: Unit, payment_id: str) -> Iterator[str]:
    yield _line(payments.get(unit, payment_id))
    yield _line(payment_polls.get(unit, payment_id))
    for message in inbox.of_payment(unit, payment_id):
        yield _line(message)
        for decision in inbox.decisions(unit, [message.id]):
            yield _line(decision)
    for transition in transitions.of_payment(unit, payment_id):
        yield _line(transition)
    for owed in outbox.of_payment(unit, payment_id):
        yield _line(owed)


def _line(record: Payment | PaymentPoll | InboxMessage | RecordedDecision | Transition | OutboxMessage) -> str:
    table = reported_name(table_of(record.__class__))
    names = inbox.SHOWN if isinstance(record, InboxMessage) else None
    return json.dumps({"table": table, **values(record, names)}, default=_json_value, ensure_ascii=False)


def _json_value(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(type(value).__name__)
