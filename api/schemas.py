"""Models of queries, bodies and answers, and of their description."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema

from api.validation import INTEGRAL, TEXT, WHOLE, Flag, Id, Instant, JsonInput, Name, PageQuery, PaymentName
from service.commands import (
    MAX_DESCRIPTION_CHARS,
    MAX_METADATA_KEY_CHARS,
    MAX_METADATA_KEYS,
    MAX_METADATA_VALUE_CHARS,
)
from service.payments import checkout_url, other_names, said_by
from service.text import shown
from statemachine.errors import InvalidAmount
from statemachine.money import MAX_MINOR, from_minor
from statemachine.phases import Phase, Source
from storage.ids import WEBHOOK_PREFIX
from storage.search import RowPage
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OperatorAction,
    OutboxMessage,
    Payment,
    PaymentPoll,
    RejectedDelivery,
)
from storage.tables import Transition as KeptTransition
from storage.types import InboxStatus, OutboxStatus

Item = TypeVar("Item", bound=BaseModel)


#: An id in an answer: of the type that paths and queries take.
RecordId = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"}, mode="serialization")]


class Shape(BaseModel):
    """Answer of the API.

    Every name that is described is always there, and names may be added at any time.
    """

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Listing(Shape, Generic[Item]):
    """One page of a list, newest first."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Name the page of a list after its items, as `PaymentList`."""
        return f"{params[0].__name__.removesuffix('Answer')}List"

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = Field(description="whether there are more in the direction of the walk")
    next: RecordId | None = Field(
        description="give it as `after` (or as `before`, going back) for the page that follows"
    )


def listing(items: Sequence[Item], page: RowPage[Any], *, is_backwards: bool) -> dict[str, Any]:
    """Return the fields of a Listing of these items."""
    edge = None
    if page.has_more and page.rows:
        edge = page.rows[0 if is_backwards else -1].id
    return {"data": list(items), "has_more": page.has_more, "next": edge}


class PaymentReview(Shape):
    """Reason for which a person must look at a payment."""

    model_config = ConfigDict(title="Review")

    reason: str
    note: str | None
    opened_at: datetime | None


class PartAnswer(Shape):
    """One capture, refund or dispute of a payment."""

    model_config = ConfigDict(title="Part")

    kind: Literal["capture", "refund", "dispute"]
    name: str = Field(description="the provider's id")
    status: Literal["pending", "done", "undone"]
    amount_minor: int | None
    as_of: datetime | None = Field(description="of when that is true")


class NameAnswer(Shape):
    """Another id of a payment at the provider."""

    name: str
    state: str | None = Field(description="of an attempt beside the leading one; null for another name of the same")
    phase: str | None


class PaymentAnswer(Shape):
    """Payment, as it is known now."""

    object: Literal["payment"] = "payment"
    id: RecordId
    account: str
    environment: Literal["live", "test"]
    kind: str = Field(description="which of the provider's resources it is")
    provider_ref: str | None = Field(description="the provider's id; null until the provider has named it")
    names: list[NameAnswer] = Field(description="its other ids at the provider, such as those of further attempts")
    reference: str | None = Field(description="your own id")
    amount_minor: int | None = Field(description="in whole minor units")
    amount: str | None = Field(description="the same in major units, for people")
    currency: str | None
    authorised_minor: int | None = Field(description="guaranteed; this and the other sums are null where nobody said")
    captured_minor: int | None
    refunded_minor: int | None = Field(description="given back")
    charged_back_minor: int | None = Field(description="taken back by the payer's bank")
    disputed_minor: int | None = Field(description="reclaimed, and not decided yet")
    parts: list[PartAnswer] = Field(description="captures, refunds and disputes that are known one by one")
    state: str | None = Field(
        description="as the provider names it, whoever said it (see the timeline); `not_created` is ours; null at first"
    )
    phase: str = Field(
        description="open, processing, authorised, paid, settled, failed, cancelled, expired or refunded"
    )
    version: int = Field(description="the number of its last transition")
    review: PaymentReview | None = Field(description="while a person must look at it")
    failure_reason: str | None
    checkout_url: str | None = Field(description="where the payer pays, if there is such a page")
    return_url: str | None
    description: str | None = Field(description="your own words")
    metadata: dict[str, str] = Field(description="your own names and values")
    facts: dict[str, str] = Field(description="what else the provider says of it")
    expires_at: datetime | None
    capture_by: datetime | None = Field(description="when the authorisation ends, as the provider states it")
    created_at: datetime
    changed_at: datetime = Field(description="its last transition, else its creation")
    heard_at: datetime = Field(description="the last statement about it, of any source")
    asked_at: datetime | None = Field(description="of when the provider's last answer is true")
    next_poll_at: datetime | None = Field(description="when the provider is asked next; null: not any more")
    poll_error: str | None = Field(description="why the last question failed, if it did")


