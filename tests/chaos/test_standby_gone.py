"""The synchronous standby is gone and the primary lives: nothing is acknowledged that only one server has."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.rig import BOUND, Rig, migrated, prove, rig
from tests.support.cluster import Cluster, running

#: What an operator, or a role's statement_timeout, does to a commit that takes too long. PostgreSQL answers a cancelled
#: one with success and a warning, and ends the session of a terminated one; both are committed all the same.
_ENDINGS = {
    "cancelled": "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    "terminated": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A primary with a standby that every commit waits for, migrated."""
    with running() as started:
        migrated(started.url)
        started.replicate()
        yield started


def acknowledged_since(running_rig: Rig, moment: float) -> int:
    """How many were answered 200 that were asked after the moment."""
    return sum(asked > moment and status == 200 for asked, _, status in running_rig.load.answers)


@pytest.mark.chaos
@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", sorted(_ENDINGS))
def test_a_commit_that_the_standby_did_not_confirm_is_not_acknowledged(
    cluster: Cluster, tmp_path: Path, how: str
) -> None:
    """503 within the bound, even where its waiting is ended and PostgreSQL has committed; nor is a repeat of ours, or a
    redelivery, acknowledged that finds it there. Then the primary dies with what it alone had.
    """

    async def played() -> Rig:
        async with rig(tmp_path, cluster.url) as running_rig:
            await running_rig.acknowledged(30)
            await asyncio.to_thread(cluster.standby.kill)
            gone_at, ended = time.monotonic(), 0
            while time.monotonic() < gone_at + 5:
                ended += len(await asyncio.to_thread(cluster.primary.execute, _ENDINGS[how]))
            assert ended > 0, "nobody's waiting was ended"
            await running_rig.refused(len(running_rig.senders), 2 * BOUND)
            assert acknowledged_since(running_rig, gone_at) == 0
            print(f"{ended} commits ended while they waited for the standby")
            await asyncio.to_thread(cluster.primary.kill)
            await asyncio.to_thread(cluster.standby.start)
            await asyncio.to_thread(cluster.promote)
            await running_rig.acknowledged(30)
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_the_standby_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    """While it is frozen nothing is acknowledged and nobody hangs; then everything goes on by itself."""

    async def played() -> Rig:
        async with rig(tmp_path, cluster.url) as running_rig:
            await running_rig.acknowledged(30)
            cluster.standby.freeze()
            frozen_at = time.monotonic()
            await running_rig.refused(len(running_rig.senders), 2 * BOUND)
            assert acknowledged_since(running_rig, frozen_at) == 0
            cluster.standby.thaw()
            thawed_at = time.monotonic()
            await running_rig.acknowledged(30)
            print(f"recovered {running_rig.load.first_after(thawed_at, 200)} s after the standby")
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_the_old_primary_comes_back_and_believes_that_it_is_one(cluster: Cluster, tmp_path: Path) -> None:
    """Frozen, replaced and awake again, it takes connections and confirms nothing, for its standby has left it; when it
    is gone for good, everything goes on at the new one.
    """

    async def played() -> Rig:
        async with rig(tmp_path, cluster.url) as running_rig:
            await running_rig.acknowledged(30)
            cluster.primary.freeze()
            await asyncio.to_thread(cluster.promote)
            promoted_at = time.monotonic()
            await running_rig.acknowledged(20)
            print(f"recovered {running_rig.load.first_after(promoted_at)} s after the promotion, the other one frozen")
            cluster.standby.thaw()  # the old primary, which nobody has told
            await asyncio.to_thread(cluster.primary.execute, "SELECT pg_sleep(1)")
            await asyncio.to_thread(cluster.standby.kill)
            await running_rig.acknowledged(20)
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))
