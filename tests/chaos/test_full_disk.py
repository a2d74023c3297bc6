"""The disk of PostgreSQL is full: 503 while that lasts, nothing lost, and no restart of ours afterwards."""

import asyncio
import errno
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.rig import Rig, migrated, prove, rig
from tests.support.cluster import Cluster, running

#: A disk of the test's own, in memory.
_SIZE = "160m"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small file system; skips the test where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="receipted-disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0755", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        folder.rmdir()
        reason = f"no file system may be mounted here, and nothing else is full at will: {done.stderr.strip()}"
        pytest.skip(reason)  # it takes root, as in CI
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


def fill(disk: Path) -> Path:
    """A file that leaves no room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise
    return filler


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_there_is_no_room_for_data(disk: Path, tmp_path: Path) -> None:
    """Tables cannot grow, and the log of writes still can: the server lives and refuses, again and again."""

    async def played(cluster: Cluster) -> Rig:
        async with rig(tmp_path, cluster.primary.url("receipted")) as running_rig:
            for _ in range(2):
                filler = await asyncio.to_thread(fill, disk)
                await running_rig.refused(20)
                filler.unlink()
                await running_rig.acknowledged(30)
            await running_rig.quiet()
        assert cluster.primary.is_running
        return running_rig

    with running(data=disk) as cluster:
        migrated(cluster.primary.url("receipted"))
        prove(asyncio.run(played(cluster)))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_there_is_no_room_for_the_log_of_writes(disk: Path, tmp_path: Path) -> None:
    """PostgreSQL ends itself then; it is started again when there is room, and ours go on."""

    async def played(cluster: Cluster) -> Rig:
        async with rig(tmp_path, cluster.primary.url("receipted")) as running_rig:
            filler = await asyncio.to_thread(fill, disk)
            await running_rig.refused(20)
            await asyncio.to_thread(cluster.primary.kill)  # it may be trying to recover, which it cannot
            filler.unlink()
            await asyncio.to_thread(cluster.primary.start)
            await running_rig.acknowledged(30)
            await running_rig.quiet()
        return running_rig

    with running(wal=disk) as cluster:
        migrated(cluster.primary.url("receipted"))
        prove(asyncio.run(played(cluster)))
