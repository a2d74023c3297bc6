"""Hazard of a payment's leaving its state, by its age, and its learning. Pure.

Ages are seconds since the payment entered the state. They are grouped in bins that grow by the square root of two,
from one second to 97 days; within a bin the hazard is constant.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

from statemachine.phases import MOVING_PHASES, Phase

#: Where each bin begins; the last one has no end.
EDGES: Final[tuple[float, ...]] = (0.0, *(2 ** (step / 2) for step in range(47)))

BINS: Final = len(EDGES)

_BIN_ENDS: Final = (*EDGES[1:], math.inf)

#: Changes that a sample holds: older ones fade as new ones come, so that a shift is learned within as many.
_MAX_CHANGES: Final = 1000.0

#: The weight of the prior, as changes seen in every bin.
_PRIOR_CHANGES: Final = 0.5

#: Share and offset of the prior. Of the payments that reach an age, about a third leave the state before twice that
#: age, except in the first minute, in which few do. Payments that are paid already change later.
_PRIORS: Final = dict.fromkeys(MOVING_PHASES, (0.5, 60.0))
_PAID_PRIOR: Final = (0.2, 86_400.0)


def bin_of(age: float) -> int:
    """Return the bin of the age; a negative age (clocks differ) counts as zero."""
    return bisect_right(EDGES, age) - 1 if age > 0.0 else 0


def prior(phase: Phase) -> tuple[float, ...]:
    """Return the assumed hazard per second of each bin: `share / (age + offset)`."""
    share, offset = _PRIORS.get(phase, _PAID_PRIOR)
    return tuple(share / (middle(at) + offset) for at in range(BINS))


def middle(at: int) -> float:
    """Return an age in the middle of the bin."""
    return EDGES[at] * 1.2 if at else 0.5


@dataclass(frozen=True)
class HazardCurve:
    """Hazard per second of each bin, with its integrals."""

    rates: tuple[float, ...]

    @cached_property
    def _cumulated(self) -> tuple[float, ...]:
        widths = (end - start for start, end in zip(EDGES, _BIN_ENDS[:-1], strict=False))
        return (0.0, *accumulate(rate * width for rate, width in zip(self.rates, widths, strict=False)))

    def rate(self, age: float) -> float:
        """Return the hazard per second at that age."""
        return self.rates[bin_of(age)]

    def between(self, start: float, end: float) -> float:
        """Return the hazard summed over these ages; the chance of a change is 1-exp(-sum)."""
        return self._until(end) - self._until(start) if end > start else 0.0

    def changed_by(self, age: float) -> float:
        """Return the share of all payments that have left the state by that age."""
        return 1.0 - math.exp(-self._until(age))

    def expected_staleness(self, start: float, end: float) -> float:
        """Return the expected seconds, at age `end`, since an unseen change after `start`."""
        total, low = 0.0, start
        for at in range(bin_of(start), bin_of(end) + 1):
            high = min(end, _BIN_ENDS[at])
            total += self.rates[at] * (high - low) * (end - (low + high) / 2)
            low = high
        return total

    def age_at_staleness(self, start: float, seconds: float, factor: float = 1.0) -> float:
        """Return the age at which `factor` times the expected staleness reaches `seconds`.

        Infinite where it never does.

        That sum grows like hazard * wait² / 2, so that the waits follow the square-root law of optimal polling.
        """
        chance, total = 0.0, 0.0
        low = max(start, 0.0)
        for at in range(bin_of(low), BINS):
            rate, width = self.rates[at] * factor, _BIN_ENDS[at] - low
            reached = total + chance * width + rate * width * width / 2 if width < math.inf else math.inf
            if reached >= seconds:
                if rate <= 0.0:
                    return low + (seconds - total) / chance if chance > 0.0 else math.inf
                return low + (math.sqrt(chance * chance + 2 * rate * (seconds - total)) - chance) / rate
            total, chance, low = reached, chance + rate * width, _BIN_ENDS[at]
        return math.inf

    def _until(self, age: float) -> float:
        at = bin_of(age)
        return self._cumulated[at] + self.rates[at] * max(age - EDGES[at], 0.0)


@dataclass(frozen=True, slots=True)
class HazardSample:
    """Watched seconds and changes in each bin of age; old ones fade."""

    exposure: tuple[float, ...] = (0.0,) * BINS
    changes: tuple[float, ...] = (0.0,) * BINS

    def curve(self, phase: Phase) -> HazardCurve:
        """Return the hazard: changes by exposure, drawn to the prior if few were seen."""
        rates = (
            (changes + _PRIOR_CHANGES) / (exposure + _PRIOR_CHANGES / rate)
            for changes, exposure, rate in zip(self.changes, self.exposure, prior(phase), strict=True)
        )
        return HazardCurve(tuple(rates))


class HazardUpdate:
    """One round of learning on top of an earlier sample; `result()` returns both."""

    def __init__(self, before: HazardSample, curve: HazardCurve) -> None:
        self._exposure = list(before.exposure)
        self._changes = list(before.changes)
        self._curve = curve

    def add_watched(self, counts: Sequence[int], seconds: float) -> None:
        """Add the payments now in each bin, unchanged since the last round `seconds` ago."""
        for at, count in enumerate(counts):
            if count:
                age = middle(at)
                self._expose(age - seconds, age, count)

    def add_censored(self, age: float, watched_to: float) -> None:
        """Add a payment that left at that age by no chance, such as an announced expiry."""
        self._expose(watched_to, age, 1.0)

    def add_change(self, low: float, high: float, watched_to: float) -> None:
        """Add a payment that left at an age in (low, high], known as of `watched_to`.

        The exact age is not known; the change is spread over the range as the curve would have it.
        """
        low, high = max(low, 0.0), max(high, 0.0)
        self._expose(watched_to, low, 1.0)
        if high - low < 1e-9:
            self._changes[bin_of(high)] += 1.0
            return
        whole = self._curve.between(low, high)
        gone = 0.0  # the share that has changed by the start of the bin
        for at in range(bin_of(low), bin_of(high) + 1):
            start, end = max(low, EDGES[at]), min(high, _BIN_ENDS[at])
            if end <= start:
                continue
            share = self._curve.between(start, end) / whole if whole > 0.0 else (end - start) / (high - low)
            self._changes[at] += share
            self._exposure[at] += (end - start) * (1.0 - gone - share / 2)
            gone += share

    def _expose(self, start: float, end: float, weight: float) -> None:
        if end < start:
            start, end, weight = end, start, -weight
        start = max(start, 0.0)
        if end <= start:
            return
        for at in range(bin_of(start), bin_of(end) + 1):
            low, high = max(start, EDGES[at]), min(end, _BIN_ENDS[at])
            if high > low:
                self._exposure[at] += (high - low) * weight

    def result(self) -> HazardSample:
        """Return the new sample; beyond the memory's size everything fades alike."""
        total = sum(self._changes)
        keep = min(1.0, _MAX_CHANGES / total) if total > 0.0 else 1.0
        return HazardSample(
            tuple(max(seconds, 0.0) * keep for seconds in self._exposure),
            tuple(changes * keep for changes in self._changes),
        )