def payment_answer(kept: Payment, poll: PaymentPoll, environment: str) -> PaymentAnswer:
    """Answer with a payment."""
    review = None
    if kept.review is not None:
        review = PaymentReview(reason=kept.review, note=kept.review_note, opened_at=kept.review_opened_at)
    return PaymentAnswer(
        id=kept.id,
        account=kept.account,
        environment="live" if environment == "live" else "test",
        kind=kept.kind,
        provider_ref=kept.provider_ref,
        names=[NameAnswer(**other._asdict()) for other in other_names(kept)],
        reference=kept.reference,
        amount_minor=kept.amount_minor,
        amount=decimal_amount(kept.amount_minor, kept.currency),
        currency=kept.currency,
        authorised_minor=kept.authorised_minor,
        captured_minor=kept.captured_minor,
        refunded_minor=kept.refunded_minor,
        charged_back_minor=kept.charged_back_minor,
        disputed_minor=kept.disputed_minor,
        parts=[PartAnswer(**part) for part in kept.parts or ()],
        state=kept.state,
        phase=kept.phase,
        version=kept.version,
        review=review,
        failure_reason=kept.failure_reason,
        checkout_url=checkout_url(kept),
        return_url=kept.return_url,
        description=kept.description,
        metadata=kept.merchant_metadata or {},
        facts={name: str(value) for name, value in kept.facts.items()},
        expires_at=kept.expires_at,
        capture_by=kept.capture_by,
        created_at=kept.created_at,
        changed_at=kept.changed_at,
        heard_at=poll.heard_at,
        asked_at=poll.asked_at,
        next_poll_at=poll.next_poll_at,
        poll_error=poll.poll_error,
    )


def decimal_amount(minor: int | None, currency: str | None) -> str | None:
    """Return the exact decimal text of an amount; None where it is not known."""
    if minor is None or currency is None:
        return None
    try:
        return from_minor(minor, currency)
    except InvalidAmount:
        return None


class TransitionAnswer(Shape):
    """The recorded fact that a payment moved."""

    object: Literal["transition"] = "transition"
    id: RecordId
    payment: RecordId
    number: int
    from_state: str | None
    to_state: str
    phase: str
    via: list[str] = Field(description="states that were passed without a message of their own")
    forced: bool = Field(description="against the lifecycle, by a person or by policy")
    message: RecordId = Field(description="the inbox message that it rests on")
    source: str
    actor: str | None
    said_by: str = Field(description="who says that it is in this state, in words: the provider, a person, a policy")
    reason: str
    as_of: datetime | None = Field(description="by the provider's clock")
    recorded_at: datetime
    prev_hash: str
    hash: str


