"""What a caller sends about payments, and about why somebody decides."""

from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from api.reading import INTEGRAL, TEXT, WHOLE, Flag, Input, Instant, Listed, Name, PaymentName
from statemachine.money import MAX_MINOR
from statemachine.phases import Phase

#: Whoever decides says why; line breaks are welcome.
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
By = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=TEXT)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$", min_length=3, max_length=3)]


class CreateBody(Input):
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


class TrackBody(Input):
    """A payment that was not created here."""

    account: Name = Field(description="the account's name in the settings")
    provider_ref: PaymentName = Field(description="the provider's id of the payment")
    kind: Name | None = Field(None, description="which of the provider's resources; its usual one where none is given")


class ResolveBody(Input):
    """A named person's word about what is true."""

    state: Name = Field(description="the true state, as the provider names it")
    reason: Reason = Field(description="why; kept with the payment's history")
    by: By | None = Field(None, description="who decides; kept beside the key's name")


class PaymentsQuery(Listed):
    """Which payments; what is not given does not count."""

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
