"""Facts derived from a payment: its checkout page, its parts, who said its state."""

from typing import Final, NamedTuple

from statemachine.lifecycle import NOT_CREATED
from statemachine.money import amount_text
from statemachine.phases import ANSWERS, Source
from storage.tables import Payment, Transition

#: The provider, and by which of its statements.
_BY_PROVIDER: Final = {
    Source.WEBHOOK: "the provider, by webhook",
    Source.CALLBACK: "the provider, by this payment's callback",
    Source.POLL: "the provider, in answer to our question",
    Source.LIST: "the provider, in its list",
    Source.JOURNAL: "the provider, in its log of events",
    Source.CREATE: "the provider, in answer to our create call",
    Source.CANCEL: "the provider, in answer to our cancel call",
    Source.CAPTURE: "the provider, in answer to our capture call",
    Source.REFUND: "the provider, in answer to our refund call",
}


def checkout_url(payment: Payment) -> str | None:
    """Return the page where the payer pays, as the provider named it, or None.

    What is kept from a time, or by a provider's code, that looked less closely is no page unless a browser gets it by
    HTTP.
    """
    found = payment.facts.get("payment_link") or payment.facts.get("url")
    return found if found is not None and found.startswith(("https://", "http://")) else None


class OtherName(NamedTuple):
    """A further name of a payment; an attempt beside the leading one has a state."""

    name: str
    state: str | None
    phase: str | None

    def __str__(self) -> str:
        return self.name if self.state is None else f"{self.name} ({self.state})"


def other_names(payment: Payment) -> list[OtherName]:
    """Return the payment's names besides `provider_ref`, the first known first."""
    return [
        OtherName(entry["name"], entry.get("state"), entry.get("phase"))
        for entry in payment.names or ()
        if entry["name"] != payment.provider_ref
    ]


def parts_told(payment: Payment) -> list[tuple[str, str, str]]:
    """Return each capture, refund and dispute: kind, id, and amount with status."""
    return [
        (part["kind"], part["name"], f"{_amount(part['amount_minor'], payment.currency)}, {part['status']}")
        for part in payment.parts or ()
    ]


def _amount(minor: int | None, currency: str | None) -> str:
    return "an unsaid amount" if minor is None else amount_text(minor, currency)


def said_by(transition: Transition) -> str:
    """Name who said the state: the provider and how, a person, a policy, or us.

    A state keeps the provider's name for it whoever says it, so that only this tells them apart.
    """
    source = Source(transition.source) if transition.source in list(Source) else None
    if source is Source.OPERATOR:
        return f"{transition.actor}, an operator"
    if transition.to_state == NOT_CREATED and source not in (Source.CREATE, Source.POLLER):
        return "this service, since the payment is another one here"
    if transition.to_state == NOT_CREATED:
        return "this service, since the create call was refused"
    if transition.forced and source in ANSWERS:
        return "our account's policy, which trusts what the provider answered"
    if source in _BY_PROVIDER:
        return _BY_PROVIDER[source]
    return f"this service ({transition.source})"
