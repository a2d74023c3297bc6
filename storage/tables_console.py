"""The tables of the console: who may use it, who is logged in, and how often a log-in was tried in vain."""

from datetime import datetime

from sqlalchemy import Column, Index, String
from sqlmodel import Field, SQLModel

from storage.columns import identifier, instant


class ConsolePerson(SQLModel, table=True):
    """Somebody who may use the console. A row stays when its person may no more: what they did names them."""

    __tablename__ = "console_person"
    __table_args__ = (Index("uq_console_person_name", "name", unique=True),)

    id: str = Field(sa_column=identifier(primary=True))  #: UUIDv7
    name: str = Field(max_length=64)  #: what they log in with, and what is kept as who did something; lower case
    role: str = Field(max_length=16)  #: viewer, operator or admin
    password_hash: str = Field(max_length=255)  #: with the function and its parameters; never shown
    created_at: datetime = Field(sa_column=instant(nullable=False))
    password_changed_at: datetime = Field(sa_column=instant(nullable=False))
    is_temporary: bool = False  #: the password was given by somebody else: nothing is to be had before it is changed
    disabled_at: datetime | None = Field(default=None, sa_column=instant())  #: may not log in since then


class ConsoleSession(SQLModel, table=True):
    """One browser that a person is logged in with; of its secret, 256 random bits, only a digest is kept."""

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


class ConsoleAttempt(SQLModel, table=True):
    """How many log-ins were tried for one name, from one network, or in one known browser, since the window began."""

    __tablename__ = "console_attempt"
    __table_args__ = (Index("ix_console_attempt_began_at", "began_at"),)

    subject: str = Field(sa_column=Column(String(64), primary_key=True))  #: SHA-256 of what is counted, hex
    tried: int = 0  #: log-ins in this window that did not succeed, or are under way
    began_at: datetime = Field(sa_column=instant(nullable=False))
