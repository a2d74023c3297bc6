"""What happened to one payment, in order: what came, from where, what was decided and why, what was sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from receipted.cli import output
from storage import history, inbox, operators, outbox, payments
from storage.engine import Unit
from storage.tables import DeliveryAttempt, InboxMessage, OperatorAction, OutboxMessage, Payment, Transition

#: Of an inbox message, shown by `inbox show --body` only: they may hold personal data.
PRIVATE: Final = ("body", "headers")

#: At one instant, in the order of cause and effect.
_ACTION, _MESSAGE, _OWED, _ATTEMPT = range(4)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is kept about one payment."""

    payment: Payment
    messages: list[InboxMessage]
    transitions: list[Transition]
    owed: list[OutboxMessage]
    attempts: list[DeliveryAttempt]
    actions: list[OperatorAction]


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One thing that happened, with what else there is to say about it."""

    at: datetime
    rank: int
    text: str
    details: tuple[str, ...] = field(default=(), compare=False)


def read(unit: Unit, payment_id: str) -> Story:
    """The payment's story in one snapshot; raises NotFound."""
    payment = payments.get(unit, payment_id)
    messages = inbox.concerning(unit, payment_id)
    owed = outbox.of_payment(unit, payment_id)
    subjects = [payment_id, *(message.id for message in messages), *(message.id for message in owed)]
    return Story(
        payment=payment,
        messages=messages,
        transitions=history.of_payment(unit, payment_id),
        owed=owed,
        attempts=outbox.attempts_of(unit, [message.id for message in owed]),
        actions=operators.of_subjects(unit, subjects),
    )


def entries(story: Story) -> list[Entry]:
    """The story in order of time."""
    return sorted([*_actions(story), *_messages(story), *_owed(story), *_attempts(story)])


def as_data(story: Story, *, why_next_poll: str | None) -> dict[str, Any]:
    """The story as JSON values, by table; bodies and headers are left out."""
    by_outbox: dict[str, list[dict[str, Any]]] = {}
    for attempt in story.attempts:
        by_outbox.setdefault(attempt.outbox_id, []).append(output.row_of(attempt))
    return {
        "payment": {**payment_data(story.payment), "why_next_poll": why_next_poll},
        "inbox_messages": [message_data(message) for message in story.messages],
        "transitions": [output.row_of(transition) for transition in story.transitions],
        "outbox_messages": [
            {**output.row_of(message, without=("payload",)), "delivery_attempts": by_outbox.get(message.id, [])}
            for message in story.owed
        ],
        "operator_actions": [output.row_of(action) for action in story.actions],
    }


def payment_data(payment: Payment) -> dict[str, Any]:
    """The payment's columns, with its amount in major units and where the payer pays."""
    has_amount = payment.amount_minor is not None and payment.currency is not None
    amount = output.amount(payment.amount_minor, payment.currency) if has_amount else None
    return {
        **output.row_of(payment),
        "amount": amount.partition(" ")[0] if amount else None,
        "checkout_url": checkout_url(payment),
    }


def message_data(message: InboxMessage) -> dict[str, Any]:
    """The message's columns but for its bytes and headers, with how many bytes there are."""
    return {**output.row_of(message, without=PRIVATE), "size_bytes": len(message.body)}


def checkout_url(payment: Payment) -> str | None:
    """Where the payer pays, as the provider's answer named it; None where there is no such page."""
    return payment.facts.get("payment_link") or payment.facts.get("url")


def _actions(story: Story) -> Iterator[Entry]:
    for action in story.actions:
        about = "" if action.subject == story.payment.id else f" of {output.short(action.subject)}"
        yield Entry(action.at, _ACTION, f"{action.actor}: {action.action}{about}", (f"reason: {action.reason}",))


def _messages(story: Story) -> Iterator[Entry]:
    moves: dict[str, list[Transition]] = {}
    for transition in story.transitions:
        moves.setdefault(transition.cause, []).append(transition)
    for message in story.messages:
        details = [*_received(message), *_decided(message, story.payment.id)]
        details += (_moved(transition) for transition in moves.get(message.id, []))
        details += (
            f"owed: {owed.effect} to {owed.sink} ({output.short(owed.id)})"
            for owed in story.owed
            if owed.cause == message.id
        )
        yield Entry(message.received_at, _MESSAGE, f"{message.source} {output.short(message.id)}", tuple(details))


def _received(message: InboxMessage) -> Iterator[str]:
    parts = [f"{len(message.body)} bytes, sha256 {message.digest[:12]}"]
    if message.key_id is not None:
        parts.append(f"verified with key {message.key_id}")
    if message.http_status is not None:
        parts.append(f"answered {message.http_status}")
    if message.redeliveries:
        parts.append(f"redelivered {message.redeliveries}x, last {output.shown(message.last_redelivered_at)}")
    if message.variant_of is not None:
        parts.append(f"another content of {output.short(message.variant_of)}")
    yield "came: " + ", ".join(parts)
    if message.provider_time is not None:
        yield f"provider's time: {output.shown(message.provider_time)}"


def _decided(message: InboxMessage, payment_id: str) -> Iterator[str]:
    said = [entry for entry in message.outcomes if entry.get("payment", payment_id) == payment_id]
    for entry in said:
        yield f"decided: {entry.get('outcome')}: {entry.get('reason')}"
        if "review" in entry:
            yield f"review opened: {entry['review']}"
    if message.status == "pending":
        waits = f"; last error: {message.last_error}" if message.last_error else ""
        yield f"pending: not decided yet{waits}"
    elif not said and message.reason is not None:
        yield f"{message.status}: {message.reason}"


def _moved(transition: Transition) -> str:
    words = [f"transition {transition.number}: {transition.from_state or 'new'} -> {transition.to_state}"]
    if transition.via:
        words.append(f"via {', '.join(transition.via)}")
    if transition.forced:
        words.append("FORCED")
    if transition.actor is not None:
        words.append(f"by {transition.actor}")
    return ", ".join([*words, f"phase {transition.phase}"])


def _owed(story: Story) -> Iterator[Entry]:
    for message in story.owed:
        if message.status == "dead":
            text = f"{message.effect} to {message.sink} is dead ({output.short(message.id)})"
            yield Entry(message.next_attempt_at, _OWED, text, (f"last error: {message.last_error}",))


def _attempts(story: Story) -> Iterator[Entry]:
    owed = {message.id: message for message in story.owed}
    for attempt in story.attempts:
        message = owed[attempt.outbox_id]
        text = f"sent {message.effect} to {message.sink}: {attempt.outcome}, attempt {attempt.number}"
        answered = f"answered {attempt.http_status}, " if attempt.http_status is not None else ""
        details = [f"{answered}{attempt.duration_ms} ms ({output.short(message.id)})"]
        if attempt.error:
            details.append(f"error: {attempt.error}")
        yield Entry(attempt.started_at, _ATTEMPT, text, tuple(details))
