"""Lists for people who filter: whatever is asked for, a page takes a bounded time however large the table is.

What an index serves is taken from the index. Everything else is sifted: rows are looked through from the newest on, at
most `WALK` of them, and whoever finds too few goes on from where the look ended. A search names whole values, each of
which an index finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Subquery, Table, func, literal, select

from statemachine.phases import Phase
from storage.columns import Model, columns_of, table_of
from storage.database import Unit
from storage.ids import first_id
from storage.inbox import decided_about
from storage.tables import InboxMessage, OperatorAction, OutboxMessage, Payment, RejectedDelivery
from storage.tables_support import Reconciliation
from storage.types import InboxStatus, OutboxStatus

#: Rows that are looked through for one page, or for one count.
WALK: Final = 20_000

#: Rows beyond which nobody counts.
COUNTED: Final = 10_000

Line = Mapping[str, Any]  #: the columns of one row, by name


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: a column may have a value, be there or not; received or made in [since, until); or of these ids."""

    equal: Mapping[str, str] = field(default_factory=dict)
    present: Mapping[str, bool] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[str] | None = None  #: what a search has found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins, after the row of an id or before it; at the newest (or, ascending, the oldest) otherwise."""

    limit: int
    after: str | None = None
    is_ascending: bool = False  #: the oldest first


@dataclass(frozen=True, slots=True)
class Sifted:
    """A page, and where to go on; None where there is nothing more."""

    lines: Sequence[Line]
    after: str | None = None
    is_broken_off: bool = False  #: so many rows were looked through that the rest is left for the next page


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows there are, as far as was counted."""

    number: int
    is_more: bool = False  #: there are more than the number
    looked_at: int | None = None  #: only so many rows, from the newest on, were looked through


@dataclass(frozen=True, slots=True)
class Shelf:
    """One table as people look through it."""

    model: type[Model]
    without: frozenset[str] = frozenset()  #: columns that are shown on the row's own page alone
    sized: str | None = None  #: the column whose bytes are counted, as `size_bytes`
    served: frozenset[str] = frozenset()  #: columns that begin an index which goes on with the id
    rare: Mapping[str, frozenset[str]] = field(default_factory=dict)  #: values that a partial index serves
    gathered: Mapping[str, str | None] = field(default_factory=dict)  #: served in another order; a value, or any


_BODIES: Final = frozenset({"body", "headers"})
_OF_HEADS: Final = frozenset({"id", "account", "version", "head_hash", "seal", "changed_at", "state"})

PAYMENTS: Final = Shelf(
    Payment,
    frozenset({"facts", "seal", "return_url"}),
    served=frozenset({"account", "review"}),
    rare={"phase": frozenset(Phase) - {Phase.PAID, Phase.SETTLED}},
    gathered={"review": None},
)
HEADS: Final = Shelf(Payment, frozenset(columns_of(Payment)) - _OF_HEADS, served=frozenset({"account"}))
MESSAGES: Final = Shelf(
    InboxMessage,
    _BODIES | {"outcomes"},
    "body",
    frozenset({"payment_id"}),
    {"status": frozenset({InboxStatus.PENDING, InboxStatus.PARKED, InboxStatus.DEAD})},
)
OWED: Final = Shelf(
    OutboxMessage,
    frozenset({"payload", "seal"}),
    None,
    frozenset({"payment_id"}),
    {"status": frozenset({OutboxStatus.PENDING, OutboxStatus.DEAD})},
    {"status": OutboxStatus.PENDING.value},
)
REJECTED: Final = Shelf(RejectedDelivery, _BODIES, "body", frozenset({"account"}))
RECONCILIATIONS: Final = Shelf(
    Reconciliation, frozenset({"unasked", "drift", "position"}), served=frozenset({"account"})
)
ACTIONS: Final = Shelf(OperatorAction)


def page(unit: Unit, shelf: Shelf, wanted: Wanted, place: Place) -> Sifted:
    """The rows of one page. Nothing but `WALK` rows, or what an index points at, is looked at for it."""
    table = table_of(shelf.model)
    served, sifted = _rules(shelf, wanted)
    conditions = _served(unit, shelf, table, served, wanted)
    by = in_order(unit, table.c.id, is_sorted=_are_few(unit, shelf, served, table, conditions))
    order = by if place.is_ascending else by.desc()
    if place.after is not None:
        conditions.append(table.c.id > place.after if place.is_ascending else table.c.id < place.after)
    query = select(*_columns(shelf)).order_by(order)
    if sifted:
        walk = _walk(table, conditions, sifted, order)
        ids = select(walk.c.id).where(*_conditions(walk.c, sifted))
        ids = ids.order_by(walk.c.id if place.is_ascending else walk.c.id.desc()).limit(place.limit + 1)
        query = query.where(table.c.id.in_(ids))
    else:
        query = query.where(*conditions).limit(place.limit + 1)
    found = [_line(row) for row in unit.lines(query)]
    if len(found) > place.limit:
        return Sifted(found[: place.limit], after=str(found[place.limit - 1]["id"]))
    end = _end_of_walk(unit, table, conditions, order) if sifted else None
    return Sifted(found, after=end, is_broken_off=end is not None)


def count(unit: Unit, shelf: Shelf, wanted: Wanted) -> Counted:
    """How many rows are wanted, up to `COUNTED` of them, and among the newest `WALK` where no index serves."""
    table = table_of(shelf.model)
    served, sifted = _rules(shelf, wanted)
    conditions = _served(unit, shelf, table, served, wanted)
    if not sifted:
        inner = select(table.c.id).where(*conditions).limit(COUNTED + 1).subquery()
        number = unit.execute(select(func.count()).select_from(inner)).scalar_one()
        return Counted(min(number, COUNTED), number > COUNTED)
    walk = _walk(table, conditions, sifted, table.c.id.desc())
    is_wanted = func.count().filter(*_conditions(walk.c, sifted))
    number, seen = unit.execute(select(is_wanted, func.count()).select_from(walk)).one()
    if number > COUNTED:
        return Counted(COUNTED, is_more=True)
    return Counted(number, looked_at=WALK if seen == WALK else None)


def one(unit: Unit, shelf: Shelf, row_id: str) -> Line | None:
    """A row with all of its columns; None where there is none of that id, which may be any UUID."""
    table = table_of(shelf.model)
    row = unit.execute(select(table).where(table.c.id == row_id)).first()
    return None if row is None else _line(row)


Rule = tuple[str, Any]  #: a column's name, and what it is to be: a value, or True or False for there or not


def _rules(shelf: Shelf, wanted: Wanted) -> tuple[list[Rule], list[Rule]]:
    """What an index serves, and what is sifted."""
    rules: list[Rule] = [*wanted.equal.items(), *wanted.present.items()]
    served = [
        (name, _Spelled(value) if value in shelf.rare.get(name, ()) else value)
        for name, value in rules
        if wanted.ids is not None or value in shelf.rare.get(name, ()) or (name in shelf.served and value is not False)
    ]
    names = {name for name, _ in served}
    return served, [rule for rule in rules if rule[0] not in names]


class _Spelled(str):
    """A value that stands in the statement itself, so that the database sees that a partial index has every row."""

    __slots__ = ()


def _conditions(columns: Any, rules: Sequence[Rule], wanted: Wanted | None = None) -> list[ColumnElement[bool]]:
    made: list[ColumnElement[bool]] = []
    for name, value in rules:
        column = columns[name]
        if isinstance(value, bool):
            made.append(column.is_not(None) if value else column.is_(None))
        elif isinstance(value, _Spelled):
            made.append(column == literal(str(value), literal_execute=True))
        else:
            made.append(column == value)
    if wanted is not None and wanted.since is not None:
        made.append(columns["id"] >= first_id(wanted.since))
    if wanted is not None and wanted.until is not None:
        made.append(columns["id"] < first_id(wanted.until))
    if wanted is not None and wanted.ids is not None:
        made.append(columns["id"].in_(wanted.ids))
    return made


def _served(
    unit: Unit, shelf: Shelf, table: Table, served: Sequence[Rule], wanted: Wanted
) -> list[ColumnElement[bool]]:
    """What an index serves. Where that is one of few rows, SQLite is kept from going through all of the account's."""
    account = in_order(unit, table.c.account, is_sorted=_is_gathered(shelf, served))
    about = [value for name, value in served if shelf.model is InboxMessage and name == "payment_id"]
    if about and not isinstance(about[0], bool):  # a message may be about several payments
        rules = [rule for rule in served if rule[0] != "payment_id"]
        return [*_conditions({**table.c, "account": account}, rules, wanted), table.c.id.in_(decided_about(about))]
    return _conditions({**table.c, "account": account}, served, wanted)


