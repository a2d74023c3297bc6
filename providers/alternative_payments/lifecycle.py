"""The life of a payment request, in Alternative Payments' own words."""

from typing import Final

from statemachine.lifecycle import Lifecycle, State
from statemachine.phases import Phase

PAYMENT_REQUEST: Final = "payment_request"

#: The provider lists the four states and no moves; these are the ones that the states' meanings leave. Refunds and
#: chargebacks are told of payments, which the documentation does not link to requests.
LIFECYCLE: Final = Lifecycle(
    name=f"alternative_payments.{PAYMENT_REQUEST}",
    source="docs.alternativepayments.io/getting-started/faq",
    initial=("pending",),
    states=(
        State("pending", Phase.OPEN),
        State("paid", Phase.PAID, terminal=True),
        State("expired", Phase.EXPIRED, terminal=True),
        State("cancelled", Phase.CANCELLED, terminal=True),
    ),
    moves={"pending": ("paid", "expired", "cancelled")},
)
