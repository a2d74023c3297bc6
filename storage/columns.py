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


#: Views, which Alembic does not compare with tables; their columns are declared as those of tables.
views = MetaData()


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
    """Return the table of a table class, or the table or view of a plain record's."""
    name = str(model.__tablename__)
    return views.tables[name] if name in views.tables else metadata.tables[name]


def reported_name(table: Any) -> str:
    """Return the name under which rows are reported: of a view's, a table's."""
    return str(getattr(table, "info", {}).get("rows_of", table.name))


@cache
def columns_of(model: type[Model]) -> tuple[str, ...]:
    """Return the names of the model's columns, in order."""
    return tuple(table_of(model).columns.keys())
