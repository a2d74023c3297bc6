"""Exports the history as JSON lines that can be checked without this program: rows with their digests and bytes."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from storage import inbox, outbox, payments, transitions
from storage.columns import table_of
from storage.database import Database, Unit, values
from storage.tables import InboxMessage, OutboxMessage, Payment, Transition

_PAGE = 200


def export(database: Database, payment_id: str | None = None) -> Iterator[str]:
    """One JSON object a line: each payment, then its messages, transitions and what it owed. Raises NotFound.

    Of everything, what was owed about accounts comes last, each after the message that caused it.
    """
    with database.read() as unit:
        if payment_id is not None:
            yield from _lines(unit, payment_id)
            return
        after = ""
        while page := payments.find(unit, after=after, limit=_PAGE):
            for payment in page:
                yield from _lines(unit, payment.id)
            after = page[-1].id
        yield from _about_accounts(unit)


def _about_accounts(unit: Unit) -> Iterator[str]:
    after, told = "", ""
    while page := outbox.of_accounts(unit, after=after, limit=_PAGE):
        causes = inbox.get_many(unit, [owed.cause for owed in page])
        for owed in page:
            if owed.cause != told and owed.cause in causes:  # what one message caused stands together
                yield _line(causes[owed.cause])
            told = owed.cause
            yield _line(owed)
        after = page[-1].id


def _lines(unit: Unit, payment_id: str) -> Iterator[str]:
    yield _line(payments.get(unit, payment_id))
    for message in inbox.of_payment(unit, payment_id):
        yield _line(message)
    for transition in transitions.of_payment(unit, payment_id):
        yield _line(transition)
    for owed in outbox.of_payment(unit, payment_id):
        yield _line(owed)


def _line(record: Payment | InboxMessage | Transition | OutboxMessage) -> str:
    table = table_of(record.__class__).name
    return json.dumps({"table": table, **values(record)}, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(type(value).__name__)
