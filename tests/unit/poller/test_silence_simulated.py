"""How long a silence is plausible: by simulation, seeded, on flows of every rate and pattern."""

import json
import math
import random
from datetime import UTC, datetime, timedelta

import pytest

from poller.silence import DeliveryRhythm

START = datetime(2026, 4, 1, tzinfo=UTC)  # a Wednesday
TICK = timedelta(minutes=1)
HOUR = 3600.0


class Flow:
    """Deliveries as they come, and the checks in between that called it silent."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.rhythm = DeliveryRhythm()
        self.now = START
        self.last = None
        self.alarms = []

    def run(self, days, rate, at_most, burst=1):
        """Poisson by thinning; `rate` is of the instant, per second. The last check before a delivery sees most."""
        end = self.now + timedelta(days=days)
        while True:
            self.now += timedelta(seconds=self.random.expovariate(at_most))
            if self.now >= end:
                self.now = end
                return self
            if self.random.random() * at_most <= rate(self.now):
                for number in range(burst):
                    self.comes(self.now + timedelta(seconds=2 * number))

    def comes(self, at):
        if self.last is not None:
            check = START + (at - START) // TICK * TICK
            if check > self.last and self.rhythm.is_silent(self.last, check, TICK):
                self.alarms.append((check - START).days)
            at = max(at, self.last)
        self.rhythm.add_delivery(at)
        self.last = at

    def noticed_after(self):
        """How many seconds after the last delivery a check first calls it silent."""
        check = START + ((self.last - START) // TICK + 1) * TICK
        while not self.rhythm.is_silent(self.last, check, TICK):
            check += TICK
        return (check - self.last).total_seconds()


def steady(days, rate, seed):
    return Flow(seed).run(days, lambda _at: rate, rate)


def night(at):
    return 60 / HOUR if 8 <= at.hour < 20 else 0.0


def week(at):
    return night(at) if at.weekday() < 5 else 0.0


@pytest.mark.parametrize(
    ("per_hour", "days", "flows"), [(1, 90, 14), (4, 60, 14), (60, 30, 3)], ids=["1/h", "4/h", "1/min"]
)
def test_a_steady_flow_alarms_less_than_once_in_30_days_and_a_stop_is_noticed(per_hour, days, flows):
    """On average over seeded flows; the bound of 3 p99 gaps holds for each, and one tick beyond where ticks decide."""
    rate = per_hour / HOUR
    false, months = 0, 0.0
    for seed in range(flows):
        flow = steady(days, rate, seed)
        false, months = false + len(flow.alarms), months + days / 30
        bound = max(3 * math.log(100) / rate, TICK.total_seconds()) + TICK.total_seconds()
        assert flow.noticed_after() <= bound
    assert false <= months


@pytest.mark.parametrize("rate", [0.2, 1.0, 10.0], ids=["1 in 5 s", "1/s", "10/s"])
def test_at_high_rates_the_ticks_decide(rate):
    """Two minutes, at most: nothing shorter than one tick is called silence; the age at a check exceeds none."""
    flow = steady(1.02 if rate < 10 else 0.03, rate, 1)
    if rate == 10.0:  # a day's worth of them would take minutes here: their first and last half-hour tell as much
        flow.now += timedelta(days=1)
        flow.rhythm.mark_paused(flow.now)
        flow.run(0.03, lambda _at: rate, rate)
    assert flow.rhythm.threshold(TICK) is not None
    assert flow.alarms == []
    assert flow.noticed_after() <= 120

    checks = 30 * 24 * 60
    assert checks * math.exp(-rate * TICK.total_seconds()) < 1


@pytest.mark.parametrize("pattern", [night, week], ids=["nights", "nights and weekends"])
def test_a_known_pattern_does_not_alarm_every_night_and_a_stop_by_day_is_noticed(pattern):
    """At most once in 30 days after the first two weeks, and minutes of silence at noon are enough."""
    late = []
    for seed in range(4):
        flow = Flow(seed).run(60, pattern, 60 / HOUR)
        late += [day for day in flow.alarms if day >= 14]
        noon = START + timedelta(days=63, hours=12)  # a Wednesday
        flow.run(0.5, pattern, 60 / HOUR)
        flow.run((noon - flow.now) / timedelta(days=1), pattern, 60 / HOUR)
        assert flow.last > noon - timedelta(minutes=15)
        assert flow.noticed_after() < 40 * 60
    assert len(late) <= 4 * 46 / 30


def test_a_night_that_is_new_is_known_after_about_a_week():
    flow = Flow(1).run(20, lambda _at: 60 / HOUR, 60 / HOUR)
    before = len(flow.alarms)
    flow.run(30, night, 60 / HOUR)

    nights = flow.alarms[before:]
    assert nights
    assert max(nights) < 20 + 10


def test_a_flow_that_becomes_slower_is_known_after_days():
    flow = Flow(1).run(20, lambda _at: 60 / HOUR, 60 / HOUR).run(30, lambda _at: 20 / HOUR, 20 / HOUR)

    assert len([day for day in flow.alarms if day > 27]) <= 1


def test_bursts_are_not_taken_for_a_fast_flow():
    """Twenty deliveries at once, six times an hour: the silence between them is plausible, hours of it are not."""
    flow = Flow(1).run(60, lambda _at: 6 / HOUR, 6 / HOUR, burst=20)

    assert len(flow.alarms) <= 2
    assert flow.noticed_after() <= 3 * math.log(100) * HOUR / 6 + 60


def test_an_outage_does_not_become_the_measure():
    """Two days without a delivery are one long gap: the next stop is noticed about as soon."""
    flow = steady(20, 10 / HOUR, 3)
    before = flow.noticed_after()
    flow.now += timedelta(days=2)
    flow.run(2, lambda _at: 10 / HOUR, 10 / HOUR)

    assert flow.noticed_after() < 2 * before


def test_what_came_not_while_we_were_away_tells_nothing():
    """After a downtime the gap is no gap, and the hours of it are no quiet hours."""
    flow = steady(20, 10 / HOUR, 3)
    limit, noon = flow.rhythm.threshold(TICK), flow.last
    rate = flow.rhythm.expected(noon, noon + timedelta(hours=24))
    flow.now += timedelta(days=1)
    flow.rhythm.mark_paused(flow.now)
    flow.last = flow.now
    flow.run(0.5, lambda _at: 10 / HOUR, 10 / HOUR)

    assert flow.rhythm.expected(noon, noon + timedelta(hours=24)) == pytest.approx(rate, rel=0.2)
    assert flow.rhythm.threshold(TICK) == pytest.approx(limit, rel=0.2)


def test_who_never_had_a_delivery_or_too_few_has_no_rhythm():
    rhythm = DeliveryRhythm()
    assert rhythm.threshold(TICK) is None
    assert not rhythm.is_silent(START, START + timedelta(days=400), TICK)

    for number in range(200):  # many, in less than a day
        rhythm.add_delivery(START + timedelta(minutes=number))
    assert not rhythm.is_silent(START, START + timedelta(days=400), TICK)

    seldom = DeliveryRhythm()
    for number in range(4):
        seldom.add_delivery(START + timedelta(days=number))
    assert seldom.threshold(TICK) is None


def test_what_is_out_of_order_or_at_once_is_borne():
    rhythm = DeliveryRhythm()
    for hour in range(72):
        at = START + timedelta(hours=hour)
        rhythm.add_delivery(at)
        rhythm.add_delivery(at - timedelta(seconds=30))
        rhythm.add_delivery(at - timedelta(days=30))  # redeemed from quarantine
        rhythm.add_delivery(at)

    assert rhythm.heard_at == START + timedelta(hours=71)
    assert rhythm.expected(START, START + timedelta(days=1)) == pytest.approx(72, rel=0.1)


def test_all_of_it_is_kept():
    """Dumped as JSON and made anew it answers the same, also when that happens after every delivery."""
    whole, renewed = DeliveryRhythm(), DeliveryRhythm()
    source = random.Random(5)
    at = START
    for _ in range(600):
        at += timedelta(seconds=source.expovariate(6 / HOUR))
        whole.add_delivery(at)
        renewed = DeliveryRhythm(json.loads(json.dumps(renewed.dump())))
        renewed.add_delivery(at)

    assert renewed.threshold(TICK) == pytest.approx(whole.threshold(TICK), rel=1e-2)
    later = at + timedelta(hours=30)
    assert renewed.expected(at, later) == pytest.approx(whole.expected(at, later), rel=1e-2)
