"""Tables of payments; `SEALED` names the columns that the audit protects.

Rows that are read and written by the thousand are plain records (`Row`), declared after their table with the same
names: a mapped object would cost more than the rest of a decision. Ids are UUIDv7, so a range of ids is a range of
time: PostgreSQL partitions by that (ADR 0018), and no foreign key points to a row of a table that may be detached.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from storage.columns import Row, identifier, instant, json_value, metadata, views
from storage.tables_support import Counted


class KnownDelivery(SQLModel, table=True):
    """The known delivery keys, each with its first message: repeats are redeliveries.

    Not partitioned, so that a key is unique whenever it comes; kept when the message itself is detached.
    """

    __tablename__ = "known_delivery"
    __table_args__: ClassVar[dict[str, Any]] = {"sqlite_with_rowid": False}

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    delivery_key: str = Field(sa_column=Column(String(255), primary_key=True))
    message_id: str = Field(sa_column=identifier())
    digest: str = Field(max_length=64)  #: of the body; another is a variant


class InboxMessageTable(SQLModel, table=True):
    """The table of inbox messages; partitioned by time of receipt."""

    __tablename__ = "inbox_message"

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    account: str = Field(max_length=64)
    source: str = Field(max_length=16)  #: statemachine.phases.Source
    delivery_key: str = Field(max_length=255)  #: identity of what was delivered
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  #: exact bytes; none once scrubbed
    headers: list[list[str]] = Field(sa_column=json_value())  #: as received, without credentials
    digest: str = Field(max_length=64)  #: SHA-256 of the body, hex
    envelope_digest: str = Field(max_length=64)  #: seal over SEALED, hex; transitions and decisions rest on it
    key_id: str | None = Field(default=None, max_length=64)  #: the key that verified it
    received_at: datetime = Field(sa_column=instant(nullable=False))
    provider_time: datetime | None = Field(default=None, sa_column=instant())  #: signed by the provider
    kind: str | None = Field(default=None, max_length=32)  #: lifecycle kind, where the channel tells it
    ref: str | None = Field(default=None, max_length=255)  #: provider_ref that we asked about
    http_status: int | None = None  #: of an answer to our own call
    about: str | None = Field(
        default=None, sa_column=identifier(nullable=True)
    )  #: the payment, where the channel tells it
    variant_of: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: same identity, other content
    scrubbed_at: datetime | None = Field(default=None, sa_column=instant())  #: retention has emptied the body


@dataclass(kw_only=True)
class InboxMessage(Row):
    """An authentic statement, verbatim, from any source; ends decided, parked or dead.

    The row is inserted once: triggers refuse UPDATE and DELETE, but for retention's scrubbing. What comes after the
    columns of the table is read from `inbox_queue`, `decision` and `inbox_redelivery` (`storage.inbox`).
    """

    __tablename__ = "inbox_message"

    #: set when it is recorded, never changed; `envelope_digest` covers them
    SEALED: ClassVar[tuple[str, ...]] = (
        "id",
        "account",
        "source",
        "delivery_key",
        "digest",
        "headers",
        "key_id",
        "received_at",
        "provider_time",
        "kind",
        "ref",
        "http_status",
        "about",
        "variant_of",
    )

    id: str
    account: str
    source: str
    delivery_key: str
    body: bytes
    headers: list[list[str]]
    digest: str
    envelope_digest: str
    key_id: str | None = None
    received_at: datetime
    provider_time: datetime | None = None
    kind: str | None = None
    ref: str | None = None
    http_status: int | None = None
    about: str | None = None
    variant_of: str | None = None
    scrubbed_at: datetime | None = None
    # of the queue
    status: str = "pending"  #: storage.types.InboxStatus; decided where the queue has no row
    attempts: int = 0
    available_at: datetime | None = None
    claim_token: int = 0
    readings: int = 0  #: how often it had been decided when it was queued
    last_error: str | None = None
    awaits: str | None = None
    # of its decisions
    payment_id: str | None = None  #: the first payment of the newest decision that is about any
    decision: str | None = None  #: statemachine.phases.Outcome, the weightiest; None while it is pending
    reason: str | None = None
    decided_at: datetime | None = None
    outcomes: list[dict[str, Any]] = field(default_factory=list)  #: one per observation
    # of its redeliveries
    redeliveries: int = 0
    last_redelivered_at: datetime | None = None


#: Phases in which money may still come: payments pass through them.
_MOVING = "phase = 'open' OR phase = 'processing' OR phase = 'authorised'"

#: Phases that end without money, or that give it back: few payments are there, and people look for them.
_UNPAID = "phase = 'failed' OR phase = 'cancelled' OR phase = 'expired' OR phase = 'refunded'"


class PaymentTable(SQLModel, table=True):
    """The table of payments."""

    __tablename__ = "payment"
    __table_args__ = (
        UniqueConstraint("account", "kind", "provider_ref"),
        Index("ix_payment_reference", "account", "kind", "reference"),
        Index("ix_payment_account", "account", "id"),
        Index(
            "ix_payment_alias",
            "account",
            "alias",
            sqlite_where=text("alias IS NOT NULL"),
            postgresql_where=text("alias IS NOT NULL"),
        ),
        Index(
            "ix_payment_unnamed",
            "account",
            "created_at",
            sqlite_where=text("provider_ref IS NULL"),
            postgresql_where=text("provider_ref IS NULL"),
        ),
        Index(
            "ix_payment_review",
            "review",
            sqlite_where=text("review IS NOT NULL"),
            postgresql_where=text("review IS NOT NULL"),
        ),
        Index(
            "ix_payment_moving",
            "phase",
            "id",
            sqlite_where=text(_MOVING),
            postgresql_where=text(_MOVING),
        ),
        Index(
            "ix_payment_unpaid",
            "phase",
            "id",
            sqlite_where=text(_UNPAID),
            postgresql_where=text(_UNPAID),
        ),
    )

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    account: str = Field(max_length=64)
    kind: str = Field(max_length=32)  #: lifecycle kind
    provider_ref: str | None = Field(default=None, max_length=255)  #: None until the provider has named it
    reference: str | None = Field(default=None, max_length=255)  #: the merchant's own id
    alias: str | None = Field(default=None, max_length=255)  #: another name that the provider's hints may use
    #: further names and attempts, in the order in which they became known; None for none (worker/attempts.py)
    names: list[dict[str, Any]] | None = Field(default=None, sa_column=json_value(nullable=True))
    amount_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    currency: str | None = Field(default=None, max_length=3)
    #: cumulative sums: None is unsaid, and 0 is said (statemachine.sums.Sums)
    authorised_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    captured_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    refunded_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    charged_back_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    disputed_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    #: sums that the provider states itself, each with the time of its last word; None for none
    stated: dict[str, str | None] | None = Field(default=None, sa_column=json_value(nullable=True))
    #: captures, refunds and disputes, each once by kind and name; None for none (worker/sums.py)
    parts: list[dict[str, Any]] | None = Field(default=None, sa_column=json_value(nullable=True))
    #: how often each effect was due, by its name; None for none
    counts: dict[str, int] | None = Field(default=None, sa_column=json_value(nullable=True))
    state: str | None = Field(default=None, max_length=64)  #: as the provider names it; None before its first
    phase: str = Field(max_length=16)  #: statemachine.phases.Phase
    state_as_of: datetime | None = Field(default=None, sa_column=instant())
    version: int = 0  #: number of its last transition
    head_hash: str = Field(default="", max_length=64)  #: hash of its last transition
    review: str | None = Field(default=None, max_length=32)  #: statemachine.phases.Review, while one is open
    review_note: str | None = None  #: in words; where fulfilment is withheld, the doubt alone
    review_opened_at: datetime | None = Field(default=None, sa_column=instant())
    #: points that the open review is about, such as "amount:451", "currency:EUR", "conflict:confirmed",
    #: "status:blessed", "reference:<payment>", "environment:test" or "message:<id>"; None for none
    disputed: list[str] | None = Field(default=None, sa_column=json_value(nullable=True))
    #: points that resolutions accepted, each once `disputed` (or "conflict:" and the state that was left): they open no
    #: review again. A move by the provider's word takes the conflicts away. None for none
    accepted: list[str] | None = Field(default=None, sa_column=json_value(nullable=True))
    reviews: int = 0  #: how many reviews were ever opened
    facts: dict[str, str] = Field(default_factory=dict, sa_column=json_value())  #: latest_error, checkout url, ...
    failure_reason: str | None = None
    expires_at: datetime | None = Field(default=None, sa_column=instant())  #: by the provider's word; decides nothing
    capture_by: datetime | None = Field(default=None, sa_column=instant())  #: an authorisation's end; decides nothing
    return_url: str | None = None  #: the merchant's page for the returning payer
    description: str | None = None  #: the merchant's own words
    #: the merchant's own names and values; None for none. `metadata` is SQLAlchemy's
    merchant_metadata: dict[str, str] | None = Field(default=None, sa_column=json_value(nullable=True))
    created_at: datetime = Field(sa_column=instant(nullable=False))
    changed_at: datetime = Field(sa_column=instant(nullable=False))  #: last transition, else creation
    seal: str = Field(default="", max_length=64)  #: over SEALED, hex


@dataclass(kw_only=True)
class Payment(Row):
    """The current state of a payment; the audit rebuilds it from its history.

    Changed by worker/apply.py alone.
    """

    __tablename__ = "payment"

    #: `seal` covers them
    SEALED: ClassVar[tuple[str, ...]] = (
        "id",
        "account",
        "kind",
        "provider_ref",
        "reference",
        "alias",
        "names",
        "amount_minor",
        "currency",
        "authorised_minor",
        "captured_minor",
        "refunded_minor",
        "charged_back_minor",
        "disputed_minor",
        "stated",
        "parts",
        "counts",
        "state",
        "phase",
        "state_as_of",
        "version",
        "head_hash",
        "review",
        "review_note",
        "reviews",
        "review_opened_at",
        "disputed",
        "accepted",
        "facts",
        "failure_reason",
        "expires_at",
        "capture_by",
        "return_url",
        "description",
        "merchant_metadata",
        "created_at",
        "changed_at",
    )

    id: str
    account: str
    kind: str
    provider_ref: str | None = None
    reference: str | None = None
    alias: str | None = None
    names: list[dict[str, Any]] | None = None
    amount_minor: int | None = None
    currency: str | None = None
    authorised_minor: int | None = None
    captured_minor: int | None = None
    refunded_minor: int | None = None
    charged_back_minor: int | None = None
    disputed_minor: int | None = None
    stated: dict[str, str | None] | None = None
    parts: list[dict[str, Any]] | None = None
    counts: dict[str, int] | None = None
    state: str | None = None
    phase: str
    state_as_of: datetime | None = None
    version: int = 0
    head_hash: str = ""
    review: str | None = None
    review_note: str | None = None
    review_opened_at: datetime | None = None
    disputed: list[str] | None = None
    accepted: list[str] | None = None
    reviews: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    failure_reason: str | None = None
    expires_at: datetime | None = None
    capture_by: datetime | None = None
    return_url: str | None = None
    description: str | None = None
    merchant_metadata: dict[str, str] | None = None
    created_at: datetime
    changed_at: datetime
    seal: str = ""


class PaymentName(SQLModel, table=True):
    """Further names of payments, for lookup; `payment.names` is what is sealed.

    The audit proves that both say the same, so that a row here needs no seal of its own.
    """

    __tablename__ = "payment_name"
    __table_args__: ClassVar[Any] = (
        Index("ix_payment_name_payment", "payment_id"),
        {"sqlite_with_rowid": False},
    )

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    kind: str = Field(sa_column=Column(String(32), primary_key=True))  #: of the payment
    name: str = Field(sa_column=Column(String(255), primary_key=True))
    payment_id: str = Field(sa_column=identifier())


class PaymentPollTable(SQLModel, table=True):
    """The table of what messages and questions change of a payment at every turn.

    Narrow, since it is written so often: a message that leaves the payment as it is changes no indexed column.
    """

    __tablename__ = "payment_poll"
    __table_args__ = (
        Index(
            "ix_payment_poll_next",
            "account",
            "poll_priority",
            "next_poll_at",
            sqlite_where=text("next_poll_at IS NOT NULL"),
            postgresql_where=text("next_poll_at IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )

    payment_id: str = Field(sa_column=identifier(primary=True))
    account: str = Field(max_length=64)  #: the payment's
    heard_at: datetime = Field(sa_column=instant(nullable=False))  #: last statement of any source
    statements: int = 0  #: how many outcomes of inbox messages name it, so that none can be taken away unseen
    seal: str = Field(default="", max_length=64)  #: over SEALED, hex
    next_poll_at: datetime | None = Field(default=None, sa_column=instant())  #: None: not asked about any more
    poll_priority: int = 4  #: storage.types.PollPriority of the next question
    asked_at: datetime | None = Field(default=None, sa_column=instant())  #: the last answer is of then
    polls: int = 0  #: questions since the last change
    poll_error: str | None = None  #: of the last question, if it failed
    poll_failures: int = 0  #: questions in a row that failed


@dataclass(kw_only=True)
class PaymentPoll(Row):
    """When a payment was heard of, when it is asked about next, and why.

    There is one for each payment. What is heard is written by the worker; the rest by the poller too.
    """

    __tablename__ = "payment_poll"

    #: `seal` covers them
    SEALED: ClassVar[tuple[str, ...]] = ("payment_id", "account", "heard_at", "statements")

    payment_id: str
    account: str
    heard_at: datetime
    statements: int = 0
    seal: str = ""
    next_poll_at: datetime | None = None
    poll_priority: int = 4
    asked_at: datetime | None = None
    polls: int = 0
    poll_error: str | None = None
    poll_failures: int = 0


class TransitionTable(SQLModel, table=True):
    """The table of transitions; partitioned by the time of the payment's creation."""

    __tablename__ = "transition"
    __table_args__ = (
        Index("ix_transition_id", "id"),
        Index("ix_transition_cause", "cause"),
    )

    payment_id: str = Field(sa_column=identifier(primary=True))
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))  #: 1, 2, 3, ... without gaps
    id: str = Field(sa_column=identifier())  #: UUIDv7; later ones were recorded later
    account: str = Field(max_length=64)  #: the payment's
    from_state: str | None = Field(default=None, max_length=64)
    to_state: str = Field(max_length=64)
    phase: str = Field(max_length=16)  #: of to_state and the sums
    #: the payment's sums with it; a day's money is what they changed
    captured_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    refunded_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    charged_back_minor: int | None = Field(default=None, sa_column=Column(BigInteger))
    via: list[str] = Field(
        default_factory=list, sa_column=json_value()
    )  #: states passed without a message of their own
    forced: bool = False  #: against the lifecycle, by an operator or by policy
    cause: str = Field(sa_column=identifier())  #: the inbox message
    evidence: str = Field(max_length=64)  #: that message's envelope_digest
    source: str = Field(max_length=16)
    actor: str | None = Field(default=None, max_length=128)  #: who, for an operator
    reason: str  #: in words
    as_of: datetime | None = Field(default=None, sa_column=instant())  #: the provider's time
    recorded_at: datetime = Field(sa_column=instant(nullable=False))
    prev_hash: str = Field(max_length=64)  #: "" for the first
    hash: str = Field(max_length=64)


