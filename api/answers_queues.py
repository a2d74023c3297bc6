"""What the API answers about queues and about everything that happened to one payment, as models."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.answers import PaymentAnswer, RecordId, Shape, TransitionAnswer
from storage.ids import WEBHOOK_PREFIX
from storage.tables import DeliveryAttempt, InboxMessage, OperatorAction, OutboxMessage, RejectedDelivery


class MessageAnswer(Shape):
    """An authentic statement, and what was decided about it; its bytes are elsewhere."""

    object: Literal["inbox_message"] = "inbox_message"
    id: RecordId
    account: str
    source: str
    delivery_key: str
    size_bytes: int
    digest: str = Field(description="SHA-256 of the bytes, hex")
    key_id: str | None = Field(description="the key that verified it")
    received_at: datetime
    provider_time: datetime | None
    http_status: int | None = Field(description="of an answer to our own call")
    status: str = Field(description="pending, decided, parked or dead")
    payment: RecordId | None
    decision: str | None
    reason: str | None
    outcomes: list[dict[str, Any]] = Field(description="what was decided, one for each payment that it speaks of")
    decided_at: datetime | None
    attempts: int
    last_error: str | None
    redeliveries: int
    last_redelivered_at: datetime | None
    variant_of: RecordId | None = Field(description="the message of the same identity and other content")


def message(kept: InboxMessage) -> MessageAnswer:
    """The message as the API tells it, without bytes and headers."""
    return MessageAnswer(
        id=kept.id,
        account=kept.account,
        source=kept.source,
        delivery_key=kept.delivery_key,
        size_bytes=len(kept.body),
        digest=kept.digest,
        key_id=kept.key_id,
        received_at=kept.received_at,
        provider_time=kept.provider_time,
        http_status=kept.http_status,
        status=kept.status,
        payment=kept.payment_id,
        decision=kept.decision,
        reason=kept.reason,
        outcomes=list(kept.outcomes),
        decided_at=kept.decided_at,
        attempts=kept.attempts,
        last_error=kept.last_error,
        redeliveries=kept.redeliveries,
        last_redelivered_at=kept.last_redelivered_at,
        variant_of=kept.variant_of,
    )


class AttemptAnswer(Shape):
    """One try to hand an effect to its sink."""

    object: Literal["delivery_attempt"] = "delivery_attempt"
    number: int
    started_at: datetime
    duration_ms: int
    http_status: int | None
    outcome: str = Field(description="delivered, failed or dead")
    error: str | None


def attempt(kept: DeliveryAttempt) -> AttemptAnswer:
    """The attempt as the API tells it."""
    return AttemptAnswer(
        number=kept.number,
        started_at=kept.started_at,
        duration_ms=kept.duration_ms,
        http_status=kept.http_status,
        outcome=kept.outcome,
        error=kept.error,
    )


class OwedAnswer(Shape):
    """An effect that is owed to one sink."""

    object: Literal["outbox_message"] = "outbox_message"
    id: RecordId
    webhook_id: str = Field(description="the `webhook-id` that the sink is given; the same after a restored backup")
    account: str
    payment: RecordId | None
    effect: str
    sink: str
    message: RecordId = Field(description="the inbox message that made it owed")
    status: str = Field(description="pending, delivered or dead")
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None = Field(description="while it is pending")
    delivered_at: datetime | None
    last_error: str | None


def _owed_columns(kept: OutboxMessage) -> dict[str, Any]:
    return {
        "id": kept.id,
        "webhook_id": f"{WEBHOOK_PREFIX}{kept.travels_as}",
        "account": kept.account,
        "payment": kept.payment_id,
        "effect": kept.effect,
        "sink": kept.sink,
        "message": kept.cause,
        "status": kept.status,
        "attempts": kept.attempts,
        "created_at": kept.created_at,
        "next_attempt_at": kept.next_attempt_at if kept.status == "pending" else None,
        "delivered_at": kept.delivered_at,
        "last_error": kept.last_error,
    }


def owed(kept: OutboxMessage) -> OwedAnswer:
    """The outbox message as the API tells it."""
    return OwedAnswer(**_owed_columns(kept))


class OwedWithAttempts(OwedAnswer):
    """An effect that is owed to one sink, with every try to deliver it."""

    delivery_attempts: list[AttemptAnswer]


def owed_with(kept: OutboxMessage, tries: Sequence[DeliveryAttempt]) -> OwedWithAttempts:
    """The outbox message with its attempts."""
    return OwedWithAttempts(**_owed_columns(kept), delivery_attempts=[attempt(each) for each in tries])


class RejectedAnswer(Shape):
    """A delivery that was not authentic; its bytes and headers are not shown."""

    object: Literal["rejected_delivery"] = "rejected_delivery"
    id: RecordId
    account: str
    received_at: datetime
    reason: str
    client: str | None = Field(description="the address that it came from; null for a key without the scope operate")
    kind: str | None
    size_bytes: int


def rejected(kept: RejectedDelivery, *, shows_client: bool) -> RejectedAnswer:
    """The rejected delivery as the API tells it."""
    return RejectedAnswer(
        id=kept.id,
        account=kept.account,
        received_at=kept.received_at,
        reason=kept.reason,
        client=kept.client if shows_client else None,
        kind=kept.kind,
        size_bytes=len(kept.body),
    )


class ActionAnswer(Shape):
    """What a named person or key did, and why."""

    object: Literal["operator_action"] = "operator_action"
    id: RecordId
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str


def action(kept: OperatorAction) -> ActionAnswer:
    """The action as the API tells it."""
    return ActionAnswer(
        id=kept.id, at=kept.at, actor=kept.actor, action=kept.action, subject=kept.subject, reason=kept.reason
    )


class Moment(Shape):
    """One thing that happened to a payment."""

    at: datetime
    what: str = Field(description="in words")
    details: list[str]
    of: str = Field(description="action, message, owed or attempt")


class Timeline(Shape):
    """What happened to one payment, in order, with the rows that say so."""

    object: Literal["timeline"] = "timeline"
    payment: PaymentAnswer
    entries: list[Moment]
    messages: list[MessageAnswer]
    transitions: list[TransitionAnswer]
    outbox: list[OwedWithAttempts]
    actions: list[ActionAnswer]
