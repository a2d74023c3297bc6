"""Properties of the back-off."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfilment.backoff import MAX_ATTEMPTS, MAX_RETRY_AFTER_S, SCHEDULE_S, Backoff, read_retry_after
from fulfilment.errors import InvalidSchedule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
seeds = st.integers(0, 2**32)


def test_the_schedule_as_documented():
    plain = Backoff(jitter=0)
    delays = [plain.next_delay(attempts, random.Random(1)) for attempts in range(1, 11)]
    assert delays == [5, 300, 1800, 7200, 18000, 36000, 36000, 36000, 36000, None]


@given(attempts=st.integers(1, MAX_ATTEMPTS - 1), seed=seeds)
def test_within_the_jitter(attempts, seed):
    """Each delay lies within a tenth of the schedule's, and the same seed gives the same."""
    base = SCHEDULE_S[min(attempts, len(SCHEDULE_S)) - 1]
    delay = Backoff().next_delay(attempts, random.Random(seed))
    assert base * 0.9 <= delay <= base * 1.1
    assert delay == Backoff().next_delay(attempts, random.Random(seed))


@given(seed=seeds)
def test_monotone_up_to_jitter(seed):
    """No delay is shorter than the one before by more than the jitter of both."""
    rng = random.Random(seed)
    delays = [Backoff().next_delay(attempts, rng) for attempts in range(1, MAX_ATTEMPTS)]
    assert all(later >= earlier * 0.9 / 1.1 for earlier, later in pairwise(delays))


@given(attempts=st.integers(1, MAX_ATTEMPTS - 1), seed=seeds, retry_after=st.floats(0, 10 * MAX_RETRY_AFTER_S))
def test_retry_after_is_a_minimum(attempts, seed, retry_after):
    """A delay is never below Retry-After, of which ten hours count, nor below the schedule without it."""
    delay = Backoff().next_delay(attempts, random.Random(seed), retry_after)
    plain = Backoff().next_delay(attempts, random.Random(seed))
    assert delay == max(plain, min(retry_after, MAX_RETRY_AFTER_S))


@given(limit=st.integers(1, 50), attempts=st.integers(0, 100), retry_after=st.none() | st.floats(0, 1e6), seed=seeds)
def test_attempts_are_exhausted(limit, attempts, retry_after, seed):
    """There is a next delay exactly while attempts are left, whatever the sink asks for."""
    delay = Backoff(max_attempts=limit).next_delay(attempts, random.Random(seed), retry_after)
    assert (delay is None) == (attempts >= limit)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": ()},
        {"schedule": (0.0,)},
        {"schedule": (5.0, float("nan"))},
        {"schedule": (float("inf"),)},
        {"max_attempts": 0},
        {"jitter": 1.0},
        {"jitter": -0.1},
    ],
)
def test_refused_settings(settings):
    with pytest.raises(InvalidSchedule):
        Backoff(**settings)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("36001", 36_000),
        ("9" * 5000, None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
        ("Sun, 01 Mar 2026 12:01:00 -0000", 60),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2099 11:00:00 GMT", 36_000),
    ],
)
def test_retry_after_header(header, seconds):
    assert read_retry_after(header, NOW) == seconds


@given(text=st.text())
def test_any_header_is_read(text):
    """Whatever a header holds, reading it gives a wait within bounds or nothing."""
    found = read_retry_after(text, NOW)
    assert found is None or 0 <= found <= timedelta(hours=10).total_seconds()
