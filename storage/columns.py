"""Columns that tables are declared with, plain records, and the table of either."""

from functools import cache
from typing import Any, ClassVar, Protocol

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
    """Declare a column of ids."""
    return Column(Uuid(as_uuid=False), primary_key=primary, nullable=nullable and not primary)


def instant(*, nullable: bool = True) -> Any:
    """Declare a column of aware instants."""
    return Column(UtcDateTime(), nullable=nullable)


def json_value(*, nullable: bool = False) -> Any:
    """Declare a column of JSON values; None is NULL."""
    return Column(JSON(none_as_null=True), nullable=nullable)


class Row:
    """Base of plain records: dataclasses with the columns of a table as fields."""

    __tablename__: ClassVar[str]


class Model(Protocol):
    """A class that rows are read as: an SQLModel table, or a plain record."""

    __tablename__: ClassVar[Any]


def table_of(model: type[Model]) -> Table:
    """Return the table of a table class or of a plain record's class."""
    return metadata.tables[str(model.__tablename__)]


@cache
def columns_of(model: type[Model]) -> tuple[str, ...]:
    """Return the names of the model's columns, in order."""
    return tuple(table_of(model).columns.keys())