@dataclass(kw_only=True)
class Transition(Row):
    """A recorded move of a payment, or of its money.

    Append-only: triggers refuse UPDATE and DELETE.
    """

    __tablename__ = "transition"

    #: `hash` covers them
    SEALED: ClassVar[tuple[str, ...]] = (
        "id",
        "payment_id",
        "number",
        "from_state",
        "to_state",
        "phase",
        "captured_minor",
        "refunded_minor",
        "charged_back_minor",
        "via",
        "forced",
        "cause",
        "evidence",
        "source",
        "actor",
        "reason",
        "as_of",
        "recorded_at",
        "prev_hash",
    )

    payment_id: str
    number: int
    id: str
    account: str
    from_state: str | None = None
    to_state: str
    phase: str
    captured_minor: int | None = None
    refunded_minor: int | None = None
    charged_back_minor: int | None = None
    via: list[str] = field(default_factory=list)
    forced: bool = False
    cause: str
    evidence: str
    source: str
    actor: str | None = None
    reason: str
    as_of: datetime | None = None
    recorded_at: datetime
    prev_hash: str
    hash: str


class OutboxMessageTable(SQLModel, table=True):
    """The table of outbox messages: what is owed, inserted once and never changed."""

    __tablename__ = "outbox_message"
    __table_args__ = (
        UniqueConstraint("payment_id", "effect", "sink", "occurrence"),
        Index("ix_outbox_message_webhook_id", "webhook_id"),
        Index(
            "uq_outbox_message_account",
            "cause",
            "effect",
            "sink",
            unique=True,
            sqlite_where=text("payment_id IS NULL"),
            postgresql_where=text("payment_id IS NULL"),
        ),
    )

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7, of the row; what travels is `webhook_id`
    payment_id: str | None = Field(sa_column=identifier(nullable=True))  #: None where it is about an account
    account: str = Field(max_length=64)
    effect: str = Field(max_length=32)  #: statemachine.phases.Effect, or that of an Alarm
    sink: str = Field(max_length=64)
    occurrence: int = 0  #: 0 where the effect is once-only; else the number of the review
    cause: str = Field(sa_column=identifier())  #: the inbox message
    payload: str  #: JSON, as it will be sent
    created_at: datetime = Field(sa_column=instant(nullable=False))
    seal: str = Field(default="", max_length=64)
    #: the idempotency key that travels, by storage.ids.webhook_id; None where the id travels
    webhook_id: str | None = Field(default=None, sa_column=identifier(nullable=True))
    number: int  #: its place among what the payment owes, or among an account's alarms of its name


