"""Lifecycles of Banked's resources.

The provider calls `sent` and `failed` final and lists no moves.
"""

from typing import Final

from statemachine.lifecycle import Lifecycle, State
from statemachine.phases import Phase

#: In the provider's words a session that is no longer found "has been deleted" (its payment-errors page).
DELETED: Final = "deleted"

#: The consent state may go back, because a payer may pick another bank.
PAYMENT_SESSION: Final = Lifecycle(
    name="banked.payment_session",
    initial=("awaiting_provider", "awaiting_payer"),
    states=(
        State("awaiting_payer", Phase.OPEN),  # the oldest pages' name for a new link
        State("awaiting_provider", Phase.OPEN),
        State("awaiting_payment_consent", Phase.OPEN),
        State("initiated", Phase.PROCESSING),
        State("pending", Phase.PROCESSING),
        State("sent", Phase.PAID, terminal=True),  # irrevocable; a refund is a resource of its own
        State("failed", Phase.FAILED, terminal=True),
        State(DELETED, Phase.CANCELLED, terminal=True),
    ),
    moves={
        "awaiting_payer": ("awaiting_provider", "failed", DELETED),
        "awaiting_provider": ("awaiting_payment_consent", "failed", DELETED),
        "awaiting_payment_consent": ("initiated", "pending", "sent", "failed", "awaiting_provider", DELETED),
        "initiated": ("pending", "sent", "failed"),
        "pending": ("sent", "failed"),
    },
    source="https://developer.banked.com/merchant/payments/reference",
)

PAYIN: Final = Lifecycle(
    name="banked.payin",
    initial=("CREATED",),
    states=(
        State("CREATED", Phase.OPEN),
        State("AWAITING_AUTHORIZATION", Phase.OPEN),
        State("INITIATED", Phase.PROCESSING),
        State("PENDING", Phase.PROCESSING),
        State("SENT", Phase.PAID, terminal=True),
        State("FAILED", Phase.FAILED, terminal=True),
        State("CANCELED", Phase.CANCELLED, terminal=True),
    ),
    moves={
        "CREATED": ("AWAITING_AUTHORIZATION", "FAILED", "CANCELED"),
        "AWAITING_AUTHORIZATION": ("INITIATED", "FAILED", "CANCELED"),
        "INITIATED": ("PENDING", "SENT", "FAILED", "CANCELED"),
        "PENDING": ("SENT", "FAILED", "CANCELED"),
    },
    source="https://developer.banked.com/partner/payins/payin-status",
)

#: The merchant gives money back, so its completion is `refunded`, never `paid`. Accepts the words of v2 and of v3.
REFUND: Final = Lifecycle(
    name="banked.refund",
    subject="refund",
    initial=("awaiting_details", "awaiting_payment", "pending"),
    states=(
        State("awaiting_details", Phase.OPEN),
        State("awaiting_payment", Phase.OPEN),
        State("pending", Phase.PROCESSING),
        State("sent", Phase.REFUNDED, terminal=True),
        State("externally processed", Phase.REFUNDED, terminal=True),  # the provider writes it with a space
        State("failed", Phase.FAILED, terminal=True),
        State("canceled", Phase.CANCELLED, terminal=True),
    ),
    moves={
        "awaiting_details": ("awaiting_payment", "externally processed", "failed", "canceled"),
        "awaiting_payment": ("pending", "sent", "externally processed", "failed", "canceled"),
        "pending": ("sent", "failed", "canceled"),
    },
    source="https://docs.banked.com/merchant/refunds/refund-webhooks",
)

PAYOUT: Final = Lifecycle(
    name="banked.payout",
    subject="payout",
    initial=("pending",),
    states=(
        State("pending", Phase.PROCESSING),
        State("sent", Phase.PAID, terminal=True),
        State("failed", Phase.FAILED, terminal=True),
        State("canceled", Phase.CANCELLED, terminal=True),
    ),
    moves={"pending": ("sent", "failed", "canceled")},
    source="https://docs.banked.com/merchant/payments/webhooks/payout-pending",
)

LIFECYCLES: Final = {"payment_session": PAYMENT_SESSION, "payin": PAYIN, "refund": REFUND, "payout": PAYOUT}
