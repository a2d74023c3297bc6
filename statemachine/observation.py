"""Input and output of decide(): observation, payment and decision."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from statemachine.effects import Counts, DueEffect
from statemachine.phases import ConflictPolicy, Outcome, PartialCapture, Phase, Review, Source
from statemachine.sums import UNSAID, Part, PartChange, Sums


class Observation(msgspec.Struct, frozen=True):
    """Provider-neutral reading of one statement about one payment.

    Everything but the source may be unsaid.

    `as_of` is the instant at which the statement was true: the provider's own time where it gives one, else, for an
    answer to our own question, the instant at which we asked. It orders statements only within a loop of states.
    A status of None says that the payment exists at the provider, and that it should be asked about.
    """

    source: Source
    kind: str | None = None  #: lifecycle kind; None where only the payment's own record can tell
    is_kind_guessed: bool = False  #: the body does not say its kind: it is the channel's, or the likeliest
    provider_ref: str | None = None  #: the id under which the provider's API returns it
    reference: str | None = None  #: the merchant's own id, as the provider echoes it
    names: tuple[str, ...] = ()  #: further ids of the same thing, such as of its charge
    alias: str | None = None  #: another name that the provider's hints may use, such as an address on a chain
    status: str | None = None  #: the provider's word for the state
    amount_minor: int | None = None  #: of the payment; of the refund where the status is refunded (see as_refund())
    currency: str | None = None
    sums: Sums = UNSAID  #: cumulative, never deltas; a delta is a part
    parts: tuple[Part, ...] = ()  #: captures, refunds and disputes that it tells of
    is_live: bool | None = None  #: whether it says that the money is real
    as_of: datetime | None = None
    asked_at: datetime | None = None  #: for an answer to our own call: when it was sent, by our clock
    failure_reason: str | None = None
    expires_at: datetime | None = None
    capture_by: datetime | None = None  #: an authorised payment is not guaranteed for longer
    facts: Mapping[str, str | None] = {}  #: replaces facts of the same name; None removes
    actor: str | None = None  #: who, for an operator
    note: str | None = None  #: why, for an operator


class PaymentView(msgspec.Struct, frozen=True):
    """A payment as the rules see it; `state` is None until the provider's first word."""

    state: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    sums: Sums = UNSAID
    stated: Mapping[str, datetime | None] = {}  #: sums that the provider states itself, with the last word's time
    parts: tuple[Part, ...] = ()
    counts: Counts = {}  #: how often each effect was due
    state_as_of: datetime | None = None  #: as_of of the statement that the state rests on
    changed_at: datetime | None = None  #: when the last move was recorded, by our clock
    review: Review | None = None  #: the open review, if any
    disputed: tuple[str, ...] = ()  #: points that the open review is about
    accepted: tuple[str, ...] = ()  #: points that a person has accepted: they open no review again
    namesake: str | None = None  #: id of the payment that has had the reference before this one
    is_live: bool | None = None  #: whether its account is live; None where that is not to be compared
    policy: ConflictPolicy = ConflictPolicy.REVIEW
    can_ask: bool = True  #: whether the provider can be asked about it
    partial_capture: PartialCapture = PartialCapture.REVIEW
    tolerance_minor: int = 0  #: by how much an amount may differ from what was asked for
    phase: Phase | None = None  #: as it was decided last; None: as state and sums have it


class Decision(msgspec.Struct, frozen=True):
    """Result of deciding one observation: a value, never an exception."""

    outcome: Outcome
    reason: str  #: in words, for the timeline; nothing is decided by them
    to_state: str | None = None  #: set exactly when the outcome is advanced; the present one where only sums have
    state_confirmed: bool = False  #: the state that was stated is the one that the payment has
    via: tuple[str, ...] = ()  #: states that were passed without a message of their own
    forced: bool = False  #: recorded against the lifecycle, by an operator or by policy
    effects: tuple[DueEffect, ...] = ()  #: in the order in which they are owed
    counts: Counts | None = None  #: how often each effect was due, where that changes
    phase: Phase | None = None  #: of the payment now, by state and sums, where either has changed
    sums: Sums | None = None  #: of the payment now, where they have changed
    stated: Mapping[str, datetime | None] | None = None  #: where that changes
    parts: tuple[PartChange, ...] = ()  #: parts that are new or have changed
    confirmed_as_of: datetime | None = None  #: the state was confirmed by a newer word, and can be left and come back
    review: Review | None = None  #: the review that this opens, if it is not open already
    disputed: tuple[str, ...] = ()  #: points that the review is about, such as "amount:449"
    closes_review: bool = False
    accepted: tuple[str, ...] | None = None  #: what is accepted from now on, where that changes
    withheld_reason: str | None = None  #: the doubt for which effects are withheld, or would be
    ask: bool = False  #: the provider should be asked at once
