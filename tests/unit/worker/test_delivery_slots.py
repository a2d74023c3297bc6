"""Places at a sink: those that it keeps waiting step aside, within bounds."""

import asyncio

import pytest

from worker.delivery_slots import MAX_STALLED_PER_SLOT, DeliverySlots


@pytest.fixture
def run():
    """Runs a test with two places at each sink, where a delivery is slow as soon as the loop has come round."""

    def running(scenario, threads=None):
        async def whole():
            freed = []
            await scenario(DeliverySlots(2, threads or {}, lambda: freed.append(True), slow_after=0), freed)

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
        assert (places.number("mail"), places.free("mail"), place.is_aside) == (1, 0, False)

    run(scenario, {"mail": 1})
