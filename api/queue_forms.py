"""What a caller sends about queues."""

from typing import Annotated

from pydantic import Field

from api.payment_forms import By, Reason
from api.reading import INTEGRAL, Id, Input, Listed, Name
from statemachine.phases import Source
from storage.types import InboxStatus, OutboxStatus


class MessagesQuery(Listed):
    """Which inbox messages."""

    account: Name | None = Field(None, description="of this account")
    status: InboxStatus | None = Field(None, description="in this status")
    source: Source | None = Field(None, description="from this source")
    payment: Id | None = Field(None, description="about this payment, first of all")


class OwedQuery(Listed):
    """Which outbox messages."""

    account: Name | None = Field(None, description="of this account")
    status: OutboxStatus | None = Field(None, description="in this status")
    sink: Name | None = Field(None, description="owed to this sink")
    effect: Name | None = Field(None, description="of this effect, such as payment.paid")
    payment: Id | None = Field(None, description="of this payment")


class RejectedQuery(Listed):
    """Which rejected deliveries."""

    account: Name | None = Field(None, description="of this account")
    reason: Name | None = Field(None, description="rejected for this reason, such as signature_wrong")


class ReasonBody(Input):
    """Why, and on whose behalf."""

    reason: Reason = Field(description="why; kept with the action")
    by: By | None = Field(None, description="who decides; kept beside the key's name")


class RedriveOneBody(ReasonBody):
    """Why, and whether it may tell the past."""

    overtaken: bool = Field(
        False,
        description="also where the sink has had a later effect of the payment: only if it goes by `data.version`",
    )


class RedriveBody(RedriveOneBody):
    """Which dead effects to make due again."""

    sink: Name | None = Field(None, description="owed to this sink")
    account: Name | None = Field(None, description="of this account")
    effect: Name | None = Field(None, description="of this effect, such as payment.paid")
    limit: Annotated[int, Field(ge=1, le=1000), INTEGRAL] = Field(100, description="how many at most, the oldest first")
