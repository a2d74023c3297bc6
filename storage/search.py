"""Search and lists: rows by name, pages of rows by filter, and their number.

However large a table is, a statement takes a bounded time. A search names whole values, each of which an index finds.
A page of `page()` is taken from an index where one serves; everything else is scanned from the newest row on, at most
`SCAN_LIMIT` rows, and the caller goes on from where the scan ended. A page of `records()` has whole rows, and is full
unless the list ends.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Row,
    Select,
    String,
    Subquery,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)

from statemachine.money import MAX_MINOR, currencies_by_exponent
from statemachine.names import is_line
from statemachine.phases import Phase
from storage import inbox
from storage.columns import Model, columns_of, table_of, views
from storage.database import Unit
from storage.ids import WEBHOOK_PREFIX, first_id, is_id
from storage.tables import (
    InboxMessage,
    KnownDelivery,
    OperatorAction,
    OutboxMessage,
    OutboxMessageTable,
    Payment,
    RejectedDelivery,
)
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.tables_support import ApiKey, AuditRun, ConsoleSession, Reconciliation
from storage.types import InboxStatus, OutboxStatus

_payment = table_of(Payment)
_inbox = table_of(InboxMessage)
_outbox = table_of(OutboxMessageTable)
_outbox_waiting = views.tables["outbox_waiting"]
_queue = table_of(QueuedMessage)
_decision = table_of(RecordedDecision)
_action = table_of(OperatorAction)
_known = table_of(KnownDelivery)

Record = TypeVar("Record", bound=Model)
Item = TypeVar("Item")

#: Rows that are scanned for one page, or for one count.
SCAN_LIMIT: Final = 20_000

#: Rows beyond which no count goes on.
COUNT_LIMIT: Final = 10_000

#: Rows that one search finds at most, the newest first.
MATCH_LIMIT: Final = 1_000

Line = Mapping[str, Any]  #: the columns of one row, by name


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Conditions on rows; all of them hold of every row that is left."""

    equal: Mapping[str, Any] = field(default_factory=dict)  #: a column has this value
    present: Mapping[str, bool] = field(default_factory=dict)  #: a column has a value, or none
    since: datetime | None = None  #: received or made from then on
    until: datetime | None = None  #: received or made before then
    ids: Sequence[str] | None = None  #: the row is one of these, which a search has found
    among: Mapping[str, Sequence[Any]] = field(default_factory=dict)  #: a column has one of these values
    at_least: Mapping[str, int | datetime] = field(default_factory=dict)
    below: Mapping[str, int | datetime] = field(default_factory=dict)  #: exclusive


@dataclass(frozen=True, slots=True)
class PageCursor:
    """Beginning and length of a page of a list, the newest first."""

    limit: int
    after: str | None = None  #: id of the last row of the page before
    before: str | None = None  #: id of the first row of the page after; `records()` goes back from it
    is_ascending: bool = False  #: the oldest first; of `page()`


@dataclass(frozen=True, slots=True)
class RowPage(Generic[Item]):
    """Some rows, and where the list goes on."""

    rows: list[Item]
    has_more: bool = False
    after: str | None = None  #: id to go on after; None where there is nothing more
    is_broken_off: bool = False  #: so many rows were scanned that the rest is left for the next page


