"""Counters and histograms: bounds, quantiles within their error, and parts that are added in any order."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import histograms
from statemachine.histograms import Histogram, counts

DURATIONS = st.timedeltas(min_value=timedelta(days=-60), max_value=timedelta(days=300))
MILLISECOND = timedelta(milliseconds=1)


def counted(durations):
    counts = {}
    for duration in durations:
        histograms.add_duration(counts, duration)
    return counts


@given(st.lists(DURATIONS, min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_the_error(durations, share):
    """Of either sign, and to a millisecond near zero."""
    exact = sorted(durations)[max(math.ceil(share * len(durations) - 1e-9) - 1, 0)]
    found = histograms.bin_quantile(counted(durations), share)

    assert found is not None
    assert abs(found - exact) <= histograms.ERROR * abs(exact) * (1 + 1e-9) + MILLISECOND


@given(st.lists(st.lists(DURATIONS, max_size=20), max_size=5))
def test_parts_are_merged_without_loss(parts):
    """One histogram of all is the sum of those of the parts."""
    merged = histograms.merge_bins((counted(part), 1.0) for part in parts)

    assert merged == counted([duration for part in parts for duration in part])


@given(DURATIONS)
def test_a_value_stands_for_its_bin(duration):
    """The value of a bin is in that bin, or shorter than a millisecond."""
    name = histograms.bin_of(duration)

    assert histograms.bin_of(histograms.value_of(name)) == name


def test_of_nothing_there_is_no_quantile():
    assert histograms.bin_quantile({}, 0.5) is None


@pytest.mark.parametrize(
    ("value", "place"), [(-1, 0), (0, 0), (0.5, 0), (1.0, 0), (1.0001, 1), (2.0, 1), (2.5, 2), (float("inf"), 2)]
)
def test_a_value_that_equals_a_bound_is_within_it(value: float, place: int) -> None:
    found = Histogram((1.0, 2.0))
    found.add(value)

    assert found.counts == [int(place == at) for at in range(3)]


def test_many_are_as_one_after_the_other() -> None:
    values = [0.1, 0.2, 1.5, 9.0, 1.5]
    one, many = Histogram((0.1, 1, 5)), Histogram((0.1, 1, 5))
    for value in values:
        one.add(value)
    many.add_all(values)

    assert many.row() == one.row() == [1, 1, 2, 1, pytest.approx(12.3)]


def test_the_same_value_many_times() -> None:
    found = Histogram((1,))
    found.add(0.5, 4)

    assert found.row() == [4, 0, 2.0]


def test_what_has_not_happened_happened_never() -> None:
    found = counts()
    found["a", "b"] += 1

    assert (found["a", "b"], found["a", "c"]) == (1, 0)
