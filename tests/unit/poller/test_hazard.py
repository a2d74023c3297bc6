"""What is learnt of when payments change: right in the long run, and drawn to the prior before."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.hazard import BINS, EDGES, HazardCurve, HazardSample, HazardUpdate, bin_of, prior
from poller.planner import PaymentGroup, solve_price
from statemachine.phases import Phase

ages = st.floats(0, 1e7)


def counted(ages):
    counts = [0] * BINS
    for age in ages:
        counts[bin_of(age)] += 1
    return counts


def learn(rng, draw, *, hours, question_every, before=None, rate=0.2):
    """Payments come at random, are asked about now and then, and are learnt from once a minute."""
    learnt, now, came, counted_at = before or HazardSample(), 0.0, [], 0.0
    while now < hours * 3600:
        curve = learnt.curve(Phase.OPEN)
        lesson = HazardUpdate(learnt, curve)
        for _ in range(sum(rng.random() < rate for _ in range(60))):
            arrived = now + rng.random() * 60
            came.append([arrived, arrived + draw(rng), arrived, arrived + rng.random() * question_every])
        now += 60.0
        left = []
        for payment in came:
            arrived, changes, seen, asks = payment
            while asks <= now:
                if changes <= asks:
                    lesson.add_change(seen - arrived, asks - arrived, max(counted_at - arrived, 0.0))
                    left.append(payment)
                    break
                payment[2] = seen = asks
                payment[3] = asks = asks + question_every
        came = [payment for payment in came if payment not in left]
        lesson.add_watched(counted(now - payment[0] for payment in came), now - counted_at)
        counted_at, learnt = now, lesson.result()
    return learnt


@pytest.mark.parametrize("question_every", [20.0, 300.0])
def test_a_constant_hazard_is_learnt(question_every):
    """However coarsely it was asked, where payments that changed in between are laid out over the interval."""
    rng = random.Random(7)
    learnt = learn(rng, lambda rng: rng.expovariate(1 / 600), hours=6, question_every=question_every)
    curve = learnt.curve(Phase.OPEN)

    assert curve.changed_by(600) == pytest.approx(1 - math.exp(-1), abs=0.08)
    assert curve.changed_by(1_500) == pytest.approx(1 - math.exp(-2.5), abs=0.06)


def test_what_never_changes_is_learnt_too():
    """Payments that stay open count as watched: half of these never change, and the hazard falls to nothing."""
    rng = random.Random(8)
    learnt = learn(
        rng, lambda rng: rng.expovariate(1 / 60) if rng.random() < 0.5 else math.inf, hours=5, question_every=30.0
    )
    curve = learnt.curve(Phase.OPEN)

    assert curve.changed_by(400) == pytest.approx(0.5, abs=0.08)
    assert curve.between(1_000, 3_000) < 0.1


def test_a_shift_is_learnt():
    """What was true before fades as new changes come."""
    rng = random.Random(9)
    slow = learn(rng, lambda rng: rng.expovariate(1 / 3_000), hours=5, question_every=60.0)
    quick = learn(rng, lambda rng: rng.expovariate(1 / 100), hours=5, question_every=60.0, before=slow)

    assert slow.curve(Phase.OPEN).changed_by(300) == pytest.approx(1 - math.exp(-0.1), abs=0.05)
    assert quick.curve(Phase.OPEN).changed_by(300) == pytest.approx(1 - math.exp(-3), abs=0.08)


def test_nothing_learnt_is_the_prior():
    """And one change does not outweigh it."""
    assert HazardSample().curve(Phase.OPEN).rates == pytest.approx(prior(Phase.OPEN))
    lesson = HazardUpdate(HazardSample(), HazardSample().curve(Phase.OPEN))
    lesson.add_change(100.0, 100.0, 0.0)
    assert lesson.result().curve(Phase.OPEN).changed_by(100) < 0.8


@given(st.lists(st.tuples(ages, ages, ages), max_size=30), st.lists(st.integers(0, 100), min_size=BINS, max_size=BINS))
def test_whatever_comes_the_hazard_stays_one(lessons, counts):
    """Clocks that went back, answers out of order: every rate stays positive and finite."""
    lesson = HazardUpdate(HazardSample(), HazardSample().curve(Phase.OPEN))
    for low, high, counted_to in lessons:
        lesson.add_change(min(low, high), high, counted_to)
        lesson.add_censored(low, counted_to)
    lesson.add_watched(counts, 60.0)
    learnt = lesson.result()

    assert min(learnt.exposure) >= 0.0
    assert sum(learnt.changes) == pytest.approx(min(len(lessons), 1000), rel=1e-6, abs=1e-6)
    assert all(0.0 < rate < math.inf for rate in learnt.curve(Phase.OPEN).rates)


@given(ages)
def test_every_age_has_its_bin(age):
    """The bins leave no gap."""
    at = bin_of(age)

    assert EDGES[at] <= age
    assert at == BINS - 1 or age < EDGES[at + 1]


# -- the price

groups = st.lists(
    st.builds(
        PaymentGroup,
        st.lists(st.integers(0, 1_000), min_size=BINS, max_size=BINS),
        st.lists(st.floats(1e-9, 1.0), min_size=BINS, max_size=BINS).map(tuple).map(HazardCurve),
        st.floats(0.001, 1.0),
        st.just(5.0),
        st.just(43_200.0),
    ),
    max_size=3,
)


@given(groups, st.floats(0.01, 100.0))
def test_the_price_spends_the_budget_and_no_more(found, allowed):
    """No more is wanted than is allowed, and no less; longest waits that would take it all are stretched."""
    priced = solve_price(found, allowed, 1.0)

    assert priced.price >= 1.0
    assert priced.wanted <= allowed * 1.001
    if priced.price > 1.0 and priced.floor < allowed * 0.9:
        assert priced.wanted >= allowed * 0.98
    assert priced.floor / priced.stretch <= priced.wanted * 1.001
    assert (priced.stretch > 1.0) == (priced.floor > allowed * 0.9)


def test_without_a_limit_a_question_costs_what_it_is_worth():
    """Nothing but politeness is in the way."""
    crowd = PaymentGroup([1_000] * BINS, HazardCurve((0.1,) * BINS), 1.0, 5.0, 43_200.0)

    assert solve_price([crowd], None, 2.0).price == 2.0
    assert solve_price([crowd], 1.0, 2.0).price > 2.0
    assert solve_price([], 1.0, 2.0).wanted == 0.0