class OutboxQueueTable(SQLModel, table=True):
    """The table of outbox messages that are not delivered: pending or dead.

    A row goes in the commit that records its delivery. A claim changes no column that an index has, so that PostgreSQL
    writes it beside the old one (HOT); half of each page is left free for that.
    """

    __tablename__ = "outbox_queue"
    __table_args__ = (
        # What was never put off and what is tried again are claimed apart: neither is searched for in the other.
        Index(
            "ix_outbox_queue_first",
            "sink",
            "next_attempt_at",
            "outbox_id",
            sqlite_where=text("status = 'pending' AND is_first"),
            postgresql_where=text("status = 'pending' AND is_first"),
        ),
        Index(
            "ix_outbox_queue_again",
            "sink",
            "next_attempt_at",
            "outbox_id",
            sqlite_where=text("status = 'pending' AND NOT is_first"),
            postgresql_where=text("status = 'pending' AND NOT is_first"),
        ),
        Index(
            "ix_outbox_queue_pending",
            "payment_id",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_outbox_queue_dead",
            "outbox_id",
            sqlite_where=text("status = 'dead'"),
            postgresql_where=text("status = 'dead'"),
        ),
        {"sqlite_with_rowid": False, "postgresql_with": {"fillfactor": 50}},
    )

    outbox_id: str = Field(sa_column=identifier(primary=True))
    payment_id: str | None = Field(sa_column=identifier(nullable=True))  #: the outbox message's, as the next four
    account: str = Field(max_length=64)
    effect: str = Field(max_length=32)
    sink: str = Field(max_length=64)
    number: int
    status: str = Field(max_length=16)  #: storage.types.OutboxStatus: pending or dead
    attempts: int
    last_error: str | None = None
    seal: str = Field(max_length=64)  #: over OutboxMessage.SEALED_STATUS
    claim_token: int = 0  #: fencing: grows with every claim
    lease_ends_at: datetime | None = Field(default=None, sa_column=instant())  #: nobody else may claim it before then
    next_attempt_at: datetime = Field(sa_column=instant(nullable=False))  #: may be claimed from then on
    is_first: bool = True  #: it was neither tried nor put off, and may be claimed whatever the clock says


