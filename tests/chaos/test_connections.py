"""Connections to PostgreSQL that break, hang, are ended by an operator or are not to be had: 503, and nothing lost."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.chaos.rig import BOUND, SEED, Rig, migrated, prove, rig
from tests.support.cluster import Cluster, running
from tests.support.wire import Wire

#: Every session but the one that asks.
_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'receipted' AND pid <> pg_backend_pid()"
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One server, migrated."""
    with running(connections=25) as started:
        migrated(started.primary.url("receipted"))
        yield started


def over(wire: Wire) -> str:
    """The database's URL, over the wire."""
    return f"postgresql://postgres@127.0.0.1:{wire.port}/receipted"


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_connections_are_cut_again_and_again(cluster: Cluster, tmp_path: Path) -> None:
    """Resets at random moments, a commit's among them: what was acknowledged is there, once."""
    moments = random.Random(SEED + 1)

    async def played() -> Rig:
        direct = cluster.primary.url("receipted")
        async with Wire(cluster.primary.port) as wire, rig(tmp_path, over(wire), direct=direct) as running_rig:
            for _ in range(15):
                await asyncio.sleep(moments.uniform(0.0, 0.4))
                wire.cut()
                await running_rig.refused(1)
                wire.mend()
                await running_rig.acknowledged(5)
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_the_network_goes_dead_without_a_word(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing is closed and nothing answers: requests are refused within the bound, and the work goes on afterwards."""

    async def played() -> Rig:
        direct = cluster.primary.url("receipted")
        async with Wire(cluster.primary.port) as wire, rig(tmp_path, over(wire), direct=direct) as running_rig:
            wire.go_dead()
            await running_rig.refused(6, 2 * BOUND)
            wire.mend()
            await running_rig.acknowledged(30)
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_every_session_is_ended_again_and_again(cluster: Cluster, tmp_path: Path) -> None:
    """pg_terminate_backend() for everybody, 60 times under load, in whatever they do at that moment."""
    moments = random.Random(SEED + 2)

    async def played() -> Rig:
        ended = 0
        async with rig(tmp_path, cluster.primary.url("receipted")) as running_rig:
            for _ in range(60):
                await asyncio.sleep(moments.uniform(0.0, 0.15))
                ended += len(await asyncio.to_thread(cluster.primary.execute, _OTHERS))
            await running_rig.acknowledged(30)
            await running_rig.quiet()
        print(f"{ended} sessions ended")
        assert ended >= 60
        return running_rig

    prove(asyncio.run(played()))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_others_hold_every_connection_of_the_server(cluster: Cluster, tmp_path: Path) -> None:
    """`max_connections` is reached: 503 for as long as that lasts, and no restart afterwards."""
    url = cluster.primary.url("receipted")

    def hold(held: ExitStack) -> int:
        count = 0
        while True:
            try:
                held.enter_context(psycopg.connect(url, application_name="hog", autocommit=True))
                count += 1
            except psycopg.OperationalError as full:
                if "too many clients" in str(full):
                    return count
                raise

    def hold_all(held: ExitStack) -> None:
        """Ours are ended, and others are quicker."""
        first = held.enter_context(psycopg.connect(url, application_name="hog", autocommit=True))
        for _ in range(20):
            first.execute(f"{_OTHERS} AND application_name <> 'hog'")
            hold(held)
        names = first.execute("SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = 'receipted'")
        assert names.fetchall() == [("hog",)]

    async def played() -> Rig:
        async with rig(tmp_path, url) as running_rig:
            with ExitStack() as held:
                await asyncio.to_thread(hold_all, held)
                await running_rig.refused(30)
            await running_rig.acknowledged(30)
            await running_rig.quiet()
        return running_rig

    prove(asyncio.run(played()))
