"""A process that is told to stop stops, whatever its loops are doing at that instant."""

import asyncio

import pytest

from receipted.runtime import Wake, keep_stepping


@pytest.mark.parametrize("ticks", range(6))
def test_a_loop_that_is_woken_and_stopped_at_once_stops(ticks):
    """A cancellation that comes together with a wake-up is not lost: SIGTERM would be ignored for ever."""

    async def idle():
        return 0

    async def run():
        wake = Wake()
        loop = asyncio.create_task(keep_stepping("idle", idle, wake, 60))
        for _ in range(5):
            await asyncio.sleep(0)
        wake()
        for _ in range(ticks):
            await asyncio.sleep(0)
        loop.cancel()
        done, _ = await asyncio.wait([loop], timeout=1)
        if not done:
            loop.cancel()
        return bool(done)

    assert asyncio.run(run())