@dataclass(frozen=True, slots=True)
class RowCount:
    """Number of rows, as far as was counted."""

    number: int
    is_more: bool = False  #: there are more than the number
    scanned: int | None = None  #: only so many rows, from the newest on, were scanned


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table as it is listed: its columns, and what its indexes serve."""

    model: type[Model]
    without: frozenset[str] = frozenset()  #: columns that are shown on the row's own page alone
    sized: str | None = None  #: the column whose bytes are counted, as `size_bytes`
    served: frozenset[str] = frozenset()  #: columns that begin an index which goes on with the id
    rare: Mapping[str, frozenset[str]] = field(default_factory=dict)  #: values that a partial index serves
    gathered: Mapping[str, str | None] = field(default_factory=dict)  #: served in another order; a value, or any


_BODIES: Final = frozenset({"body", "headers"})
_HEAD_COLUMNS: Final = frozenset({"id", "account", "version", "head_hash", "seal", "changed_at", "state"})

PAYMENTS: Final = TableSpec(
    Payment,
    frozenset({"facts", "seal", "return_url", "merchant_metadata"}),
    served=frozenset({"account", "review"}),
    rare={"phase": frozenset(Phase) - {Phase.PAID, Phase.SETTLED}},
    gathered={"review": None},
)
HEADS: Final = TableSpec(Payment, frozenset(columns_of(Payment)) - _HEAD_COLUMNS, served=frozenset({"account"}))
MESSAGES: Final = TableSpec(
    InboxMessage,
    _BODIES | {"readings"},
    "body",
    frozenset({"payment_id"}),
    {"status": frozenset({InboxStatus.PENDING, InboxStatus.PARKED, InboxStatus.DEAD})},
)
OWED: Final = TableSpec(
    OutboxMessage,
    frozenset({"payload", "seal", "status_seal"}),
    None,
    frozenset({"payment_id"}),
    {"status": frozenset({OutboxStatus.PENDING, OutboxStatus.DEAD})},
    {"status": OutboxStatus.PENDING.value},
)
REJECTED: Final = TableSpec(RejectedDelivery, _BODIES, "body", frozenset({"account"}))
RECONCILIATIONS: Final = TableSpec(
    Reconciliation, frozenset({"unasked", "drift", "position"}), served=frozenset({"account"})
)
ACTIONS: Final = TableSpec(OperatorAction)


# -- pages and counts of any filter, within a bounded scan


def page(unit: Unit, spec: TableSpec, wanted: RowFilter, cursor: PageCursor) -> RowPage[Line]:
    """Read one page; `SCAN_LIMIT` rows, or what an index points at, are read for it."""
    table = _table(spec.model, wanted)
    served, scanned = _split(spec, wanted)
    conditions = _served_conditions(unit, spec, table, served, wanted)
    by = _in_order(unit, table.c.id, is_sorted=_are_few(unit, spec, served, table, conditions))
    order = by if cursor.is_ascending else by.desc()
    if cursor.after is not None:
        conditions.append(table.c.id > cursor.after if cursor.is_ascending else table.c.id < cursor.after)
    if cursor.before is not None:
        conditions.append(table.c.id < cursor.before if cursor.is_ascending else table.c.id > cursor.before)
    query = select(*_columns(spec, table)).order_by(order)
    if scanned:
        scan = _scan(table, conditions, scanned, order)
        ids = select(scan.c.id).where(*_conditions(scan.c, scanned))
        ids = ids.order_by(scan.c.id if cursor.is_ascending else scan.c.id.desc()).limit(cursor.limit + 1)
        query = query.where(table.c.id.in_(ids))
    else:
        query = query.where(*conditions).limit(cursor.limit + 1)
    found = [_line(row) for row in unit.lines(query)]
    if len(found) > cursor.limit:
        return RowPage(found[: cursor.limit], has_more=True, after=str(found[cursor.limit - 1]["id"]))
    end = _end_of_scan(unit, table, conditions, order) if scanned else None
    return RowPage(found, has_more=end is not None, after=end, is_broken_off=end is not None)


def count(unit: Unit, spec: TableSpec, wanted: RowFilter) -> RowCount:
    """Count up to `COUNT_LIMIT` rows, among the newest `SCAN_LIMIT` without an index."""
    table = _table(spec.model, wanted)
    served, scanned = _split(spec, wanted)
    conditions = _served_conditions(unit, spec, table, served, wanted)
    if not scanned:
        inner = select(table.c.id).where(*conditions).limit(COUNT_LIMIT + 1).subquery()
        number = unit.execute(select(func.count()).select_from(inner)).scalar_one()
        return RowCount(min(number, COUNT_LIMIT), number > COUNT_LIMIT)
    scan = _scan(table, conditions, scanned, table.c.id.desc())
    is_wanted = func.count().filter(*_conditions(scan.c, scanned))
    number, seen = unit.execute(select(is_wanted, func.count()).select_from(scan)).one()
    if number > COUNT_LIMIT:
        return RowCount(COUNT_LIMIT, is_more=True)
    return RowCount(number, scanned=SCAN_LIMIT if seen == SCAN_LIMIT else None)


def one(unit: Unit, spec: TableSpec, row_id: str) -> Line | None:
    """Read a row with all of its columns; None where no row has that id."""
    table = _table(spec.model, RowFilter())
    row = unit.execute(select(table).where(table.c.id == row_id)).first()
    if row is None or spec.model is not InboxMessage:
        return None if row is None else _line(row)
    return {**_line(row), "outcomes": [inbox.entry(each) for each in inbox.decisions(unit, [row_id])]}


# -- pages of whole rows, which are full unless the list ends

#: Columns whose values few payments share, which have indexes of their own.
_NAMES: Final = frozenset({"reference", "provider_ref"})

#: Columns whose values stand in the statement itself, so that the database sees which partial index serves them.
_PARTIALLY_INDEXED: Final = frozenset({"status", "phase"})


def payments(unit: Unit, wanted: RowFilter, cursor: PageCursor) -> RowPage[Payment]:
    """Read one page of payments, the newest first."""
    return _records(unit, Payment, wanted, cursor)


def messages(unit: Unit, wanted: RowFilter, cursor: PageCursor) -> RowPage[InboxMessage]:
    """Read one page of inbox messages, the newest first."""
    return _records(unit, InboxMessage, wanted, cursor)


def outbox_messages(unit: Unit, wanted: RowFilter, cursor: PageCursor) -> RowPage[OutboxMessage]:
    """Read one page of outbox messages, the newest first."""
    return _records(unit, OutboxMessage, wanted, cursor)


def rejected(unit: Unit, wanted: RowFilter, cursor: PageCursor) -> RowPage[RejectedDelivery]:
    """Read one page of rejected deliveries, the newest first."""
    return _records(unit, RejectedDelivery, wanted, cursor)


def reconciliations(unit: Unit, wanted: RowFilter, cursor: PageCursor) -> RowPage[Reconciliation]:
    """Read one page of reconciliations, the newest first."""
    return _records(unit, Reconciliation, wanted, cursor)


def actions(unit: Unit, wanted: RowFilter, cursor: PageCursor) -> RowPage[OperatorAction]:
    """Read one page of actions of people and keys, the newest first."""
    return _records(unit, OperatorAction, wanted, cursor)


def _records(unit: Unit, model: type[Record], wanted: RowFilter, cursor: PageCursor) -> RowPage[Record]:
    """Read one row more than wanted, which says whether there are more."""
    table = _table(model, wanted)
    is_backwards = cursor.before is not None and cursor.after is None
    rules = _rules(wanted)
    names = {name for name, _ in rules}
    is_named = model is Payment and not _NAMES.isdisjoint(names)
    is_in_review = model is Payment and not is_named and wanted.present.get("review") is True
    is_rare = is_named or is_in_review or _is_few_pending(unit, model, rules)
    account = _in_order(unit, table.c.account, is_sorted=is_in_review)  # nor through all payments of the account
    by = _in_order(unit, table.c.id, is_sorted=is_rare)
    order = by if is_backwards else by.desc()
    spelled = [(name, _spelled(name, value)) for name, value in rules]
    conditions = _served(model, {**table.c, "account": account}, table, spelled, wanted)
    if is_named and "kind" not in names:
        # The indexes go by kind before they go by name, and SQLite does not skip over what it is not told.
        conditions.append(table.c.kind.in_({kind for _, kind in places(unit)}))
    if cursor.after is not None:
        conditions.append(table.c.id < cursor.after)
    if cursor.before is not None:
        conditions.append(table.c.id > cursor.before)
    accounts = wanted.among.get("account", ())
    if model is Payment and len(accounts) > 1 and not is_named:
        # Each account's newest come from its own end of the index; all accounts' together would be sorted first.
        ids = [
            select(table.c.id).where(account == each, *conditions).order_by(order).limit(cursor.limit + 1)
            for each in accounts
        ]
        conditions = [table.c.id.in_(union_all(*(select(each.subquery().c.id) for each in ids)))]
    found = unit.shown(model, select(table).where(*conditions).order_by(order).limit(cursor.limit + 1))
    if model is InboxMessage:
        inbox.with_outcomes(unit, [row for row in found if isinstance(row, InboxMessage)])
    rows, has_more = found[: cursor.limit], len(found) > cursor.limit
    return RowPage(rows[::-1] if is_backwards else rows, has_more=has_more)


def _is_few_pending(unit: Unit, model: type[Model], rules: Sequence["Rule"]) -> bool:
    """Return True where so few effects wait that they are sorted at once."""
    if unit.dialect != "sqlite" or model is not OutboxMessage or ("status", "pending") not in rules:
        return False
    return count(unit, OWED, RowFilter({"status": "pending"})).is_more is False


# -- conditions

_WAITING: Final = frozenset({OutboxStatus.PENDING, OutboxStatus.DEAD})


def _table(model: type[Model], wanted: RowFilter) -> FromClause:
    """Return the model's table, messages with what is kept beside them, or what waits.

    The queue's indexes serve the view of what waits.
    """
    if model is InboxMessage:
        return inbox.WHOLE
    statuses = [value for name, value in _rules(wanted) if name == "status"]
    is_waiting = any(isinstance(value, str) and value in _WAITING for value in statuses)
    return _outbox_waiting if model is OutboxMessage and is_waiting else table_of(model)


class _Range(NamedTuple):
    """From a value on, and before another."""

    at_least: Any = None
    below: Any = None


class _Spelled(str):
    """A value spelled in the statement, so that a partial index is seen to serve."""

    __slots__ = ()


def _spelled(name: str, value: Any) -> Any:
    is_spelled = name in _PARTIALLY_INDEXED and isinstance(value, str)
    return _Spelled(value) if is_spelled else value


#: A column's name, and what it is to be: a value, one of a tuple, in a range, or True or False for there or not.
Rule = tuple[str, Any]


def _rules(wanted: RowFilter) -> list[Rule]:
    """List what a filter wants of each column."""
    rules: list[Rule] = [*wanted.equal.items(), *wanted.present.items()]
    rules += ((name, values[0] if len(values) == 1 else tuple(values)) for name, values in wanted.among.items())
    rules += ((name, _Range(at_least=value)) for name, value in wanted.at_least.items())
    rules += ((name, _Range(below=value)) for name, value in wanted.below.items())
    return rules


def _split(spec: TableSpec, wanted: RowFilter) -> tuple[list[Rule], list[Rule]]:
    """Part the rules into those that an index serves and those to scan for."""
    rules = _rules(wanted)
    served = [
        (name, _Spelled(value) if value in spec.rare.get(name, ()) else value)
        for name, value in rules
        if wanted.ids is not None or value in spec.rare.get(name, ()) or (name in spec.served and value is not False)
    ]
    names = {name for name, _ in served}
    return served, [rule for rule in rules if rule[0] not in names]


def _condition(column: Any, value: Any) -> ColumnElement[bool]:
    made: ColumnElement[bool]
    if isinstance(value, bool):
        made = column.is_not(None) if value else column.is_(None)
    elif isinstance(value, _Spelled):
        made = column == literal(str(value), literal_execute=True)
    elif isinstance(value, _Range):
        made = column >= value.at_least if value.at_least is not None else column < value.below
    elif isinstance(value, tuple):
        made = column.in_(value)
    else:
        made = column == value
    return made


def _conditions(columns: Any, rules: Sequence[Rule], wanted: RowFilter | None = None) -> list[ColumnElement[bool]]:
    made = [_condition(columns[name], value) for name, value in rules]
    if wanted is not None and wanted.since is not None:
        made.append(columns["id"] >= first_id(wanted.since))
    if wanted is not None and wanted.until is not None:
        made.append(columns["id"] < first_id(wanted.until))
    if wanted is not None and wanted.ids is not None:
        made.append(columns["id"].in_(wanted.ids))
    return made


def _served(
    model: type[Model], columns: Mapping[str, Any], table: FromClause, rules: Sequence[Rule], wanted: RowFilter
) -> list[ColumnElement[bool]]:
    """Make the conditions of the rules; of messages, by indexes of other tables."""
    if model is not InboxMessage:
        return _conditions(columns, rules, wanted)
    beside = {rule: found for rule in rules if (found := _beside(*rule)) is not None}
    rest = [rule for rule in rules if rule not in beside]
    return [*_conditions(columns, rest, wanted), *(table.c.id.in_(ids) for ids in beside.values())]


def _beside(name: str, value: Any) -> Select[Any] | None:
    """Select messages by a rule that an index of decisions or queue answers."""
    if name == "payment_id" and not isinstance(value, bool):  # a message may be about several payments
        return inbox.decided_about(value if isinstance(value, tuple) else [value])
    if name == "status" and InboxStatus.DECIDED not in (value if isinstance(value, tuple) else [value]):
        return select(_queue.c.message_id).where(_condition(_queue.c.status, value))
    return None


def _served_conditions(
    unit: Unit, spec: TableSpec, table: FromClause, served: Sequence[Rule], wanted: RowFilter
) -> list[ColumnElement[bool]]:
    """Make what an index serves; of few rows, SQLite is kept off the account's."""
    account = _in_order(unit, table.c.account, is_sorted=_is_gathered(spec, served))
    return _served(spec.model, {**table.c, "account": account}, table, served, wanted)


