"""Unreadable rows: found one by one, so that each affects only itself.

A row may hold what its columns never were given: broken JSON, a time beyond the calendar, another type, bytes that are
no text, a word that is none of its kind. Reading is quick and trusting as long as all is well. Where a set of rows
cannot be read, it is read once more with every column as the database keeps it, and each row is converted alone.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    Uuid,
    cast,
    type_coerce,
)
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.types import NullType, TypeDecorator

from statemachine.phases import Outcome, Phase, Source
from storage.columns import Model, columns_of, table_of
from storage.errors import UnreadableRow
from storage.types import InboxStatus, OutboxStatus, UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS: Final = (
    (Uuid, "uuid"),
    (UtcDateTime, "timestamptz"),
    (DateTime, "timestamptz"),
    (Date, "date"),
    (JSON, "json"),
    (Boolean, "boolean"),
    (BigInteger, "bigint"),
    (Integer, "integer"),
    (Float, "float"),
    (LargeBinary, "bytea"),
)

#: By kind: the types of its values in Python.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "uuid": (str,),
    "timestamptz": (datetime,),
    "date": (date,),
    "json": (dict, list, str, int, float, bool),
    "boolean": (bool,),
    "bigint": (int,),
    "integer": (int,),
    "float": (float, int),
    "bytea": (bytes,),
    "text": (str,),
}

#: Columns of which each value is a word of these.
_WORDS: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("inbox_queue", "status"): frozenset(InboxStatus) - {InboxStatus.DECIDED},
    ("decision", "outcome"): frozenset(Outcome),
    ("inbox_message", "source"): frozenset(Source),
    ("payment", "phase"): frozenset(Phase),
    ("transition", "phase"): frozenset(Phase),
    ("outbox", "status"): frozenset(OutboxStatus),
}

#: Columns that tell a row from others, and columns of words in which its fault may stand; the first that it has.
_KEYS: Final = ("id", "outbox_id", "payment_id", "account", "name")
_TEXTS: Final = ("reason", "last_error", "poll_error", "error", "failure_reason")

_UUID_CHARS: Final = 36
_INT_BITS: Final = {"integer": 31, "bigint": 63}
_MAX_SHOWN_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """One row that cannot be read, and by which column."""

    table: str
    raw: Mapping[str, Any]  #: its columns as the database keeps them
    column: str
    problem: str  #: without anything of the value

    @property
    def row_id(self) -> str:
        """The row's id as text for people; that of its key where it has no id."""
        value = next((self.raw[name] for name in _KEYS if name in self.raw), "?")
        text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
        if len(text) == _UUID_CHARS - 4 and text.isalnum():
            text = dashed(text)
        return "".join(char if char.isprintable() else "?" for char in text)[:_MAX_SHOWN_CHARS]

    @property
    def words(self) -> str:
        """The fault in one line."""
        return f"the row cannot be read: {self.column} {self.problem}"


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    kind: str
    types: frozenset[type]
    words: frozenset[str] | None


def kind_of(table: Table, name: str) -> str:
    """PostgreSQL's name of the column's type."""
    return _kind_of_type(table.c[name].type)


def _kind_of_type(column_type: Any) -> str:
    if isinstance(column_type, TypeDecorator) and not isinstance(column_type, UtcDateTime):
        column_type = column_type.impl_instance
    return next((word for kind, word in _KINDS if isinstance(column_type, kind)), "text")


def dashed(text: str) -> str:
    """Format an id of 32 digits in its canonical form."""
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@cache
def _columns_of(model: type[Model]) -> tuple[_Column, ...]:
    table, found = table_of(model), []
    annotations = get_type_hints(model)
    for name in columns_of(model):
        kind = kind_of(table, name)
        types = set(_TYPES[kind])
        hint = annotations[name]
        origin = get_origin(get_args(hint)[0] if isinstance(hint, UnionType) else hint)
        if kind == "json" and origin in (dict, list):
            types = {origin}
        if table.c[name].nullable:
            types.add(type(None))
        found.append(_Column(name, kind, frozenset(types), _WORDS.get((table.name, name))))
    return tuple(found)


def are_sound(
    model: type[Model], names: Sequence[str], columns: Sequence[Sequence[Any]], given: Collection[str]
) -> bool:
    """Return False where a value of these columns is not of its column's type.

    `given` are expressions, not columns.
    """
    known = {column.name: column for column in _columns_of(model)}
    for name, values in zip(names, columns, strict=False):
        column = known[name]
        if name in given:
            continue
        if not column.types.issuperset(map(type, values)):
            return False
        if column.words is not None and not column.words.issuperset(values):
            return False
    return True


def check(
    model: type[Model], record: Model, *, only: Sequence[str] | None = None, given: Collection[str] = ()
) -> tuple[str, str] | None:
    """Return the first unsound column of the record and its problem, or None."""
    kept = record.__dict__
    for column in _columns_of(model):
        if (only is not None and column.name not in only) or column.name in given:
            continue
        value = kept.get(column.name)
        if type(value) not in column.types:
            return column.name, f"is {_type_word(value)}"
        if column.words is not None and value not in column.words:
            return column.name, "is no word that is known"
    return None


def is_about_a_row(fault: Exception) -> bool:
    """Return whether reading failed by a row's content, so that the unit may go on."""
    if isinstance(fault, DataError):
        return getattr(fault.orig, "sqlstate", None) is None  # the driver's own: the server has refused nothing
    if isinstance(fault, DBAPIError | sqlite3.Error):
        return "Could not decode to UTF-8" in str(fault)
    return isinstance(fault, ValueError | TypeError | LookupError | OverflowError | UnreadableRow)


