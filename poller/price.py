"""What a question costs: the price at which the schedule asks as much as the budget allows. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from poller.hazard import Curve

_STEPS: Final = 40
_DEAREST: Final = 1e15

#: Of the budget, what the longest waits may take at most.
_FLOOR_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Group:
    """The payments of one account, kind and state: how many stand in each bin of age."""

    counts: Sequence[int]
    curve: Curve
    weight: float  #: see policy.weight
    soonest: float  #: seconds between two questions about one payment, at least
    longest: float  #: and at most


@dataclass(frozen=True, slots=True)
class Priced:
    """The price, and what it leads to."""

    price: float  #: expected seconds of not knowing that one question costs
    wanted: float  #: questions per second at that price
    floor: float  #: questions per second that the longest waits demand at any price
    stretch: float = 1.0  #: by what the longest waits must be longer than they should be, since the budget is short


def price_of(groups: Sequence[Group], allowed: float | None, worth: float) -> Priced:
    """The lowest price, and none below `worth`, at which no more questions are wanted than are allowed per second.

    The longest waits may take up to nine tenths of that, so that no payment starves. Where they demand more, all of
    them are stretched, and `stretch` says by how much: the rest stays with what is likeliest to change.
    """
    bins = [
        (count, group.curve.rates[at] * group.weight, 1 / group.soonest, 1 / group.longest)
        for group in groups
        for at, count in enumerate(group.counts)
        if count
    ]
    floor = sum(count * slowest for count, _, _, slowest in bins)
    stretch = 1.0 if allowed is None else max(1.0, floor / (allowed * _FLOOR_SHARE))
    bins = [(count, rate, fastest, slowest / stretch) for count, rate, fastest, slowest in bins]

    def wanted(price: float) -> float:
        return sum(
            count * min(fastest, max(slowest, math.sqrt(rate / (2 * price)))) for count, rate, fastest, slowest in bins
        )

    if allowed is None or wanted(worth) <= allowed:
        return Priced(worth, wanted(worth), floor, stretch)
    low, high = math.log(worth), math.log(_DEAREST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if wanted(math.exp(middle)) > allowed:
            low = middle
        else:
            high = middle
    return Priced(math.exp(high), wanted(math.exp(high)), floor, stretch)
