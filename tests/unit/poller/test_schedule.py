"""When a payment is asked about: as its hazard has it, within bounds, and at an end never or seldom."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poller import schedule as poller_schedule
from poller.hazard import BINS, HazardCurve, HazardSample, prior
from poller.planner import PaymentGroup, solve_price
from poller.schedule import (
    EXPIRED,
    LIKELY_CHANGED,
    MAX_INTERVAL,
    ChangeForecast,
    NextPoll,
    PollPolicy,
    PollTimes,
    PushEstimate,
)
from statemachine.phases import Phase
from tests.support.clock import START

SCHEDULE = PollPolicy()
ENDED_UNPAID = (Phase.EXPIRED, Phase.CANCELLED, Phase.FAILED)
UNKNOWN = ChangeForecast(Phase.OPEN, HazardSample().curve(Phase.OPEN), 1.0)

ages = st.floats(0, 5_000_000).map(lambda seconds: timedelta(seconds=seconds))
rates = st.floats(1e-9, 1.0)
curves = st.lists(rates, min_size=BINS, max_size=BINS).map(tuple).map(HazardCurve)
forecasts = st.builds(
    ChangeForecast,
    st.sampled_from([Phase.OPEN, Phase.PROCESSING, Phase.PAID]),
    curves,
    st.floats(0.1, 1e6),
    st.builds(PushEstimate, st.floats(0.001, 1.0), st.timedeltas(timedelta(0), timedelta(minutes=10))),
)


def constant(hazard, price=1.0, **changes):
    return ChangeForecast(Phase.OPEN, HazardCurve((hazard,) * BINS), price, **changes)


def wait(forecast, age=timedelta(0), schedule=SCHEDULE, expires_at=None):
    """How long after an answer at that age the next question is, and why."""
    now = START + age
    found = poller_schedule.next_poll(schedule, forecast, PollTimes(START, now, expires_at), now)
    assert found is not None
    return found.at - now, found.reason


@given(forecasts, ages, st.none() | ages)
def test_a_wait_is_within_its_bounds(forecast, age, expiry):
    """Whatever was learnt: not sooner than the soonest, not later than the floor, whatever the age."""
    assume(age < SCHEDULE.give_up_after)
    waited, reason = wait(forecast, age, expires_at=None if expiry is None else START + expiry)
    floor = max(SCHEDULE.floor(forecast.phase), forecast.push.lag)
    min_interval = timedelta(0) if reason == EXPIRED else SCHEDULE.min_interval

    assert min_interval <= waited <= floor
    assert (reason == MAX_INTERVAL) == (waited == floor) or reason == EXPIRED


@given(st.floats(1e-5, 0.01), st.floats(0.5, 100.0))
def test_waits_follow_the_square_root_law(hazard, price):
    """With a constant hazard h the wait is sqrt(2 price / h): four times the hazard, half the wait."""
    schedule = PollPolicy(min_interval=timedelta(microseconds=1), max_interval=timedelta(days=100))
    waited, reason = wait(constant(hazard, price), schedule=schedule)

    assert reason == LIKELY_CHANGED
    assert waited.total_seconds() == pytest.approx(math.sqrt(2 * price / hazard), rel=1e-6)


@given(curves, st.floats(0, 1e6), st.floats(0.001, 1e5), st.floats(0.001, 1.0))
def test_the_next_age_is_where_unknowing_reaches_the_price(curve, start, price, factor):
    """The two ways of reckoning agree, in every bin and across bins."""
    age = curve.age_at_staleness(start, price, factor)

    assert age > start
    assert curve.expected_staleness(start, age) * factor == pytest.approx(price, rel=1e-3, abs=1e-4)


@given(curves, st.lists(st.floats(0, 1e6), min_size=3, max_size=3))
def test_a_hazard_adds_up(curve, ages):
    """What lies between two ages is the same whole or in two parts."""
    low, middle, high = sorted(ages)
    parts = curve.between(low, middle) + curve.between(middle, high)

    assert curve.between(low, high) == pytest.approx(parts, rel=1e-6, abs=1e-6)
    assert 0.0 <= curve.changed_by(middle) <= curve.changed_by(high) <= 1.0


@given(forecasts, ages, ages)
def test_the_more_it_costs_the_longer_the_wait(forecast, age, expiry):
    """A dearer question is never asked sooner, and one whose changes push tells is asked no sooner either."""
    assume(age < SCHEDULE.give_up_after)
    dearer = ChangeForecast(forecast.phase, forecast.curve, forecast.price * 2, forecast.push)
    pushed = ChangeForecast(
        forecast.phase, forecast.curve, forecast.price, PushEstimate(forecast.push.loss / 2, forecast.push.lag)
    )

    assert wait(forecast, age)[0] <= wait(dearer, age)[0]
    assert wait(forecast, age)[0] <= wait(pushed, age)[0]


def test_what_push_tells_is_awaited():
    """Where push works, the first question and the one about an expiry come when its word is overdue, not before."""
    lag = timedelta(seconds=90)
    forecast = constant(0.1, push=PushEstimate(0.5, lag))
    expiry = START + timedelta(seconds=20)

    assert wait(forecast)[0] == lag
    assert wait(constant(1e-6, push=PushEstimate(0.05, lag)), expires_at=expiry) == (timedelta(seconds=110), EXPIRED)


def test_an_announced_expiry_is_asked_about_just_after_it():
    """The provider's own deadline is a good time to ask, where it comes before the next question; once."""
    quiet, expiry = constant(1e-6), START + timedelta(seconds=30)

    assert wait(quiet, expires_at=expiry) == (timedelta(seconds=30) + SCHEDULE.after_expiry, EXPIRED)
    assert wait(quiet, timedelta(seconds=36), expires_at=expiry) == wait(quiet, timedelta(seconds=36))


