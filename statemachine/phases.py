"""Vocabularies: phases, effects, alarms, sources, outcomes and reviews."""

from enum import StrEnum


class Phase(StrEnum):
    """Meaning of a provider's state to a merchant; a lifecycle gives each state one."""

    OPEN = "open"  #: the payer has not done their part; left by any word of the provider
    PROCESSING = "processing"  #: the payer did, the outcome is not known; left by any word of the provider
    PAID = "paid"  #: the money is the merchant's; fulfilment starts here
    SETTLED = "settled"  #: the money has reached the merchant's bank
    FAILED = "failed"  #: ended without money
    CANCELLED = "cancelled"  #: withdrawn before payment
    EXPIRED = "expired"  #: not paid in time
    REFUNDED = "refunded"  #: paid and given back


class Effect(StrEnum):
    """A consequence owed to the world.

    There is one row per payment and sink, except for reviews (one per review).

    What is owed about an account as a whole is named by its Alarm.
    """

    PAID = "payment.paid"  #: fulfil; owed once
    SETTLED = "payment.settled"  #: owed once
    FAILED = "payment.failed"  #: owed once
    CANCELLED = "payment.cancelled"  #: owed once
    EXPIRED = "payment.expired"  #: owed once
    REFUNDED = "payment.refunded"  #: owed once
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
    Phase.PAID: Effect.PAID,
    Phase.SETTLED: Effect.SETTLED,
    Phase.FAILED: Effect.FAILED,
    Phase.CANCELLED: Effect.CANCELLED,
    Phase.EXPIRED: Effect.EXPIRED,
    Phase.REFUNDED: Effect.REFUNDED,
}

#: Effects that hand over goods; withheld while amount, currency or reference are in doubt.
FULFILMENT_EFFECTS = frozenset({Effect.PAID, Effect.SETTLED})

#: Effects of a state; all of them are withheld where the state is of the wrong environment.
STATE_EFFECTS = frozenset(EFFECT_OF_PHASE.values())

#: Phases in which goods are handed over.
FULFILMENT_PHASES = frozenset({Phase.PAID, Phase.SETTLED})


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
    MERCHANT = "merchant"  #: the merchant asks for a payment to exist
    POLLER = "poller"  #: our poller gave up asking, or an alarm of an account begins or is over
    OPERATOR = "operator"  #: a named person resolves, with a reason


#: Answers to our own authenticated calls: true when they were asked for.
ANSWERS = frozenset({Source.POLL, Source.LIST, Source.CREATE, Source.CANCEL})


class Outcome(StrEnum):
    """Answer of decide() for one observation."""

    ADVANCED = "advanced"  #: a transition is recorded
    UNCHANGED = "unchanged"  #: the state is the current one; facts may have been updated
    STALE = "stale"  #: the payment has passed that state already
    CONFLICT = "conflict"  #: no legal way there; a person, or the provider when asked, must say
    PARKED = "parked"  #: authentic, not applicable now: unknown status, unreadable, or nobody's payment
    NOTED = "noted"  #: says nothing about a state: a hint, or a kind that we do not use


class Review(StrEnum):
    """Reason for which a person must look at a payment."""

    AMOUNT_MISMATCH = "amount_mismatch"  #: the provider states another amount than was asked for
    CURRENCY_MISMATCH = "currency_mismatch"  #: the provider states another currency
    AMOUNT_UNKNOWN = "amount_unknown"  #: goods are owed for money that is not stated, or for zero or less
    REFERENCE_TAKEN = "reference_taken"  #: goods are owed under a reference that another payment has
    WRONG_ENVIRONMENT = "wrong_environment"  #: test money in a live account, or live money in a test account
    CONFLICT = "conflict"  #: the provider's statements have no legal order, such as paid after cancelled
    UNKNOWN_STATUS = "unknown_status"  #: the provider uses a status that the lifecycle does not know
    GAVE_UP = "gave_up"  #: asking went on for as long as configured, without an end
    CREATE_UNKNOWN = "create_unknown"  #: the create call had no answer, or one that says nothing


#: Reviews in which goods must not be handed over: until a person says so, or, where the amount was unknown, until it
#: is known.
WITHHOLDING = frozenset(
    {
        Review.AMOUNT_MISMATCH,
        Review.CURRENCY_MISMATCH,
        Review.AMOUNT_UNKNOWN,
        Review.REFERENCE_TAKEN,
        Review.WRONG_ENVIRONMENT,
    }
)

#: Reviews that the provider's next word on the state answers: it closes them.
ANSWERED_BY_A_MOVE = frozenset({Review.UNKNOWN_STATUS, Review.GAVE_UP, Review.CREATE_UNKNOWN})


class ConflictPolicy(StrEnum):
    """An account's way with a conflict that the provider confirms when asked."""

    REVIEW = "review"  #: a person resolves it with a reason (the default)
    TRUST_PROVIDER = "trust_provider"  #: recorded at once as a transition marked forced
