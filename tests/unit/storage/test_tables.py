"""Plain records have the fields of their tables: the same names in the same order, types and defaults."""

from dataclasses import MISSING, fields
from typing import get_type_hints

import pytest
from sqlmodel import SQLModel

from storage import tables, tables_inbox
from storage.columns import Row, columns_of, table_of
from storage.schema import metadata

#: But for the record of effects, which is of a view.
RECORDS = [record for record in Row.__subclasses__() if record.__tablename__ in metadata.tables]


def declared(record):
    """The table class beside a record."""
    name = f"{record.__name__}Table"
    return getattr(tables, name, None) or getattr(tables_inbox, name)


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_has_the_fields_of_its_table(record):
    """Whoever adds a column adds it to the record too."""
    hints, table_hints = get_type_hints(record), get_type_hints(declared(record))

    names = tuple(field.name for field in fields(record))
    assert names[: len(columns_of(record))] == columns_of(record)
    assert len(names) == len(columns_of(record)) or record is tables.InboxMessage  # which has what is kept beside it
    assert table_of(record) is table_of(declared(record))
    assert {name: hints[name] for name in columns_of(record)} == {
        name: table_hints[name] for name in columns_of(record)
    }


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_has_the_defaults_of_its_table(record):
    """A field may be left out exactly where the table class allows it, and is the same then."""
    columns = declared(record).model_fields
    for field in fields(record):
        column = columns.get(field.name)
        if column is None:
            continue
        is_optional = field.default is not MISSING or field.default_factory is not MISSING
        assert is_optional is not column.is_required(), field.name
        if field.default is not MISSING:
            assert field.default == column.default, field.name
        if field.default_factory is not MISSING:
            assert field.default_factory() == column.default_factory(), field.name


@pytest.mark.parametrize("record", RECORDS)
def test_a_column_that_may_be_null_says_so(record):
    """The types of the record are those that the database gives."""
    for name, hint in get_type_hints(record).items():
        if name in columns_of(record):
            assert table_of(record).c[name].nullable is (type(None) in getattr(hint, "__args__", ())), name


def test_every_table_is_declared_once():
    """One table class for each table, and at most one record."""
    classes = [each for each in SQLModel.__subclasses__() if hasattr(each, "__table__") and each.metadata is metadata]
    names = [each.__tablename__ for each in classes if each.__module__.startswith("storage.")]

    assert sorted(names) == sorted(metadata.tables)
    assert len({each.__tablename__ for each in RECORDS}) == len(RECORDS) == 7