@contextmanager
def raw_text(driver: Any, *, is_sqlite: bool) -> "Iterator[None]":
    """Within the block SQLite gives text as its bytes, which may be no text."""
    if not is_sqlite:
        yield
        return
    before = driver.text_factory
    driver.text_factory = bytes
    try:
        yield
    finally:
        driver.text_factory = before


def raw_select(statement: "Select[Any]", *, is_sqlite: bool) -> "tuple[Select[Any], list[tuple[str, str]]]":
    """Select every column as stored; return the statement, and names and kinds."""
    columns, told = [], list[tuple[str, str]]()
    for number, column in enumerate(statement.selected_columns):
        kind = _kind_of_type(column.type)
        is_text = kind in ("uuid", "timestamptz", "date", "json")
        raw = type_coerce(column, NullType()) if is_sqlite else cast(column, Text) if is_text else column
        columns.append(raw.label(f"raw_{number}"))
        told.append((column.key or f"column_{number}", kind))
    return statement.with_only_columns(*columns, maintain_column_froms=True), told


def converted(
    table: str, columns: Sequence[tuple[str, str]], row: Sequence[Any], *, is_sqlite: bool
) -> dict[str, Any] | UnreadableRecord:
    """Convert one raw row to values by name."""
    values: dict[str, Any] = {}
    for (name, kind), raw in zip(columns, row, strict=True):
        try:
            values[name] = _value(kind, raw, is_sqlite=is_sqlite)
        except (ValueError, TypeError, OverflowError) as fault:
            names = [name for name, _ in columns]
            return UnreadableRecord(table, dict(zip(names, row, strict=True)), name, _problem(kind, raw, fault))
    return values


def stand_in(unreadable: UnreadableRecord, columns: Sequence[tuple[str, str]], *, is_sqlite: bool) -> dict[str, Any]:
    """Return the readable values of the row, with neutral ones for the others.

    The problem stands in a column of words.
    """
    values: dict[str, Any] = {}
    for name, kind in columns:
        try:
            values[name] = _value(kind, unreadable.raw[name], is_sqlite=is_sqlite)
        except (ValueError, TypeError, OverflowError):
            values[name] = unreadable.row_id if name == "id" else _NEUTRAL.get(kind)
    wrong = dict(columns)[unreadable.column]
    if unreadable.column != "id":  # a word that is none of its kind can be read as a text
        values[unreadable.column] = values[unreadable.column] if wrong == "text" else _NEUTRAL.get(wrong)
    told = next((name for name in _TEXTS if name in values), None)
    if told is not None:
        values[told] = unreadable.words
    return values


def completed(model: type[Model], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the missing JSON of a stand-in with empty values of its column's kind."""
    return {**values} | {
        column.name: ({} if dict in column.types else [])
        if column.kind == "json" and values.get(column.name) is None and type(None) not in column.types
        else values.get(column.name)
        for column in _columns_of(model)
    }


def as_row(values: Mapping[str, Any]) -> Any:
    """Return the values as a row with access by name and place."""
    return _row_of(tuple(values))(*values.values())


@cache
def _row_of(names: tuple[str, ...]) -> Any:
    return namedtuple("Scanned", names, rename=True)  # noqa: PYI024 - its names are those of a query


def _value(kind: str, raw: Any, *, is_sqlite: bool) -> Any:
    if raw is None:
        return None
    if isinstance(raw, bytes) and kind != "bytea":
        raw = raw.decode()
    convert = _FROM_RAW.get(kind)
    value: Any = raw if convert is None else convert(raw, is_sqlite)
    if not isinstance(value, _TYPES[kind]):
        raise TypeError(kind)
    if isinstance(value, int) and kind in _INT_BITS and value.bit_length() > _INT_BITS[kind]:
        raise OverflowError(kind)
    return value


def _uuid(raw: Any, _is_sqlite: bool) -> str:
    text = raw if "-" in raw else dashed(raw)
    if len(text) != _UUID_CHARS:
        raise ValueError("no id")
    return str(text)


def _instant(raw: Any, is_sqlite: bool) -> datetime:
    if not isinstance(raw, str):
        raise TypeError("no text")
    found = datetime.fromisoformat(f"{raw}+00:00" if is_sqlite else raw)
    return found.astimezone(UTC)


def _boolean(raw: Any, is_sqlite: bool) -> bool:
    if is_sqlite and raw not in (0, 1):
        raise ValueError("no boolean")
    return bool(raw)


_NEUTRAL: Final[Mapping[str, Any]] = {
    "uuid": "",
    "text": "",
    "timestamptz": datetime(1970, 1, 1, tzinfo=UTC),
    "date": date(1970, 1, 1),
    "boolean": False,
    "bigint": 0,
    "integer": 0,
    "float": 0.0,
    "bytea": b"",
}

_Convert = Callable[[Any, bool], Any]
_FROM_RAW: Final[Mapping[str, _Convert]] = {
    "uuid": _uuid,
    "timestamptz": _instant,
    "date": lambda raw, _is_sqlite: date.fromisoformat(raw),
    "json": lambda raw, _is_sqlite: msgspec.json.decode(raw),
    "boolean": _boolean,
}


def _problem(kind: str, raw: Any, fault: Exception) -> str:
    if isinstance(fault, UnicodeDecodeError):
        return "is no text"
    if isinstance(fault, OverflowError):
        return "is out of range"
    word = {"uuid": "an id", "timestamptz": "an instant", "json": "JSON", "date": "a day"}.get(kind, kind)
    return f"is no {word.removeprefix('an ').removeprefix('a ')}" if isinstance(raw, str) else f"is {_type_word(raw)}"


def _type_word(value: Any) -> str:
    return "missing" if value is None else f"of another type ({type(value).__name__})"
