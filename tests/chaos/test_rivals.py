"""Others at the same rows: deadlocks, stricter isolation, and a worker that sleeps beyond its lease and wakes."""

import asyncio
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from storage import payments
from storage.database import Database
from storage.errors import StorageUnavailable
from tests.chaos.load import until
from tests.chaos.rig import SEED, Rig, migrated, prove, rig
from tests.chaos.shop import Shop
from tests.support.cluster import Cluster, running

#: How often PostgreSQL looks for deadlocks, which is once a second by default.
_EAGER = "deadlock_timeout = 20ms"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One server, migrated."""
    with running(more=_EAGER) as started:
        migrated(started.primary.url("receipted"))
        yield started


def count(cluster: Cluster, column: str) -> int:
    """What PostgreSQL counted in the database so far."""
    found = cluster.primary.execute("SELECT to_jsonb(d) FROM pg_stat_database AS d WHERE datname = 'receipted'")
    return int(found[0][0][column])


@contextmanager
def rival(url: str) -> Iterator[None]:
    """Somebody locks the newest payments, in the order in which nobody else does, until the end of the block."""
    ends, draws = threading.Event(), random.Random(SEED + 3)
    database = Database(url)

    def cross() -> None:
        while not ends.is_set():
            try:
                with database.read() as unit:
                    newest = [payment.id for payment in payments.find(unit, limit=10_000)][-12:]
                with database.write() as unit:
                    for payment_id in reversed(newest):
                        payments.get(unit, payment_id, lock=True)
                        ends.wait(draws.uniform(0.0, 0.02))
            except StorageUnavailable:
                continue  # it was the victim

    threads = [threading.Thread(target=cross) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)
        database.close()


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_deadlocks(cluster: Cluster, tmp_path: Path) -> None:
    """Units of work that PostgreSQL ends because of another are done again, and never half."""
    url = cluster.primary.url("receipted")

    async def played() -> Rig:
        async with rig(tmp_path, url, workers=2) as running_rig:
            with rival(url):
                await until(lambda: count(cluster, "deadlocks") >= 20, 40, "PostgreSQL found no 20 deadlocks")
            await running_rig.quiet()
            ours = [line for name in ("worker0", "worker1") for line in running_rig.logged(name, "service.waiting")]
        print(f"{count(cluster, 'deadlocks')} deadlocks, of which {len(ours)} ended a unit of work of a worker's loop")
        assert ours, "none of them was a worker's"
        return running_rig

    prove(asyncio.run(played()))


@pytest.mark.chaos
@pytest.mark.timeout(90)
def test_everybody_else_is_serializable(cluster: Cluster, tmp_path: Path) -> None:
    """A database whose default isolation is another, and deliveries that come twice at the same moment."""
    url = cluster.primary.url("receipted")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE receipted SET default_transaction_isolation = 'serializable'")

    async def played() -> Rig:
        async with rig(tmp_path, url, workers=2) as running_rig:
            with rival(url):
                await running_rig.acknowledged(300)
            await running_rig.quiet()
        print(f"{count(cluster, 'xact_rollback')} transactions rolled back")
        assert running_rig.load.count(503) == 0, "the way in was refused by an isolation that it did not ask for"
        return running_rig

    prove(asyncio.run(played()))


class GatedShop(Shop):
    """A shop that can be made to take its time."""

    def __init__(self) -> None:
        super().__init__(b"k" * 32)
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.waiting = 0  #: effects that it has been handed and has not answered

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; what is read is answered only while the gate is open."""
        gated = asyncio.StreamReader()

        async def pass_on() -> None:
            while found := await reader.read(65536):
                self.waiting += found.count(b"POST /shop ")
                await self.is_open.wait()
                gated.feed_data(found)
            gated.feed_eof()

        passing = asyncio.create_task(pass_on())
        try:
            await super().serve(gated, writer)
        finally:
            passing.cancel()


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_a_worker_sleeps_beyond_its_lease_and_wakes(cluster: Cluster, tmp_path: Path) -> None:
    """Stopped with effects in its hands, it comes back when another has delivered them: what it has to say is refused,
    so that nothing is overwritten, and the shop has seen the same id.
    """

    async def played() -> Rig:
        shop = GatedShop()
        async with rig(tmp_path, cluster.primary.url("receipted"), shop=shop, workers=2) as running_rig:
            sleeper, other = (running_rig.processes[name] for name in ("worker0", "worker1"))
            other.send_signal(signal.SIGSTOP)  # so that the sleeper has something in its hands
            shop.is_open.clear()
            waiting = shop.waiting
            await until(lambda: shop.waiting > waiting + 6, 20, "the worker hands nothing over")
            sleeper.send_signal(signal.SIGSTOP)
            other.send_signal(signal.SIGCONT)
            shop.is_open.set()
            # All that it had is delivered by the other one, once its leases are over and its transaction is ended.
            await running_rig.quiet(40)
            sleeper.send_signal(signal.SIGCONT)
            await until(lambda: bool(running_rig.logged("worker0", "effect.lease_lost")), 20, "it was not refused")
            refused = len(running_rig.logged("worker0", "effect.lease_lost"))
        print(f"{refused} effects were settled too late, and refused")
        return running_rig

    prove(asyncio.run(played()))
