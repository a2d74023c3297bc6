"""The statements of the loop that is written by hand: sqlite3 with executemany, asyncpg with one statement a table."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import asyncpg
import msgspec

Decode = Callable[[bytes], tuple[str, Any]]  #: the payment's ref, and the event
Apply = Callable[[Sequence[tuple[str, str, Any, str]], dict[str, dict[str, Any]]], "Changes"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode: Final = msgspec.json.Encoder().encode


def _columns(text: str) -> dict[str, str]:
    """Types on PostgreSQL by name; what says none is text."""
    return {name: kind or "text" for name, _, kind in (word.partition(":") for word in text.split())}


_PAYMENT: Final = _columns("""
    id:uuid account kind provider_ref reference alias amount_minor:bigint currency authorised_minor:bigint
    captured_minor:bigint refunded_minor:bigint charged_back_minor:bigint disputed_minor:bigint stated:json parts:json
    counts:json capture_by:timestamptz state phase state_as_of:timestamptz version:int head_hash review review_note
    review_opened_at:timestamptz reviews:int facts:json failure_reason expires_at:timestamptz return_url
    description merchant_metadata:json
    created_at:timestamptz changed_at:timestamptz seal
""")
_POLL: Final = _columns("""
    payment_id:uuid account heard_at:timestamptz statements:int seal next_poll_at:timestamptz poll_priority:int
    asked_at:timestamptz polls:int poll_error poll_failures:int
""")
_BOTH: Final = ", ".join([*(f"payment.{name}" for name in _PAYMENT), *(f"payment_poll.{name}" for name in _POLL)])
_TRANSITION: Final = _columns("""
    payment_id:uuid number:int id:uuid account from_state to_state phase captured_minor:bigint refunded_minor:bigint
    charged_back_minor:bigint via:json forced:boolean cause:uuid evidence
    source actor reason as_of:timestamptz recorded_at:timestamptz prev_hash hash
""")
_OUTBOX: Final = _columns("""
    id:uuid payment_id:uuid account effect sink occurrence:int cause:uuid payload created_at:timestamptz seal number:int
""")
_QUEUE: Final = _columns("""
    outbox_id:uuid payment_id:uuid account effect sink number:int seal next_attempt_at:timestamptz
""")
#: What else a new row of the queue has.
_QUEUE_MORE: Final = {"status": "'pending'", "attempts": "0", "claim_token": "0", "is_first": "true"}
_DECISION: Final = _columns("""
    message_id:uuid reading:int number:int statement:int payment_id:uuid at:timestamptz outcome reason details:json seal
