"""`kill -9` at random moments under load: no acknowledged delivery is lost, no effect is doubled."""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from receipted.settings import load as settings_load
from receipted.wiring import Service
from storage import inbox, migrate
from storage.database import Database
from tests.chaos.load import Connection, Load, until
from tests.chaos.shop import Shop
from tests.support import waiting
from tests.support.deliveries import KEYS

SEED = int(os.environ.get("CHAOS_SEED", "20261121"))  # noqa: TID251 - a test's own knob
KILLS = int(os.environ.get("CHAOS_KILLS", "50"))  # noqa: TID251 - a test's own knob
CONNECTIONS = 12

#: Effects that may be owed before the providers wait for the shop.
AHEAD = 1000
ROOT = Path(__file__).parents[2]

STORED = "SELECT body, id FROM inbox_message WHERE source = 'webhook'"
DOUBLED = "SELECT body FROM inbox_message WHERE source = 'webhook' GROUP BY body HAVING count(*) > 1"
OWED = "SELECT p.provider_ref, o.effect, o.status FROM outbox o JOIN payment p ON p.id = o.payment_id"
STILL_OWED = "SELECT count(*) FROM outbox WHERE status = 'pending'"

CONFIG = """
[service]
database = "sqlite:///{folder}/receipted.db"
public_url = "https://pay.shop.example"
listen_port = {port}
development = true
token_keys = [{{ id = "t1", secret = "plain:token-key-for-chaos-00001" }}]

[worker]
tick_seconds = 0.1
lease_seconds = 2

[fulfilment]
timeout_seconds = 1
schedule_seconds = [0.1, 0.2, 0.5, 1, 1, 1, 1, 1, 1, 1]

[[sinks]]
name = "shop"
url = "http://127.0.0.1:{shop}/shop"
secrets = ["plain:{secret}"]

[accounts.sg]
provider = "stable_genius"
base_url = "http://127.0.0.1:{shop}/v1"
secrets = {{ api_key = "plain:sk_test_chaos" }}
webhook_keys = [{{ id = "k1", secret = "plain:{sg}" }}]

[accounts.pf]
provider = "payfield"
base_url = "http://127.0.0.1:{shop}/pf"
secrets = {{ api_key = "plain:key", api_secret = "plain:secret-of-payfield-chaos" }}
options = {{ default_kind = "payin" }}
webhook_keys = [{{ id = "k1", secret = "plain:{pf}" }}]
"""


class FullLoad(Load):
    """As fast as the machine answers; new histories wait only where far more is owed than the shop has got."""

    def __init__(self, port: int, rng: random.Random, shop: Shop) -> None:
        super().__init__(port, rng, pause=0)
        self._shop = shop

    async def tell(self, connection: Connection) -> None:
        """As the others, and not so far ahead of the worker that the end is nothing but waiting."""
        await until(lambda: len(self.owed) - len(self._shop.ids) < AHEAD, 120, "the shop gets nothing")
        await super().tell(connection)


class Processes:
    """`receipted serve`, or `web` and `worker`, each killed and started again and again."""

    def __init__(self, config: Path, log: Path, commands: Sequence[str]) -> None:
        self._config, self._log, self._commands = config, log, commands
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._unready: set[str] = set()

    async def start(self) -> None:
        """Every process runs; one that was killed may not answer yet."""
        for command in self._commands:
            if command not in self._running:
                self._running[command] = await self._begun(command)
                self._unready.add(command)

    async def are_ready(self) -> None:
        """Return when every process answers."""
        for command in sorted(self._unready):
            await is_ready(self._running[command])
        self._unready.clear()

    async def kill(self, command: str) -> None:
        """One of them gets no chance to do anything more."""
        self._unready.discard(command)
        await kill(self._running.pop(command))

    async def stop(self) -> None:
        """All end in order."""
        for process in self._running.values():
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0

    async def discard(self) -> None:
        """Whatever became of them, they are gone."""
        for process in self._running.values():
            if process.returncode is None:
                await kill(process)

    async def _begun(self, command: str) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from receipted.cli.main import main; main()",
                *("--config", str(self._config), command, "--json"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )


