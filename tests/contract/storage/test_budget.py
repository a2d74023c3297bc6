"""An account's budget and quarantine on every database: shared by everybody who sends, and bounded."""

import threading
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import budget, quarantine
from storage.ids import new_id
from storage.tables import RejectedDelivery
from tests.fakes.clock import START

shared = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reserve(database, account, now, interval):
    with database.write() as unit:
        return budget.reserve(unit, account, now, interval)


@shared
@given(
    st.lists(st.integers(-300, 1000), min_size=1, max_size=8),
    st.timedeltas(timedelta(milliseconds=1), timedelta(seconds=30)),
    st.none() | st.integers(0, 2000),
)
def test_no_two_slots_are_closer_than_the_interval(database, steps, interval, paused_for):
    """Whatever the clock does, backwards too, slots lie apart, none in the past, and none within a pause."""
    account, now, slots = new_id(), START, []
    for at, step in enumerate(steps):
        now += timedelta(milliseconds=step)
        if at == 1 and paused_for is not None:
            with database.write() as unit:
                budget.pause(unit, account, now, now + timedelta(milliseconds=paused_for))
            until = now + timedelta(milliseconds=paused_for)
        slots.append(reserve(database, account, now, interval))
        assert slots[-1] >= now
        if at >= 1 and paused_for is not None:
            assert slots[-1] >= until

    assert all(later - earlier >= interval for earlier, later in pairwise(slots))


def test_threads_of_two_processes_share_one_budget(database, again):
    """Twenty-four requests at once leave one interval apart."""
    interval, slots, gate = timedelta(milliseconds=200), [], threading.Barrier(4)

    def send(opened):
        gate.wait()
        slots.extend(reserve(opened, "acme", START, interval) for _ in range(6))

    threads = [threading.Thread(target=send, args=(opened,)) for opened in (database, again) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(slots) == [START + interval * n for n in range(24)]


def test_a_longer_pause_stands(database):
    """A shorter pause does not end a longer one, and accounts do not pause each other."""
    for seconds in (60, 10):
        with database.write() as unit:
            budget.pause(unit, "acme", START, START + timedelta(seconds=seconds))

    assert reserve(database, "acme", START, timedelta(0)) == START + timedelta(seconds=60)
    assert reserve(database, "other", START, timedelta(0)) == START


@pytest.mark.parametrize("bound", [1, 3])
def test_the_quarantine_is_bounded_for_each_account(database, bound):
    """The newest rejected deliveries are kept, the oldest make room, and one account cannot push out another's."""

    def keep(account):
        rejected = RejectedDelivery(
            id="", account=account, received_at=START, reason="signature_wrong", client="::1", headers=[], body=b""
        )
        with database.write() as unit:
            quarantine.keep(unit, rejected, at_most=bound)
        return rejected.id

    other = keep("other")
    kept = [keep("acme") for _ in range(5)]

    with database.write() as unit:
        assert [r.id for r in quarantine.find(unit, "acme")] == kept[-bound:]
        assert [r.id for r in quarantine.find(unit, "other")] == [other]
        quarantine.remove(unit, other)
        assert quarantine.find(unit, "other") == []
