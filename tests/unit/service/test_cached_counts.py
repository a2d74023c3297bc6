"""What is over is counted once, what is not each time, and never for long."""

from datetime import timedelta

from service import cached_counts
from service.cached_counts import RECOUNT_AFTER, SETTLE_DELAY, SliceCounter, TimeSlice, slices_between
from tests.support.clock import START

MINUTE = timedelta(minutes=1)


class Counting:
    """Counts, and remembers what was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, since, until):
        self.asked.append(TimeSlice(since, until))
        return len(self.asked)


def test_pieces_lie_side_by_side_and_end_where_they_must():
    found = slices_between(START, START + 2.5 * MINUTE, MINUTE)

    assert [piece.since for piece in found] == [START, START + MINUTE, START + 2 * MINUTE]
    assert [piece.until for piece in found] == [START + MINUTE, START + 2 * MINUTE, START + 2.5 * MINUTE]
    assert slices_between(START, START, MINUTE) == []


def test_what_is_over_is_counted_once_and_what_is_not_each_time():
    count, now = Counting(), START + 10 * MINUTE + timedelta(seconds=30)
    kept, wanted = SliceCounter(count), slices_between(START, START + 11 * MINUTE, MINUTE)

    assert set(kept.of(wanted, now)) == set(wanted)
    assert len(count.asked) == 11
    count.asked.clear()
    kept.of(wanted, now + timedelta(seconds=2))

    still_moving = {piece for piece in wanted if piece.until > now + timedelta(seconds=2) - SETTLE_DELAY}
    assert set(count.asked) == still_moving
    assert 0 < len(still_moving) < 4


def test_what_was_counted_long_ago_is_counted_again():
    count, wanted = Counting(), [TimeSlice(START, START + MINUTE)]
    kept = SliceCounter(count)
    for later in (
        timedelta(0),
        RECOUNT_AFTER - timedelta(seconds=1),
        RECOUNT_AFTER,
        -RECOUNT_AFTER,
    ):  # a clock may be set back
        kept.of(wanted, START + timedelta(hours=1) + later)

    assert len(count.asked) == 3


def test_what_may_still_change_is_never_final():
    count, wanted = Counting(), [TimeSlice(START, START + MINUTE)]
    kept = SliceCounter(count, is_final=lambda result: result >= 3)
    for second in range(5):
        kept.of(wanted, START + timedelta(hours=1, seconds=second))

    assert len(count.asked) == 3


def test_without_time_the_newest_come_first_and_the_open_one_always():
    count, wanted = Counting(), slices_between(START, START + 5 * MINUTE, MINUTE)
    kept = SliceCounter(count, seconds=0)
    now = START + 4.5 * MINUTE

    assert list(kept.of(wanted, now)) == [wanted[-1]]
    kept._seconds = 0.1
    kept.of(wanted, now)
    assert count.asked[1:] == [wanted[-1], *reversed(wanted[:-1])]


def test_what_nobody_wants_any_more_is_forgotten():
    count, kept = Counting(), SliceCounter(Counting())
    kept = SliceCounter(count)
    kept.of([TimeSlice(START, START + MINUTE)], START + RECOUNT_AFTER)
    kept.of([], START + RECOUNT_AFTER)
    kept.of([TimeSlice(START, START + MINUTE)], START + RECOUNT_AFTER)

    assert len(count.asked) == 2


def test_time_that_passes_while_counting_counts(monkeypatch):
    """Each look at the clock is a second later: of three seconds, two are left for closed pieces."""
    seconds = iter(range(1000))
    monkeypatch.setattr(cached_counts.time, "monotonic", lambda: float(next(seconds)))
    count, wanted = Counting(), slices_between(START, START + 60 * MINUTE, MINUTE)

    kept, newest = SliceCounter(count, seconds=3), sorted(wanted, reverse=True)
    first = kept.of(wanted, START + timedelta(hours=2))
    second = kept.of(wanted, START + timedelta(hours=2))

    assert list(first) == newest[: len(first)]
    assert list(second) == newest[: len(second)]
    assert len(second) - len(first) == 2
    assert len(first) == 29, "the first look may take ten times as long"


def test_what_was_counted_longest_ago_comes_first(monkeypatch):
    """With time for one of two that may still change, each has its turn."""
    seconds = iter(range(1000))
    monkeypatch.setattr(cached_counts.time, "monotonic", lambda: float(next(seconds)))
    count, wanted = Counting(), slices_between(START, START + 2 * MINUTE, MINUTE)
    kept = SliceCounter(count, is_final=lambda _result: False, seconds=2)
    for second in range(5):
        kept.of(wanted, START + timedelta(hours=1, seconds=second))

    assert count.asked[2:] == [wanted[1], wanted[0], wanted[1], wanted[0]]
