"""Reads of the audit, where an unreadable row hides no other; and its runs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec
from sqlalchemy import insert, select

from storage import hashing
from storage.bulk import Columns, array
from storage.columns import Model, columns_of, reported_name, table_of
from storage.database import Unit, values
from storage.tables_support import AuditRun
from storage.unreadable_rows import UnreadableRecord

Record = TypeVar("Record", bound=Model)

_table: Any = table_of(AuditRun)

#: What a value that is none of ours can raise where it is understood.
UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, msgspec.MsgspecError)

#: Rows that a statement about what does not belong together names at most.
_NAMED: Final = 1000


def note(unit: Unit, run: AuditRun) -> None:
    """Insert the run, sealed."""
    run.seal = unit.sealer.seal(hashing.audit_run(run))
    unit.execute(insert(_table), values(run))


def last(unit: Unit) -> AuditRun | None:
    """Return the run that ended last; None where there is none."""
    return unit.first(AuditRun, select(_table).order_by(_table.c.id.desc()).limit(1))


def find(unit: Unit, *, after: str | None = None, limit: int = 100) -> list[AuditRun]:
    """Return the runs that ended before a given one, or all, the newest first."""
    query = select(_table).order_by(_table.c.id.desc()).limit(limit)
    return unit.all(AuditRun, query if after is None else query.where(_table.c.id < after))


# -- rows, each for itself


@dataclass(slots=True)
class Found(Generic[Record]):
    """Rows that were read, and the unreadable ones with their stored ids and problems."""

    rows: list[Record] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    last: bytes = b""  #: id of the last row of a page as it stands there, readable or not; empty at the end


class Reader(Generic[Record]):
    """Reads whole rows of one table."""

    def __init__(self, model: type[Record], key: str = "id") -> None:
        self._model = model
        self._key = key  #: the column of ids that tells its rows apart
        self.table = reported_name(table_of(model))
        self._source = table_of(model).name
        self._columns = Columns(table_of(model), columns_of(model))

    def page(self, unit: Unit, after: bytes, limit: int, *, only: str = "true") -> Found[Record]:
        """Return up to `limit` rows after an id as stored, in order of ids.

        `only` is a condition of SQL.
        """
        where, given, tail = f"({only})", (), f"ORDER BY {self._source}.{self._key} LIMIT {limit}"
        if not after:
            return self._read(unit, where, given, tail)
        if unit.dialect == "sqlite":  # where an id may be bytes that are no text
            return self._read(unit, f"{where} AND {self._key} > CAST(? AS text)", (after,), tail)
        return self._read(unit, f"{where} AND {self._key} > %s::uuid", (after.decode(),), tail)

    def of(self, unit: Unit, column: str, ids: Sequence[str]) -> Found[Record]:
        """Every row whose column holds one of the ids, in the order of ids."""
        if not ids:
            return Found()
        where, given = _among(unit, column, ids)
        found = self._read(unit, where, given, "")  # in that order SQLite would go through the whole table
        found.rows.sort(key=lambda row: str(row.__dict__[self._key]))
        return found

    def nameless(self, unit: Unit) -> list[str]:
        """Rows whose id is no text on SQLite, in hex: no page shows them."""
        if unit.dialect != "sqlite":
            return []
        query = f"SELECT hex({self._key}) FROM {self._source} WHERE typeof({self._key}) <> 'text' LIMIT {_NAMED}"  # noqa: S608
        return [row[0] for row in _texts(unit, query)]

    def _read(self, unit: Unit, where: str, given: Sequence[Any], tail: str) -> Found[Record]:
        query = f"SELECT {self._columns.expression(unit)} FROM {self._source} WHERE {where} {tail}"  # noqa: S608
        aside: list[UnreadableRecord] = []
        rows = self._columns.records(unit, self._model, query, given, aside)
        ids = [_as_bytes(_bound(unit, str(row.__dict__[self._key]))) for row in rows[-1:]]
        ids += [_as_bytes(each.raw[self._key]) for each in aside]
        return Found(rows, [(each.row_id, each.words) for each in aside], max(ids, default=b""))


def _as_bytes(raw: Any) -> bytes:
    return raw if isinstance(raw, bytes) else str(raw).encode()


def _mark(unit: Unit, kind: str) -> str:
    return "?" if unit.dialect == "sqlite" else f"%s::{kind}"


def _bound(unit: Unit, an_id: str) -> str:
    return an_id.replace("-", "") if unit.dialect == "sqlite" else an_id


def _among(unit: Unit, column: str, ids: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    if unit.dialect == "sqlite":
        listed = json.dumps([each.replace("-", "") for each in ids])
        return f"{column} IN (SELECT value FROM json_each(?))", (listed,)  # noqa: S608 - our own names
    return f"{column} = ANY(%s::uuid[])", (array("uuid", list(ids)),)


# -- what does not belong together, found by the database itself

_OF_TWO: Final = (
    "SELECT CAST({of}.{key} AS text) FROM {of} LEFT JOIN {to} ON {to}.id = {of}.{by} "  # noqa: S608 - our own names
    f"WHERE {{of}}.{{by}} IS NOT NULL AND {{to}}.id IS NULL LIMIT {_NAMED}"
)

#: Rows that name a row that is not there: table, what is gone, and the statement.
_DANGLING: Final = tuple(
    (
        of,
        to,
        _OF_TWO.format(of=of, to=to, by=by, key=key),
    )
    for of, to, by, key in (
        ("decision", "payment", "payment_id", "message_id"),
        ("decision", "inbox_message", "message_id", "message_id"),
        ("inbox_queue", "inbox_message", "message_id", "message_id"),
        ("inbox_redelivery", "inbox_message", "message_id", "message_id"),
        ("payment_poll", "payment", "payment_id", "payment_id"),
        ("payment_name", "payment", "payment_id", "name"),
        ("transition", "payment", "payment_id", "id"),
        ("outbox_message", "payment", "payment_id", "id"),
        ("outbox_queue", "outbox_message", "outbox_id", "outbox_id"),
        ("outbox_delivered", "outbox_message", "outbox_id", "outbox_id"),
        ("delivery_attempt", "outbox_message", "outbox_id", "id"),
    )
)

_NOT_THEIRS: Final = f"""
SELECT k.account, k.delivery_key, CAST(k.message_id AS text), CASE WHEN m.id IS NULL THEN 1 ELSE 0 END
FROM known_delivery AS k LEFT JOIN inbox_message AS m ON m.id = k.message_id
WHERE m.id IS NULL OR m.account <> k.account OR m.delivery_key <> k.delivery_key OR m.digest <> k.digest
LIMIT {_NAMED}
"""  # noqa: S608 - a number

_NOT_KNOWN: Final = f"""
SELECT CAST(m.id AS text)
FROM inbox_message AS m LEFT JOIN known_delivery AS k ON k.account = m.account AND k.delivery_key = m.delivery_key
WHERE k.message_id IS NULL OR k.message_id <> m.id
LIMIT {_NAMED}
"""  # noqa: S608 - a number

#: What the queue has of a message too, and is not as the message says.
_NOT_AS_OWED: Final = f"""
SELECT CAST(q.outbox_id AS text) FROM outbox_queue AS q JOIN outbox_message AS m ON m.id = q.outbox_id
WHERE q.account <> m.account OR q.effect <> m.effect OR q.sink <> m.sink OR q.number <> m.number
OR coalesce(CAST(q.payment_id AS text), '') <> coalesce(CAST(m.payment_id AS text), '')
LIMIT {_NAMED}
"""  # noqa: S608 - a number

_WAITING_AND_DELIVERED: Final = f"""
SELECT CAST(q.outbox_id AS text) FROM outbox_queue AS q JOIN outbox_delivered AS d ON d.outbox_id = q.outbox_id
LIMIT {_NAMED}
"""  # noqa: S608 - a number

_NO_EFFECT: Final = f"""
SELECT CAST(e.subject AS text), e.effect, e.occurrence
FROM event AS e LEFT JOIN outbox_message AS o ON o.id = e.outbox_id
WHERE o.id IS NULL OR e.subject <> coalesce(o.payment_id, o.cause) OR e.effect <> o.effect
OR e.occurrence <> o.occurrence OR e.account <> o.account OR e.created_at <> o.created_at
OR coalesce(CAST(e.payment_id AS text), '') <> coalesce(CAST(o.payment_id AS text), '')
LIMIT {_NAMED}
"""  # noqa: S608 - a number

_NO_EVENT: Final = f"""
SELECT CAST(o.id AS text) FROM outbox_message AS o LEFT JOIN event AS e
ON e.subject = coalesce(o.payment_id, o.cause) AND e.effect = o.effect AND e.occurrence = o.occurrence
WHERE e.subject IS NULL
LIMIT {_NAMED}
"""  # noqa: S608 - a number


def dangling(unit: Unit) -> Iterator[tuple[str, str, str]]:
    """Return rows that belong to a missing row: table, id and the missing row's table."""
    for table, gone, query in _DANGLING:
        for (row_id,) in _texts(unit, query):
            yield table, with_dashes(row_id), gone


