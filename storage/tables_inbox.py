"""Tables beside the inbox messages: the queue, decisions and redeliveries."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, Index, Integer, text
from sqlmodel import Field, SQLModel

from storage.columns import Row, identifier, instant, json_value


class QueuedMessageTable(SQLModel, table=True):
    """The table of inbox messages that are not decided."""

    __tablename__ = "inbox_queue"
    __table_args__ = (
        Index(
            "ix_inbox_queue_pending",
            "message_id",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_inbox_queue_awaits",
            "account",
            "awaits",
            sqlite_where=text("awaits IS NOT NULL"),
            postgresql_where=text("awaits IS NOT NULL"),
        ),
        Index(  # an OR, since SQLite does not see that one value is in a list of two
            "ix_inbox_queue_stuck",
            "status",
            "message_id",
            sqlite_where=text("status = 'parked' OR status = 'dead'"),
            postgresql_where=text("status = 'parked' OR status = 'dead'"),
        ),
        {"sqlite_with_rowid": False},
    )

    message_id: str = Field(sa_column=identifier(primary=True))
    account: str = Field(max_length=64)  #: the message's
    status: str = Field(default="pending", max_length=16)  #: storage.types.InboxStatus, but for decided
    available_at: datetime = Field(sa_column=instant(nullable=False))  #: may be claimed from then on
    attempts: int = 0
    claim_token: int = 0  #: fencing: grows with every claim
    readings: int = 0  #: how often the message was decided
    last_error: str | None = None  #: of the last failed attempt
    awaits: str | None = Field(default=None, max_length=300)  #: "kind:ref" of the payment that it waits for


@dataclass(kw_only=True)
class QueuedMessage(Row):
    """The open work on an inbox message.

    Inserted with the message, and deleted in the commit that decides it; that of a parked or dead message stays.
    """

    __tablename__ = "inbox_queue"

    message_id: str
    account: str
    status: str = "pending"
    available_at: datetime
    attempts: int = 0
    claim_token: int = 0
    readings: int = 0
    last_error: str | None = None
    awaits: str | None = None


class Redelivery(SQLModel, table=True):
    """A count of how often the provider sent an inbox message again."""

    __tablename__ = "inbox_redelivery"
    __table_args__ = (
        Index("ix_inbox_redelivery_account", "account", "last_redelivered_at"),
        {"sqlite_with_rowid": False},
    )

    message_id: str = Field(sa_column=identifier(primary=True))
    account: str = Field(max_length=64)  #: the message's
    redeliveries: int
    last_redelivered_at: datetime = Field(sa_column=instant(nullable=False))


class RecordedDecisionTable(SQLModel, table=True):
    """The table of decisions; partitioned as the messages are."""

    __tablename__ = "decision"
    __table_args__ = (
        Index(
            "ix_decision_payment",
            "payment_id",
            sqlite_where=text("payment_id IS NOT NULL"),
            postgresql_where=text("payment_id IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )

    message_id: str = Field(sa_column=identifier(primary=True))
    #: 1, 2, 3, ... without gaps: each time that the message was decided
    reading: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    number: int = Field(
        sa_column=Column(Integer, primary_key=True, autoincrement=False)
    )  #: 1, 2, 3, ... of the reading
    statement: int | None = None  #: its number among the outcomes about the payment
    payment_id: str | None = Field(default=None, sa_column=identifier(nullable=True))
    at: datetime = Field(sa_column=instant(nullable=False))
    outcome: str = Field(max_length=16)  #: statemachine.phases.Outcome
    reason: str  #: in words
    #: what followed: state, transition, effects, outbox, review, accepted, ...; None for nothing
    details: dict[str, Any] | None = Field(default=None, sa_column=json_value(nullable=True))
    seal: str = Field(max_length=64)  #: over SEALED and what they rest on, hex


@dataclass(kw_only=True)
class RecordedDecision(Row):
    """A decision about a message and a payment, or none. Append-only: a replay adds."""

    __tablename__ = "decision"

    #: `seal` covers them, the message's `envelope_digest`, and how many the reading came to
    SEALED: ClassVar[tuple[str, ...]] = (
        *("message_id", "reading", "number", "statement", "payment_id", "at", "outcome", "reason", "details"),
    )

    message_id: str
    reading: int
    number: int
    statement: int | None = None
    payment_id: str | None = None
    at: datetime
    outcome: str
    reason: str
    details: dict[str, Any] | None = None
    seal: str
