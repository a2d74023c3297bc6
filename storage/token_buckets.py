"""Token buckets, one a key: in the database for all processes, or in one's memory.

An API key has one over every process that serves (ADR 0030): on PostgreSQL a row says when the bucket is full again, by
the database's clock, and one statement that commits itself takes from it. On SQLite one process serves, and keeps its
buckets itself. So do unverified deliveries, whose limit is each process's own.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from sqlalchemy import Interval, bindparam, text

from storage.database import Database

#: Keys that one process keeps a bucket for; the one that took longest ago has a full one anyway.
MAX_LOCAL_KEYS: Final = 10_000

#: A bucket that would be full so much later than an empty one was written by a clock that has been set back since.
_WRONG: Final = timedelta(minutes=1)

#: A request that finds its bucket too low writes nothing. It is answered from the row as the statement's snapshot has
#: it; where that has none, another has just emptied a bucket that holds one. A count that a crash loses harms nobody,
#: so none waits for the disk or the standby; that is said for this transaction, which is the statement.
_TAKE: Final = text("""
WITH taken AS (
    INSERT INTO api_rate AS kept (key_id, full_at)
    SELECT CAST(:key_id AS uuid), statement_timestamp() + :each
    WHERE set_config('synchronous_commit', 'off', true) = 'off'
    ON CONFLICT (key_id) DO UPDATE SET full_at = :each + CASE
        WHEN kept.full_at > statement_timestamp() + :brim + :wrong THEN statement_timestamp()
        ELSE greatest(kept.full_at, statement_timestamp())
    END
    WHERE kept.full_at <= statement_timestamp() + :brim - :each
    OR kept.full_at > statement_timestamp() + :brim + :wrong
    RETURNING full_at
)
SELECT true AS is_granted, full_at - statement_timestamp() AS full_in FROM taken
UNION ALL
SELECT false, full_at - statement_timestamp() FROM api_rate WHERE key_id = :key_id AND NOT EXISTS (SELECT FROM taken)
""").bindparams(*(bindparam(name, type_=Interval()) for name in ("each", "brim", "wrong")))


@dataclass(frozen=True, slots=True)
class BucketRate:
    """Rate at which a bucket fills, and its size."""

    per_second: float
    burst: int

    @property
    def each(self) -> timedelta:
        """Time in which one token comes back, to the microsecond."""
        return timedelta(seconds=1 / self.per_second)

    @property
    def brim(self) -> timedelta:
        """Time in which an empty bucket is full."""
        return self.burst * self.each


@dataclass(frozen=True, slots=True)
class TakenToken:
    """Result of taking one token, and when the bucket would be full again."""

    is_granted: bool
    full_in: timedelta


class TokenBuckets(Protocol):
    """Buckets by key."""

    def take(self, key_id: str) -> TakenToken:
        """Take one token; no more are granted than the bucket holds and gets."""
        ...


class SharedBuckets:
    """One bucket for each key in the database. Raises StorageUnavailable."""

    def __init__(self, database: Database, rate: BucketRate) -> None:
        self._database, self._rate = database, rate

    def take(self, key_id: str) -> TakenToken:
        """Take one token. What a crash of the server loses makes buckets full."""
        given = {"key_id": key_id, "each": self._rate.each, "brim": self._rate.brim, "wrong": _WRONG}
        found = self._database.at_once(_TAKE, given)
        return TakenToken(False, self._rate.brim) if found is None else TakenToken(found.is_granted, found.full_in)


class LocalBuckets:
    """One bucket for each key in this process."""

    def __init__(
        self, rate: BucketRate, clock: Callable[[], float] = time.monotonic, *, max_keys: int = MAX_LOCAL_KEYS
    ) -> None:
        self._rate, self._clock, self._max_keys = rate, clock, max_keys
        self._guard = threading.Lock()
        self._full_at: OrderedDict[str, timedelta] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of keys that have a bucket."""
        return len(self._full_at)

    def take(self, key_id: str) -> TakenToken:
        """Take one token now."""
        return self.take_at(key_id, self._clock())

    def take_at(self, key_id: str, at: float) -> TakenToken:
        """Take one token at an instant in seconds; time running backwards fills nothing."""
        with self._guard:
            now = timedelta(seconds=at)
            kept = max(self._full_at.pop(key_id, now), now)
            full_at = kept + self._rate.each
            is_granted = full_at - now <= self._rate.brim
            self._full_at[key_id] = full_at if is_granted else kept
            if len(self._full_at) > self._max_keys:
                self._full_at.popitem(last=False)
            return TakenToken(is_granted, (full_at if is_granted else kept) - now)


def token_buckets(database: Database, rate: BucketRate) -> TokenBuckets:
    """Make the buckets of every process that serves with this database."""
    return SharedBuckets(database, rate) if database.engine.dialect.name == "postgresql" else LocalBuckets(rate)
