"""Lists for people and programs, newest first: pages that stay put while rows are added, forwards and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, literal, select, union_all

from storage import inbox, sifting
from storage.columns import Model, table_of
from storage.database import Unit
from storage.search import places
from storage.sifting import in_order
from storage.tables import InboxMessage, OutboxMessage, Payment, RejectedDelivery

Record = TypeVar("Record", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[Record]):
    """Some rows, newest first, and whether there are more in the direction of the walk."""

    rows: list[Record]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: after one row, or before one, in the order of the list; at its beginning otherwise."""

    limit: int
    after: str | None = None  #: id of the last row of the page before: older rows follow
    before: str | None = None  #: id of the first row of the page after: newer rows are wanted


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows. A column may be one of several values, lie in a range, or be there at all."""

    among: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    at_least: Mapping[str, int | datetime] = field(default_factory=dict)
    below: Mapping[str, int | datetime] = field(default_factory=dict)  #: exclusive
    present: Mapping[str, bool] = field(default_factory=dict)


#: Columns whose values few payments share, which have indexes of their own.
_RARE: Final = frozenset({"reference", "provider_ref"})

#: Columns whose values stand in the statement itself, so that the database sees which partial index serves them.
_SPELLED: Final = frozenset({"status", "phase"})


def payments(unit: Unit, wanted: Wanted, place: Place) -> Page[Payment]:
    """Payments, newest first."""
    return _page(unit, Payment, wanted, place)


def messages(unit: Unit, wanted: Wanted, place: Place) -> Page[InboxMessage]:
    """Inbox messages, newest first."""
    return _page(unit, InboxMessage, wanted, place)


def owed(unit: Unit, wanted: Wanted, place: Place) -> Page[OutboxMessage]:
    """Outbox messages, newest first."""
    return _page(unit, OutboxMessage, wanted, place)


def rejected(unit: Unit, wanted: Wanted, place: Place) -> Page[RejectedDelivery]:
    """Rejected deliveries, newest first."""
    return _page(unit, RejectedDelivery, wanted, place)


def _page(unit: Unit, model: type[Record], wanted: Wanted, place: Place) -> Page[Record]:
    """One row more than wanted is looked for, which says whether there are more."""
    table = table_of(model)
    is_backwards = place.before is not None and place.after is None
    is_named = model is Payment and not _RARE.isdisjoint(wanted.among)
    is_in_review = model is Payment and not is_named and wanted.present.get("review") is True
    is_rare = is_named or is_in_review or _is_few_pending(unit, model, wanted)
    of = in_order(unit, table.c.account, is_sorted=is_in_review)  # nor through all payments of the account
    by = in_order(unit, table.c.id, is_sorted=is_rare)
    order = by if is_backwards else by.desc()
    among = dict(wanted.among)
    about = among.pop("payment_id", None) if model is InboxMessage else None  # which may be about several
    conditions = _conditions({**table.c, "account": of}, replace(wanted, among=among))
    if about is not None:
        conditions.append(table.c.id.in_(inbox.decided_about(about)))
    if is_named and "kind" not in wanted.among:
        # The indexes go by kind before they go by name, and SQLite does not skip over what it is not told.
        conditions.append(table.c.kind.in_({kind for _, kind in places(unit)}))
    if place.after is not None:
        conditions.append(table.c.id < place.after)
    if place.before is not None:
        conditions.append(table.c.id > place.before)
    accounts = wanted.among.get("account", ())
    if model is Payment and len(accounts) > 1 and not is_named:
        # Each account's newest come from its own end of the index; all accounts' together would be sorted first.
        ids = [
            select(table.c.id).where(of == account, *conditions).order_by(order).limit(place.limit + 1)
            for account in accounts
        ]
        conditions = [table.c.id.in_(union_all(*(select(each.subquery().c.id) for each in ids)))]
    found = unit.shown(model, select(table).where(*conditions).order_by(order).limit(place.limit + 1))
    rows = found[: place.limit]
    return Page(rows[::-1] if is_backwards else rows, has_more=len(found) > place.limit)


def _is_few_pending(unit: Unit, model: type[Model], wanted: Wanted) -> bool:
    """Whether the index of what waits, which is in another order, has so few rows that they are sorted at once."""
    if unit.dialect != "sqlite" or model is not OutboxMessage or list(wanted.among.get("status", ())) != ["pending"]:
        return False
    return sifting.count(unit, sifting.OWED, sifting.Wanted({"status": "pending"})).is_more is False


def _conditions(columns: Mapping[str, Any], wanted: Wanted) -> list[ColumnElement[bool]]:
    made = [
        columns[name] == (literal(values[0], literal_execute=True) if name in _SPELLED else values[0])
        if len(values) == 1
        else columns[name].in_(values)
        for name, values in wanted.among.items()
    ]
    made += [columns[name] >= value for name, value in wanted.at_least.items()]
    made += [columns[name] < value for name, value in wanted.below.items()]
    made += [
        columns[name].is_not(None) if is_there else columns[name].is_(None) for name, is_there in wanted.present.items()
    ]
    return made