class OutboxDeliveredTable(SQLModel, table=True):
    """The table of delivered outbox messages, inserted once and never changed.

    Attempts may be deleted by retention; this is not.
    """

    __tablename__ = "outbox_delivered"
    __table_args__: ClassVar[dict[str, Any]] = {"sqlite_with_rowid": False}

    outbox_id: str = Field(sa_column=identifier(primary=True))
    attempts: int
    delivered_at: datetime = Field(sa_column=instant(nullable=False))
    seal: str = Field(max_length=64)  #: over OutboxMessage.SEALED_STATUS


@dataclass(kw_only=True)
class OutboxMessage(Row):
    """An effect owed to a sink; ends delivered or dead. A row of the view `outbox`."""

    __tablename__ = "outbox"

    #: `seal` covers them
    SEALED: ClassVar[tuple[str, ...]] = (
        "id",
        "payment_id",
        "account",
        "effect",
        "sink",
        "occurrence",
        "cause",
        "payload",
        "created_at",
        "webhook_id",
        "number",
    )
    #: `status_seal` covers them
    SEALED_STATUS: ClassVar[tuple[str, ...]] = ("id", "status", "attempts", "delivered_at", "last_error")

    id: str
    payment_id: str | None
    account: str
    effect: str
    sink: str
    occurrence: int = 0
    cause: str
    payload: str
    created_at: datetime
    seal: str = ""
    webhook_id: str | None = None
    number: int = 0
    status: str = "pending"  #: storage.types.OutboxStatus
    attempts: int = 0
    next_attempt_at: datetime  #: may be claimed from then on
    claim_token: int = 0
    delivered_at: datetime | None = None
    last_error: str | None = None
    status_seal: str = ""

    @property
    def travels_as(self) -> str:
        """The id that sinks get: the same at every attempt and after a restored backup."""
        return self.webhook_id or self.id


