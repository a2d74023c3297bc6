"""The poller against other schedules, on a small simulated crowd: the same figures every time, for a fixed seed."""

from dataclasses import replace

import pytest

from tests.benchmarks.polling.bound import least_mean_delay
from tests.benchmarks.polling.schedules import Exponential, Fixed, Ours, RoundRobin
from tests.benchmarks.polling.simulate import simulate
from tests.benchmarks.polling.workloads import HOUR, WORKLOADS, Mixture

#: The first workload, at half its size and a quarter of its time to live.
SMALL = replace(WORKLOADS[0], before=Mixture(((0.6, 300.0, 1.5),), ttl=6 * HOUR), days=0.75, arrivals=0.05)
BUDGET = 0.4


def mean_delay(asker, workload=SMALL, budget=BUDGET):
    run = simulate(workload, workload.changes(5), asker, budget)
    delays = run.of(8 * HOUR, workload.days * 24 * HOUR)
    return sum(delays) / len(delays), run.questions


def test_ours_finds_out_sooner_than_the_others_with_no_more_questions():
    """Learning from nothing; the full bars are held by `make bench-poll`."""
    ours, questions = mean_delay(Ours(learns=True))
    others = [mean_delay(asker) for asker in (RoundRobin(), Fixed(), Exponential())]

    assert ours < 0.3 * others[0][0]
    assert ours < 0.7 * min(delay for delay, _ in others)
    assert questions <= others[0][1]


def test_learning_comes_close_to_knowing_and_to_the_bound():
    """Within a working day, at this size."""
    learning, _ = mean_delay(Ours(learns=True))
    knowing, _ = mean_delay(Ours(learns=False))

    assert learning < 1.2 * knowing
    assert knowing < 1.4 * least_mean_delay(SMALL.before, SMALL.arrivals, BUDGET)


def test_push_makes_questions_rare():
    """Where push works but for one in twenty, a fraction of the questions finds the rest."""
    pushed = replace(SMALL, push_loss=0.05)
    with_push, few = mean_delay(Ours(learns=True), pushed, 5.0)
    without, many = mean_delay(Ours(learns=True), SMALL, 5.0)

    assert few < 0.5 * many
    assert with_push < without


@pytest.mark.parametrize("seed", [1, 2])
def test_the_simulator_says_the_same_every_time(seed):
    """A run is determined by its seed."""
    small = replace(SMALL, days=0.1)
    runs = [simulate(small, small.changes(seed), Ours(learns=True), BUDGET) for _ in range(2)]

    assert runs[0].delays == runs[1].delays
    assert runs[0].questions == runs[1].questions
