"""Tables beside the payments: API keys, feed, polling, audits, console, retention."""

from datetime import date, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Date, Index, Integer, String, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from storage.columns import identifier, instant, json_value


class Counted(TypeDecorator[int]):
    """A number that grows for ever."""

    impl = BigInteger
    cache_ok = True


class ApiKey(SQLModel, table=True):
    """A key of the merchant's API; of its secret of 256 random bits a digest is kept."""

    __tablename__ = "api_key"
    __table_args__ = (Index("uq_api_key_digest", "digest", unique=True),)

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    name: str = Field(max_length=64)  #: who calls with it
    environment: str = Field(max_length=8)  #: live or test; it reaches accounts of that environment only
    scopes: list[str] = Field(sa_column=json_value())  #: of read, write, operate, admin
    digest: str = Field(max_length=64)  #: SHA-256 of the whole key, hex
    prefix: str = Field(max_length=24)  #: the key's beginning, which tells keys apart and may be shown
    created_at: datetime = Field(sa_column=instant(nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=instant())  #: refused from then on
    revoked_at: datetime | None = Field(default=None, sa_column=instant())  #: refused since then
    replaced_by: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: the key it was rotated to
    last_used_at: datetime | None = Field(default=None, sa_column=instant())  #: to about a minute


class ApiRate(SQLModel, table=True):
    """The token bucket of an API key; on PostgreSQL alone, where processes share it.

    At most one row for each API key. The table is UNLOGGED there: a crash or a failover leaves it empty, and every
    bucket full.
    """

    __tablename__ = "api_rate"

    key_id: str = Field(sa_column=identifier(primary=True))  #: the API key
    full_at: datetime = Field(sa_column=instant(nullable=False))  #: by the database's clock; it says nothing afterwards


class IdempotencyKey(SQLModel, table=True):
    """A call with an Idempotency-Key: in progress, or answered at `answered_at`."""

    __tablename__ = "idempotency_key"
    __table_args__ = (Index("ix_idempotency_key_expires_at", "expires_at"),)

    scope: str = Field(sa_column=Column(String(16), primary_key=True))  #: the environment of the API key
    key: str = Field(sa_column=Column(String(255), primary_key=True))  #: the caller's
    digest: str = Field(max_length=64)  #: SHA-256 of method, path and content, hex
    claim_token: int = 1  #: fencing: grows with everybody who takes over
    lease_ends_at: datetime = Field(sa_column=instant(nullable=False))  #: another may take over from then
    http_status: int | None = None  #: of the answer
    answer: str | None = None  #: the answer's JSON text
    answered_at: datetime | None = Field(default=None, sa_column=instant())
    created_at: datetime = Field(sa_column=instant(nullable=False))
    expires_at: datetime = Field(sa_column=instant(nullable=False))  #: forgotten from then on


class Event(SQLModel, table=True):
    """One effect, once for all its sinks; numbered without gaps that are filled later."""

    __tablename__ = "event"
    __table_args__ = (
        Index("uq_event_number", "number", unique=True),
        Index(
            "ix_event_unnumbered",
            "outbox_id",
            sqlite_where=text("number IS NULL"),
            postgresql_where=text("number IS NULL"),
        ),
    )

    subject: str = Field(sa_column=identifier(primary=True))  #: the payment, or the message of an account's alarm
    effect: str = Field(sa_column=Column(String(32), primary_key=True))
    occurrence: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    number: int | None = Field(default=None, sa_column=Column(Counted(), nullable=True))  #: its place in the feed
    outbox_id: str = Field(sa_column=identifier())  #: the first outbox message that owes it
    account: str = Field(max_length=64)
    payment_id: str | None = Field(default=None, sa_column=identifier(nullable=True))
    created_at: datetime = Field(sa_column=instant(nullable=False))
    #: drawn with the number, so that a restored database gives the number another; None where it was numbered before
    mark: str | None = Field(default=None, max_length=12)


class EventFeed(SQLModel, table=True):
    """The last number of the feed; its one row is the lock of the numbering writer."""

    __tablename__ = "event_feed"

    name: str = Field(sa_column=Column(String(16), primary_key=True))  #: "effects"
    last_number: int = Field(sa_column=Column(Counted(), nullable=False))


class AccountBudget(SQLModel, table=True):
    """The next request slots of an account, shared by all processes that send for it."""

    __tablename__ = "account_budget"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    next_free_at: datetime = Field(sa_column=instant(nullable=False))
    paused_until: datetime | None = Field(default=None, sa_column=instant())  #: the provider said so
    patient_at: datetime | None = Field(default=None, sa_column=instant())  #: a patient caller comes by then
    urgent_run: int = 0  #: slots that urgent callers had in a row
    kept_slots: list[int] = Field(default_factory=list, sa_column=json_value())  #: left to patients; µs since 1970
    failures: int = 0  #: questions in a row that met an outage
    broken_at: datetime | None = Field(default=None, sa_column=instant())  #: the breaker is open
    probe_at: datetime | None = Field(default=None, sa_column=instant())  #: when one question may try again


class Journal(SQLModel, table=True):
    """Position in an account's journal, the provider's own list of events."""

    __tablename__ = "journal"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    since: datetime = Field(sa_column=instant(nullable=False))  #: read from the events of then on
    position: str | None = None  #: the provider's; None before the first event
    next_at: datetime = Field(sa_column=instant(nullable=False))  #: when to read on, or when a lease ends
    read_at: datetime | None = Field(default=None, sa_column=instant())  #: the last answer
    events: int = Field(default=0, sa_column=Column(Counted(), nullable=False))  #: that were read
    unpushed: int = Field(default=0, sa_column=Column(Counted(), nullable=False))  #: of those, not yet brought by push
    failures: int = 0  #: in a row
    last_error: str | None = None  #: of the last of them


class HintedId(SQLModel, table=True):
    """An id that a delivery named and no payment has; the provider is to be asked."""

    __tablename__ = "hinted_id"
    __table_args__ = (Index("ix_hinted_id_next_at", "account", "next_at"),)

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    kind: str = Field(sa_column=Column(String(64), primary_key=True))
    ref: str = Field(sa_column=Column(String(200), primary_key=True))  #: the provider's id
    hinted_at: datetime = Field(sa_column=instant(nullable=False))  #: by the newest delivery
    next_at: datetime = Field(sa_column=instant(nullable=False))  #: when to ask, or when a lease ends
    attempts: int = 0  #: questions that failed


class PollPlan(SQLModel, table=True):
    """The current poll plan of an account; made anew every minute by one process.

    The row of the account "" is the planner's own: when it last planned, and how far it has learnt.
    """

    __tablename__ = "poll_plan"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    planned_at: datetime = Field(sa_column=instant(nullable=False))
    price_seconds: float  #: expected seconds of not knowing that one question costs
    watched: int = 0  #: payments that are asked about
    wanted_per_second: float = 0  #: questions that the schedule would ask at that price
    floor_per_second: float = 0  #: questions that the longest waits alone demand
    stretch: float = 1  #: by what the longest waits are longer than configured, since the budget is short of them
    allowed_per_second: float | None = None  #: the budget; None where no limit is known
    learned_to: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: the last transition learnt


class Hazard(SQLModel, table=True):
    """The rate at which payments leave one state, learnt by bins of age."""

    __tablename__ = "hazard"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    kind: str = Field(sa_column=Column(String(32), primary_key=True))  #: lifecycle kind
    state: str = Field(sa_column=Column(String(64), primary_key=True))  #: the provider's word
    exposure: list[float] = Field(default_factory=list, sa_column=json_value())  #: seconds watched, by bin of age
    changes: list[float] = Field(default_factory=list, sa_column=json_value())  #: changes seen, by bin of age
    learned_at: datetime = Field(sa_column=instant(nullable=False))


class PushWatch(SQLModel, table=True):
    """The position up to which an account's webhooks were measured, and its alarms."""

    __tablename__ = "push_watch"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    due_at: datetime = Field(sa_column=instant(nullable=False))  #: whoever comes then measures; a claim puts it off
    claim_token: int = 0  #: fencing: grows with every claim
    measured_at: datetime | None = Field(default=None, sa_column=instant())  #: when somebody last did
    message_id: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: the last message measured
    transition_id: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: the last one measured
    rejected_id: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: the last rejection measured
    redelivered_at: datetime | None = Field(default=None, sa_column=instant())  #: redeliveries are measured up to then
    heard_at: datetime | None = Field(default=None, sa_column=instant())  #: the last verified delivery
    resumed_at: datetime | None = Field(default=None, sa_column=instant())  #: we were away before that
    rhythm: dict[str, Any] = Field(default_factory=dict, sa_column=json_value())  #: the gaps between deliveries
    unverified: dict[str, Any] = Field(default_factory=dict, sa_column=json_value())  #: rejections since heard_at
    alarms: dict[str, Any] = Field(default_factory=dict, sa_column=json_value())  #: those that stand, with since when


class PushQuality(SQLModel, table=True):
    """The webhook figures of one day, account, kind and event."""

    __tablename__ = "push_quality"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    kind: str = Field(sa_column=Column(String(32), primary_key=True))  #: lifecycle kind; "" for the whole account
    event: str = Field(sa_column=Column(String(64), primary_key=True))  #: the state that it told of; "" likewise
    day: date = Field(sa_column=Column(Date, primary_key=True))  #: UTC
    pushed: int = 0  #: changes first heard of by push
    late: int = 0  #: changes found by asking, with the push after that
    lost: int = 0  #: changes found by asking, with no push at all
    deliveries: int = 0  #: verified deliveries
    duplicates: int = 0  #: deliveries of what had been delivered
    reordered: int = 0  #: deliveries of what a later one had overtaken
    rejected: int = 0  #: deliveries that failed verification; of the whole account only; a lower bound
    lags: dict[str, int] = Field(default_factory=dict, sa_column=json_value())  #: histogram: change to receipt
    skews: dict[str, int] = Field(default_factory=dict, sa_column=json_value())  #: histogram: signed time less ours


class Reconciliation(SQLModel, table=True):
    """One run through a provider's list and its findings; ends done or failed."""

    __tablename__ = "reconciliation"
    __table_args__ = (
        Index(
            "uq_reconciliation_running",
            "account",
            unique=True,
            sqlite_where=text("status = 'running'"),
            postgresql_where=text("status = 'running'"),
        ),
        Index("ix_reconciliation_account", "account", "id"),
    )

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    account: str = Field(max_length=64)
    since: datetime = Field(sa_column=instant(nullable=False))  #: what was created from then on
    until: datetime = Field(sa_column=instant(nullable=False))  #: and before that: when it began
    asked_by: str = Field(max_length=128)  #: who wanted it; "schedule" for the daily one
    began_at: datetime = Field(sa_column=instant(nullable=False))
    status: str = Field(default="running", max_length=16)  #: storage.types.ReconciliationStatus
    stage: str = Field(default="listing", max_length=16)  #: listing, then asking
    position: str | None = None  #: of the stage: the provider's cursor, or the last payment that is done with
    listed: int = 0  #: things that the provider's list named
    pages: int = 0
    to_ask: int = 0  #: how many payments there were to ask about when the asking began
    asked: int = 0  #: of those: answered
    failed: int = 0  #: of those: questions without an answer
    unasked: list[dict[str, Any]] = Field(default_factory=list, sa_column=json_value())  #: the first of them, and why
    held_by: str = Field(max_length=128)  #: which process walks, or walked last
    held_at: datetime = Field(sa_column=instant(nullable=False))  #: since when
    lease_ends_at: datetime = Field(sa_column=instant(nullable=False))  #: another process may go on from then
    resume_at: datetime = Field(sa_column=instant(nullable=False))  #: the schedule goes on with it from then
    claim_token: int = 0  #: fencing: grows with every claim
    finished_at: datetime | None = Field(default=None, sa_column=instant())
    drift: list[dict[str, Any]] = Field(default_factory=list, sa_column=json_value())  #: what differed, at the end
    counts: dict[str, int] = Field(default_factory=dict, sa_column=json_value())  #: what the answers came to
    last_error: str | None = None  #: why it failed, or was put off


class AuditRun(SQLModel, table=True):
    """One audit of everything, to its end."""

    __tablename__ = "audit_run"

    #: `seal` covers them
    SEALED: ClassVar[tuple[str, ...]] = ("id", "began_at", "ended_at", "messages", "payments", "faults")

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7; later ones ended later
    began_at: datetime = Field(sa_column=instant(nullable=False))
    ended_at: datetime = Field(sa_column=instant(nullable=False))
    messages: int  #: that were checked
    payments: int  #: likewise
    faults: int  #: rows that are wrong
    seal: str | None = Field(default=None, max_length=64)  #: over SEALED, hex; None where the row was never sealed


class ConsolePerson(SQLModel, table=True):
    """A user of the console; kept when disabled, since recorded actions name it."""

    __tablename__ = "console_person"
    __table_args__ = (
        Index("uq_console_person_name", "name", unique=True),
        Index("uq_console_person_oidc_subject", "oidc_subject", unique=True),
    )

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    name: str = Field(max_length=64)  #: what they log in with, and what is kept as who did something; lower case
    role: str = Field(max_length=16)  #: viewer, operator or admin
    password_hash: str = Field(max_length=255)  #: with the function and its parameters; never shown
    created_at: datetime = Field(sa_column=instant(nullable=False))
    password_changed_at: datetime = Field(sa_column=instant(nullable=False))
    is_temporary: bool = False  #: the password was given by somebody else: nothing is to be had before it is changed
    disabled_at: datetime | None = Field(default=None, sa_column=instant())  #: may not log in since then
    #: SHA-256 of issuer and subject, hex, of who logs in by OpenID Connect
    oidc_subject: str | None = Field(default=None, max_length=64)


class ConsoleSession(SQLModel, table=True):
    """A browser session of a user; of its secret of 256 random bits a digest is kept."""

    __tablename__ = "console_session"
    __table_args__ = (
        Index("uq_console_session_digest", "digest", unique=True),
        Index("ix_console_session_person_id", "person_id"),
        Index("ix_console_session_expires_at", "expires_at"),
    )

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7; may be shown
    digest: str = Field(max_length=64)  #: SHA-256 of what the browser keeps, hex
    person_id: str = Field(sa_column=identifier())
    created_at: datetime = Field(sa_column=instant(nullable=False))
    last_seen_at: datetime = Field(sa_column=instant(nullable=False))  #: to about a minute
    expires_at: datetime = Field(sa_column=instant(nullable=False))  #: ends then, however much it is used
    revoked_at: datetime | None = Field(default=None, sa_column=instant())  #: ended since then
    address: str = Field(max_length=64)  #: the network that it was begun from, without its last part
    user_agent: str = Field(max_length=120)  #: what the browser called itself, shortened


class ConsoleFactor(SQLModel, table=True):
    """The second factor of a user, its key sealed under the service's keys."""

    __tablename__ = "console_factor"

    person_id: str = Field(sa_column=identifier(primary=True))
    sealed_key: str = Field(max_length=400)  #: of TOTP, sealed by service.second_factor
    created_at: datetime = Field(sa_column=instant(nullable=False))
    confirmed_at: datetime | None = Field(default=None, sa_column=instant())  #: asked for at log-in since then
    last_step: int = Field(default=0, sa_column=Column(Counted(), nullable=False))  #: of the last code that was taken
    recovery_digests: list[str] = Field(sa_column=json_value())  #: SHA-256 of the codes that are left, hex


class ConsoleAttempt(SQLModel, table=True):
    """Login attempts of one name, network or known browser in the current window."""

    __tablename__ = "console_attempt"
    __table_args__ = (Index("ix_console_attempt_began_at", "began_at"),)

    subject: str = Field(sa_column=Column(String(64), primary_key=True))  #: SHA-256 of what is counted, hex
    tried: int = 0  #: log-ins in this window that did not succeed, or are under way
    began_at: datetime = Field(sa_column=instant(nullable=False))


class RetentionRun(SQLModel, table=True):
    """One run of one rule of retention; ends done, and is resumable until then."""

    __tablename__ = "retention_run"
    __table_args__ = (Index("ix_retention_run_rule", "rule", "id"),)

    #: `seal` covers them
    SEALED: ClassVar[tuple[str, ...]] = (
        "id",
        "rule",
        "days",
        "asked_by",
        "status",
        "began_at",
        "changed_at",
        "since_id",
        "until_id",
        "partition",
        "rows",
        "statements",
    )

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    rule: str = Field(max_length=16)  #: storage.types.RetentionRule
    days: int  #: as configured then
    asked_by: str = Field(max_length=128)  #: who ran the command; "schedule" for the daily one
    status: str = Field(default="running", max_length=16)  #: storage.types.RetentionStatus
    began_at: datetime = Field(sa_column=instant(nullable=False))
    changed_at: datetime = Field(sa_column=instant(nullable=False))  #: of the last batch
    resume_at: datetime = Field(sa_column=instant(nullable=False))  #: nobody does the next batch before
    since_id: str | None = Field(default=None, sa_column=identifier(nullable=True))  #: None: from the first id on
    until_id: str = Field(sa_column=identifier())  #: only what has a smaller id
    position: str | None = Field(default=None, max_length=400)  #: where the next batch begins
    held_back: list[Any] = Field(default_factory=list, sa_column=json_value())  #: ids that could not go yet
    partition: str | None = Field(default=None, max_length=64)  #: the one that was detached
    seen: int = 0  #: rows that were looked at
    rows: int = 0  #: rows that went, or lost their body
    statements: int = 0  #: outcomes that named payments in the messages that went
    seal: str = Field(default="", max_length=64)  #: over SEALED, hex
