"""All of Receipted behind a pgbouncer in transaction mode, with fewer sessions than it has connections."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.rig import Rig, migrated, prove, rig
from tests.support.cluster import running
from tests.support.pgbouncer import pooling


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_every_transaction_may_be_in_another_session(tmp_path: Path) -> None:
    """Migrated, received, applied and delivered, with a role whose own settings would lose what was acknowledged; and
    sessions are ended under way.
    """

    async def played(url: str) -> Rig:
        async with rig(tmp_path, url, workers=2) as running_rig:
            await running_rig.acknowledged(100)
            ended = await asyncio.to_thread(
                cluster.primary.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'receipted'",
            )
            await running_rig.acknowledged(100)
            await running_rig.quiet()
        print(f"{len(ended)} sessions ended")
        return running_rig

    with running() as cluster:
        cluster.primary.execute("ALTER DATABASE receipted SET synchronous_commit = off")
        with pooling(cluster.primary, sessions=4) as port:
            url = f"postgresql://postgres@127.0.0.1:{port}/receipted?pooler=transaction"
            migrated(url)
            prove(asyncio.run(played(url)))
