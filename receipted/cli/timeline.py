"""One payment's story as the commands print it: its rows as JSON values, without bytes and headers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from receipted.cli import output
from storage import rate_limits
from storage.database import Unit
from storage.obstacles import obstacles
from storage.story import Story, checkout_url, read
from storage.tables import InboxMessage, Payment
from storage.telling import entries
from storage.types import InboxStatus

__all__ = ["PRIVATE", "as_data", "checkout_url", "entries", "message_data", "payment_data", "read"]

#: Of an inbox message, shown by `inbox show --body` only: they may hold personal data.
PRIVATE: Final = ("body", "headers")


def in_the_way(unit: Unit, story: Story, now: datetime, *, is_terminal: bool) -> list[str]:
    """What has not happened to the payment and why, in words, the worst first."""
    waiting = [message for message in story.messages if message.status != InboxStatus.DECIDED]
    account = story.payment.account
    found = obstacles(
        story.payment,
        story.owed,
        story.attempts,
        waiting,
        rate_limits.breaker(unit, account),
        now,
        is_terminal=is_terminal,
        pause=rate_limits.pause_left(unit, account, now),
    )
    return [obstacle.text for obstacle in found]


def as_data(story: Story, *, why_next_poll: str | None, in_the_way: Sequence[str] = ()) -> dict[str, Any]:
    """The story as JSON values, by table; bodies and headers are left out."""
    by_outbox: dict[str, list[dict[str, Any]]] = {}
    for attempt in story.attempts:
        by_outbox.setdefault(attempt.outbox_id, []).append(output.row_of(attempt))
    return {
        "payment": {**payment_data(story.payment), "why_next_poll": why_next_poll, "in_the_way": list(in_the_way)},
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
    """The message's columns but for its bytes and headers, with how many bytes there are; None where scrubbed."""
    size_bytes = len(message.body) if message.scrubbed_at is None else None
    return {**output.row_of(message, without=PRIVATE), "size_bytes": size_bytes}