def _scan(
    table: FromClause, conditions: Sequence[ColumnElement[bool]], scanned: Sequence[Rule], order: Any
) -> Subquery:
    """Make the query of the rows that are scanned, as far as they are scanned for."""
    names = dict.fromkeys(["id", *(name for name, _ in scanned)])
    query = select(*(table.c[name] for name in names)).where(*conditions).order_by(order).limit(SCAN_LIMIT)
    return query.subquery("scan")


def _end_of_scan(unit: Unit, table: FromClause, conditions: Sequence[ColumnElement[bool]], order: Any) -> str | None:
    """Read the id of the last row that was scanned; None at the end of the list."""
    query = select(table.c.id).where(*conditions).order_by(order).offset(SCAN_LIMIT - 1).limit(2)
    found = list(unit.execute(query).scalars())
    return str(found[0]) if len(found) > 1 else None


def _in_order(unit: Unit, column: Any, *, is_sorted: bool) -> Any:
    """Return what to order by; of few rows, SQLite is kept off the index in order."""
    return func.ifnull(column, "") if is_sorted and unit.dialect == "sqlite" else column


def _are_few(unit: Unit, spec: TableSpec, served: Sequence[Rule], table: FromClause, conditions: Any) -> bool:
    """Return True where an index of another order serves so few that they are sorted."""
    if unit.dialect != "sqlite" or not _is_gathered(spec, served):
        return False
    inner = select(literal(1)).select_from(table).where(*conditions).limit(SCAN_LIMIT + 1).subquery()
    number: int = unit.execute(select(func.count()).select_from(inner)).scalar_one()
    return number <= SCAN_LIMIT