def transition_answer(kept: KeptTransition) -> TransitionAnswer:
    """Answer with a transition."""
    return TransitionAnswer(
        id=kept.id,
        payment=kept.payment_id,
        number=kept.number,
        from_state=kept.from_state,
        to_state=kept.to_state,
        phase=kept.phase,
        via=list(kept.via),
        forced=kept.forced,
        message=kept.cause,
        source=kept.source,
        actor=kept.actor,
        said_by=shown(said_by(kept)),
        reason=kept.reason,
        as_of=kept.as_of,
        recorded_at=kept.recorded_at,
        prev_hash=kept.prev_hash,
        hash=kept.hash,
    )


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


def message_answer(kept: InboxMessage) -> MessageAnswer:
    """Answer with an inbox message, without bytes and headers."""
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
    answer: str | None = Field(description="the beginning of what the sink answered, with secrets masked")


def attempt_answer(kept: DeliveryAttempt) -> AttemptAnswer:
    """Answer with a delivery attempt."""
    return AttemptAnswer(
        number=kept.number,
        started_at=kept.started_at,
        duration_ms=kept.duration_ms,
        http_status=kept.http_status,
        outcome=kept.outcome,
        error=kept.error,
        answer=kept.answer,
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


def _effect_fields(kept: OutboxMessage) -> dict[str, Any]:
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


def effect_answer(kept: OutboxMessage) -> OwedAnswer:
    """Answer with an outbox message."""
    return OwedAnswer(**_effect_fields(kept))


class OwedWithAttempts(OwedAnswer):
    """An effect that is owed to one sink, with every try to deliver it."""

    delivery_attempts: list[AttemptAnswer]


def effect_with_attempts(kept: OutboxMessage, attempts: Sequence[DeliveryAttempt]) -> OwedWithAttempts:
    """Answer with an outbox message and its attempts."""
    return OwedWithAttempts(**_effect_fields(kept), delivery_attempts=[attempt_answer(each) for each in attempts])


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


def rejected_answer(kept: RejectedDelivery, *, shows_client: bool) -> RejectedAnswer:
    """Answer with a rejected delivery."""
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
    """Action of a named person or key, with its reason."""

    object: Literal["operator_action"] = "operator_action"
    id: RecordId
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str


def action_answer(kept: OperatorAction) -> ActionAnswer:
    """Answer with an action of a person or key."""
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
    """Timeline of one payment, with the rows that it is made from."""

    object: Literal["timeline"] = "timeline"
    payment: PaymentAnswer
    entries: list[Moment]
    messages: list[MessageAnswer]
    transitions: list[TransitionAnswer]
    outbox: list[OwedWithAttempts]
    actions: list[ActionAnswer]


#: Why something is decided; line breaks are allowed.
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
By = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=TEXT)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$", min_length=3, max_length=3)]


Description = Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION_CHARS, pattern=r"^[^\x00]*$")]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_METADATA_KEY_CHARS, pattern=r"^[^\x00]*$")],
        Annotated[str, StringConstraints(max_length=MAX_METADATA_VALUE_CHARS, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=MAX_METADATA_KEYS),
]

_OF_METADATA: Final = "your own names and values, up to 50 of 40 and 500 characters; in answers and effects"


class CreateBody(JsonInput):
    """A payment to create at a provider."""

    account: Name = Field(description="the account's name in the settings")
    amount_minor: Annotated[int, Field(ge=1, le=MAX_MINOR), INTEGRAL] = Field(
        description="in whole minor units: 1000 is 10.00 USD, or 1000 JPY"
    )
    currency: Currency = Field(description="ISO 4217, such as USD")
    reference: PaymentName = Field(description="your own id of the payment; the same one never makes a second payment")
    kind: Name | None = Field(None, description="which of the provider's resources; its usual one where none is given")
    return_url: (
        Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^https?://[!-~]+$")] | None
    ) = Field(None, description="your page for the returning payer")
    extra: dict[str, JsonValue] = Field(
        default_factory=dict, description="further fields of the provider's", max_length=50
    )
    description: Description | None = Field(None, description="your own words, for people; in answers and effects")
    metadata: Metadata = Field(default_factory=dict, description=_OF_METADATA)


