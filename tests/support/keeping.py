"""Payments and links kept without a worker, with the seals and hashes that it would give them."""

from sqlalchemy import update

from storage import batches, hashing, inbox, operator_actions, outbox, transitions
from storage.columns import table_of
from storage.database import values
from storage.tables import Payment
from tests.support.builders import a_poll
from tests.support.clock import START


def keep(unit, payment, **asked):
    """`asked` are columns of when it was heard of and is asked about."""
    batches.add(unit, [payment])
    batches.add_polls(unit, [a_poll(payment, **asked)])


def outcomes_of(message):
    """What a decision about the message says of it: its columns of a whole message, as a test has set them."""
    entry = {"outcome": message.decision or "noted", "reason": message.reason or "a test"}
    if message.payment_id is not None:
        entry |= {"payment": message.payment_id, "number": 1}
    return [entry]


def decide(unit, messages):
    """Finish the messages as their status and decision say."""
    for message in messages:
        message.outcomes = outcomes_of(message)
        message.decided_at = message.decided_at or START
    batches.finish(unit, messages)


def change(unit, payment):
    """Every column is as given, whoever else has changed it."""
    payment.seal = unit.sealer.seal(hashing.payment(payment))
    table = table_of(Payment)
    unit.execute(update(table).where(table.c.id == payment.id).values(**values(payment)))


def replay(unit, message_id, now):
    """As the command does: the message is pending again, and who wanted it is kept."""
    account = inbox.replay(unit, message_id, now).account
    operator_actions.note(
        unit, account=account, at=now, actor="ann", action="replay", subject=message_id, reason="a test"
    )


def redrive(unit, message_id, now):
    """As the command does: the effect is due again, and who wanted it is kept."""
    account = outbox.redrive(unit, message_id, now).account
    operator_actions.note(
        unit, account=account, at=now, actor="ann", action="redrive", subject=message_id, reason="a test"
    )


def moved_to_paid(unit, payment, message):
    """Append the payment's next transition, to paid, caused by the message; the payment itself is not kept."""
    transition = transitions.link(unit.sealer, payment, message, "paid", "paid", (), False, None, "a test", None, START)
    batches.append(unit, [transition])
    return transition
