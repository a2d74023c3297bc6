"""Vocabularies: phases, effects, alarms, sources, outcomes and reviews."""

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Meaning of a provider's state to a merchant; a lifecycle gives each state one."""

    OPEN = "open"  #: the payer has not done their part; left by any word of the provider
    PROCESSING = "processing"  #: the payer did, the outcome is not known; left by any word of the provider
    AUTHORISED = "authorised"  #: guaranteed, and not captured; left by any word of the provider
    PAID = "paid"  #: the money is the merchant's; fulfilment starts here
    SETTLED = "settled"  #: the money has reached the merchant's bank
    FAILED = "failed"  #: without money: never paid, or gone again
    CANCELLED = "cancelled"  #: withdrawn before payment
    EXPIRED = "expired"  #: not paid in time
    REFUNDED = "refunded"  #: paid and given back


class Effect(StrEnum):
    """A consequence owed to the world.

    There is one row per payment, sink and occurrence: 0 for the first of its name. Those of the money's position come
    in its order, so that the last of them is true.

    What is owed about an account as a whole is named by its Alarm.
    """

    AUTHORISED = "payment.authorised"  #: guaranteed, to be captured; owed each time
    PAID = "payment.paid"  #: fulfil; owed once, however often the money comes back
    SETTLED = "payment.settled"  #: owed each time
    FAILED = "payment.failed"  #: ended, and was never paid; owed each time
    CANCELLED = "payment.cancelled"  #: ended, and was never paid; owed each time
    EXPIRED = "payment.expired"  #: ended, and was never paid; owed each time
    REFUNDED = "payment.refunded"  #: all of it was given back; owed each time
    REVERSED = "payment.reversed"  #: money that was there is gone: failed after paid, or charged back; each time
    RESTORED = "payment.restored"  #: money that was gone is there again; owed each time
    CAPTURED = "payment.captured"  #: one capture, or that one failed; owed for each
    REFUND_CHANGED = "payment.refund_changed"  #: one refund, and each change of it; may be of a part of the money
    DISPUTED = "payment.disputed"  #: the payer's bank reclaims money; owed for each dispute
    DISPUTE_WON = "payment.dispute_won"  #: it is the merchant's after all; owed for each
    DISPUTE_LOST = "payment.dispute_lost"  #: it is taken back; owed for each
    REVIEW_REQUIRED = "payment.review_required"  #: a person must decide; owed once for each review opened
    REVIEW_CLOSED = "payment.review_closed"  #: nobody must decide that any more; owed once for each review closed


class Alarm(StrEnum):
    """A problem of an account as a whole, reported when it begins and when it is over."""

    SILENT = "silent"  #: no verified delivery for longer than the account's own pattern makes plausible
    PUSH_LOSS = "push_loss"  #: too many changes are found by asking, and no push ever told of them
    UNVERIFIED = "unverified"  #: deliveries come, and every one fails verification
    DRIFT = "drift"  #: a reconciliation found what nobody had told here; ends with itself

    UNREACHABLE = "unreachable"  #: questions have met outages for so long that somebody should know
    DEAD_LETTERS = "dead_letters"  #: messages or payments' effects were given up, and nobody has mended that

    @property
    def effect(self) -> str:
        """Name of its effect, such as "account.silent"."""
        return f"account.{self.value}"


#: The effect of entering a phase. Open and processing owe nothing to the world.
EFFECT_OF_PHASE: dict[Phase, Effect] = {
    Phase.AUTHORISED: Effect.AUTHORISED,
    Phase.PAID: Effect.PAID,
    Phase.SETTLED: Effect.SETTLED,
    Phase.FAILED: Effect.FAILED,
    Phase.CANCELLED: Effect.CANCELLED,
    Phase.EXPIRED: Effect.EXPIRED,
    Phase.REFUNDED: Effect.REFUNDED,
}

#: Effects that hand over goods; withheld while amount, currency or reference are in doubt.
FULFILMENT_EFFECTS = frozenset({Effect.AUTHORISED, Effect.PAID, Effect.SETTLED, Effect.RESTORED})

#: Effects of a state and of money; all of them are withheld where the state is of the wrong environment.
STATE_EFFECTS = frozenset(Effect) - {Effect.REVIEW_REQUIRED, Effect.REVIEW_CLOSED}

#: Phases in which the money may still come, or not.
MOVING_PHASES = frozenset({Phase.OPEN, Phase.PROCESSING, Phase.AUTHORISED})

#: Phases in which the money is there.
MONEY_PHASES = frozenset({Phase.PAID, Phase.SETTLED})

#: Phases in which goods may be handed over.
FULFILMENT_PHASES = MONEY_PHASES | {Phase.AUTHORISED}


