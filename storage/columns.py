"""What tables are declared with: columns of one kind, and records whose attributes nobody watches."""

from typing import Any

from sqlalchemy import JSON, Column, MetaData, Table, Uuid
from sqlmodel import SQLModel

from storage.types import UtcDateTime

metadata: MetaData = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def identifier(*, primary: bool = False, nullable: bool = False) -> Any:
    """A column of ids."""
    return Column(Uuid(as_uuid=False), primary_key=primary, nullable=nullable and not primary)


def instant(*, nullable: bool = True) -> Any:
    """A column of aware instants."""
    return Column(UtcDateTime(), nullable=nullable)


def json_value(*, nullable: bool = False) -> Any:
    """A column of JSON values; None is NULL."""
    return Column(JSON(none_as_null=True), nullable=nullable)


class Row(SQLModel):
    """A record of a table: its attributes are plain, nothing watches them, and its constructor validates."""

    __setattr__ = object.__setattr__  # type: ignore[assignment]


def table_of(model: type[SQLModel]) -> Table:
    """The table of a model, or of the records of this class."""
    declared = model if hasattr(model, "__table__") else model.__subclasses__()[0]
    table: Table = declared.__table__
    return table
