"""Everything that is kept about one payment, read in one snapshot."""

from dataclasses import dataclass

from storage import inbox, operator_actions, outbox, payments
from storage import transitions as storage_transitions
from storage.database import Unit
from storage.tables import DeliveryAttempt, InboxMessage, OperatorAction, OutboxMessage, Payment, Transition


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is kept about one payment."""

    payment: Payment
    messages: list[InboxMessage]
    transitions: list[Transition]
    owed: list[OutboxMessage]
    attempts: list[DeliveryAttempt]
    actions: list[OperatorAction]


def read(unit: Unit, payment_id: str) -> Story:
    """The payment's story in one snapshot; raises NotFound."""
    payment = payments.get(unit, payment_id)
    messages = inbox.concerning(unit, payment_id)
    owed = outbox.of_payment(unit, payment_id)
    subjects = [payment_id, *(message.id for message in messages), *(message.id for message in owed)]
    return Story(
        payment=payment,
        messages=messages,
        transitions=storage_transitions.of_payment(unit, payment_id),
        owed=owed,
        attempts=outbox.attempts_of(unit, [message.id for message in owed]),
        actions=operator_actions.of_subjects(unit, subjects),
    )


def checkout_url(payment: Payment) -> str | None:
    """Where the payer pays, as the provider's answer named it; None where there is no such page.

    What is kept from a time, or by a provider's code, that looked less closely is no page unless a browser gets it by
    HTTP.
    """
    found = payment.facts.get("payment_link") or payment.facts.get("url")
    return found if found is not None and found.startswith(("https://", "http://")) else None