def test_asking_ends_after_so_long_without_a_change():
    """For as long as configured, the bound included; None goes on for ever."""

    def asked(schedule, age):
        return poller_schedule.next_poll(schedule, UNKNOWN, PollTimes(START, None), START + age)

    give_up = SCHEDULE.give_up_after
    assert asked(SCHEDULE, give_up) is not None
    assert asked(SCHEDULE, give_up + timedelta(seconds=1)) is None
    assert asked(PollPolicy(give_up_after=None), timedelta(days=4000)) is not None


@pytest.mark.parametrize("phase", [Phase.PAID, Phase.SETTLED, Phase.REFUNDED])
def test_an_end_with_money_is_not_asked_about(phase):
    """Nothing legal follows."""
    assert poller_schedule.late_check(SCHEDULE, phase, START, START) is None


@pytest.mark.parametrize("phase", ENDED_UNPAID)
def test_an_end_without_money_is_checked_at_its_ages(phase):
    """Money may come late: asked about at each configured age, however many questions failed, and then not any more."""
    made, now = [], START
    while (found := poller_schedule.late_check(SCHEDULE, phase, START, now)) is not None:
        made.append(found.at)
        now = found.at
    assert made == [START + age for age in SCHEDULE.late_checks]


# -- when not all that is due can be asked


def test_the_most_urgent_go_first():
    """Of two that were last seen at once, the one that changes sooner is asked."""
    quick, slow = constant(0.01), constant(0.0001)
    now = START + timedelta(seconds=600)
    due = [("slow", slow, PollTimes(START, None)), ("quick", quick, PollTimes(START, None))]

    assert poller_schedule.select_most_urgent(SCHEDULE, due, 1, now).now == ["quick"]
    assert poller_schedule.select_most_urgent(SCHEDULE, due, 2, now).now == ["slow", "quick"]


def test_nobody_starves():
    """At the price that the crowd makes, one that hardly ever changes is asked about within the longest wait."""
    quick, slow = HazardCurve((0.01,) * BINS), HazardCurve((1e-9,) * BINS)
    schedule = PollPolicy(give_up_after=None, max_interval=timedelta(hours=2))
    crowd = [PaymentGroup(ones(20), quick, 1.0, 5.0, 7_200.0), PaymentGroup(ones(1), slow, 1.0, 5.0, 7_200.0)]
    price = solve_price(crowd, 1 / 60, 1.0).price
    forecasts = dict.fromkeys((f"quick {n}" for n in range(20)), ChangeForecast(Phase.OPEN, quick, price))
    forecasts["slow"] = ChangeForecast(Phase.OPEN, slow, price)
    now, seen = START, {f"quick {n}": START for n in range(20)} | {"slow": START}
    max_interval = dict.fromkeys(seen, timedelta(0))
    for _ in range(600):
        now += timedelta(seconds=60)
        due = [
            (name, forecasts.get(name, ChangeForecast(Phase.OPEN, quick, price)), PollTimes(START, at))
            for name, at in seen.items()
        ]
        for name in poller_schedule.select_most_urgent(schedule, due, 1, now).now:
            max_interval[name] = max(max_interval[name], now - seen[name])
            seen[name] = now
    assert timedelta(hours=1.5) < max_interval["slow"] < timedelta(hours=2.5)
    assert max(waited for name, waited in max_interval.items() if name != "slow") < timedelta(minutes=30)


def ones(count):
    return [count] + [0] * (BINS - 1)