class Source(StrEnum):
    """Origin of a statement. Each is a message in the inbox (rule R1)."""

    WEBHOOK = "webhook"  #: the provider, at the account's URL
    CALLBACK = "callback"  #: the provider, at one payment's own URL
    RETURN = "return"  #: a payer came back from checkout; says nothing but "ask now"
    POLL = "poll"  #: the provider's answer to our GET
    LIST = "list"  #: one page of the provider's list, when we walked through it
    JOURNAL = "journal"  #: one event of the provider's own log of events, when we read it; what its webhook says
    CREATE = "create"  #: the provider's answer to our create call, or that there was none
    CANCEL = "cancel"  #: the provider's answer to our cancel call, or that there was none
    CAPTURE = "capture"  #: the provider's answer to our capture call, or that there was none
    REFUND = "refund"  #: the provider's answer to our refund call, or that there was none
    MERCHANT = "merchant"  #: the merchant asks for a payment to exist, or for money to be captured or refunded
    POLLER = "poller"  #: our poller gave up asking, or an alarm of an account begins or is over
    OPERATOR = "operator"  #: a named person resolves, with a reason


#: Answers to our own authenticated calls: true when they were asked for.
ANSWERS = frozenset({Source.POLL, Source.LIST, Source.CREATE, Source.CANCEL, Source.CAPTURE, Source.REFUND})

#: Answers to calls that move money; a statement of such a source names the wish that it answers.
MONEY_CALLS = frozenset({Source.CAPTURE, Source.REFUND})


class Outcome(StrEnum):
    """Answer of decide() for one observation."""

    ADVANCED = "advanced"  #: a transition is recorded
    UNCHANGED = "unchanged"  #: the state is the current one; facts may have been updated
    STALE = "stale"  #: the payment has passed that state already
    CONFLICT = "conflict"  #: no legal way there; a person, or the provider when asked, must say
    PARKED = "parked"  #: authentic, not applicable now: unknown status, unreadable, or nobody's payment
    NOTED = "noted"  #: says nothing about a state: a hint, or a kind that we do not use


#: The decision of a message with several observations is the weightiest of theirs; the first weighs most.
BY_WEIGHT: Final[tuple[Outcome, ...]] = (
    Outcome.CONFLICT,
    Outcome.PARKED,
    Outcome.ADVANCED,
    Outcome.UNCHANGED,
    Outcome.STALE,
    Outcome.NOTED,
)


class Review(StrEnum):
    """Reason for which a person must look at a payment."""

    AMOUNT_MISMATCH = "amount_mismatch"  #: the provider states another amount than was asked for
    CURRENCY_MISMATCH = "currency_mismatch"  #: the provider states another currency
    AMOUNT_UNKNOWN = "amount_unknown"  #: goods are owed for money that is not stated, or for zero or less
    REFERENCE_TAKEN = "reference_taken"  #: goods are owed under a reference that another payment has
    PAID_TWICE = "paid_twice"  #: two attempts at one wish were paid; goods were handed over for one
    WRONG_ENVIRONMENT = "wrong_environment"  #: test money in a live account, or live money in a test account
    CONFLICT = "conflict"  #: the provider's statements have no legal order, such as paid after cancelled
    LATE_MOVE = "late_move"  #: the payment had ended, and went on, as its lifecycle knows and a person must see
    UNKNOWN_STATUS = "unknown_status"  #: the provider uses a status that the lifecycle does not know
    GAVE_UP = "gave_up"  #: asking went on for as long as configured, without an end
    CREATE_UNKNOWN = "create_unknown"  #: the create call had no answer, or one that says nothing
    OUTCOME_UNKNOWN = "outcome_unknown"  #: a capture or refund call had no answer, or one that says nothing


#: Reviews in which goods must not be handed over: until a person says so, or, where the amount was unknown, until it
#: is known.
WITHHOLDING = frozenset(
    {
        Review.AMOUNT_MISMATCH,
        Review.CURRENCY_MISMATCH,
        Review.AMOUNT_UNKNOWN,
        Review.REFERENCE_TAKEN,
        Review.WRONG_ENVIRONMENT,
        Review.LATE_MOVE,
    }
)

#: Reviews that the provider's next word on the state answers: it closes them.
ANSWERED_BY_A_MOVE = frozenset({Review.UNKNOWN_STATUS, Review.GAVE_UP, Review.CREATE_UNKNOWN})


class ConflictPolicy(StrEnum):
    """An account's way with a conflict that the provider confirms when asked."""

    REVIEW = "review"  #: a person resolves it with a reason (the default)
    TRUST_PROVIDER = "trust_provider"  #: recorded at once as a transition marked forced


class PartialCapture(StrEnum):
    """An account's way with a payment of which less was captured than was asked for."""

    REVIEW = "review"  #: a person accepts the sum, once for each (the default)
    ACCEPT = "accept"  #: it is paid with the captured sum
