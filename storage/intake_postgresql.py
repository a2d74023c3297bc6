"""Intake on PostgreSQL: one statement for a batch, by asyncpg.

A batch may be repeated whenever nobody knows what became of it: an arrival whose delivery key names its own id was
recorded before.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from storage.database import Database, is_moved_partition
from storage.errors import DatabaseUnsupported, SchemaOutdated, StorageUnavailable
from storage.faults import refusal_of
from storage.hashing import microseconds
from storage.inbox import Recorded
from storage.intake import Arrival, Outcome, check_schema, is_known, record_variants, settled

try:
    import asyncpg  # type: ignore[import-untyped]

    from storage.asyncpg_connection import ConfirmingConnection, check_url, connect, is_lost
except ModuleNotFoundError:
    raise DatabaseUnsupported(
        "receiving on PostgreSQL needs asyncpg: install receipted with the extra postgres", param="database"
    ) from None

#: Seconds for one batch, connecting included: shorter than a provider waits for its answer.
_BATCH_TIMEOUT_S: Final = 7.0

#: How often a batch is repeated that was the victim of a deadlock, or met a partition in the making.
_RIVALS: Final = 3

#: Classes of SQLSTATE that say that the database cannot do it now; others are about what it was given.
_UNAVAILABLE_CLASSES: Final = frozenset({"08", "25", "40", "53", "55", "57", "58", "F0", "XX"})

#: Undefined table and column.
_UNDEFINED: Final = frozenset({"42P01", "42703"})

#: In the order of the keys, so that two processes with the same deliveries wait for each other and do not deadlock.
_RECORD: Final = """
WITH given AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::uuid[]
    ) AS given (
        id, account, source, delivery_key, body, headers, digest, envelope_digest,
        received, key_id, provided, kind, about
    )
), fresh AS (
    INSERT INTO known_delivery (account, delivery_key, message_id, digest)
    SELECT account, delivery_key, id, digest FROM given ORDER BY account, delivery_key
    ON CONFLICT (account, delivery_key) DO NOTHING
    RETURNING message_id
), message AS (
    INSERT INTO inbox_message (
        id, account, source, delivery_key, body, headers, digest, envelope_digest,
        received_at, key_id, provider_time, kind, about
    )
    SELECT
        id, account, source, delivery_key, body, headers::json, digest, envelope_digest,
        'epoch'::timestamptz + received::bigint * interval '1 microsecond', key_id,
        'epoch'::timestamptz + provided::bigint * interval '1 microsecond', kind, about
    FROM given JOIN fresh ON fresh.message_id = given.id
)
INSERT INTO inbox_queue (message_id, account, status, available_at, attempts, claim_token, readings)
SELECT id, account, 'pending', 'epoch'::timestamptz + received::bigint * interval '1 microsecond', 0, 0, 0
FROM given JOIN fresh ON fresh.message_id = given.id
"""

#: What each delivery key stands for; and repeats are counted, one of our own being none. Where a key is not known there
#: are fewer rows, and nothing is counted.
_KNOWN: Final = """
WITH known AS (
    SELECT
        given.n, given.at, given.account, k.message_id, k.digest,
        k.digest = given.digest AND k.message_id <> given.id AS is_again
    FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::timestamptz[])
        WITH ORDINALITY AS given (account, delivery_key, id, digest, at, n)
    JOIN known_delivery AS k ON k.account = given.account AND k.delivery_key = given.delivery_key
), came AS (
    SELECT message_id, account, count(*) AS times, max(at) AS at
    FROM known WHERE is_again GROUP BY message_id, account ORDER BY message_id
), counted AS (
    INSERT INTO inbox_redelivery AS r (message_id, account, redeliveries, last_redelivered_at)
    SELECT message_id, account, times, at FROM came WHERE (SELECT count(*) FROM known) = cardinality($1)
    ON CONFLICT (message_id) DO UPDATE
    SET redeliveries = r.redeliveries + excluded.redeliveries, last_redelivered_at = excluded.last_redelivered_at
)
SELECT message_id::text, digest FROM known ORDER BY n
"""

#: The same without the repeats of messages whose counts another session holds: of those only the count is lost.
_KNOWN_BUT_HELD: Final = _KNOWN.replace(
    "FROM came WHERE",
    "FROM came WHERE (message_id IN (SELECT message_id FROM inbox_redelivery "
    "WHERE message_id IN (SELECT message_id FROM came) FOR UPDATE SKIP LOCKED) "
    "OR NOT EXISTS (SELECT FROM inbox_redelivery AS o WHERE o.message_id = came.message_id)) AND",
)

#: How long a batch waits for a row that another session holds: a redelivery of one message must not hold up others.
_LOCK_TIMEOUT: Final = "SET lock_timeout = '2s'"


class PostgresqlStore:
    """Writes arrivals through its own connections in the event loop.

    Raises DatabaseUnsupported for a URL beyond asyncpg.
    """

    lanes = 2

    def __init__(self, database: Database) -> None:
        check_url(database.url)
        self._database = database
        self._free: list[ConfirmingConnection] = []
        self._is_repeating = False  #: of the last batch all was known

    async def write(self, batch: Sequence[Arrival]) -> list[Outcome]:
        """See Store."""
        try:
            async with asyncio.timeout(_BATCH_TIMEOUT_S):
                outcomes = await self._recorded(batch)
        except TimeoutError:
            raise StorageUnavailable(f"the database did not answer within {_BATCH_TIMEOUT_S:g} s") from None
        except StorageUnavailable as fault:
            self._database.wrote(fault)
            raise
        self._database.wrote(None)
        self._is_repeating = is_known(outcomes)
        if None in outcomes:
            return await asyncio.to_thread(record_variants, self._database, batch, outcomes)
        return list(outcomes)  # type: ignore[arg-type]

    async def check(self) -> None:
        """See Store."""
        await asyncio.to_thread(check_schema, self._database)

    async def close(self) -> None:
        """See Store."""
        while self._free:
            self._free.pop().terminate()  # nothing is under way on it

    async def _connected(self) -> ConfirmingConnection:
        connection = await connect(self._database.url)
        if not connection.is_pooled:
            await connection.execute(_LOCK_TIMEOUT)
        return connection

    async def _recorded(self, batch: Sequence[Arrival]) -> list[Recorded | None]:
        """Record the batch; repeat it once on another connection if one is lost.

        That may be another server, after a failover.
        """
        rivals = losses = 0
        counts_all = True
        while True:
            connection = self._free.pop() if self._free else await self._connected()
            try:
                outcomes = await _record(
                    connection,
                    batch,
                    self._database.sealer.seal,
                    is_repeat=bool(rivals or losses or not counts_all),
                    is_repeating=self._is_repeating,
                    counts_all=counts_all,
                )
            except asyncpg.LockNotAvailableError as fault:
                self._free.append(connection)
                if not counts_all:
                    raise _named(fault) from None
                counts_all = False
            except (asyncpg.DeadlockDetectedError, asyncpg.CheckViolationError) as fault:
                rivals += 1
                self._free.append(connection)
                if rivals > _RIVALS or not _is_rivalry(fault):
                    raise _named(fault) from None
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as fault:
                if not is_lost(fault) or isinstance(fault, asyncpg.DataError):
                    self._free.append(connection)
                    raise _named(fault) from None
                connection.terminate()
                await self.close()  # those that were made to the same server
                losses += 1
                if losses > 1:
                    raise _unavailable(fault) from None
            except StorageUnavailable:
                connection.terminate()
                raise
            except BaseException:
                connection.terminate()  # nobody knows what the server is still doing on it
                raise
            else:
                self._free.append(connection)
                return outcomes


async def _record(
    connection: ConfirmingConnection,
    batch: Sequence[Arrival],
    seal: Callable[[bytes], str],
    *,
    is_repeat: bool,
    is_repeating: bool,
    counts_all: bool,
) -> list[Recorded | None]:
    """Record the batch, looking for known deliveries first where the last had some.

    `counts_all` is False where another session holds a message: then its repeat is not counted.
    """
    warnings = connection.warnings
    async with connection.configured():
        known_by = _KNOWN if counts_all else _KNOWN_BUT_HELD
        rows: Sequence[Any] = await _known(connection, batch, known_by) if is_repeating else ()
        is_fresh = len(rows) != len(batch) and await _insert(connection, batch, seal)
        if not is_fresh and len(rows) != len(batch):
            rows = await _known(connection, batch, known_by)
        if is_repeat:  # what is there may be what a lost connection committed, on one server alone
            await connection.confirm()
    if connection.warnings != warnings:
        raise StorageUnavailable("the commit was not confirmed by the standby")
    if is_fresh:
        return [Recorded(arrival.id) for arrival in batch]
    known = {arrival.id: (row[0], row[1]) for arrival, row in zip(batch, rows, strict=True)}
    return settled(batch, lambda arrival: known[arrival.id]).outcomes


async def _insert(connection: ConfirmingConnection, batch: Sequence[Arrival], seal: Callable[[bytes], str]) -> bool:
    """Insert the batch; return whether all of it was new."""
    status = await connection.execute(
        _RECORD,
        [a.id for a in batch],
        [a.account for a in batch],
        [a.source for a in batch],
        [a.delivery_key for a in batch],
        [a.body for a in batch],
        [a.headers for a in batch],
        [a.digest for a in batch],
        [seal(a.envelope) for a in batch],
        [str(microseconds(a.received_at)) for a in batch],
        _sparse([a.key_id for a in batch]),
        _sparse([None if a.provider_time is None else str(microseconds(a.provider_time)) for a in batch]),
        _sparse([a.kind for a in batch]),
        _sparse([a.about for a in batch]),
    )
    return bool(status == f"INSERT 0 {len(batch)}")


def _sparse(column: list[str | None]) -> list[str | None]:
    """Nothing at all where all are None: unnest() fills up the shorter arrays.

    asyncpg looks at whatever is neither text nor bytes as if it might be an array: at None too, and at instants, which
    therefore travel as digits.
    """
    return column if any(column) else []


async def _known(connection: ConfirmingConnection, batch: Sequence[Arrival], statement: str) -> Sequence[Any]:
    rows: Sequence[Any] = await connection.fetch(
        statement,
        [a.account for a in batch],
        [a.delivery_key for a in batch],
        [a.id for a in batch],
        [a.digest for a in batch],
        [a.received_at for a in batch],
    )
    return rows


def _is_rivalry(fault: Exception) -> bool:
    """Return whether another transaction was first and nothing was kept; repeat then."""
    return isinstance(fault, asyncpg.DeadlockDetectedError) or is_moved_partition(fault)


def _named(fault: Exception) -> Exception:
    """Translate the driver's exception to one of ours."""
    state = getattr(fault, "sqlstate", None) or ""
    if state in _UNDEFINED:
        return SchemaOutdated("the database's schema has changed: run receipted migrate")
    return _unavailable(fault) if state[:2] in _UNAVAILABLE_CLASSES or is_moved_partition(fault) else fault


def _unavailable(fault: Exception) -> StorageUnavailable:
    # The server's detail stays out of it, which may hold what it was given.
    unavailable = StorageUnavailable(f"the database refused: {type(fault).__name__}")
    unavailable.refusal = refusal_of(fault)
    return unavailable