""")
#: What never changes of a payment whose provider has named it.
_FIXED: Final = {"id", "account", "kind", "provider_ref", "created_at"}
_HEARD: Final = {
    name: _POLL[name] for name in _POLL if name not in {"account", "asked_at", "poll_error", "poll_failures"}
}
_CHANGING: Final = {"id": "uuid", **{name: kind for name, kind in _PAYMENT.items() if name not in _FIXED}}


@dataclass(slots=True)
class Changes:
    """What a batch changes. Rows are dictionaries, instants microseconds since 1970, ids canonical text."""

    now: int
    new: list[dict[str, Any]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    polls: list[dict[str, Any]] = field(default_factory=list)  #: of payments that were known
    transitions: list[dict[str, Any]] = field(default_factory=list)
    owed: list[dict[str, Any]] = field(default_factory=list)
    queued: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)


def _known(row: Sequence[Any], read: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """A payment as it was read, and what belongs to it."""
    found = _values(_PAYMENT, row[: len(_PAYMENT)], read)
    found["facts"] = dict(sorted(found["facts"].items()))
    found["is_new"] = False
    found["poll"] = _values(_POLL, row[len(_PAYMENT) :], read)
    return found


def _values(columns: dict[str, str], row: Sequence[Any], read: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    return {
        name: value if value is None else read.get(kind, _as_is)(value)
        for (name, kind), value in zip(columns.items(), row, strict=True)
    }


def _as_is(value: Any) -> Any:
    return value


def _read(
    pending: Iterable[Sequence[Any]], decode: Decode, dashed: Callable[[Any], str]
) -> tuple[list[str], list[tuple[str, str, Any, str]]]:
    """The refs of the payments that are named, and (id, account, event, envelope digest) of each message."""
    refs, claimed = set(), []
    for message_id, account, body, evidence in pending:
        ref, event = decode(body)
        refs.add(ref)
        claimed.append((dashed(message_id), account, event, evidence))
    return list(refs), claimed


class Sqlite:
    """A file: one connection, one transaction for each batch, synchronous=FULL."""

    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        self._texts: dict[int, str] = {}
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {setting}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def batch(self, size: int, decode: Decode, apply: Apply) -> int:
        """How many were applied, in one transaction."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        pending = run(
            "SELECT id, m.account, body, envelope_digest FROM inbox_queue AS q "
            "JOIN inbox_message AS m ON m.id = q.message_id WHERE status = 'pending' ORDER BY q.message_id LIMIT ?",
            (size,),
        )
        refs, claimed = _read(pending, decode, _dashed)
        if claimed:
            read = {"uuid": _dashed, "timestamptz": _from_text, "json": json.loads}
            found = run(
                f"SELECT {_BOTH} FROM payment JOIN payment_poll ON payment_poll.payment_id = payment.id "  # noqa: S608
                "WHERE payment.account = ? AND kind = 'payment_intent' "
                "AND provider_ref IN (SELECT value FROM json_each(?))",
                (claimed[0][1], json.dumps(refs)),
            )
            known = {payment["provider_ref"]: payment for payment in (_known(row, read) for row in found)}
            self._write(apply(claimed, known))
        run("COMMIT")
        return len(claimed)

    def _write(self, changes: Changes) -> None:
        if len(self._texts) > 10_000:
            self._texts.clear()
        many = self._connection.executemany
        many(_insert("payment", _PAYMENT), self._rows(_PAYMENT, changes.new))
        many(_insert("payment_poll", _POLL), self._rows(_POLL, (payment["poll"] for payment in changes.new)))
        many(_update("payment", _CHANGING), self._rows(_CHANGING, changes.changed))
        many(_update("payment_poll", _HEARD, "payment_id"), self._rows(_HEARD, changes.polls))
        many(_insert("transition", _TRANSITION), self._rows(_TRANSITION, changes.transitions))
        many(_insert("outbox_message", _OUTBOX), self._rows(_OUTBOX, changes.owed))
        many(_insert("outbox_queue", _QUEUE, _QUEUE_MORE), self._rows(_QUEUE, changes.queued))
        many(_insert("decision", _DECISION), self._rows(_DECISION, changes.decisions))
        done = ({"message_id": row["message_id"].replace("-", "")} for row in changes.decisions)
        many("DELETE FROM inbox_queue WHERE message_id = :message_id", done)

    def _rows(self, columns: dict[str, str], found: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        ids = [name for name, kind in columns.items() if kind == "uuid"]
        instants = [name for name, kind in columns.items() if kind == "timestamptz"]
        values = [name for name, kind in columns.items() if kind == "json"]
        for row in found:
            kept = row.copy()
            for name in ids:
                kept[name] = row[name].replace("-", "")
            for name in instants:
                kept[name] = self._text(row[name])
            for name in values:
                kept[name] = _encode(row[name]).decode()
            yield kept

    def _text(self, at: int | None) -> str | None:
        if at is None:
            return None
        known = self._texts.get(at)
        if known is None:
            known = self._texts[at] = (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%d %H:%M:%S.%f")
        return known


def _dashed(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _from_text(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _insert(table: str, columns: dict[str, str], more: dict[str, str] | None = None) -> str:
    fixed = {name: f":{value}" if value in columns else value for name, value in (more or {}).items()}
    values = ", ".join([*(f":{name}" for name in columns), *fixed.values()])
    return f"INSERT INTO {table} ({', '.join([*columns, *fixed])}) VALUES ({values})"  # noqa: S608 - our own names


def _update(table: str, columns: dict[str, str], key: str = "id") -> str:
    changes = ", ".join(f"{name} = :{name}" for name in columns if name != key)
    return f"UPDATE {table} SET {changes} WHERE {key} = :{key}"  # noqa: S608 - our own names


class Asyncpg:
    """A server: one connection, one transaction for each batch, one statement for each table."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def batch(self, size: int, decode: Decode, apply: Apply) -> int:
        """How many were applied, in one transaction."""
        return self._loop.run_until_complete(self._batch(size, decode, apply))

    async def _batch(self, size: int, decode: Decode, apply: Apply) -> int:
        async with self._connection.transaction():
            pending = await self._connection.fetch(
                "SELECT id, m.account, body, envelope_digest FROM inbox_queue AS q "
                "JOIN inbox_message AS m ON m.id = q.message_id WHERE status = 'pending' "
                "ORDER BY q.message_id LIMIT $1 FOR UPDATE OF q SKIP LOCKED",
                size,
            )
            refs, claimed = _read(pending, decode, str)
            if claimed:
                read = {"uuid": str, "timestamptz": _micro, "json": json.loads}
                found = await self._connection.fetch(
                    f"SELECT {_BOTH} FROM payment JOIN payment_poll ON payment_poll.payment_id = payment.id "  # noqa: S608
                    "WHERE payment.account = $1 AND kind = 'payment_intent' AND provider_ref = ANY($2) FOR UPDATE",
                    claimed[0][1],
                    refs,
                )
                known = {row["provider_ref"]: _known(row, read) for row in found}
                await self._write(apply(claimed, known))
        return len(claimed)

    async def _write(self, changes: Changes) -> None:
        for table, columns, more, rows in (
            ("payment", _PAYMENT, {}, changes.new),
            ("payment_poll", _POLL, {}, [payment["poll"] for payment in changes.new]),
            ("transition", _TRANSITION, {}, changes.transitions),
            ("outbox_message", _OUTBOX, {}, changes.owed),
            ("outbox_queue", _QUEUE, _QUEUE_MORE, changes.queued),
            ("decision", _DECISION, {}, changes.decisions),
        ):
            if rows:
                names = ", ".join([*columns, *more])
                await self._connection.execute(
                    f"INSERT INTO {table} ({names}) SELECT {', '.join([*columns, *more.values()])} "  # noqa: S608
                    f"FROM {_unnest(columns)}",
                    *_arrays(columns, rows),
                )
        for table, key, columns, rows in (
            ("payment", "id", _CHANGING, changes.changed),
            ("payment_poll", "payment_id", _HEARD, changes.polls),
        ):
            if rows:
                said = ", ".join(f"{name} = d.{name}" for name in columns if name != key)
                await self._connection.execute(
                    f"UPDATE {table} t SET {said} FROM {_unnest(columns)} WHERE t.{key} = d.{key}",  # noqa: S608
                    *_arrays(columns, rows),
                )
        await self._connection.execute(
            "DELETE FROM inbox_queue WHERE message_id = ANY($1)", [row["message_id"] for row in changes.decisions]
        )


def _unnest(columns: dict[str, str]) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), start=1))
    return f"unnest({arrays}) AS d({', '.join(columns)})"


def _arrays(columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    return [[_bound(kind, row[name]) for row in rows] for name, kind in columns.items()]


def _bound(kind: str, value: Any) -> Any:
    if kind == "timestamptz" and value is not None:
        return _EPOCH + timedelta(microseconds=value)
    return _encode(value).decode() if kind == "json" else value


def _micro(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