def deliveries_without_message(unit: Unit) -> list[tuple[str, str, str, bool]]:
    """Return known deliveries that no message agrees with.

    Account, delivery key, message id; True where the message is gone.
    """
    return [(account, key, with_dashes(an_id), bool(gone)) for account, key, an_id, gone in _texts(unit, _NOT_THEIRS)]


def messages_without_delivery(unit: Unit) -> list[str]:
    """Ids of messages whose delivery key is not known, or known as another's."""
    return [with_dashes(row[0]) for row in _texts(unit, _NOT_KNOWN)]


def events_without_effect(unit: Unit) -> list[tuple[str, str, int]]:
    """Return events of the feed that agree with no outbox message.

    Subject, effect and occurrence of each.
    """
    return [(with_dashes(subject), effect, number) for subject, effect, number in _texts(unit, _NO_EFFECT)]


def queued_otherwise(unit: Unit) -> list[str]:
    """Ids of messages of which the queue does not say what the outbox says."""
    return [with_dashes(row[0]) for row in _texts(unit, _NOT_AS_OWED)]


def queued_and_delivered(unit: Unit) -> list[str]:
    """Ids of messages that wait although they are delivered."""
    return [with_dashes(row[0]) for row in _texts(unit, _WAITING_AND_DELIVERED)]