async def is_ready(process: asyncio.subprocess.Process) -> None:
    """Return when it answers."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line, "it ended before it answered"


async def kill(process: asyncio.subprocess.Process) -> None:
    """No chance to do anything more."""
    process.send_signal(signal.SIGKILL)
    assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_acknowledged_delivery_is_lost_and_no_effect_doubled(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Fifty kills under full load: what was answered 200 is in the inbox, every payment is in its right state, and each
    effect was owed once, whatever came twice.
    """
    print(f"\nCHAOS_SEED={SEED} CHAOS_KILLS={KILLS}")
    started = time.monotonic()
    shop = Shop(b"k" * 32)
    url, commands = f"sqlite:///{tmp_path}/receipted.db", ("serve",)
    if kind == "postgresql":
        with closing(request.getfixturevalue("postgresql").copy()) as copy:
            url, commands = copy.url, ("web", "worker")
    load, listening = asyncio.run(_torment(tmp_path, shop, url, commands))
    with closing(Database(url)) as database, database.read() as unit:
        if kind == "sqlite":
            assert unit.execute(text("PRAGMA integrity_check")).all() == [("ok",)]
        stored = {row.body: str(UUID(str(row.id))) for row in unit.execute(text(STORED))}
        doubled = unit.execute(text(DOUBLED)).all()
        states = dict(tuple(row) for row in unit.execute(text("SELECT provider_ref, state FROM payment")))
        count = unit.execute(text("SELECT count(*) FROM payment")).scalar_one()
        owed = sorted(tuple(row) for row in unit.execute(text(OWED)))
    seconds = time.monotonic() - started
    print(
        f"{kind}: {KILLS} kills, {listening} of them while it answered, in {seconds:.0f} s: "
        f"{load.sent} deliveries sent, {load.refused} not taken, {len(load.acknowledged)} distinct acknowledged; "
        f"{len(states)} payments, {len(owed)} effects owed, {shop.received} received by the shop"
    )
    assert load.wrong == []
    assert load.acknowledged.items() <= stored.items()
    assert doubled == []
    assert load.states == states
    assert count == len(states)
    assert sorted((ref, effect, "delivered") for ref, effect in load.owed) == owed
    assert load.owed == set(shop.ids)
    assert {1} == {len(ids) for ids in shop.ids.values()}  # at least once, and always under one id
    assert {1} == {len(bodies) for bodies in shop.bodies.values()}
    assert {1} == set(shop.fulfilled.values())
    assert {ref for ref, effect in load.owed if effect == "payment.paid"} == set(shop.fulfilled)
    assert shop.forged == 0
    _assert_audited(tmp_path / "receipted.toml", messages=len(stored))
    _assert_quiet(tmp_path / "log")


async def _torment(folder: Path, shop: Shop, url: str, commands: Sequence[str]) -> tuple[Load, int]:
    rng = random.Random(SEED)
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "receipted.toml"
    shop_port = server.sockets[0].getsockname()[1]
    settled = CONFIG.format(folder=folder, port=port, shop=shop_port, secret=shop.secret, **KEYS)
    config.write_text(settled.replace(f"sqlite:///{folder}/receipted.db", url))
    _migrate(url)
    processes, load, stop = Processes(config, folder / "log", commands), FullLoad(port, rng, shop), asyncio.Event()
    senders = [asyncio.create_task(load.run(stop)) for _ in range(CONNECTIONS)]
    moments = random.Random(SEED + 1)  # of their own, so that a seed gives the same kills whatever the load draws
    listening = 0
    try:
        for _ in range(KILLS):
            await processes.start()
            if moments.random() < 0.85:
                await processes.are_ready()
                listening += 1
                await asyncio.sleep(moments.uniform(0.0, 1.2))
            else:
                await asyncio.sleep(moments.uniform(0.1, 1.0))
            await processes.kill(moments.choice(commands))
        await processes.start()
        await processes.are_ready()
        stop.set()
        await asyncio.wait_for(asyncio.gather(*senders), 60)
        await until(lambda: load.owed <= set(shop.ids), 180, "effects that are owed did not reach the shop")
        with closing(Database(url)) as database:
            settled_now = partial(_is_settled, database)
            await asyncio.to_thread(waiting.until, settled_now, 60, lambda: "the inbox and the outbox come to rest")
        await processes.stop()
    finally:
        for sender in senders:
            sender.cancel()
        await processes.discard()
        server.close()
    return load, listening


def _migrate(url: str) -> None:
    with closing(Database(url)) as database:
        migrate.upgrade(database)


def _is_settled(database: Database) -> bool:
    with database.read() as unit:
        return not inbox.depth(unit).get("pending") and not unit.execute(text(STILL_OWED)).scalar_one()


def _assert_audited(config: Path, *, messages: int) -> None:
    service = Service(settings_load.load(config, {}))
    report = service.audit().run()
    service.close()
    assert report.faults == []
    assert messages == report.signatures


def _assert_quiet(log: Path) -> None:
    """Nobody logged an error, nor anything secret."""
    text = log.read_text()
    levels = {json.loads(line)["level"] for line in text.splitlines() if line.startswith("{")}
    assert levels <= {"info", "warning", "debug"}
    assert [line for line in text.splitlines() if not line.startswith("{")] == []
    assert [secret for secret in (*KEYS.values(), "whsec_", "sha256=") if secret in text] == []
