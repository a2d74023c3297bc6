"""The work beside an application that is served, as another process would do it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from receipted.app import working
from receipted.settings.load import Settings
from receipted.wiring import Service
from tests.support.waiting import DEADLINE_S


@contextmanager
def worker(config: Settings) -> Iterator[Service]:
    """What `receipted worker` does with these settings, by a service of its own, in a thread."""
    service = Service(config)
    started, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with working(service):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(DEADLINE_S)
        yield service
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(DEADLINE_S)
        service.close()
        assert not thread.is_alive()
