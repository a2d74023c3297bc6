"""Intake on SQLite: one thread, one connection, few statements, synchronous=FULL.

Each step of a statement hands Python's lock to another thread, which keeps it for a while. So there are as few steps
as possible: a statement for many rows instead of one for each, and no RETURNING, whose every row is a step.

A statement for many rows that may fail amid them keeps a journal of its own, so that it alone can be undone: every
page is copied there before, and beyond 64 KiB into a temporary file. OR ROLLBACK needs none, since a batch with a
poison row is undone as a whole. Source: sqlite.org/tempfiles.html, "Statement Journal Files".
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from itertools import chain, repeat
from typing import Any, Final

from storage.database import Database, translated
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.faults import refusal_of
from storage.inbox import Recorded
from storage.intake import Arrival, Outcome, check_schema, is_known, record_variants, settled
from storage.types import InboxStatus

#: Rows of one statement, and half of that, down to the small ones, of which there is one for each number of rows: a
#: batch is a few statements, which the connection keeps prepared.
_STATEMENT_ROWS_LIMIT: Final = 256
_SMALL_STATEMENT_ROWS: Final = 64

_KNOWN: Final = ("account", "delivery_key", "message_id", "digest")
_MESSAGE: Final = (
    *("id", "account", "source", "delivery_key", "body", "headers", "digest", "envelope_digest"),
    *("received_at", "key_id", "provider_time", "kind", "about"),
)
_QUEUED: Final = ("message_id", "account", "available_at")
_RECEIVED_AT: Final = _MESSAGE.index("received_at")
#: What every row of the queue has at first.
_CONSTANT: Final[dict[str, str]] = {
    "status": f"'{InboxStatus.PENDING.value}'",
    "attempts": "0",
    "claim_token": "0",
    "readings": "0",
}


class SqliteStore:
    """The only writer of arrivals in this process; takes turns with other writers."""

    lanes = 1

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._is_repeating = False  #: of the last batch all was known

    async def write(self, batch: Sequence[Arrival]) -> list[Outcome]:
        """See Store."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)

    async def check(self) -> None:
        """See Store."""
        await asyncio.get_running_loop().run_in_executor(self._thread, check_schema, self._database)

    async def close(self) -> None:
        """See Store."""
        self._thread.shutdown()

    def _write(self, batch: Sequence[Arrival]) -> list[Outcome]:
        try:
            with _translated(), self._database.turn, self._driver() as driver:
                driver.execute("BEGIN IMMEDIATE")
                outcomes = _record(driver, batch, self._database.sealer.seal, is_repeating=self._is_repeating)
                driver.execute("COMMIT")
        except StorageUnavailable as fault:
            self._database.wrote(fault)
            raise
        self._database.wrote(None)
        self._is_repeating = is_known(outcomes)
        if None in outcomes:
            return record_variants(self._database, batch, outcomes)
        return list(outcomes)  # type: ignore[arg-type]

    @contextmanager
    def _driver(self) -> Iterator[sqlite3.Connection]:
        """Return the driver's connection as the pool has set it up.

        Given back, it rolls back what was not committed.
        """
        with translated():
            connection = self._database.engine.raw_connection()
        try:
            driver: sqlite3.Connection = connection.driver_connection  # type: ignore[assignment]
            yield driver
        finally:
            connection.close()


def _record(
    driver: sqlite3.Connection,
    batch: Sequence[Arrival],
    seal: Callable[[bytes], str],
    *,
    is_repeating: bool = False,
) -> list[Recorded | None]:
    """Record the batch, looking for known deliveries first where the last had some."""
    hexes = [arrival.id.replace("-", "") for arrival in batch]
    keys = [(a.account, a.delivery_key, hex_, a.digest) for a, hex_ in zip(batch, hexes, strict=True)]
    found = _known(driver, keys) if is_repeating else {}
    if not found or not all((arrival.account, arrival.delivery_key) in found for arrival in batch):
        if sum(_insert(driver, "known_delivery", keys)) == len(batch):
            _add(driver, list(map(_row, batch, hexes, repeat(seal))))
            return [Recorded(arrival.id) for arrival in batch]
        found = _known(driver, keys)
        mine = [
            _row(arrival, hex_, seal)
            for arrival, hex_ in zip(batch, hexes, strict=True)
            if found[arrival.account, arrival.delivery_key][0] == arrival.id
        ]
        _add(driver, mine)
    result = settled(batch, lambda arrival: found[arrival.account, arrival.delivery_key])
    accounts = {outcome.id: a.account for a, outcome in zip(batch, result.outcomes, strict=True) if outcome is not None}
    _count(
        driver,
        [(i.replace("-", ""), accounts[i], n, _text(at)) for i, (n, at) in result.redeliveries.items()],
    )
    return result.outcomes


