"""Plain numbers that count."""

import pytest

from statemachine.measures import Histogram, counts


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
