"""Handlers of a shop that do not end, each in a way of its own; each says that it has begun."""

import asyncio
import os
import time
from pathlib import Path

FOR_EVER_S = 3600.0


def _begun() -> None:
    Path(os.environ["HANGING"]).touch()  # noqa: TID251 - of a shop's process, which the test began


def in_a_thread(_effect: object) -> None:
    """Wait for what does not come."""
    _begun()
    time.sleep(FOR_EVER_S)


def busy_in_a_thread(_effect: object) -> None:
    """Work without an end."""
    _begun()
    while True:
        sum(range(1000))


async def in_the_loop(_effect: object) -> None:
    """Hold up the event loop itself."""
    _begun()
    time.sleep(FOR_EVER_S)  # noqa: ASYNC251 - just that is what others' code may do


async def that_will_not_be_cancelled(_effect: object) -> None:
    """Swallow every cancellation."""
    _begun()
    while True:
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            continue
