"""Counters and histograms as plain numbers. Pure."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

Place = TypeVar("Place")

#: How often something happened, by the values of its labels; what is not there happened never.
Counts = defaultdict[tuple[str, str], int]


def counts() -> Counts:
    """Make counts of nothing."""
    return defaultdict(int)


class Histogram:
    """Counts of values between successive bounds; the last is of what exceeds all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)  #: in order; a value that equals a bound is within it
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0  #: the sum of all values

    def add(self, value: float, times: int = 1) -> None:
        """Count the value, so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add_all(self, values: Iterable[float]) -> None:
        """Count each value, at half the price."""
        bounds, counts, total = self.bounds, self.counts, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self.total += total

    def row(self) -> list[float]:
        """List the counts and then the sum; rows of processes add up number by number."""
        return [*self.counts, self.total]


#: A bin's value is at most this share away from whatever fell into it.
ERROR: Final = 0.05
_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_LOG: Final = math.log(_GROWTH)

#: Bin n holds what is above GROWTH^(n-1) and up to GROWTH^n milliseconds, bin -n the same below zero, bin 0 what is
#: shorter than a millisecond. Longer than a year is a year.
_LAST: Final = math.ceil(math.log(366 * 86_400_000) / _LOG)

BinCounts = dict[str, int]  #: by bin, as JSON keeps it


def bin_of(duration: timedelta) -> str:
    """Return the bin of a duration of either sign."""
    milliseconds = duration / timedelta(milliseconds=1)
    if abs(milliseconds) <= 1:
        return "0"
    number = min(max(math.ceil(math.log(abs(milliseconds)) / _LOG), 1), _LAST)
    return str(number if milliseconds > 0 else -number)


def value_of(name: str) -> timedelta:
    """Return the duration in the middle of a bin, within ERROR of all that it holds."""
    number = int(name)
    if number == 0:
        return timedelta(0)
    size = 2 * _GROWTH ** abs(number) / (_GROWTH + 1)
    return timedelta(milliseconds=math.copysign(size, number))


def add_duration(counts: BinCounts, duration: timedelta, times: int = 1) -> None:
    """Count the duration; one that is negative keeps its sign."""
    name = bin_of(duration)
    counts[name] = counts.get(name, 0) + times


def merge_bins(parts: Iterable[tuple[Mapping[str, int], float]]) -> dict[str, float]:
    """Add up several histograms, each with its weight; the order does not matter."""
    found: dict[str, float] = {}
    for counts, weight in parts:
        for name, count in counts.items():
            found[name] = found.get(name, 0.0) + weight * count
    return found


def bin_quantile(counts: Mapping[str, float], share: float) -> timedelta | None:
    """Return the quantile of a histogram of durations; None without any.

    Within ERROR of the sample's own quantile (the smallest of the sample that the share does not exceed), and within
    a millisecond near zero.
    """
    name = quantile(((name, counts[name]) for name in sorted(counts, key=int)), share)
    return None if name is None else value_of(name)


def quantile(weights: Iterable[tuple[Place, float]], share: float) -> Place | None:
    """Return the first place, in order, that `share` of the weight does not exceed.

    None where there is no weight.
    """
    found = list(weights)
    total = sum(weight for _, weight in found)
    if total <= 0:
        return None
    reached = 0.0
    for place, weight in found:
        reached += weight
        if reached >= share * total * (1 - 1e-12):
            return place
    return found[-1][0]
