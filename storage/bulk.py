"""Bulk statements: many rows with one statement, passed to the driver directly.

A statement is made for a table and its columns once. On SQLite its rows are tuples that `executemany` takes; on
PostgreSQL they are one array for each column. What is read comes back as records of the columns that were asked for.
Every statement is announced by SQLAlchemy's events, and its faults are SQLAlchemy's, as of any other statement.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Table

from storage.columns import Model, Row, columns_of, reported_name
from storage.database import Unit, build_record, wrap_columns
from storage.unreadable_rows import UnreadableRecord, are_sound, check, converted, dashed, is_about_a_row, kind_of

Record = TypeVar("Record", bound=Model)

#: Of columns that tell rows apart; what else a row must be is no name.
_NAMING: Final = frozenset({"uuid", "text"})

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class Insert:
    """Insert rows of these columns, all or none; raises IntegrityError on a conflict."""

    def __init__(self, table: Table, names: Sequence[str], more: Mapping[str, str] | None = None) -> None:
        fixed = more or {}  #: what every row has besides: a literal, or the name of another column
        self._kinds = [kind_of(table, name) for name in names]
        columns = ", ".join([*names, *fixed])
        numbered = {name: f"?{number}" for number, name in enumerate(names, start=1)}
        taken = ", ".join([*numbered.values(), *(numbered.get(value, value) for value in fixed.values())])
        self._sqlite = f"INSERT INTO {table.name} ({columns}) VALUES ({taken})"  # noqa: S608 - our own names
        self._postgresql = (
            f"INSERT INTO {table.name} ({columns}) SELECT {', '.join([*names, *fixed.values()])} "  # noqa: S608
            f"FROM {unnest(self._kinds, names)}"
        )

    def __call__(self, unit: Unit, rows: Iterable[Sequence[Any]]) -> None:
        """Values in the order of the columns."""
        columns = list(zip(*rows, strict=True))
        if columns:
            _run(unit, self._sqlite, self._postgresql, self._kinds, columns)


class Update:
    """Update rows where they are as expected; the count tells whether all were.

    On PostgreSQL the keys are given twice, as rows to join with and as what is looked up. Of a join alone the plan may
    go through the whole table, or an index of it, for each set of rows: a good plan of a small table, which is kept.
    """

    def __init__(
        self, table: Table, names: Sequence[str], keys: Sequence[str], *, more: str = "", only: str = ""
    ) -> None:
        """Set `names` of the rows that `keys` select.

        `more` (`column = …, `) is set besides; `only` is a further condition.
        """
        self._kinds = [kind_of(table, name) for name in (*names, *keys)]
        restriction = f" AND {only}" if only else ""
        where = " AND ".join(f"{key} = ?" for key in keys)
        said = ", ".join([*([more] if more else []), *(f"{name} = ?" for name in names)])
        self._sqlite = f"UPDATE {table.name} SET {said} WHERE {where}{restriction}"  # noqa: S608 - our own names
        said = ", ".join([*([more] if more else []), *(f"{name} = r.new_{name}" for name in names)])
        where = " AND ".join(f"{table.name}.{key} = r.old_{key}" for key in keys)
        given = [*(f"new_{name}" for name in names), *(f"old_{key}" for key in keys)]
        sought = [at for at, key in enumerate(keys, start=len(names)) if self._kinds[at] in _NAMING]
        among = "".join(f" AND {table.name}.{keys[at - len(names)]} = ANY(%s::{self._kinds[at]}[])" for at in sought)
        self._sought = sought
        self._postgresql = (
            f"UPDATE {table.name} SET {said} FROM {unnest(self._kinds, given)} "  # noqa: S608 - our own names
            f"WHERE {where}{restriction}{among}"
        )

    def __call__(self, unit: Unit, rows: Iterable[Sequence[Any]]) -> int:
        """Update the rows and return how many were changed.

        Each row holds the values of the columns, then those of the keys.
        """
        columns = list(zip(*rows, strict=True))
        if not columns:
            return 0
        return _run(unit, self._sqlite, self._postgresql, self._kinds, columns, self._sought)


class Delete:
    """Delete rows where they are as expected; the count tells whether all were."""

    def __init__(self, table: Table, keys: Sequence[str], *, only: str) -> None:
        """Delete the rows that `keys` select.

        The first of them is an id; `only` is a further condition.
        """
        self._kinds = [kind_of(table, key) for key in keys]
        where = " AND ".join(f"{key} = ?" for key in keys)
        self._sqlite = f"DELETE FROM {table.name} WHERE {where} AND {only}"  # noqa: S608 - our own names
        given = [f"old_{key}" for key in keys]
        where = " AND ".join(f"{table.name}.{key} = r.old_{key}" for key in keys)
        self._postgresql = (
            f"DELETE FROM {table.name} USING {unnest(self._kinds, given)} "  # noqa: S608 - our own names
            f"WHERE {where} AND {only} AND {table.name}.{keys[0]} = ANY(%s::{self._kinds[0]}[])"
        )

    def __call__(self, unit: Unit, rows: Iterable[Sequence[Any]]) -> int:
        """Delete the rows with these values of the keys; return how many there were."""
        columns = list(zip(*rows, strict=True))
        if not columns:
            return 0
        return _run(unit, self._sqlite, self._postgresql, self._kinds, columns, (0,))


class Columns:
    """Columns of a table as a query selects them, and their conversion to records."""

    def __init__(self, table: Table, names: Sequence[str], *, given: Mapping[str, str] | None = None) -> None:
        """`given` are expressions in place of columns, by name."""
        self.names = tuple(names)
        self._table = reported_name(table)
        self._given = frozenset(given or ())
        self._named = [(name, kind_of(table, name)) for name in names]
        self._layouts: dict[type[Model], tuple[str, ...]] = {}
        kinds = [kind_of(table, name) for name in names]
        told = [(given or {}).get(name, f"{table.name}.{name}") for name in names]
        pairs = list(zip(told, kinds, strict=True))
        self._sqlite = ", ".join(word for word, _ in pairs)
        self._postgresql = ", ".join(
            f"({word})::text" if kind in ("uuid", "timestamptz", "json") else word for word, kind in pairs
        )
        self._loaders = {True: [_FROM_SQLITE.get(k) for k in kinds], False: [_FROM_POSTGRESQL.get(k) for k in kinds]}

    def expression(self, unit: Unit) -> str:
        """Return the select list."""
        return self._sqlite if unit.dialect == "sqlite" else self._postgresql

    def records(
        self,
        unit: Unit,
        model: type[Record],
        query: str,
        parameters: Sequence[Any],
        aside: list[UnreadableRecord] | None = None,
    ) -> list[Record]:
        """Run a query that selects `expression`, and return its records.

        Rows that cannot be read go to `aside`, and raise UnreadableRow without it.
        """
        try:
            loaded = self._loaded(unit, unit.rows(query, parameters))
            if are_sound(model, self.names, loaded, self._given):
                return self._made(model, loaded)
        except Exception as fault:
            if not is_about_a_row(fault):
                raise
        return self._scanned(unit, model, query, parameters, aside)

    def _loaded(self, unit: Unit, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        """By column, as Python has its values."""
        loaders = self._loaders[unit.dialect == "sqlite"]
        found = list(zip(*rows, strict=True))
        return [column if load is None else load(column) for column, load in zip(found, loaders, strict=False)]

    def _scanned(
        self,
        unit: Unit,
        model: type[Record],
        query: str,
        parameters: Sequence[Any],
        aside: list[UnreadableRecord] | None,
    ) -> list[Record]:
        """Each row alone, as it is kept."""
        is_sqlite = unit.dialect == "sqlite"
        found, unreadable = list[Record](), list[UnreadableRecord]()
        for row in unit.raw_rows(query, parameters):
            values = converted(self._table, self._named, row, is_sqlite=is_sqlite)
            if isinstance(values, UnreadableRecord):
                unreadable.append(values)
                continue
            record = build_record(model, values)
            wrong = check(model, record, only=self.names, given=self._given)
            if wrong is None:
                found.append(record)
            else:
                unreadable.append(UnreadableRecord(self._table, dict(zip(self.names, row, strict=True)), *wrong))
        unit.set_aside(unreadable, aside)
        return found

    def _made(self, model: type[Record], loaded: Sequence[Any]) -> list[Record]:
        names = self._layout(model)
        if not loaded or not issubclass(model, Row):
            return [build_record(model, dict(zip(self.names, row, strict=True))) for row in zip(*loaded, strict=True)]
        others = [repeat(None)] * (len(names) - len(self.names))
        return [wrap_columns(model, dict(zip(names, row, strict=True))) for row in zip(*loaded, *others, strict=False)]

    def _layout(self, model: type[Record]) -> tuple[str, ...]:
        """Return the names of the selected columns, then those of all others."""
        if model not in self._layouts:
            self._layouts[model] = (*self.names, *(name for name in columns_of(model) if name not in self.names))
        return self._layouts[model]


def unnest(kinds: Sequence[str], names: Sequence[str], alias: str = "r") -> str:
    """Return the SQL of rows from one array for each column, on PostgreSQL."""
    return f"unnest({', '.join(f'%s::{kind}[]' for kind in kinds)}) AS {alias}({', '.join(names)})"


def array(kind: str, values: Sequence[Any]) -> str:
    """Return PostgreSQL's text of an array.

    Raises ValueError for an instant without a zone, or a text with a NUL.
    """
    if None in values:
        if values.count(None) == len(values):
            return "{" + ",".join(["NULL"] * len(values)) + "}"
        kept = [value for value in values if value is not None]
        each = iter(_texts(kind, kept))
        return "{" + ",".join(["NULL" if value is None else next(each) for value in values]) + "}"
    return "{" + ",".join(_texts(kind, values)) + "}"


_QUOTED: Final = frozenset({"text", "json"})


def _texts(kind: str, values: Sequence[Any]) -> list[str]:
    """As they stand in an array, of values that are not None."""
    if len(values) > 1 and kind != "json" and values.count(values[0]) == len(values):  # of JSON, 1 is 1.0 and true
        return _texts(kind, values[:1]) * len(values)
    if kind == "timestamptz":
        return _instants(values)
    if kind not in _QUOTED:
        return values if kind == "uuid" else [*map(str, values)]  # type: ignore[return-value]
    texts = _json_texts(values) if kind == "json" else values
    joined = "\0".join(texts)
    if joined.count("\0") != len(texts) - 1:
        raise ValueError("PostgreSQL keeps no text with a NUL")
    joined = joined.replace("\\", "\\\\").replace('"', '\\"')
    return ('"' + joined.replace("\0", '"\0"') + '"').split("\0")


def instants(dialect: str, values: Sequence[datetime]) -> list[Any]:
    """As parameters of a statement in the driver's own words."""
    return _instants_to_sqlite(values) if dialect == "sqlite" else _instants(values)


