"""Slots of a sink: stalled deliveries leave theirs, within bounds, and retries leave some to others."""

import asyncio

import pytest

from worker.delivery_slots import MAX_STALLED_PER_SLOT, DeliverySlots


@pytest.fixture
def run():
    """Runs a test with two places at each sink, where a delivery is slow as soon as the loop has come round."""

    def running(scenario, threads=None):
        async def whole():
            freed = []
            await scenario(DeliverySlots(2, threads or {}, lambda: freed.append(True), stall_after=0), freed)

        asyncio.run(whole())

    return running


async def a_moment():
    """Timers that are due have run."""
    await asyncio.sleep(0.001)


def test_each_sink_has_its_own(run):
    async def scenario(places, _freed):
        places.take("shop")
        places.take("shop")
        assert (places.free("shop"), places.free("ledger")) == (0, 2)

    run(scenario)


def test_what_ends_soon_gives_its_place_back_once(run):
    async def scenario(places, freed):
        place = places.take("shop")
        places.give_back(place)
        await a_moment()
        assert (places.free("shop"), freed) == (2, [])

    run(scenario)


def test_what_is_kept_waiting_steps_aside_as_far_as_there_is_room(run):
    async def scenario(places, freed):
        aside = []
        for _ in range(2 * MAX_STALLED_PER_SLOT):
            aside.append(places.take("shop"))
            await a_moment()
            assert places.free("shop") == 2
        late = [places.take("shop"), places.take("shop")]
        await a_moment()
        assert places.free("shop") == 0
        assert len(freed) == 2 * MAX_STALLED_PER_SLOT
        places.give_back(aside[0])
        assert places.free("shop") == 1
        places.give_back(late[1])
        assert places.free("shop") == 2
        for place in (*aside[1:], late[0]):
            places.give_back(place)
        assert places.free("shop") == 2

    run(scenario)


def test_a_sink_of_threads_has_no_more_places_than_threads(run):
    """A call that waits for a thread would be counted as one that the sink keeps waiting."""

    async def scenario(places, _freed):
        place = places.take("mail")
        await a_moment()
        assert (places.number("mail"), places.free("mail"), place.is_stalled) == (1, 0, False)

    run(scenario, {"mail": 1})


def test_retries_leave_slots_to_what_was_never_tried(run):
    """A quarter of the slots is theirs while others wait, and three quarters otherwise."""

    async def scenario(_slots, _freed):
        slots = DeliverySlots(8, {}, lambda: None)
        taken = [slots.take("shop", is_retry=True)]
        assert slots.free_for_retries("shop", is_alone=False) == 1
        assert slots.free_for_retries("shop", is_alone=True) == 5
        taken += [slots.take("shop", is_retry=True) for _ in range(5)]
        assert slots.free_for_retries("shop", is_alone=True) == 0
        assert slots.free("shop") == 2
        assert DeliverySlots(1, {}, lambda: None).free_for_retries("shop", is_alone=False) == 1
        for slot in taken:
            slots.give_back(slot)

    run(scenario)


def test_stalled_retries_leave_room_for_other_stalled_deliveries(run):
    """At most a quarter of the room beside the slots is theirs."""

    async def scenario(slots, _freed):
        retries = []
        for _ in range(2 * MAX_STALLED_PER_SLOT // 4):
            retries.append(slots.take("shop", is_retry=True))
            await a_moment()
        late = slots.take("shop", is_retry=True)
        await a_moment()
        assert slots.free("shop") == 1
        first = slots.take("shop")
        await a_moment()
        assert slots.free("shop") == 1
        slots.give_back(first)
        slots.give_back(retries[0])
        assert slots.free("shop") == 2
        assert late.is_stalled

    run(scenario)


def test_a_delivery_is_stalled_after_a_multiple_of_the_usual_time(run):
    """A shop that answers at once does not wait half a second for one that it does not answer."""

    async def scenario(_slots, _freed):
        slots = DeliverySlots(2, {}, lambda: None)
        assert slots.stall_after("shop") == 0.5
        for _ in range(100):
            slots.give_back(slots.take("shop"))
        assert slots.stall_after("shop") == 0.1
        assert slots.stall_after("ledger") == 0.5

    run(scenario)
