"""The lower bound of the square-root law, computed numerically: no schedule that asks at a rate can do better."""

import math

from tests.benchmarks.polling.workloads import Mixture


def least_mean_delay(mixture: Mixture, arrivals: float, questions: float) -> float:
    """Mean seconds from being paid until noticed, at best, with so many questions a second.

    Asking about a payment of age a at the rate r(a), the mean delay of one that is paid at a is 1/(2 r(a)). Its mean
    over the density f of times to pay is least, for a number of questions arrivals * integral of r(a) S(a), when
    r goes with sqrt(f / S), S being the share still open. Rates may be any number here, whereas true questions are
    whole: a few questions a payment cannot quite reach it.
    """
    steps, start = 4_000, 0.1
    growth = (mixture.ttl / start) ** (1 / steps)
    total, low = 0.0, 0.0
    for step in range(steps + 1):
        high = start * growth**step
        density = (mixture.paid_by(high) - mixture.paid_by(low)) / (high - low)
        total += math.sqrt(density * (1 - mixture.paid_by((low + high) / 2))) * (high - low)
        low = high
    return arrivals * total * total / (2 * questions * mixture.paid_by(mixture.ttl))
