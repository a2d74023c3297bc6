"""The loop around a step; receipted/runtime.py."""

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from receipted import runtime
from receipted.runtime import ProcessWake, Wake, keep_stepping
from storage.errors import StorageUnavailable


def run(step, monkeypatch, *, then=lambda: None, tick=1.0):
    """Step until the step raises Cancelled; returns the waits that it asked for while storage was away."""
    waits = []

    async def main():
        async def no_sleep(seconds):
            waits.append(seconds)

        monkeypatch.setattr(runtime.asyncio, "sleep", no_sleep)
        with pytest.raises(asyncio.CancelledError), capture_logs():
            await keep_stepping("test", step, Wake(), tick, then)

    asyncio.run(main())
    return waits


def test_waits_grow_while_storage_is_away_and_never_end_the_loop(monkeypatch):
    """An outage of a day is waited out: the waits are bounded, and so is their computation."""
    left = [StorageUnavailable()] * 3000

    async def step():
        if left:
            raise left.pop()
        raise asyncio.CancelledError

    waits = run(step, monkeypatch)
    assert waits[:6] == [2.0, 4.0, 5.0, 5.0, 5.0, 5.0]
    assert sorted(set(waits[2:])) == [5.0]
    assert len(waits) == 3000


def test_a_step_that_did_something_is_followed_by_the_next_at_once(monkeypatch):
    """And tells the loop behind it."""
    results, told = [3, 1, 2], []

    async def step():
        if results:
            return results.pop()
        raise asyncio.CancelledError

    assert run(step, monkeypatch, then=lambda: told.append(len(results))) == []
    assert told == [2, 1, 0]


def test_a_wake_up_while_the_step_works_is_not_lost():
    """Work that comes during a step is looked for at once after it."""

    async def main():
        wake, steps = Wake(), []

        async def step():
            steps.append(1)
            if len(steps) == 1:
                wake()
                await asyncio.sleep(0)
                return 0
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(keep_stepping("test", step, wake, tick=60), 5)
        return len(steps)

    assert asyncio.run(main()) == 2


def test_wake_ups_that_come_soon_are_one():
    """The first wakes at once, the next not before the gap has passed, however many there were."""

    async def main():
        loop, wake = asyncio.get_running_loop(), Wake(0.2)
        started = loop.time()
        wake()
        await wake.wait(60)
        first = loop.time() - started
        for _ in range(5):
            wake()
            await asyncio.sleep(0)
        await wake.wait(60)
        second = loop.time() - started
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wake.wait(60)
        return first, second

    first, second = asyncio.run(main())
    assert first < 0.15
    assert second >= 0.19


def test_a_wake_up_comes_from_another_process():
    """However many there are, none blocks the process that sends them, and the last one is not lost."""
    wake = ProcessWake()
    for _ in range(100_000):
        wake()

    async def main():
        woken = asyncio.Event()
        with wake.waking(woken.set):
            await woken.wait()
            for _ in range(100):  # until the pipe is empty
                woken.clear()
                await asyncio.sleep(0)
            child = os.fork()
            if not child:
                wake()
                os._exit(0)
            async with asyncio.timeout(30):
                await woken.wait()
            return child

    assert os.waitpid(asyncio.run(main()), 0)[1] == 0
