"""Rows for the tables of the console."""

from storage import inbox, outbox, quarantine
from storage.ids import new_id
from storage.operator_actions import note
from storage.tables import RejectedDelivery
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.rows import put_status


def write(console, do):
    """Done in one commit."""
    with console.service.database.write() as unit:
        return do(unit)


def paying(console, **columns):
    """A payment that exists here alone."""
    payment = a_payment(**{"account": "payfield", "kind": "payin", "amount_minor": 450, "currency": "BDT", **columns})
    write(console, lambda unit: keeping.keep(unit, payment))
    return payment


def told(console, status="decided", **columns):
    """A message in that status."""
    message = a_message(account="payfield", **columns)
    write(console, lambda unit: inbox.record(unit, [message]))
    write(console, lambda unit: put_status(unit, status, "delivery_key = :key", key=message.delivery_key))
    return message


def owing(console, status="dead", effect="payment.paid", sink="shop", payload="{}"):
    """The id of an effect in that status."""

    def do(unit):
        return outbox.owe(
            unit,
            payment_id=new_id(),
            account="payfield",
            effect=effect,
            sink=sink,
            occurrence=0,
            cause=new_id(),
            payload=payload,
            now=START,
        )

    row_id = write(console, do)
    with console.service.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE outbox_queue SET status = ? WHERE outbox_id = ?", (status, row_id.replace("-", ""))
        )
    return row_id


def rejecting(console, **columns):
    """The id of a delivery in quarantine."""
    rejected = RejectedDelivery(
        **{
            "id": new_id(),
            "account": "payfield",
            "received_at": START,
            "reason": "signature_wrong",
            "client": "192.0.2.1",
            "headers": [["x-note", "a"]],
            "body": b"{}",
            **columns,
        }
    )
    write(console, lambda unit: quarantine.keep(unit, rejected, at_most=100))
    return rejected.id


def acted(console, subject, actor="ada", action="replay", reason="a reason"):
    """Somebody did something."""
    write(
        console,
        lambda unit: note(
            unit, account="payfield", at=START, actor=actor, action=action, subject=subject, reason=reason
        ),
    )