def test_who_is_no_longer_due_at_today_s_price_is_put_off():
    """What was planned when questions were cheap does not stand in the way."""
    dear = constant(0.0001, price=1000.0)
    now = START + timedelta(seconds=100)
    due = [("a", constant(0.1), PollTimes(START, None)), ("b", dear, PollTimes(START, None))]
    chosen = poller_schedule.select_most_urgent(SCHEDULE, due, 1, now)

    assert chosen.now == ["a"]
    assert chosen.later == [("b", poller_schedule.next_poll(SCHEDULE, dear, PollTimes(START, None), now).at)]


def test_a_late_check_takes_its_turn():
    """A payment at its end has no hazard; it is as urgent as what is just due."""
    now = START + timedelta(seconds=10)
    due = [("ended", None, PollTimes(START, None)), ("open", constant(1e-9), PollTimes(START, None))]

    assert poller_schedule.select_most_urgent(SCHEDULE, due, 1, now).now == ["ended"]


# -- failures, words


@given(st.integers(0, 10_000), st.none() | st.floats(0, 86_400), st.booleans(), st.floats(0, 1))
def test_after_a_failure(failures, retry_after, may_retry, jitter):
    """Later than now, no earlier than the provider says, and at the longest interval where a repeat cannot help."""
    at = SCHEDULE.after_failure(failures, retry_after, may_retry, START, jitter)

    assert at > START
    if may_retry:
        assert at >= START + timedelta(seconds=retry_after or 0)
        max_interval = max(SCHEDULE.max_retry_wait, timedelta(seconds=retry_after or 0))
        assert at <= START + 1.2 * max_interval + timedelta(microseconds=1)
    else:
        assert at == START + SCHEDULE.max_retry_wait


def test_what_failed_together_is_not_asked_about_together():
    """Jitter spreads the next questions over a fifth of the wait."""
    early, late = (SCHEDULE.after_failure(3, None, True, START, jitter) for jitter in (0.0, 1.0))

    assert late - START == 1.2 * (early - START)


def test_the_reason_is_said_in_words():
    """A person reads why the next question is then, with the share that this account's payments themselves show."""
    half = constant(math.log(2) / 600)
    at_half = NextPoll(START + timedelta(seconds=600), LIKELY_CHANGED)
    pushed = constant(math.log(2) / 600, push=PushEstimate(0.05))

    words = poller_schedule.explain(half, PollTimes(START, None), at_half, "awaiting_payment")
    assert words == "50% of payments have left awaiting_payment at that age"
    assert poller_schedule.explain(pushed, PollTimes(START, None), at_half, "pending").endswith(
        "; pushes report all but 5%"
    )
    assert "asked about less often" in poller_schedule.explain(
        half, PollTimes(START, None), NextPoll(START, MAX_INTERVAL), "pending"
    )
    assert "expires" in poller_schedule.explain(half, PollTimes(START, None), NextPoll(START, EXPIRED), "pending")
    assert "late" in poller_schedule.explain(None, PollTimes(START, None), at_half, "expired")


def test_the_prior_is_what_the_documents_say():
    """Of those that reach an age beyond the first minutes, about a third leave the state before twice that age."""
    curve = HazardCurve(prior(Phase.OPEN))

    for age in (600.0, 3_600.0, 86_400.0):
        assert 1 - math.exp(-curve.between(age, 2 * age)) == pytest.approx(0.3, abs=0.06)
    assert curve.changed_by(10) < 0.1


@pytest.mark.parametrize("expiry", ["9999-12-31T23:59:59.999999", "9500-01-01", "0001-01-01"])
def test_an_expiry_at_the_end_of_the_calendar_is_none(expiry):
    """A provider's "never" overflows nothing: the payment is asked about as if it had said nothing."""
    aware = datetime.fromisoformat(expiry).replace(tzinfo=UTC)
    now = START
    with_it = poller_schedule.next_poll(SCHEDULE, UNKNOWN, PollTimes(START, now, aware), now)
    assert with_it == poller_schedule.next_poll(SCHEDULE, UNKNOWN, PollTimes(START, now, None), now)
    assert poller_schedule.urgency(SCHEDULE, UNKNOWN, PollTimes(START, now, aware), now + timedelta(hours=1)) > 0


@pytest.mark.parametrize("failures", [0, 31, 64, 1024, 10**6, 2**31 - 1])
def test_waits_after_failures_are_bounded_however_many_there_were(failures):
    """Counters grow for years."""
    at = SCHEDULE.after_failure(failures, None, True, START, 1.0)
    assert START < at <= START + 1.2 * SCHEDULE.max_retry_wait
