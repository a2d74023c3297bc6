"""`kill -9` at random moments under load: no acknowledged delivery is lost, no effect is doubled."""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from audit.verify import Audit
from receipted import settings
from receipted.wiring import Service
from storage import migrate
from storage.engine import Database
from tests.chaos.load import Load, until
from tests.chaos.shop import Shop
from tests.integration.receiver.deliveries import KEYS

SEED = int(os.environ.get("CHAOS_SEED", "20261121"))  # noqa: TID251 - a test's own knob
KILLS = int(os.environ.get("CHAOS_KILLS", "50"))  # noqa: TID251 - a test's own knob
CONNECTIONS = 12
ROOT = Path(__file__).parents[2]

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


class Victim:
    """`receipted serve`, started again and again."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config = config
        self._log = log

    async def start(self) -> asyncio.subprocess.Process:
        """A process that may not listen yet."""
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from receipted.cli.main import main; main()",
                *("--config", str(self._config), "serve", "--json"),
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
@pytest.mark.timeout(600)
def test_no_acknowledged_delivery_is_lost_and_no_effect_doubled(tmp_path: Path) -> None:
    """Fifty kills under load: what was answered 200 is in the inbox, every payment is in its right state, and each
    effect was owed once, whatever came twice.
    """
    print(f"\nCHAOS_SEED={SEED} CHAOS_KILLS={KILLS}")
    started = time.monotonic()
    shop = Shop(b"k" * 32)
    load, listening = asyncio.run(_torment(tmp_path, shop))
    file = tmp_path / "receipted.db"
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored = dict(database.execute("SELECT body, id FROM inbox_message WHERE source = 'webhook'").fetchall())
        stored = {body: str(UUID(message_id)) for body, message_id in stored.items()}
        doubled = database.execute(
            "SELECT body FROM inbox_message WHERE source = 'webhook' GROUP BY body HAVING count(*) > 1"
        ).fetchall()
        states = dict(database.execute("SELECT provider_ref, state FROM payment").fetchall())
        count = database.execute("SELECT count(*) FROM payment").fetchone()[0]
        owed = database.execute(
            "SELECT p.provider_ref, o.effect, o.status FROM outbox_message o JOIN payment p ON p.id = o.payment_id"
        ).fetchall()
    print(
        f"{KILLS} kills, {listening} of them while it answered, in {time.monotonic() - started:.0f} s: "
        f"{load.sent} deliveries sent, {load.refused} not taken, {len(load.acknowledged)} distinct acknowledged; "
        f"{len(states)} payments, {len(owed)} effects owed, {shop.received} received by the shop"
    )
    assert load.wrong == []
    assert load.acknowledged.items() <= stored.items()
    assert doubled == []
    assert load.states == states
    assert count == len(states)
    assert sorted((ref, effect, "delivered") for ref, effect in load.owed) == sorted(owed)
    assert load.owed == set(shop.ids)
    assert {1} == {len(ids) for ids in shop.ids.values()}  # at least once, and always under one id
    assert {1} == {len(bodies) for bodies in shop.bodies.values()}
    assert {1} == set(shop.fulfilled.values())
    assert {ref for ref, effect in load.owed if effect == "payment.paid"} == set(shop.fulfilled)
    assert shop.forged == 0
    _assert_audited(tmp_path / "receipted.toml", messages=len(stored))
    _assert_quiet(tmp_path / "log")


async def _torment(folder: Path, shop: Shop) -> tuple[Load, int]:
    rng = random.Random(SEED)
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "receipted.toml"
    shop_port = server.sockets[0].getsockname()[1]
    config.write_text(CONFIG.format(folder=folder, port=port, shop=shop_port, secret=shop.secret, **KEYS))
    _migrate(folder)
    victim, load, stop = Victim(config, folder / "log"), Load(port, rng, pause=0.02), asyncio.Event()
    senders = [asyncio.create_task(load.run(stop)) for _ in range(CONNECTIONS)]
    moments = random.Random(SEED + 1)  # of their own, so that a seed gives the same kills whatever the load draws
    listening = 0
    try:
        for _ in range(KILLS):
            process = await victim.start()
            if moments.random() < 0.85:
                await is_ready(process)
                listening += 1
                await asyncio.sleep(moments.uniform(0.0, 1.2))
            else:
                await asyncio.sleep(moments.uniform(0.1, 1.0))
            await kill(process)
        process = await victim.start()
        await is_ready(process)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*senders), 60)
        await until(lambda: load.owed <= set(shop.ids), 60, "effects that are owed did not reach the shop")
        await until(lambda: _is_settled(folder), 60, "the inbox or the outbox did not come to rest")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        for sender in senders:
            sender.cancel()
        if process.returncode is None:
            await kill(process)
        server.close()
    return load, listening


def _migrate(folder: Path) -> None:
    database = Database(f"sqlite:///{folder}/receipted.db")
    migrate.upgrade(database)
    database.close()


def _is_settled(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "receipted.db")) as database:
        query = "SELECT (SELECT count(*) FROM {} WHERE status = 'pending')"
        return all(
            database.execute(query.format(table)).fetchone() == (0,) for table in ("inbox_message", "outbox_message")
        )


def _assert_audited(config: Path, *, messages: int) -> None:
    service = Service(settings.load(config, {}))
    report = Audit(service.database, service.audited_accounts()).run()
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
