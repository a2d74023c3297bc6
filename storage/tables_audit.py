"""The table of audits: that the whole history was proved, and when. What was wrong stays with whoever ran it."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from storage.columns import identifier, instant


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
    seal: str | None = Field(default=None, max_length=64)  #: over SEALED, hex; None of before the revision 0009
