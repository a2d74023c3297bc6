"""The database's clock, by which machines with different clocks claim work."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection

#: Between two looks at the database's clock, while units of work begin.
LOOK_INTERVAL_S: Final = 10.0

#: The wall clock and the monotonic one agree to within this, or one was set and the other stood still.
_MAX_DRIFT_S: Final = 0.5


class _Look(NamedTuple):
    at: datetime  #: by the database's clock
    wall: datetime  #: by this machine's
    ticks: float


class DatabaseClock:
    """The time of a PostgreSQL server, from its last reading; no call waits for it.

    It goes on by the monotonic clock, so that setting this machine's clock changes nothing. A look is part of a unit
    of work that begins anyway, when the last is old or when this machine's clocks have come apart, as after a pause.
    Before the first it tells the wall clock's time.
    """

    def __init__(self, wall: Callable[[], datetime], ticks: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._ticks = ticks
        self._look: _Look | None = None

    def __call__(self) -> datetime:
        """Return the database's time, to about half of a round trip."""
        look = self._look
        return self._wall() if look is None else look.at + timedelta(seconds=self._ticks() - look.ticks)

    def look(self, connection: Connection) -> None:
        """Ask the server where that is due."""
        before, wall = self._ticks(), self._wall()
        if self._look is not None:
            gone = before - self._look.ticks
            drift = (wall - self._look.wall).total_seconds() - gone
            if gone < LOOK_INTERVAL_S and abs(drift) < _MAX_DRIFT_S:
                return
        at: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        after = self._ticks()
        self._look = _Look(at, wall, (before + after) / 2)