def effects_without_event(unit: Unit) -> list[str]:
    """Ids of what is owed and is not in the feed."""
    return [with_dashes(row[0]) for row in _texts(unit, _NO_EVENT)]


def feed_numbers(unit: Unit) -> tuple[int, int, int, int]:
    """Count numbered events; return the smallest, greatest and recorded last number."""
    ((count, least, most),) = _texts(unit, "SELECT count(number), min(number), max(number) FROM event")
    ((told,),) = _texts(unit, "SELECT max(last_number) FROM event_feed WHERE name = 'effects'")
    return int(count), _number(least), _number(most), _number(told)


def oldest_of_references(
    unit: Unit, account: str, kinds: Sequence[str], references: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Return kind, reference and id of the oldest payments with these references."""
    if unit.dialect == "sqlite":
        query = (
            "SELECT kind, reference, min(id) FROM payment WHERE account = ? "
            "AND kind IN (SELECT value FROM json_each(?)) AND reference IN (SELECT value FROM json_each(?)) "
            "GROUP BY kind, reference"
        )
        given = (account, json.dumps(list(kinds)), json.dumps(list(references)))
    else:  # which has no least uuid before version 18
        query = (
            'SELECT kind, reference, min(id::text COLLATE "C") FROM payment WHERE account = %s '
            "AND kind = ANY(%s::text[]) AND reference = ANY(%s::text[]) GROUP BY kind, reference"
        )
        given = (account, array("text", list(kinds)), array("text", list(references)))
    for kind, reference, payment_id in _texts(unit, query, given):
        yield kind, reference, with_dashes(str(payment_id))


def _number(value: Any) -> int:
    """Return a count; -1 for what is none, which agrees with nothing."""
    return value if isinstance(value, int) else 0 if value is None else -1


def _texts(unit: Unit, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return the rows of a query; marks replace bytes that are no text."""
    return [
        tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in row)
        for row in unit.raw_rows(query, parameters)
    ]


def with_dashes(an_id: str) -> str:
    """Format an id of SQLite canonically; return any other text as it is."""
    if len(an_id) != 32:
        return an_id
    return f"{an_id[:8]}-{an_id[8:12]}-{an_id[12:16]}-{an_id[16:20]}-{an_id[20:]}"
