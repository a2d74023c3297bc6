"""The primary dies and its standby takes over: what was answered 200 is there, and nothing happens twice."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.load import until
from tests.chaos.rig import Rig, migrated, prove, rig
from tests.support.cluster import Cluster, running

#: Seconds within which everything works again once a server takes writes.
RECOVERY = 5.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A primary with a standby that every commit waits for, migrated."""
    with running() as started:
        migrated(started.url)
        started.replicate()
        yield started


async def _fail_over(cluster: Cluster, running_rig: Rig) -> tuple[float, float]:
    """Kills the primary, promotes the standby; seconds until a delivery was acknowledged, and an effect delivered."""
    load, shop = running_rig.load, running_rig.shop
    await asyncio.to_thread(cluster.primary.kill)
    await running_rig.refused(10)
    await asyncio.to_thread(cluster.promote)
    promoted_at, received = time.monotonic(), shop.received
    await until(lambda: shop.received > received, 30, "the worker did not recover")
    worked_after = time.monotonic() - promoted_at
    await running_rig.acknowledged(50)
    return load.first_after(promoted_at) or 0.0, worked_after


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_the_primary_is_killed_and_the_standby_promoted(cluster: Cluster, tmp_path: Path) -> None:
    """Twice, there and back: in between every delivery is answered 503 within the bound, and nobody starts anything."""

    async def played() -> Rig:
        async with rig(tmp_path, cluster.url) as running_rig:
            await running_rig.acknowledged(60)
            there = await _fail_over(cluster, running_rig)
            await asyncio.to_thread(cluster.rewind)
            back = await _fail_over(cluster, running_rig)
            print(f"way in and work recovered {there[0]:.2f} s and {there[1]:.2f} s after the promotion,")
            print(f"and {back[0]:.2f} s and {back[1]:.2f} s after the one back")
            assert max(*there, *back) < RECOVERY
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))
