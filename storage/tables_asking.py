"""The tables of asking: what is learnt of each account, what its push is worth, what was caught up on.

None of them decides about money: at worst a wrong row makes us ask sooner, later or once more.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import Column, Date, Index, String, text
from sqlmodel import Field, SQLModel

from storage.columns import identifier, instant, json_value


class AccountBudget(SQLModel, table=True):
    """When an account may send its next request; shared by every process that sends for it. See storage/slots.py."""

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


class PollPlan(SQLModel, table=True):
    """What one account's schedule was last planned with; made anew every minute by whoever comes first.

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
    """How soon payments leave one state, learnt by age in bins of growing width."""

    __tablename__ = "hazard"

    account: str = Field(sa_column=Column(String(64), primary_key=True))
    kind: str = Field(sa_column=Column(String(32), primary_key=True))  #: lifecycle kind
    state: str = Field(sa_column=Column(String(64), primary_key=True))  #: the provider's word
    exposure: list[float] = Field(default_factory=list, sa_column=json_value())  #: seconds watched, by bin of age
    changes: list[float] = Field(default_factory=list, sa_column=json_value())  #: changes seen, by bin of age
    learned_at: datetime = Field(sa_column=instant(nullable=False))


class PushWatch(SQLModel, table=True):
    """How far one account's push was measured, and which of its alarms stand."""

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
    """What one day's push was worth, of one account and kind of event."""

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
    """One walk through what a provider has, and what it found; ends done or failed, and may be taken up again."""

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
