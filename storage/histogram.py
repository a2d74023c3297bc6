"""Durations as counts in bins of growing width: small, mergeable, and right to a twentieth at any quantile. Pure."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

#: A bin's value is at most this share away from whatever fell into it.
ERROR: Final = 0.05
_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_LOG: Final = math.log(_GROWTH)

#: Bin n holds what is above GROWTH^(n-1) and up to GROWTH^n milliseconds, bin -n the same below zero, bin 0 what is
#: shorter than a millisecond. Longer than a year is a year.
_LAST: Final = math.ceil(math.log(366 * 86_400_000) / _LOG)

Counts = dict[str, int]  #: by bin, as JSON keeps it


def bin_of(duration: timedelta) -> str:
    """The bin of a duration of either sign."""
    milliseconds = duration / timedelta(milliseconds=1)
    if abs(milliseconds) <= 1:
        return "0"
    number = min(max(math.ceil(math.log(abs(milliseconds)) / _LOG), 1), _LAST)
    return str(number if milliseconds > 0 else -number)


def value_of(name: str) -> timedelta:
    """The duration in the middle of a bin, relatively: within ERROR of everything that the bin holds."""
    number = int(name)
    if number == 0:
        return timedelta(0)
    size = 2 * _GROWTH ** abs(number) / (_GROWTH + 1)
    return timedelta(milliseconds=math.copysign(size, number))


def add(counts: Counts, duration: timedelta, times: int = 1) -> None:
    """The duration is counted; one that is negative keeps its sign."""
    name = bin_of(duration)
    counts[name] = counts.get(name, 0) + times


def merged(parts: Iterable[tuple[Mapping[str, int], float]]) -> dict[str, float]:
    """One histogram of several, each with its weight; the order does not matter."""
    found: dict[str, float] = {}
    for counts, weight in parts:
        for name, count in counts.items():
            found[name] = found.get(name, 0.0) + weight * count
    return found


def quantile(counts: Mapping[str, float], share: float) -> timedelta | None:
    """The smallest bin's value that so large a share does not exceed; None of nothing.

    Within ERROR of the sample's own quantile (the smallest of the sample that the share does not exceed), and within
    a millisecond near zero.
    """
    total = sum(counts.values())
    if total <= 0:
        return None
    reached = 0.0
    name = "0"
    for name in sorted(counts, key=int):
        reached += counts[name]
        if reached >= share * total * (1 - 1e-12):
            break
    return value_of(name)