def _view(name: str) -> None:
    """Declare a view of outbox messages with their statuses."""
    message, queue = metadata.tables["outbox_message"], metadata.tables["outbox_queue"]
    delivered = metadata.tables["outbox_delivered"].c.delivered_at
    columns = [Column(each.name, each.type, nullable=each.nullable) for each in message.c]
    columns += [Column(each, queue.c[each].type, nullable=False) for each in ("status", "attempts")]
    columns += [Column(each, queue.c[each].type, nullable=False) for each in ("next_attempt_at", "claim_token")]
    columns += [Column("delivered_at", delivered.type), Column("last_error", queue.c.last_error.type)]
    columns.append(Column("status_seal", queue.c.seal.type, nullable=False))
    Table(name, views, *columns, info={"rows_of": message.name})


_view("outbox")  # every message
_view("outbox_waiting")  # those that are pending or dead, by the indexes of the queue


class DeliveryAttemptTable(SQLModel, table=True):
    """The table of delivery attempts; partitioned by the time of the effect."""

    __tablename__ = "delivery_attempt"

    outbox_id: str = Field(sa_column=identifier(primary=True))
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))  #: 1, 2, 3, ...
    id: str = Field(sa_column=identifier())  #: UUIDv7
    account: str = Field(default="", max_length=64)  #: the outbox message's
    started_at: datetime = Field(sa_column=instant(nullable=False))
    duration_ms: int
    http_status: int | None = None
    outcome: str = Field(max_length=16)  #: delivered, failed or dead
    error: str | None = None
    answer: str | None = None  #: the beginning of what the sink answered, redacted; None where it answered nothing
    seal: str | None = Field(default=None, max_length=64)  #: over SEALED, hex; None where the row was never sealed