def _is_gathered(spec: TableSpec, served: Sequence[Rule]) -> bool:
    return any(spec.gathered.get(name, "") in (None, value) and value is not False for name, value in served)


def _columns(spec: TableSpec, table: FromClause) -> list[ColumnElement[Any]]:
    columns: list[ColumnElement[Any]] = [column for column in table.c if column.name not in spec.without]
    if spec.sized is not None:
        columns.append(func.length(table.c[spec.sized]).label("size_bytes"))
    return columns


def _line(row: Row[*tuple[Any, ...]]) -> Line:
    return row._asdict()


# -- by name: an id, the provider's name for something, or the merchant's own reference

#: Longer than any value that is searched.
_MAX_NAME_CHARS: Final = 255


def payment_ids(unit: Unit, words: str) -> list[str]:
    """Find payments by id, provider's name, alias or reference."""
    if not _is_kept(words):
        return []
    found = set(whole_id(words))
    known = places(unit)
    names = _spellings(words)
    for account in {account for account, _ in known}:
        found |= _ids(unit, _payment.c.id, _payment.c.account == account, _payment.c.alias.in_(names))
    for account, kind in known:
        place = (_payment.c.account == account) & (_payment.c.kind == kind)
        for column in (_payment.c.provider_ref, _payment.c.reference):
            found |= _ids(unit, _payment.c.id, place, column.in_(names))
    return sorted(found, reverse=True)[:MATCH_LIMIT]


