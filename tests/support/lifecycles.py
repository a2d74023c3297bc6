"""Made-up lifecycles that use every feature: a card with captures, a bank debit that comes and goes, attempts."""

from datetime import timedelta
from typing import Final

from statemachine.lifecycle import LateMove, LatePolicy, Lifecycle, State
from statemachine.phases import Phase

#: Captured in parts, refunded and disputed while the state stays "captured"; may be authorised late.
CARD: Final = Lifecycle(
    name="made_up.card",
    initial=("created",),
    states=(
        State("created", Phase.OPEN),
        State("authorised", Phase.AUTHORISED),
        State("captured", Phase.PAID),
        State("refused", Phase.FAILED, terminal=True, late_checks=(timedelta(days=1), timedelta(days=3))),
        State("voided", Phase.CANCELLED, terminal=True),
        State("lapsed", Phase.EXPIRED, terminal=True),
        State("closed", Phase.SETTLED, terminal=True),
    ),
    moves={
        "created": ("authorised", "refused", "lapsed"),
        "authorised": ("captured", "voided", "lapsed"),
        "captured": ("closed",),
    },
    late_moves={
        "refused": (LateMove("authorised", LatePolicy.ACCEPT),),
        "lapsed": (LateMove("captured", LatePolicy.ACCEPT),),
        "closed": (LateMove("refused", LatePolicy.ACCEPT),),
    },
)

#: Paid out, failed weeks after, tried again, and paid out once more; charged back, and that cancelled.
DEBIT: Final = Lifecycle(
    name="made_up.debit",
    initial=("pending",),
    states=(
        State("pending", Phase.OPEN),
        State("submitted", Phase.PROCESSING),
        State("confirmed", Phase.PAID),
        State("paid_out", Phase.SETTLED),
        State("failed", Phase.FAILED),
        State("cancelled", Phase.CANCELLED, terminal=True),
        State("charged_back", Phase.FAILED),
        State("returned", Phase.REFUNDED),
    ),
    moves={
        "pending": ("submitted", "cancelled"),
        "submitted": ("confirmed", "failed"),
        "confirmed": ("paid_out", "failed", "charged_back"),
        "paid_out": ("failed", "charged_back", "returned"),
        "failed": ("pending",),
        "charged_back": ("paid_out",),
        "returned": ("paid_out",),
    },
)

#: An order whose payer may try several times; each attempt has an id of its own, and its charge another.
ORDER: Final = Lifecycle(
    name="made_up.order",
    has_names=True,
    has_attempts=True,
    initial=("created",),
    states=(
        State("created", Phase.OPEN),
        State("pending", Phase.PROCESSING),
        State("authorised", Phase.AUTHORISED),
        State("captured", Phase.PAID),
        State("closed", Phase.SETTLED, terminal=True),
        State("refused", Phase.FAILED, terminal=True),
        State("returned", Phase.REFUNDED, terminal=True),
    ),
    moves={
        "created": ("pending", "authorised", "captured", "refused"),
        "pending": ("authorised", "captured", "refused"),
        "authorised": ("captured", "refused"),
        "captured": ("closed", "returned"),
    },
)

#: The charge of an attempt, in words of its own.
CHARGE: Final = Lifecycle(
    name="made_up.charge",
    belongs_to="order",
    initial=("made",),
    states=(State("made", Phase.OPEN), State("taken", Phase.PAID, terminal=True)),
    moves={"made": ("taken",)},
)
