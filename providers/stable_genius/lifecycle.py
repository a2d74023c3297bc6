"""The life of a payment intent, in Stable Genius's own words."""

from typing import Final

from statemachine.lifecycle import Lifecycle, State
from statemachine.phases import Phase

PAYMENT_INTENT: Final = "payment_intent"

#: A transfer that arrives after the end is told as `transaction.created` only, and does not change the intent.
LIFECYCLE: Final = Lifecycle(
    name=f"stable_genius.{PAYMENT_INTENT}",
    source="docs.stablegenius.co/concepts/payment-intents and /api-reference/list-payment-intents",
    initial=("awaiting_payment",),
    states=(
        State("awaiting_payment", Phase.OPEN),
        State("confirmed", Phase.PAID),
        State("settled", Phase.SETTLED, terminal=True),
        State("expired", Phase.EXPIRED, terminal=True),
        State("cancelled", Phase.CANCELLED, terminal=True),
    ),
    moves={"awaiting_payment": ("confirmed", "expired", "cancelled"), "confirmed": ("settled",)},
)