def _run(
    unit: Unit,
    sqlite: str,
    postgresql: str,
    kinds: Sequence[str],
    columns: Sequence[Sequence[Any]],
    twice: Sequence[int] = (),
) -> int:
    """`twice` are the columns that PostgreSQL's statement has once more at its end."""
    pairs = zip(kinds, columns, strict=True)
    if unit.dialect != "sqlite":
        arrays = [array(kind, values) for kind, values in pairs]
        return unit.run(postgresql, (*arrays, *(arrays[at] for at in twice)))
    told = [_TO_SQLITE[kind](values) if kind in _TO_SQLITE else values for kind, values in pairs]
    return unit.run_each(sqlite, list(zip(*told, strict=True)))


def _instants(values: Iterable[datetime | None]) -> list[Any]:
    """In UTC, with their zone. Most rows of a set share a few instants."""
    known: dict[datetime | None, str | None] = {None: None}
    told = []
    for value in values:
        text = known.get(value)
        if text is None and value is not None:
            text = known[value] = _in_utc(value).isoformat()
        told.append(text)
    return told


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError("a time without a zone must not be stored")
    return value.astimezone(UTC)


def _instants_to_sqlite(values: Iterable[datetime | None]) -> list[str | None]:
    known: dict[datetime | None, str | None] = {None: None}
    told = []
    for value in values:
        text = known.get(value)
        if text is None and value is not None:
            text = known[value] = _in_utc(value).isoformat(" ", "microseconds")[:26]
        told.append(text)
    return told


