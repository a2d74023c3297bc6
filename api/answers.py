"""What the API answers, as models: the description, the answers and the tests are made from them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from service.payments import checkout_url, said_by
from service.text import shown
from statemachine.errors import InvalidAmount
from statemachine.money import from_minor
from storage.search import RowPage
from storage.tables import Payment
from storage.tables import Transition as KeptTransition

Item = TypeVar("Item", bound=BaseModel)


#: An id as our answers have it: of the type that paths and queries take.
RecordId = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"}, mode="serialization")]


class Shape(BaseModel):
    """An answer. New names may be added to it at any time; every name that is described is always there."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Listing(Shape, Generic[Item]):
    """One page of a list, newest first."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = Field(description="whether there are more in the direction of the walk")
    next: RecordId | None = Field(
        description="give it as `after` (or as `before`, going back) for the page that follows"
    )


def listing(made: Sequence[Item], page: RowPage[Any], *, is_backwards: bool) -> dict[str, Any]:
    """What a Listing is made of."""
    edge = None
    if page.has_more and page.rows:
        edge = page.rows[0 if is_backwards else -1].id
    return {"data": list(made), "has_more": page.has_more, "next": edge}


class Review(Shape):
    """Why a person must look."""

    reason: str
    note: str | None
    opened_at: datetime | None


class PaymentAnswer(Shape):
    """What is true of one payment now."""

    object: Literal["payment"] = "payment"
    id: RecordId
    account: str
    environment: Literal["live", "test"]
    kind: str = Field(description="which of the provider's resources it is")
    provider_ref: str | None = Field(description="the provider's id; null until the provider has named it")
    reference: str | None = Field(description="your own id")
    amount_minor: int | None = Field(description="in whole minor units")
    amount: str | None = Field(description="the same in major units, for people")
    currency: str | None
    captured_minor: int | None
    refunded_minor: int | None
    state: str | None = Field(
        description="as the provider names it, whoever said it (see the timeline); `not_created` is ours; null at first"
    )
    phase: str = Field(description="open, processing, paid, settled, failed, cancelled, expired or refunded")
    version: int = Field(description="the number of its last transition")
    review: Review | None = Field(description="while a person must look at it")
    failure_reason: str | None
    checkout_url: str | None = Field(description="where the payer pays, if there is such a page")
    return_url: str | None
    facts: dict[str, str] = Field(description="what else the provider says of it")
    expires_at: datetime | None
    created_at: datetime
    changed_at: datetime = Field(description="its last transition, else its creation")
    heard_at: datetime = Field(description="the last statement about it, of any source")
    asked_at: datetime | None = Field(description="of when the provider's last answer is true")
    next_poll_at: datetime | None = Field(description="when the provider is asked next; null: not any more")
    poll_error: str | None = Field(description="why the last question failed, if it did")


def payment(kept: Payment, environment: str) -> PaymentAnswer:
    """The payment as the API tells it."""
    review = None
    if kept.review is not None:
        review = Review(reason=kept.review, note=kept.review_note, opened_at=kept.review_opened_at)
    return PaymentAnswer(
        id=kept.id,
        account=kept.account,
        environment="live" if environment == "live" else "test",
        kind=kept.kind,
        provider_ref=kept.provider_ref,
        reference=kept.reference,
        amount_minor=kept.amount_minor,
        amount=decimal(kept.amount_minor, kept.currency),
        currency=kept.currency,
        captured_minor=kept.captured_minor,
        refunded_minor=kept.refunded_minor,
        state=kept.state,
        phase=kept.phase,
        version=kept.version,
        review=review,
        failure_reason=kept.failure_reason,
        checkout_url=checkout_url(kept),
        return_url=kept.return_url,
        facts={name: str(value) for name, value in kept.facts.items()},
        expires_at=kept.expires_at,
        created_at=kept.created_at,
        changed_at=kept.changed_at,
        heard_at=kept.heard_at,
        asked_at=kept.asked_at,
        next_poll_at=kept.next_poll_at,
        poll_error=kept.poll_error,
    )


def decimal(minor: int | None, currency: str | None) -> str | None:
    """The exact decimal text of an amount; None where it or its currency is not known."""
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


def transition(kept: KeptTransition) -> TransitionAnswer:
    """The transition as the API tells it."""
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
