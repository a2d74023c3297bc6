"""Whether this process lives, and whether it is ready: for a supervisor, and for a balancer of load."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from receipted.metrics.pulse import Pulse
from statemachine.errors import ServiceError
from storage import counts, migrate
from storage.database import Database
from storage.errors import SchemaOutdated

#: Seconds for which one look at the database is answered again, and after which it counts as away.
_FRESH: Final = 1.0
_READ_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Health:
    """The causes why not, each with what is known of it; none where all is well."""

    causes: list[dict[str, Any]] = field(default_factory=list)
    inbox_lag_seconds: float | None = None  #: of the oldest undecided message; None where that is not known
    failing: list[dict[str, Any]] = field(default_factory=list)  #: loops that fail and are tried again
    held_payments: list[str] = field(default_factory=list)  #: another session holds them, and their messages wait

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.causes


class Checks:
    """What is asked by the probes."""

    def __init__(
        self,
        database: Database,
        pulse: Pulse,
        clock: Callable[[], datetime],
        *,
        stalled_after: float,
        lag_after: timedelta | None,
        held: Callable[[], list[str]] = list,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`held` tells payments that another session holds.

        `lag_after` is None where the process receives: it goes on recording, however late the worker is.
        """
        self._database = database
        self._pulse = pulse
        self._clock = clock
        self._stalled_after = stalled_after
        self._lag_after = lag_after
        self._held = held
        self._monotonic = monotonic
        self._look: asyncio.Task[Health] | None = None
        self._looked_at = 0.0

    def alive(self) -> Health:
        """Whether the loops go on; the event loop does, since it answers. Never looks at the database."""
        causes: list[dict[str, Any]] = [{"cause": "loop_failed", "loop": name} for name in self._pulse.failed]
        causes += [{"cause": "loop_stalled", "loop": name} for name in self._pulse.stalled(self._stalled_after)]
        causes += [
            {"cause": "loop_failing", "loop": each.loop, "error": each.error, "seconds": round(each.seconds)}
            for each in self._pulse.troubles()
            if each.is_main and each.is_bug and each.seconds > self._stalled_after
        ]
        return Health(causes, failing=self._failing(), held_payments=self._held())

    def _failing(self) -> list[dict[str, Any]]:
        """Loops that fail now; a duty beside deciding and delivering is told, and makes nothing unready."""
        return [
            {"loop": each.loop, "error": each.error, "failures": each.failures, "seconds": round(each.seconds)}
            for each in self._pulse.troubles()
        ]

    async def ready(self) -> Health:
        """Whether it can do its work: it lives, the database answers and has the newest schema; a worker keeps up."""
        alive = self.alive()
        now = self._monotonic()
        if self._look is None or (self._look.done() and now - self._looked_at > _FRESH):
            self._looked_at = now
            self._look = asyncio.create_task(asyncio.to_thread(self._of_database))
        await asyncio.wait([self._look], timeout=_READ_TIMEOUT_S)
        if not self._look.done():
            causes = [*alive.causes, {"cause": "storage_unavailable", "after_seconds": _READ_TIMEOUT_S}]
            return replace(alive, causes=causes)
        found = self._look.result()
        causes = [*alive.causes, *found.causes]
        return replace(alive, causes=causes, inbox_lag_seconds=found.inbox_lag_seconds)

    def _of_database(self) -> Health:
        try:
            if migrate.current(self._database) != _newest():
                raise SchemaOutdated
            with counts.bounded_read(self._database) as unit:
                since = counts.pending_since(unit)
            refusal = self._database.takes_no_writes()
        except ServiceError as fault:
            return Health([{"cause": fault.code}])
        lag = max(self._clock() - since, timedelta(0)) if since is not None else timedelta(0)
        is_late = self._lag_after is not None and lag > self._lag_after
        causes: list[dict[str, Any]] = [{"cause": refusal}] if refusal is not None else []
        causes += [{"cause": "inbox_lag", "seconds": round(lag.total_seconds(), 3)}] if is_late else []
        return Health(causes, round(lag.total_seconds(), 3))


@cache
def _newest() -> str:
    return migrate.newest()
