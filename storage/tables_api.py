"""The tables of the merchant's API: its keys, what was answered to a repeatable call, and the numbered feed of effects.

None of them decides about money. A row of `event` is made by a trigger of `outbox_message`, so that whoever owes an
effect tells the feed of it in the same commit.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index, Integer, String, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from storage.columns import identifier, instant, json_value


class Counted(TypeDecorator[int]):
    """A number that grows for ever."""

    impl = BigInteger
    cache_ok = True


class ApiKey(SQLModel, table=True):
    """A key of the merchant's API. Its secret is not kept: of 256 random bits a plain digest tells nothing."""

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
    """How far a key's bucket of requests is from full; on PostgreSQL alone, where several processes may serve.

    At most one row for each API key. The table is UNLOGGED there: a crash or a failover leaves it empty, and every
    bucket full.
    """

    __tablename__ = "api_rate"

    key_id: str = Field(sa_column=identifier(primary=True))  #: the API key
    full_at: datetime = Field(sa_column=instant(nullable=False))  #: by the database's clock; it says nothing afterwards


class IdempotencyKey(SQLModel, table=True):
    """One call that was given an Idempotency-Key: under way while `answered_at` is not set, else with its answer."""

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
    """One effect, once, however many sinks it is owed to; numbered in an order that never shows a gap to fill later."""

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
    """How far the feed is numbered. Its one row is the lock of whoever numbers."""

    __tablename__ = "event_feed"

    name: str = Field(sa_column=Column(String(16), primary_key=True))  #: "effects"
    last_number: int = Field(sa_column=Column(Counted(), nullable=False))
