"""Counts and histograms as plain numbers, kept by whoever does the work and read by whoever asks. Pure.

A part of the program counts in its own objects, at the price of an addition; receipted/metrics/ turns that into what
Prometheus reads. Reading from another thread is safe: a row is at most one event behind itself.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence

#: How often something happened, by the values of its labels; what is not there happened never.
Counts = defaultdict[tuple[str, str], int]


def counts() -> Counts:
    """Nothing has happened yet."""
    return defaultdict(int)


class Histogram:
    """How many values fell below each bound and not below the one before; the last count is of what exceeds all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)  #: in order; a value that equals a bound is within it
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0  #: the sum of all values

    def add(self, value: float, times: int = 1) -> None:
        """The value is counted, so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add_all(self, values: Iterable[float]) -> None:
        """Each value is counted, at half the price."""
        bounds, counts, total = self.bounds, self.counts, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self.total += total

    def row(self) -> list[float]:
        """The counts and then the sum, so that rows of several processes can be added number by number."""
        return [*self.counts, self.total]