class MoneyBody(JsonInput):
    """An amount to capture or refund."""

    amount_minor: Annotated[int, Field(ge=1, le=MAX_MINOR), INTEGRAL] | None = Field(
        None, description="in whole minor units of the payment's currency; without it, all that remains"
    )


class TrackBody(JsonInput):
    """A payment that was not created here."""

    account: Name = Field(description="the account's name in the settings")
    provider_ref: PaymentName = Field(description="the provider's id of the payment")
    kind: Name | None = Field(None, description="which of the provider's resources; its usual one where none is given")
    description: Description | None = Field(None, description="your own words, for people; in answers and effects")
    metadata: Metadata = Field(default_factory=dict, description=_OF_METADATA)


class ResolveBody(JsonInput):
    """Statement of a named person about the true state."""

    state: Name = Field(description="the true state, as the provider names it")
    reason: Reason = Field(description="why; kept with the payment's history")
    by: By | None = Field(None, description="who decides; kept beside the key's name")


class PaymentsQuery(PageQuery):
    """Filters of payments."""

    account: Name | None = Field(None, description="of this account")
    kind: Name | None = Field(None, description="of this kind")
    phase: Phase | None = Field(None, description="in this phase")
    state: Name | None = Field(None, description="in this state, as the provider names it")
    reference: PaymentName | None = Field(None, description="with this reference of yours")
    provider_ref: PaymentName | None = Field(None, description="with this id of the provider's")
    in_review: Flag | None = Field(None, description="those that a person must look at, or those that nobody must")
    currency: Currency | None = Field(None, description="in this currency")
    amount_from: Annotated[int, Field(ge=0, le=MAX_MINOR), WHOLE] | None = Field(
        None, description="of at least so many minor units"
    )
    amount_to: Annotated[int, Field(ge=0, le=MAX_MINOR), WHOLE] | None = Field(
        None, description="of at most so many minor units"
    )
    created_from: Instant | None = Field(None, description="created at this instant or later")
    created_before: Instant | None = Field(None, description="created before this instant")
    changed_from: Instant | None = Field(None, description="changed at this instant or later")
    changed_before: Instant | None = Field(None, description="changed before this instant")


class MessagesQuery(PageQuery):
    """Filters of inbox messages."""

    account: Name | None = Field(None, description="of this account")
    status: InboxStatus | None = Field(None, description="in this status")
    source: Source | None = Field(None, description="from this source")
    payment: Id | None = Field(None, description="about this payment, first of all")


class OwedQuery(PageQuery):
    """Filters of outbox messages."""

    account: Name | None = Field(None, description="of this account")
    status: OutboxStatus | None = Field(None, description="in this status")
    sink: Name | None = Field(None, description="owed to this sink")
    effect: Name | None = Field(None, description="of this effect, such as payment.paid")
    payment: Id | None = Field(None, description="of this payment")


class RejectedQuery(PageQuery):
    """Filters of rejected deliveries."""

    account: Name | None = Field(None, description="of this account")
    reason: Name | None = Field(None, description="rejected for this reason, such as signature_wrong")


class ReasonBody(JsonInput):
    """Reason of an action, and the person who decided it."""

    reason: Reason = Field(description="why; kept with the action")
    by: By | None = Field(None, description="who decides; kept beside the key's name")


class RedriveOneBody(ReasonBody):
    """Reason of a redrive, and whether the sink may get it out of order."""

    overtaken: bool = Field(
        False,
        description="also where the sink has had a later effect of the payment: only if it goes by `data.version`",
    )


class RedriveBody(RedriveOneBody):
    """Filters of the dead effects to make due again."""

    sink: Name | None = Field(None, description="owed to this sink")
    account: Name | None = Field(None, description="of this account")
    effect: Name | None = Field(None, description="of this effect, such as payment.paid")
    limit: Annotated[int, Field(ge=1, le=1000), INTEGRAL] = Field(100, description="how many at most, the oldest first")
