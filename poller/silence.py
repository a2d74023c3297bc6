"""Learn an account's delivery rhythm, and judge how long a silence is plausible.

Why the threshold holds what it promises. Silence is counted in deliveries that should have come: the sum of the rate,
by hour of day and day of week, over the silence. On a Poisson flow that makes every gap exponential with mean 1,
whatever the hour, so that a gap exceeds x with chance exp(-x). In `days` (30) there are G gaps and K checks, one at
each tick; a false alarm needs a gap above x that is seen by a check, so there are at most min(G, K) * exp(-x) of
them. x = ln(3 * min(G, K)) makes that a third of one in 30 days; the other two thirds are for what is not known
exactly. At a check a minute K = 43,200, so that x is at most 11.8; at one delivery an hour G = 720 and x = 7.7.

A flow's p99 gap is ln(100) = 4.6 deliveries, three times that is 13.8: above x at every rate, so that a stop is
noticed within three p99 gaps, and at the first check after that. What cannot hold is the same without the checks'
distance: at 10 a second three p99 gaps are 1.4 s, while a flow that was watched continuously for 30 days would need
ln(3 * 26 million) = 18.2 deliveries, four p99 gaps. So nothing shorter than one tick is called silence, and a stop is
noticed within max(13.8 / rate, tick) + tick; from 3 a minute upwards the ticks decide, and that is 2 minutes.

Real deliveries come in bursts. The scale of the long gaps, E[g²] / 2E[g] (the mean age at a random instant), is 1 on
a Poisson flow and the mean distance of bursts where there are bursts; x is multiplied by it. How well it is known
enters by the predictive tail of a rate learnt from n gaps, (1 + t/n)^-n instead of exp(-t): the fewer gaps, the more
patience.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

#: Days per false alarm, on average, at least.
_DAYS_PER_FALSE_ALARM: Final = 30.0
#: Factor by which the threshold aims to be rarer, for what the derivation does not know.
_SAFETY_FACTOR: Final = 3.0

#: Half-life of what was learned about hours and days.
_HALF_LIFE: Final = timedelta(days=21)
#: The same of a second memory of hours: of the two rates the lower counts, so that a new pattern of nights is known
#: after about a week of them.
_RECENT_HALF_LIFE: Final = timedelta(days=1)
#: Gaps that the scale is learned from: older ones fade.
_MAX_GAPS: Final = 1000.0
#: Fewer gaps show no rhythm, however wide their threshold.
_MIN_GAPS: Final = 5.0
#: A shorter span shows nothing of the night.
_MIN_SPAN: Final = timedelta(days=1)

#: An hour, or a day of the week, is thought to have had at least so many deliveries at the mean rate before any is
#: seen (Jeffreys' prior); more where hours or days differ by no more than chance.
_MIN_PRIOR: Final = 0.5
#: A prior that the differences put below this counts as none: they are real.
_PRIOR_CUTOFF: Final = 10.0
_MAX_PRIOR: Final = 1e4

#: A delivery recorded longer than this before a known one is out of order, and gives no gap.
_MAX_DISORDER: Final = timedelta(minutes=1)

_HOUR: Final = timedelta(hours=1)


class DeliveryRhythm:
    """Learned delivery rates of an account, restored from what `dump` returned.

    A silence is learnt from when it has ended, so that a flow that has stopped does not come to seem normal.
    """

    def __init__(self, kept: dict[str, Any] | None = None) -> None:
        kept = kept or {}
        self._hours = _Hours(kept.get("hours"), _HALF_LIFE)
        self._recent_hours = _Hours(kept.get("lately"), _RECENT_HALF_LIFE)
        self._day_counts: list[float] = list(kept.get("day_counts", [0.0] * 7))
        self._day_expected: list[float] = list(kept.get("day_expected", [0.0] * 7))
        self._day_prior = _prior(self._day_counts, self._day_expected)
        self._gap_moments: list[float] = list(
            kept.get("moments", [0.0] * 4)
        )  #: of the gaps: their number, 1st, 2nd, 4th
        self._began_at = _instant(kept.get("began_at"))
        self._heard_at = _instant(kept.get("heard_at"))
        self._faded_at = _instant(kept.get("faded_at"))
        self._paused_to = _instant(kept.get("away_to"))  #: the service did not listen before that

    def dump(self) -> dict[str, Any]:
        """Return everything learned as JSON values."""
        instants = {
            "began_at": self._began_at,
            "heard_at": self._heard_at,
            "faded_at": self._faded_at,
            "away_to": self._paused_to,
        }
        return {
            "hours": self._hours.dump(),
            "lately": self._recent_hours.dump(),
            "day_counts": self._day_counts,
            "day_expected": self._day_expected,
            "moments": self._gap_moments,
            **{name: at.isoformat() for name, at in instants.items() if at is not None},
        }

    @property
    def heard_at(self) -> datetime | None:
        """The time of the last delivery learned from."""
        return self._heard_at

    def add_delivery(self, at: datetime) -> None:
        """Learn from a delivery, in order of arrival; one far out of order is ignored."""
        last = self._heard_at
        if last is None:
            self._began_at = self._faded_at = last = at
        elif at < last:
            if last - at > _MAX_DISORDER:
                return
            at = last
        else:
            self._fade(at)
        start = max(last, self._paused_to) if self._paused_to is not None else last
        if start < at:
            for seconds, hour, day in _hours_of(start, at):
                self._hours.add_listening(hour, seconds)
                self._recent_hours.add_listening(hour, seconds)
                self._day_expected[day] += seconds * self._hours.rate(hour)
        if start == last and self._heard_at is not None:
            self._learn_gap(self.expected(last, at))
        self._hours.add_delivery(at.hour)
        self._recent_hours.add_delivery(at.hour)
        self._day_counts[at.weekday()] += 1
        self._heard_at, self._paused_to = at, None

    def mark_paused(self, until: datetime) -> None:
        """Mark the time until then as not listened to: silence in it means nothing."""
        if self._heard_at is not None and until > self._heard_at:
            self._paused_to = until

    def expected(self, start: datetime, end: datetime) -> float:
        """Return the expected deliveries in between; 0 if the account never had any."""
        if self._heard_at is None or end <= start:
            return 0.0
        return sum(seconds * self._rate(hour, day) for seconds, hour, day in _hours_of(start, end))

    def threshold(self, tick: timedelta) -> float | None:
        """Return the expected deliveries from which a silence is implausible.

        For one check each `tick`; None while too little is known.
        """
        number, first, second, fourth = self._gap_moments
        if first <= 0 or self._heard_at is None or self._began_at is None:
            return None
        if self._heard_at - self._began_at < _MIN_SPAN:
            return None
        known = 3 * second * second / fourth  # half the number of gaps of a Poisson flow that would tell as much
        if known < _MIN_GAPS or number < _MIN_GAPS:
            return None
        scale = second / (2 * first)
        gaps = _DAYS_PER_FALSE_ALARM * 86_400 * self._hours.mean / scale
        checks = _DAYS_PER_FALSE_ALARM * 86_400 / tick.total_seconds()
        chance = _SAFETY_FACTOR * max(min(gaps, checks), 1.0)
        return scale * known * math.expm1(math.log(chance) / known)

    def is_silent(self, start: datetime, now: datetime, tick: timedelta) -> bool:
        """Return whether the silence since `start` is implausible and exceeds one tick."""
        limit = self.threshold(tick)
        return limit is not None and now - start > tick and self.expected(start, now) > limit

    def _learn_gap(self, gap: float) -> None:
        limit = self.threshold(timedelta(minutes=1))
        if limit is not None:
            gap = min(gap, limit)  # an outage is learned as one long gap, and not as the scale of all
        keep = 1 - 1 / _MAX_GAPS
        for power, moment in enumerate((1.0, gap, gap**2, gap**4)):
            self._gap_moments[power] = self._gap_moments[power] * keep + moment

    def _rate(self, hour: int, day: int) -> float:
        share = (self._day_counts[day] + self._day_prior) / (self._day_expected[day] + self._day_prior)
        return share * min(self._hours.rate(hour), self._recent_hours.rate(hour))

    def _fade(self, at: datetime) -> None:
        """Reduce the weight of what is old, in steps of an hour."""
        if self._faded_at is None or at - self._faded_at < _HOUR:
            return
        age, self._faded_at = at - self._faded_at, at
        self._hours.fade(age)
        self._recent_hours.fade(age)
        keep = 0.5 ** (age / _HALF_LIFE)
        for known in (self._day_counts, self._day_expected):
            known[:] = [value * keep for value in known]
        self._day_prior = _prior(self._day_counts, self._day_expected)


class _Hours:
    """Deliveries and seconds of listening for each hour of the day (UTC)."""

    def __init__(self, kept: dict[str, list[float]] | None, half_life: timedelta) -> None:
        kept = kept or {}
        self._half_life = half_life
        self._counts: list[float] = list(kept.get("counts", [0.0] * 24))
        self._seconds: list[float] = list(kept.get("seconds", [0.0] * 24))
        self._sum_up()

    def dump(self) -> dict[str, list[float]]:
        return {"counts": self._counts, "seconds": self._seconds}

    def add_delivery(self, hour: int) -> None:
        self._counts[hour] += 1
        self._count += 1

    def add_listening(self, hour: int, seconds: float) -> None:
        self._seconds[hour] += seconds
        self._listened += seconds

    @property
    def mean(self) -> float:
        """Deliveries per second over all hours."""
        return self._count / max(self._listened, 1.0)

    def rate(self, hour: int) -> float:
        """Return the deliveries per second at that hour of any day.

        Drawn towards the mean where hours hardly differ.
        """
        mean = self.mean
        if mean <= 0:
            return 0.0
        return (self._counts[hour] + self._prior) / (self._seconds[hour] + self._prior / mean)

    def fade(self, age: timedelta) -> None:
        keep = 0.5 ** (age / self._half_life)
        self._counts = [value * keep for value in self._counts]
        self._seconds = [value * keep for value in self._seconds]
        self._sum_up()

    def _sum_up(self) -> None:
        self._count, self._listened = sum(self._counts), sum(self._seconds)
        self._prior = _prior(self._counts, [seconds * self.mean for seconds in self._seconds])


def _prior(counts: list[float], expected: list[float]) -> float:
    """Return the weight of the mean, in deliveries, by how much the counts differ.

    Counts of a rate that itself varies as a Gamma of shape m have the variance E + E² / m: solved for m.
    """
    beyond = sum((count - mean) ** 2 - mean for count, mean in zip(counts, expected, strict=True))
    if beyond <= 0:
        return _MAX_PRIOR
    shape = sum(mean**2 for mean in expected) / beyond
    return min(max(shape**2 / (shape + _PRIOR_CUTOFF), _MIN_PRIOR), _MAX_PRIOR)


def _hours_of(start: datetime, end: datetime) -> list[tuple[float, int, int]]:
    """Split the span into seconds with their hour of day and day of week, in UTC."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    found: list[tuple[float, int, int]] = []
    while start < end:
        until = min(start.replace(minute=0, second=0, microsecond=0) + _HOUR, end)
        found.append(((until - start).total_seconds(), start.hour, start.weekday()))
        start = until
    return found


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
