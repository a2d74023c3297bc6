"""What arrives and when it changes: times to pay as distributions, so that their true hazard is known."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400.0
HOUR: Final = 3_600.0

Share = Callable[[float], float]  #: of all payments, how many have been paid by that age


@dataclass(frozen=True, slots=True)
class Change:
    """One payment: when it arrives, when it changes, and whether that is being paid (else it expires)."""

    arrives: float
    changes: float
    is_paid: bool
    pushed: float | None = None  #: when the provider's own word of it arrives; None: it is lost, or never sent


@dataclass(frozen=True, slots=True)
class Mixture:
    """Lognormal times to pay, mixed: (share of all payments, median seconds, sigma). The rest is never paid."""

    parts: tuple[tuple[float, float, float], ...]
    ttl: float = DAY

    def paid_by(self, age: float) -> float:
        """Of all payments, the share that has been paid by that age."""
        if age <= 0.0:
            return 0.0
        return sum(share * _phi(math.log(age / median) / sigma) for share, median, sigma in self.parts)

    def sample(self, rng: random.Random) -> tuple[float, bool]:
        """Seconds until the change, and whether it is a payment."""
        draw = rng.random()
        for share, median, sigma in self.parts:
            if draw < share:
                age = median * math.exp(sigma * rng.gauss(0.0, 1.0))
                return (age, True) if age < self.ttl else (self.ttl, False)
            draw -= share
        return self.ttl, False


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals per second by the time of day, and what becomes of them."""

    name: str
    about: str
    before: Mixture
    after: Mixture | None = None  #: from half-time on
    days: float = 3.0
    arrivals: float = 0.1  #: a second, on average
    swing: float = 0.0  #: by what share of itself the rate swings over the day
    push_loss: float | None = None  #: None: the provider sends nothing by itself
    push_lag: float = 5.0  #: median seconds; sigma 1

    def mixture(self, at: float) -> Mixture:
        """What holds for payments that arrive then."""
        return self.after if self.after is not None and at >= self.half_time else self.before

    @property
    def half_time(self) -> float:
        """When the distribution shifts, if it does."""
        return self.days * DAY / 2

    def changes(self, seed: int) -> list[Change]:
        """Every payment in order of arrival; the same for the same seed."""
        rng, found, at = random.Random(f"{self.name} {seed}"), list[Change](), 0.0
        while True:
            at += rng.expovariate(self.arrivals * (1 + self.swing))
            if at >= self.days * DAY:
                return found
            if rng.random() * (1 + self.swing) > 1 + self.swing * math.sin(2 * math.pi * at / DAY):
                continue  # thinned
            age, is_paid = self.mixture(at).sample(rng)
            lag, is_lost = self.push_lag * math.exp(rng.gauss(0.0, 1.0)), rng.random() < (self.push_loss or 0.0)
            pushed = None if self.push_loss is None or is_lost else at + age + lag
            found.append(Change(at, at + age, is_paid, pushed))


def _phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


_USUAL: Final = Mixture(((0.6, 300.0, 1.5),))

WORKLOADS: Final = (
    Workload("lognormal", "60 % pay, median 300 s, sigma 1.5, 24 h to live, 0.1 a second", _USUAL),
    Workload(
        "bimodal",
        "40 % pay at once (median 40 s), 25 % hours later (median 4 h)",
        Mixture(((0.4, 40.0, 0.6), (0.25, 4 * HOUR, 0.5))),
    ),
    Workload("day and night", "as lognormal; nine times as many by day as by night", _USUAL, swing=0.8),
    Workload(
        "shift",
        "lognormal; at half-time the median goes from 300 s to 2 h",
        _USUAL,
        after=Mixture(((0.6, 2 * HOUR, 0.7),)),
        days=4.0,
    ),
    Workload("push", "as lognormal, with push that loses 5 % and comes after about 5 s", _USUAL, push_loss=0.05),
)