def _json_texts(values: Iterable[Any]) -> list[Any]:
    return [None if value is None else _encode(value).decode() for value in values]


def _undashed(values: Iterable[str | None]) -> list[str | None]:
    return [value and value.replace("-", "") for value in values]


def _dashed(values: Iterable[str | None]) -> list[str | None]:
    return [value and dashed(value) for value in values]


def _from_texts(values: Iterable[str | None]) -> list[datetime | None]:
    read = datetime.fromisoformat
    return [None if value is None else read(value) for value in values]


def _from_texts_of_sqlite(values: Iterable[str | None]) -> list[datetime | None]:
    read = datetime.fromisoformat
    return [None if value is None else read(f"{value}+00:00") for value in values]


def _from_json(values: Iterable[str | None]) -> list[Any]:
    return [None if value is None else _decode(value) for value in values]


def _booleans(values: Iterable[int | None]) -> list[bool | None]:
    return [None if value is None else bool(value) for value in values]


_Converter = Callable[[Sequence[Any]], Sequence[Any]]
_TO_SQLITE: Final[dict[str, _Converter]] = {
    "uuid": _undashed,
    "timestamptz": _instants_to_sqlite,
    "json": _json_texts,
}
_FROM_SQLITE: Final[dict[str, _Converter]] = {
    "uuid": _dashed,
    "timestamptz": _from_texts_of_sqlite,
    "json": _from_json,
    "boolean": _booleans,
}
_FROM_POSTGRESQL: Final[dict[str, _Converter]] = {"timestamptz": _from_texts, "json": _from_json}
