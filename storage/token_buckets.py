"""How fast each API key may call: a bucket that fills at a rate, one for each key over every process that serves.

On PostgreSQL a row says when the key's bucket is full again, by the database's clock, and one statement that commits
itself takes from it. On SQLite one process serves, and remembers by itself. ADR 0030.
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

#: Keys that one process remembers; the one that called longest ago has a full bucket anyway.
_REMEMBERED: Final = 10_000

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
class Rate:
    """How fast a bucket fills, and what it holds."""

    per_second: float
    burst: int

    @property
    def each(self) -> timedelta:
        """How long one request's worth takes to come back, to the microsecond."""
        return timedelta(seconds=1 / self.per_second)

    @property
    def brim(self) -> timedelta:
        """How long an empty bucket takes to be full."""
        return self.burst * self.each


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one request, and when the bucket is full again if no other comes."""

    is_granted: bool
    full_in: timedelta


class Rates(Protocol):
    """Buckets by key."""

    def take(self, key_id: str) -> Taken:
        """One request's worth is taken where it is there. No more are granted than the bucket holds and gets."""
        ...


class Shared:
    """One bucket for each key in the database, whoever takes from it. Raises StorageUnavailable."""

    def __init__(self, database: Database, rate: Rate) -> None:
        self._database, self._rate = database, rate

    def take(self, key_id: str) -> Taken:
        """As Rates has it. What a crash of the server loses makes buckets full, and harms nobody."""
        given = {"key_id": key_id, "each": self._rate.each, "brim": self._rate.brim, "wrong": _WRONG}
        found = self._database.at_once(_TAKE, given)
        return Taken(False, self._rate.brim) if found is None else Taken(found.is_granted, found.full_in)


class Remembered:
    """One bucket for each key in this process."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._guard = threading.Lock()
        self._full_at: OrderedDict[str, timedelta] = OrderedDict()

    def take(self, key_id: str) -> Taken:
        """As Rates has it."""
        with self._guard:
            now = timedelta(seconds=self._clock())
            full_at = max(self._full_at.get(key_id, now), now) + self._rate.each
            if full_at - now > self._rate.brim:
                return Taken(False, full_at - now - self._rate.each)
            self._full_at[key_id] = full_at
            self._full_at.move_to_end(key_id)
            if len(self._full_at) > _REMEMBERED:
                self._full_at.popitem(last=False)
            return Taken(True, full_at - now)


def rates(database: Database, rate: Rate) -> Rates:
    """The buckets of every process that serves with this database."""
    return Shared(database, rate) if database.engine.dialect.name == "postgresql" else Remembered(rate)
