"""Databases of any size, filled by SQL from one real payment: one message, transition, effect and payment each.

The rows are as the application leaves them, with ids in time order and names at random. Their digests are of the one
real payment, so that the audit would refuse them; nothing that is measured looks at them.
"""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import md5
from typing import Final

import psycopg

from storage.schema import metadata
from tests.benchmarks import driver_loop
from tests.benchmarks.databases import SQLITE, file_of, kind_of, settle
from tests.benchmarks.filling import fill

#: What differs between payments, by table; `u(k)` is an id of kind k, `h` a random name.
_OVERRIDES: Final = {
    "payment": {"id": "u(1)", "provider_ref": "'pi_' || h", "reference": "'order-' || n", "alias": "'0x' || h"},
    "payment_poll": {"payment_id": "u(1)"},
    "known_delivery": {"delivery_key": "'evt_' || h", "message_id": "u(3)"},
    "inbox_message": {"id": "u(3)", "delivery_key": "'evt_' || h"},
    "decision": {"message_id": "u(3)", "payment_id": "u(1)"},
    "transition": {"payment_id": "u(1)", "id": "u(2)", "cause": "u(3)"},
    "outbox_message": {
        "id": "u(4)",
        "payment_id": "u(1)",
        "cause": "u(3)",
    },
    "outbox_delivered": {"outbox_id": "u(4)"},
}

#: Columns that say when something came or happened.
_INSTANTS: Final = frozenset(
    [
        "created_at",
        "changed_at",
        "heard_at",
        "state_as_of",
        "received_at",
        "provider_time",
        "at",
        "recorded_at",
        "as_of",
        "delivered_at",
        "next_attempt_at",
    ]
)

_MONTH_MS: Final = 30 * 24 * 3600 * 1000


class Growing:
    """A database that grows to so many payments."""

    def __init__(self, url: str, *, over_ms: int | None = None) -> None:
        """Ids follow each other within minutes, and every row has one instant; or both are spread over such a time."""
        self.url = url
        self._over_ms = over_ms
        self._payments = 0
        self._first_ms = int(time.time() * 1000) - _MONTH_MS
        fill(url, 3, sizes=(900,))  # one payment, told three times
        driver_loop.empty(url)

    def grow(self, payments: int) -> None:
        """So many payments are there, besides the one and what others have added."""
        run = self._sqlite if kind_of(self.url) == SQLITE else self._postgresql
        tables = [table for table in _OVERRIDES if table in metadata.tables]
        run([self._statement(table, self._payments, payments) for table in tables])
        self._payments = payments
        settle(self.url)

    def _statement(self, table: str, start: int, end: int) -> str:
        is_sqlite = kind_of(self.url) == SQLITE
        ms = f"({self._first_ms} + n * {2 if self._over_ms is None else max(2, self._over_ms // end)})"
        at = f"strftime('%Y-%m-%d %H:%M:%f000', {ms} / 1000.0, 'unixepoch')"
        instant = at if is_sqlite else f"to_timestamp({ms} / 1000.0)"
        stamp = f"printf('%012x', {ms})" if is_sqlite else f"lpad(to_hex({ms}), 12, '0')"
        name = "md5(CAST(n AS text))"
        columns = {}
        source = _SOURCES.get(table, table)
        for column in metadata.tables[table].columns.keys():  # noqa: SIM118 - not a dict
            text = _OVERRIDES[table].get(column, f"s.{column}")
            if self._over_ms is not None and column in _INSTANTS:
                text = instant
            for kind in range(1, 5):
                made = f"{stamp} || '7{kind:03}8' || substr({name}, 1, 15)"
                text = text.replace(f"u({kind})", made if is_sqlite else f"CAST({made} AS uuid)")
            columns[column] = text.replace("|| h", f"|| substr({name}, 1, 24)")
        return (
            f"WITH RECURSIVE numbers(n) AS (SELECT CAST({start} AS bigint) UNION ALL "  # noqa: S608 - our own names
            f"SELECT n + 1 FROM numbers WHERE n + 1 < {end}), s AS (SELECT * FROM {source}"
            f" WHERE {_SEED[table]} LIMIT 1) "
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM numbers, s"
        )

    def _sqlite(self, statements: list[str]) -> None:
        with closing(sqlite3.connect(file_of(self.url), isolation_level=None)) as connection:
            connection.create_function("md5", 1, _md5, deterministic=True)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA cache_size=-400000")
            connection.execute("PRAGMA wal_autocheckpoint=100000")
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _postgresql(self, statements: list[str]) -> None:
        with ThreadPoolExecutor(2) as pool:  # no table here points to another, so that two are filled at once
            list(pool.map(self._insert, statements))

    def _insert(self, statement: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


#: The row of each table that the others are made of: of the event that confirmed the payment.
_SEED: Final = {
    "payment": "version = 2",
    "payment_poll": "statements > 1",
    "known_delivery": "account = 'sg'",
    "inbox_message": "id IN (SELECT cause FROM transition WHERE number = 2)",
    "decision": "message_id IN (SELECT cause FROM transition WHERE number = 2)",
    "transition": "number = 2",
    "outbox_message": "effect = 'payment.paid'",
    "outbox_delivered": "true",
}

#: What the row is taken from where the one payment has none in the table itself.
_SOURCES: Final = {
    "outbox_delivered": "(SELECT id AS outbox_id, 1 AS attempts, created_at AS delivered_at, seal FROM outbox_message "
    "WHERE effect = 'payment.paid') AS of_message",
}
