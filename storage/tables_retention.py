"""The table of retention: what was thrown away, by which rule, when, and at whose wish. The audit goes by it."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from storage.columns import identifier, instant, json_value


class RetentionRun(SQLModel, table=True):
    """One run of one rule of retention, and what it did; ends done, and may be taken up again until then."""

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
