"""When a payment is asked about: later and later, never in the past, and at an end never or seldom."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.policy import Schedule
from statemachine.phases import Phase
from tests.fakes.clock import START

SCHEDULE = Schedule()
ENDED_UNPAID = (Phase.EXPIRED, Phase.CANCELLED, Phase.FAILED)

spans = st.timedeltas(timedelta(0), timedelta(days=60))
schedules = st.builds(
    Schedule,
    first_after=st.timedeltas(timedelta(seconds=1), timedelta(hours=2)),
    growth=st.floats(1.0, 10.0),
    longest=st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
    give_up_after=st.none() | st.timedeltas(timedelta(hours=1), timedelta(days=30)),
)


def next_poll(schedule=SCHEDULE, **changes):
    asked = {
        "phase": Phase.OPEN,
        "is_terminal": False,
        "polls": 0,
        "changed_at": START,
        "expires_at": None,
        "now": START,
    }
    return schedule.next_poll(**(asked | changes))


@given(
    schedules,
    st.sampled_from(list(Phase)),
    st.booleans(),
    st.integers(0, 10_000),
    spans,
    st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=1)),
)
def test_is_never_in_the_past(schedule, phase, is_terminal, polls, age, expiry):
    """Whatever the payment, the next question is now or later."""
    at = next_poll(
        schedule,
        phase=phase,
        is_terminal=is_terminal,
        polls=polls,
        changed_at=START - age,
        expires_at=None if expiry is None else START + expiry,
    )

    assert at is None or at >= START


@given(schedules, st.integers(0, 200))
def test_waits_grow_up_to_the_longest(schedule, polls):
    """Each further silence is at least as long as the one before, and none is longer than the longest."""
    this, following = (next_poll(schedule, polls=n) - START for n in (polls, polls + 1))

    assert this <= following <= schedule.longest
    assert next_poll(schedule, polls=0) - START == min(schedule.first_after, schedule.longest)


@pytest.mark.parametrize("phase", [Phase.PAID, Phase.SETTLED, Phase.REFUNDED])
def test_an_end_with_money_is_not_asked_about(phase):
    """Nothing legal follows."""
    assert next_poll(phase=phase, is_terminal=True) is None


@pytest.mark.parametrize("phase", ENDED_UNPAID)
@pytest.mark.parametrize("polls", [0, 7])
def test_an_end_without_money_is_checked_at_its_ages(phase, polls):
    """Money may come late: asked about at each configured age, however many questions failed, and then not any more."""
    made, now = [], START
    while (at := next_poll(phase=phase, is_terminal=True, polls=polls, now=now)) is not None:
        made.append(at)
        now = at
    assert made == [START + age for age in SCHEDULE.late_checks]


def test_a_paid_payment_that_may_settle_is_asked_about_seldom():
    """Settlement takes days."""
    assert next_poll(phase=Phase.PAID) == START + SCHEDULE.paid_every


def test_an_announced_expiry_is_asked_about_just_after_it():
    """The provider's own deadline is a good time to ask, where it comes before the next question."""
    expiry = START + timedelta(seconds=30)

    assert next_poll(expires_at=expiry) == expiry + SCHEDULE.after_expiry
    assert next_poll(expires_at=START + timedelta(days=1)) == START + SCHEDULE.first_after
    assert next_poll(expires_at=START - timedelta(days=1)) == START + SCHEDULE.first_after


def test_asking_ends_after_so_long_without_a_change():
    """For as long as configured, the bound included; None goes on for ever."""
    give_up = SCHEDULE.give_up_after
    assert next_poll(now=START + give_up) is not None
    assert next_poll(now=START + give_up + timedelta(seconds=1)) is None
    assert next_poll(Schedule(give_up_after=None), now=START + timedelta(days=4000)) is not None


@given(st.integers(0, 10_000), st.none() | st.floats(0, 86_400), st.booleans(), st.floats(0, 1))
def test_after_a_failure(polls, retry_after, may_retry, jitter):
    """Later than now, no earlier than the provider says, and at the longest interval where a repeat cannot help."""
    at = SCHEDULE.after_failure(polls, retry_after, may_retry, START, jitter)

    assert at > START
    if may_retry:
        assert at >= START + timedelta(seconds=retry_after or 0)
        longest = max(SCHEDULE.longest, timedelta(seconds=retry_after or 0))
        assert at <= START + 1.2 * longest + timedelta(microseconds=1)
    else:
        assert at == START + SCHEDULE.longest


def test_what_failed_together_is_not_asked_about_together():
    """Jitter spreads the next questions over a fifth of the wait."""
    early, late = (SCHEDULE.after_failure(3, None, True, START, jitter) for jitter in (0.0, 1.0))

    assert late - START == 1.2 * (early - START)
