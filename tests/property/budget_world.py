"""Processes that share an account's budget in simulated time, on a real database, and when their requests left."""

import asyncio
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import event

from poller.rate_limiter import DatabaseRateLimiter, low_priority
from providers.contract import Budget
from storage.database import Database
from tests.support.clock import START
from tests.support.time import SimulatedLoop

ACCOUNT = "acme"


@dataclass(frozen=True)
class Weather:
    """How late everything is; seconds."""

    database: float = 0.002  #: until a statement's unit of work begins, and again until it is answered; at most
    wake: float = 0.005  #: a sleeper is woken too late by; at most
    stall: float = 0.0  #: the same, now and then
    connect: float = 0.0  #: between a turn and the request's first byte; at most
    skew: float = 0.0  #: by which the hosts' clocks differ; at most


@dataclass
class Run:
    """What happened."""

    budget: Budget
    left: list[tuple[float, bool]] = field(default_factory=list)  #: when each request left, and whether a patient's
    waits: list[tuple[float, bool]] = field(default_factory=list)  #: how long each waited for its turn, likewise
    writes: int = 0  #: units of work that began to write
    paused: list[tuple[float, float]] = field(default_factory=list)  #: from when until when, as everybody knew it

    def times(self, *, of_patients: bool | None = None) -> list[float]:
        return sorted(at for at, is_patient in self.left if of_patients in (None, is_patient))

    def most_in_a_window(self) -> int:
        """The most requests that left within any window of the budget's length."""
        times, most, first = self.times(), 0, 0
        for last, at in enumerate(times):
            while at - times[first] >= self.budget.seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def rate(self) -> float:
        """Requests a second, from the first to the last."""
        times = self.times()
        return (len(times) - 1) / (times[-1] - times[0])


class Fleet:
    """Processes with a database pool and a host's clock each."""

    def __init__(
        self, databases: list[Database], budget: Budget, weather: Weather, seed: int, skews: Sequence[float] = ()
    ) -> None:
        self.rng = random.Random(seed)
        self.weather = weather
        self.run = Run(budget)
        self.loop = SimulatedLoop(lambda: self.rng.uniform(0, weather.database))
        skews = skews or [self.rng.uniform(-weather.skew, weather.skew) for _ in databases]
        self.paces = [self._pace(database, skew) for database, skew in zip(databases, skews, strict=True)]
        for database in databases:
            event.listen(database.engine, "before_cursor_execute", self._tell_the_time, retval=True)
        self._databases = databases

    def close(self) -> None:
        for database in self._databases:
            event.remove(database.engine, "before_cursor_execute", self._tell_the_time)
        self.loop.close()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    async def send(self, pace: DatabaseRateLimiter, *, is_patient: bool = False) -> None:
        """One request, from wanting it to its first byte."""
        began = self.loop.time()
        await pace.turn()
        self.run.waits.append((self.loop.time() - began, is_patient))
        if self.weather.connect:
            await asyncio.sleep(self.rng.uniform(0, self.weather.connect))
        await pace.leave()
        self.run.left.append((self.loop.time(), is_patient))

    async def keep_sending(self, pace: DatabaseRateLimiter, requests: int, *, is_patient: bool = False) -> None:
        """One request after the other."""
        for _ in range(requests):
            if is_patient:
                with low_priority():
                    await self.send(pace, is_patient=True)
            else:
                await self.send(pace)

    def until_done(self, *work: Any) -> Run:
        """Do all of it, in simulated time."""

        async def everything() -> None:
            await asyncio.gather(*work)

        self.loop.run_until_complete(everything())
        return self.run

    def _pace(self, database: Database, seconds: float) -> DatabaseRateLimiter:
        skew = timedelta(seconds=seconds)
        is_one_host = database.engine.dialect.name == "sqlite"
        return DatabaseRateLimiter(
            database,
            ACCOUNT,
            self.run.budget,
            lambda: self.now() if is_one_host else self.now() + skew,
            self._sleep,
            rng=self.rng,
        )

    async def _sleep(self, seconds: float) -> None:
        late = self.rng.uniform(0, self.weather.wake)
        if self.weather.stall and self.rng.random() < 0.1:
            late += self.rng.uniform(0, self.weather.stall)
        await asyncio.sleep(seconds + late)

    def _tell_the_time(
        self, _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        """The database's clock is the simulation's: PostgreSQL is asked for an instant instead of its own."""
        if statement.startswith("UPDATE account_budget"):
            self.run.writes += 1
        return re.sub(r"clock_timestamp\(\)", f"timestamptz '{self.now().isoformat()}'", statement), parameters


@contextmanager
def fleet(
    databases: list[Database], budget: Budget, weather: Weather, seed: int, skews: Sequence[float] = ()
) -> Iterator[Fleet]:
    """Processes that share the budget, begun anew."""
    with databases[0].write() as unit:
        unit._connection.exec_driver_sql("DELETE FROM account_budget")
    made = Fleet(databases, budget, weather, seed, skews)
    try:
        yield made
    finally:
        made.close()