@dataclass(kw_only=True)
class DeliveryAttempt(Row):
    """One try to hand an effect to its sink."""

    __tablename__ = "delivery_attempt"

    #: `seal` covers them
    SEALED: ClassVar[tuple[str, ...]] = (
        *("outbox_id", "number", "id", "account", "started_at", "duration_ms", "http_status", "outcome", "error"),
        "answer",
    )

    outbox_id: str
    number: int
    id: str
    account: str = ""
    started_at: datetime
    duration_ms: int
    http_status: int | None = None
    outcome: str
    error: str | None = None
    answer: str | None = None
    seal: str | None = None


class RejectedDelivery(SQLModel, table=True):
    """A delivery that was not authentic, kept a while: a wrong key loses no event."""

    __tablename__ = "rejected_delivery"
    __table_args__ = (Index("ix_rejected_delivery_account", "account", "id"),)

    #: `seal` covers them, and the digest of the body
    SEALED: ClassVar[tuple[str, ...]] = (
        *("id", "account", "received_at", "reason", "client", "headers", "kind", "about"),
    )

    id: str = Field(sa_column=identifier(primary=True))
    account: str = Field(max_length=64)
    received_at: datetime = Field(sa_column=instant(nullable=False))
    reason: str = Field(max_length=32)
    client: str = Field(max_length=64)  #: address of the peer
    headers: list[list[str]] = Field(sa_column=json_value())
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    kind: str | None = Field(default=None, max_length=32)
    about: str | None = Field(default=None, sa_column=identifier(nullable=True))
    seal: str | None = Field(default=None, max_length=64)  #: hex; None where the row was never sealed


class OperatorAction(SQLModel, table=True):
    """An action of a named person and its reason; append-only, numbered and chained."""

    __tablename__ = "operator_action"
    __table_args__ = (
        Index("ix_operator_action_subject", "subject", "id"),
        Index("uq_operator_action_number", "number", unique=True),
    )

    #: `seal` covers them, and the seal of the action before
    SEALED: ClassVar[tuple[str, ...]] = ("id", "account", "at", "actor", "action", "subject", "reason", "number")

    id: str = Field(sa_column=identifier(primary=True))
    account: str | None = Field(default=None, max_length=64)  #: of the subject; None where it has none
    at: datetime = Field(sa_column=instant(nullable=False))
    actor: str = Field(max_length=128)
    action: str = Field(max_length=32)
    subject: str = Field(max_length=64)  #: id of the payment, inbox message or outbox message
    reason: str
    number: int | None = Field(
        default=None, sa_column=Column(Counted())
    )  #: 1, 2, 3, ...; None where it was never numbered
    seal: str | None = Field(default=None, max_length=64)  #: hex; None where the row was never sealed
