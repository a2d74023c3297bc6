"""Counts by slice of time; a slice that is over is not counted each time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, NamedTuple, TypeVar

Result = TypeVar("Result")

#: What is recorded may be seen so much later; what is younger is counted each time.
SETTLE_DELAY: Final = timedelta(minutes=2)

#: After so long what was counted is counted again, since a late word may have changed it.
RECOUNT_AFTER: Final = timedelta(minutes=5)

#: By how much the first look may take longer, which has everything to count.
_FIRST_LOOK_FACTOR: Final = 10


class TimeSlice(NamedTuple):
    """From an instant on, and before another."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class _Counted(Generic[Result]):
    result: Result
    at: datetime
    is_final: bool


class SliceCounter(Generic[Result]):
    """Counts slices of time, within a bound of its own time. For one thread."""

    def __init__(
        self,
        count: Callable[[datetime, datetime], Result],
        *,
        is_final: Callable[[Result], bool] = lambda _result: True,
        seconds: float = 0.1,
    ) -> None:
        """Call `count` with since and until, for at most so many seconds a look."""
        self._count = count
        self._is_final = is_final
        self._seconds = seconds
        self._kept: dict[TimeSlice, _Counted[Result]] = {}

    def of(self, slices: Sequence[TimeSlice], now: datetime) -> dict[TimeSlice, Result]:
        """Return the results of these slices; those are missing that had no time yet.

        What is not over is counted, whatever that takes; then what was never counted, from the newest on; then what
        was counted longest ago.
        """
        deadline = time.monotonic() + self._seconds * (1 if self._kept else _FIRST_LOOK_FACTOR)
        wanted = sorted(set(slices), reverse=True)
        self._kept = {piece: self._kept[piece] for piece in wanted if piece in self._kept}
        for piece in wanted:
            if piece.until > now:
                self._look(piece, now)
        for piece in [piece for piece in wanted if piece not in self._kept]:
            if time.monotonic() < deadline:
                self._look(piece, now)
        for piece in sorted((piece for piece in self._kept if self._is_old(piece, now)), key=self._counted_at):
            if time.monotonic() < deadline:
                self._look(piece, now)
        return {piece: self._kept[piece].result for piece in wanted if piece in self._kept}

    def _look(self, piece: TimeSlice, now: datetime) -> None:
        result = self._count(*piece)
        self._kept[piece] = _Counted(result, now, piece.until <= now - SETTLE_DELAY and self._is_final(result))

    def _counted_at(self, piece: TimeSlice) -> datetime:
        return self._kept[piece].at

    def _is_old(self, piece: TimeSlice, now: datetime) -> bool:
        kept = self._kept[piece]
        age = now - kept.at
        return age != timedelta(0) and (not kept.is_final or not timedelta(0) <= age < RECOUNT_AFTER)


def slices_between(since: datetime, until: datetime, length: timedelta) -> list[TimeSlice]:
    """Cut a time into slices of this length; the last may be shorter."""
    found = []
    while since < until:
        found.append(TimeSlice(since, min(since + length, until)))
        since += length
    return found
