"""An account's budget and quarantine on every database: shared by everybody who sends, and bounded."""

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import quarantine, rate_limits
from storage.ids import new_id
from storage.rate_limits import MAX_DELAY, Rate, SlotRequest
from storage.tables import RejectedDelivery
from tests.support.clock import START

shared = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reserve(database, account, now, rate, **wish):
    with database.write() as unit:
        return rate_limits.reserve(unit, account, now, rate, SlotRequest(**wish))


def pause(database, account, now, wait):
    with database.write() as unit:
        rate_limits.pause(unit, account, now, wait)


@shared
@given(
    st.lists(st.integers(-300, 1000), min_size=1, max_size=8),
    st.integers(1, 40),
    st.none() | st.integers(0, 2000),
)
def test_no_two_slots_are_closer_than_the_spacing(database, steps, requests, paused_for):
    """Whatever the caller's clock does, backwards too, slots lie apart, and none in the past or within a pause."""
    account, now, slots = new_id(), START, []
    rate = Rate.of(requests, 10.0)
    for at, step in enumerate(steps):
        now += timedelta(milliseconds=step)
        if at == 1 and paused_for is not None:
            pause(database, account, now, timedelta(milliseconds=paused_for))
            with database.read() as unit:
                left = rate_limits.pause_left(unit, account, now)
        slot = reserve(database, account, now, rate)
        slots.append(slot.at)
        assert slot.is_granted
        assert slot.good_for >= rate.lateness - rate.grace
        if at == 1 and paused_for is not None and database.engine.dialect.name == "sqlite":
            assert slot.wait >= left == timedelta(milliseconds=paused_for)

    assert all(later - earlier >= rate.spacing for earlier, later in pairwise(slots))


def test_threads_of_two_processes_share_one_budget(database, again):
    """Twenty-four requests at once leave one spacing apart."""
    rate, slots, gate = Rate.of(5, 1.0), [], threading.Barrier(4)

    def send(opened):
        gate.wait()
        slots.extend(reserve(opened, "acme", START, rate).at for _ in range(6))

    threads = [threading.Thread(target=send, args=(opened,)) for opened in (database, again) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(slots) == [min(slots) + rate.spacing * n for n in range(24)]


def test_a_longer_pause_stands(database):
    """A shorter pause does not end a longer one, accounts do not pause each other, and no pause is for ever."""
    rate = Rate.of(5, 1.0)
    for seconds in (60, 10):
        pause(database, "acme", START, timedelta(seconds=seconds))

    assert reserve(database, "acme", START, rate).wait > timedelta(seconds=55)
    assert reserve(database, "other", START, rate).wait <= timedelta(0)
    pause(database, "third", START, timedelta(days=4000))
    with database.read() as unit:
        assert timedelta(days=1) < rate_limits.pause_left(unit, "third", START) <= MAX_DELAY


def test_a_patient_caller_never_reserves_ahead(database):
    """It gets a slot that has begun or learns when to come; urgent ones then leave one slot in five to it."""
    rate = Rate.of(1, 60.0)
    assert reserve(database, "acme", START, rate, is_patient=True).is_granted
    told = reserve(database, "acme", START, rate, is_patient=True)
    assert not told.is_granted
    assert timedelta(seconds=55) < told.wait <= rate.spacing
    with database.read() as unit:
        again = rate_limits.worth_trying(unit, "acme", START, rate, SlotRequest(is_patient=True))
    assert again is not None
    assert timedelta(seconds=55) < again <= rate.spacing

    given_away = [reserve(database, "acme", START, rate).at for _ in range(8)]
    gaps = [later - earlier for earlier, later in pairwise(given_away)]
    assert gaps == [rate.spacing] * 3 + [rate.spacing * 2] + [rate.spacing] * 3


def test_a_slot_that_was_too_late_is_given_back_once(database):
    """Who was late has another at once where nobody has reserved since; where somebody has, the end of the queue."""
    rate = Rate.of(1, 3600.0)
    reserve(database, "acme", START, rate)  # the others lie an hour ahead, however long a statement takes
    late = reserve(database, "acme", START, rate)
    assert reserve(database, "acme", START, rate, unused=late).at == late.at
    behind = reserve(database, "acme", START, rate)
    assert reserve(database, "acme", START, rate, unused=late).at == behind.at + rate.spacing


def test_who_is_given_more_time_puts_off_the_next(database):
    """A slot with extra time is followed by so much less room, so that the window still holds no more."""
    rate, extra = Rate.of(5, 1.0), timedelta(seconds=3)
    slow = reserve(database, "acme", START, rate, extra=extra)

    assert slow.good_for > extra
    assert reserve(database, "acme", START, rate).at == slow.at + rate.spacing + extra


def test_an_answer_that_takes_time_is_reckoned_with(database):
    """A slot begins when the answer arrives, for patient callers too, and those who wait behind one are known."""
    rate, lead = Rate.of(1, 60.0), timedelta(milliseconds=200)
    slot = reserve(database, "acme", START, rate, is_patient=True, lead=lead, are_more=True)
    assert slot.is_granted
    assert slot.wait == lead
    assert slot.good_for == lead + rate.lateness

    ahead = [reserve(database, "acme", START, rate).at for _ in range(5)]
    assert ahead[4] - ahead[3] == 2 * rate.spacing, "one slot in five is left to those behind it"


def test_the_hosts_clocks_do_not_matter_on_postgresql(postgresql):
    """Two hosts whose clocks are days apart share one queue; the wait is reckoned by the database's clock."""
    database, rate = postgresql.copy(), Rate.of(5, 1.0)
    hosts = (START - timedelta(days=3), START, datetime(2100, 1, 1, tzinfo=UTC))
    slots = [reserve(database, "acme", host, rate) for host in hosts * 2]
    postgresql.drop(database)

    assert [slot.at for slot in slots] == [slots[0].at + rate.spacing * n for n in range(6)]
    assert all(slot.wait <= rate.spacing * 6 for slot in slots)


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
