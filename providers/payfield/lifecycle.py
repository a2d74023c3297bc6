"""Lifecycles of Payfield's operations; internal states appear as `pending`."""

from typing import Final

from statemachine.lifecycle import Lifecycle, State
from statemachine.phases import Phase

_SOURCE: Final = "https://merchant-external-documentation.pages.dev/docs/02-payouts/2.2-get-payout-status"


def _operation(kind: str, pending: Phase, subject: str) -> Lifecycle:
    return Lifecycle(
        name=f"payfield.{kind}",
        subject=subject,
        initial=("pending",),
        states=(
            State("pending", pending),
            State("success", Phase.PAID),  # final, but for a reversal
            State("failed", Phase.FAILED, terminal=True),
            State("canceled", Phase.CANCELLED, terminal=True),
            State("refunded", Phase.REFUNDED, terminal=True),
            State("expired", Phase.EXPIRED, terminal=True),
        ),
        moves={"pending": ("success", "failed", "canceled", "expired"), "success": ("refunded",)},
        source=_SOURCE,
    )


#: The payer pays: pending waits for them.
PAYIN: Final = _operation("payin", Phase.OPEN, "payment")

#: We pay: nobody has to do anything more, so pending is on its way.
PAYOUT: Final = _operation("payout", Phase.PROCESSING, "payout")

LIFECYCLES: Final = {"payin": PAYIN, "payout": PAYOUT}