#: Fewer characters of a name, or digits of an id, fit too many payments.
_MIN_PART_CHARS: Final = 2
_MIN_ID_DIGITS: Final = 6

_AMOUNT: Final = re.compile(r"(\d[\d,]*(?:\.\d{1,4})?)(?:\s*([A-Za-z]{3}))?", re.ASCII)


def payment_ids_by_part(unit: Unit, words: str) -> list[str]:
    """Find payments among the newest `SCAN_LIMIT` by a part of a name, or by amount.

    A part is the beginning of a reference or of the provider's name, in any case, or of an id its first or last digits
    with or without dashes. An amount is of major units, and may name its currency.
    """
    text = words.strip().lower()
    if not _is_kept(text) or len(text) < _MIN_PART_CHARS:
        return []
    newest = (
        select(*(_payment.c[name] for name in ("id", "reference", "provider_ref", "amount_minor", "currency")))
        .order_by(_payment.c.id.desc())
        .limit(SCAN_LIMIT)
        .subquery()
    )
    named = (newest.c.reference, newest.c.provider_ref)
    names = [func.lower(column).startswith(text, autoescape=True) for column in named]
    query = select(newest.c.id).where(or_(*names, *_id_parts(newest.c.id, text), *_amounts(newest.c, text)))
    return list(unit.execute(query.order_by(newest.c.id.desc()).limit(MATCH_LIMIT)).scalars())