def _walk(table: Table, conditions: Sequence[ColumnElement[bool]], sifted: Sequence[Rule], order: Any) -> Subquery:
    """The rows that are looked through, as far as they are sifted by."""
    names = dict.fromkeys(["id", *(name for name, _ in sifted)])
    query = select(*(table.c[name] for name in names)).where(*conditions).order_by(order).limit(WALK)
    return query.subquery("walk")


def _end_of_walk(unit: Unit, table: Table, conditions: Sequence[ColumnElement[bool]], order: Any) -> str | None:
    """The id of the last row that was looked at; None where that was the last of all."""
    query = select(table.c.id).where(*conditions).order_by(order).offset(WALK - 1).limit(2)
    found = list(unit.execute(query).scalars())
    return str(found[0]) if len(found) > 1 else None


def in_order(unit: Unit, column: Any, *, is_sorted: bool) -> Any:
    """What to order by. Where the rows are few, SQLite is kept from going through all others for the sake of order."""
    return func.ifnull(column, "") if is_sorted and unit.dialect == "sqlite" else column


def _are_few(unit: Unit, shelf: Shelf, served: Sequence[Rule], table: Table, conditions: Any) -> bool:
    """Whether so few rows are served by an index of another order that they are sorted at once."""
    if unit.dialect != "sqlite" or not _is_gathered(shelf, served):
        return False
    inner = select(literal(1)).select_from(table).where(*conditions).limit(WALK + 1).subquery()
    number: int = unit.execute(select(func.count()).select_from(inner)).scalar_one()
    return number <= WALK


def _is_gathered(shelf: Shelf, served: Sequence[Rule]) -> bool:
    return any(shelf.gathered.get(name, "") in (None, value) and value is not False for name, value in served)


def _columns(shelf: Shelf) -> list[ColumnElement[Any]]:
    table = table_of(shelf.model)
    columns: list[ColumnElement[Any]] = [column for column in table.c if column.name not in shelf.without]
    if shelf.sized is not None:
        columns.append(func.length(table.c[shelf.sized]).label("size_bytes"))
    return columns


def _line(row: Row[*tuple[Any, ...]]) -> Line:
    return row._asdict()