def _add(driver: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert messages, each with its row of the queue."""
    for _ in _insert(driver, "inbox_message", rows):
        pass
    for _ in _insert(driver, "inbox_queue", [(row[0], row[1], row[_RECEIVED_AT]) for row in rows]):
        pass


def _row(a: Arrival, hex_: str, seal: Callable[[bytes], str]) -> tuple[Any, ...]:
    received_at = _text(a.received_at)
    return (
        hex_,
        a.account,
        a.source,
        a.delivery_key,
        a.body,
        a.headers,
        a.digest,
        seal(a.envelope),
        received_at,
        a.key_id,
        None if a.provider_time is None else _text(a.provider_time),
        a.kind,
        None if a.about is None else a.about.replace("-", ""),
    )


def _text(at: datetime) -> str:
    """As storage.types.UtcDateTime keeps it."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat(" ", "microseconds")[:26]


def _insert(driver: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[int]:
    """Insert the batch; return how many rows each statement inserted."""
    for part in _parts(rows):
        yield driver.execute(_insert_sql(table, len(part)), list(chain.from_iterable(part))).rowcount


def _known(
    driver: sqlite3.Connection, rows: Sequence[tuple[str, str, str, str]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Return id and digest of each delivery key, all in one row: every row is a step."""
    found = {}
    for part in _parts(rows):
        keys = [value for row in part for value in row[:2]]
        ((text,),) = driver.execute(_known_sql(len(part)), keys)
        for account, key, hex_, digest in json.loads(text):
            message_id = f"{hex_[:8]}-{hex_[8:12]}-{hex_[12:16]}-{hex_[16:20]}-{hex_[20:]}"
            found[account, key] = (message_id, digest)
    return found


def _count(driver: sqlite3.Connection, rows: Sequence[tuple[str, str, int, str]]) -> None:
    for part in _parts(rows):
        driver.execute(_count_sql(len(part)), list(chain.from_iterable(part)))


def _parts(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """As few parts as there are statements for."""
    at, left, size = 0, len(rows), _STATEMENT_ROWS_LIMIT
    while left:
        while size > left:
            size = size // 2 if size > _SMALL_STATEMENT_ROWS else left
        yield rows[at : at + size]
        at += size
        left -= size


@cache
def _insert_sql(table: str, number: int) -> str:
    if table == "known_delivery":
        values = ",".join(["(?,?,?,?)"] * number)
        into = f"INSERT OR ROLLBACK INTO known_delivery ({','.join(_KNOWN)}) VALUES {values}"  # noqa: S608 - names of our own
        return f"{into} ON CONFLICT (account, delivery_key) DO NOTHING"
    names, given, fixed = (_MESSAGE, "id", {}) if table == "inbox_message" else (_QUEUED, "message_id", _CONSTANT)
    row = ",".join(["?"] * len(names) + list(fixed.values()))
    values = ",".join([f"({row})"] * number)
    into = f"INSERT OR ROLLBACK INTO {table} ({','.join([*names, *fixed])}) VALUES {values}"  # noqa: S608 - our own names
    return f"{into} ON CONFLICT ({given}) DO NOTHING"  # a repeat of a batch whose end nobody saw


@cache
def _known_sql(number: int) -> str:
    values = ",".join(["(?,?)"] * number)
    return (
        f"WITH given (account, delivery_key) AS (VALUES {values}) "  # noqa: S608 - a number of question marks
        "SELECT json_group_array(json_array(k.account, k.delivery_key, k.message_id, k.digest)) "
        "FROM given CROSS JOIN known_delivery AS k "  # CROSS: by each key, and not by each row of the table
        "ON k.account = given.account AND k.delivery_key = given.delivery_key"
    )


@cache
def _count_sql(number: int) -> str:
    values = ",".join(["(?,?,?,?)"] * number)
    return (
        f"INSERT OR ROLLBACK INTO inbox_redelivery (message_id, account, redeliveries, last_redelivered_at) "  # noqa: S608
        f"VALUES {values} ON CONFLICT (message_id) DO UPDATE SET "
        "redeliveries = redeliveries + excluded.redeliveries, last_redelivered_at = excluded.last_redelivered_at"
    )


@contextmanager
def _translated() -> Iterator[None]:
    """As storage.database.translated, for the driver's own exceptions."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a fault of one row or of the program, not of the database
    except sqlite3.OperationalError as fault:
        if str(fault).startswith("no such") or " has no column " in str(fault):
            raise SchemaOutdated("the database's schema has changed: run receipted migrate") from None
        raise _unavailable(fault) from None
    except sqlite3.DatabaseError as fault:
        raise _unavailable(fault) from None


def _unavailable(fault: sqlite3.DatabaseError) -> StorageUnavailable:
    unavailable = StorageUnavailable(f"the database refused: {type(fault).__name__}: {fault}")
    unavailable.refusal = refusal_of(fault)
    return unavailable