def _id_parts(column: Any, text: str) -> list[ColumnElement[bool]]:
    """Return the conditions of an id that begins or ends with the text's digits."""
    part = text.lstrip("…").replace("-", "")
    if len(part) < _MIN_ID_DIGITS or not set(part) <= set("0123456789abcdef"):
        return []
    digits = func.replace(cast(column, String), "-", "")
    return [digits.startswith(part), digits.endswith(part)]


def _amounts(columns: Any, text: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of an amount, one for each number of decimal places."""
    found = _AMOUNT.fullmatch(text)
    if found is None:
        return
    major, unusual = Decimal(found[1].replace(",", "")), currencies_by_exponent()
    is_wanted = columns.currency == found[2].upper() if found[2] else columns.currency.is_not(None)
    for exponent in (2, *unusual):
        minor = major.scaleb(exponent)
        if minor == minor.to_integral_value() and minor <= MAX_MINOR:
            is_usual = columns.currency.not_in([each for currencies in unusual.values() for each in currencies])
            is_of = columns.currency.in_(unusual[exponent]) if exponent in unusual else is_usual
            yield is_wanted & is_of & (columns.amount_minor == int(minor))


def message_ids(unit: Unit, words: str) -> list[str]:
    """Find inbox messages by id, delivery key, or what names their payment."""
    return _about(unit, _inbox, words, _delivered(unit, words))


def outbox_message_ids(unit: Unit, words: str) -> list[str]:
    """Find outbox messages by id, `webhook-id`, or what names their payment."""
    travels_as = words.removeprefix(WEBHOOK_PREFIX)
    named = _ids(unit, _outbox.c.id, _outbox.c.webhook_id == travels_as) if is_id(travels_as) else set()
    return _about(unit, _outbox, words, named | set(whole_id(travels_as)))


def action_ids(unit: Unit, words: str) -> list[str]:
    """Find operator actions by the id that they are about."""
    if not _is_kept(words):
        return []
    return sorted(_ids(unit, _action.c.id, _action.c.subject.in_(_spellings(words))), reverse=True)


def whole_id(words: str) -> list[str]:
    """Return the words where they are a whole id."""
    word = words.strip().lower()
    return [word] if is_id(word) else []


def places(unit: Unit) -> list[tuple[str, str]]:
    """List accounts and kinds that have payments; each takes one step down an index."""
    found: list[tuple[str, str]] = []
    while (place := _place_after(unit, found[-1] if found else None)) is not None:
        found.append(place)
    return found


def _place_after(unit: Unit, place: tuple[str, str] | None) -> tuple[str, str] | None:
    """Read the next account and kind, one at a time: SQLite looks for no pair."""
    columns = (_payment.c.account, _payment.c.kind)
    query = select(*columns).order_by(*columns).limit(1)
    if place is None:
        wanted = [query]
    else:
        is_next = (_payment.c.account == place[0], _payment.c.kind > place[1])
        wanted = [query.where(*is_next), query.where(_payment.c.account > place[0])]
    rows = (unit.execute(each).first() for each in wanted)
    return next(((row[0], row[1]) for row in rows if row is not None), None)


def _about(unit: Unit, table: Any, words: str, found: set[str]) -> list[str]:
    if not _is_kept(words):
        return []
    column = _decision.c.message_id if table is _inbox else table.c.id
    about = _ids(unit, column, column.table.c.payment_id.in_(payment_ids(unit, words)))
    found = {*found, *whole_id(words), *about}
    return sorted(found, reverse=True)[:MATCH_LIMIT]


def _delivered(unit: Unit, words: str) -> set[str]:
    if not _is_kept(words):
        return set()
    return {
        each
        for account in _delivering(unit)
        for each in _ids(
            unit, _known.c.message_id, _known.c.account == account, _known.c.delivery_key.in_(_spellings(words))
        )
    }


def _delivering(unit: Unit) -> list[str]:
    """List the accounts of which there are messages."""
    found: list[str] = []
    while True:
        query = select(_known.c.account).where(_known.c.account > (found[-1] if found else ""))
        account = unit.execute(query.order_by(_known.c.account).limit(1)).scalar()
        if account is None:
            return found
        found.append(account)


def _ids(unit: Unit, column: Any, *conditions: ColumnElement[bool]) -> set[str]:
    return {str(found) for found in unit.execute(select(column).where(*conditions).limit(MATCH_LIMIT)).scalars()}


def _spellings(words: str) -> list[str]:
    """Return the words as typed, and without blanks, which may come of copying."""
    return sorted({words, words.strip()})


def _is_kept(words: str) -> bool:
    """Return True for what a column may hold; PostgreSQL refuses anything else."""
    return bool(words) and is_line(words, _MAX_NAME_CHARS)


Found = (
    Payment
    | InboxMessage
    | OutboxMessage
    | RejectedDelivery
    | Reconciliation
    | ApiKey
    | ConsoleSession
    | OperatorAction
    | AuditRun
)

_UUID_DIGITS = 32  #: hexadecimal digits of a UUID


def ids_with(unit: Unit, model: type[Found], part: str, *, limit: int) -> list[str]:
    """Find ids that are, begin or end with these lower-case digits, no dashes."""
    column = table_of(model).c.id
    if len(part) == _UUID_DIGITS:
        query = select(column).where(or_(*(each == part for each in _whole_names(model))))
    else:
        digits = [func.replace(cast(each, String), "-", "") for each in _whole_names(model)]
        begins = (each.startswith(part, autoescape=True) for each in digits)
        ends = (each.endswith(part, autoescape=True) for each in digits)
        query = select(column).where(or_(*begins, *ends))
    return list(unit.execute(query.order_by(column).limit(limit)).scalars())


def _whole_names(model: type[Found]) -> list[Column[Any]]:
    """List the columns of whole ids: an effect has the id that sinks get, too."""
    columns = table_of(model).c
    return [columns.id, columns.webhook_id] if model is OutboxMessage else [columns.id]
