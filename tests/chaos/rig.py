"""Receipted's own processes on a PostgreSQL that goes wrong: providers before them, a shop behind them, and the proof.

Every test here ends in `prove()`, which asks the database, the shop and the audit the same questions.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from receipted.settings import load as settings_load
from receipted.wiring import Service
from storage import inbox, migrate, outbox, payments
from storage.database import Database, Unit
from tests.chaos.load import Connection, Load, until
from tests.chaos.shop import Shop
from tests.chaos.test_kill import CONFIG, ROOT, is_ready
from tests.support import waiting
from tests.support.cluster import free_port
from tests.support.deliveries import KEYS

SEED = int(os.environ.get("CHAOS_SEED", "20261121"))  # noqa: TID251 - a test's own knob

#: Seconds within which every request is answered, whatever the database does: a provider that gave up waiting would
#: count it as a failure, and some then slow down or stop.
BOUND = 10.0

#: Connections that deliver at once.
CONNECTIONS = 6


class Watched(Connection):
    """Notes how long each answer took, and what of a refusal is not as promised."""

    def __init__(self, port: int, load: "WatchedLoad") -> None:
        super().__init__(port)
        self._load = load

    async def post(self, request: bytes) -> tuple[int, bytes]:
        """As the others, within the bound; status -1 where no answer came in time."""
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(2 * BOUND):
                status, answer = await super().post(request)
        except TimeoutError:
            self.close()
            status, answer = -1, b"no answer"
        self._load.note(asked_at, status, self.head, answer)
        return status, answer


@dataclass
class WatchedLoad(Load):
    """Load that keeps when it was answered what."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)  #: asked at, answered at, status
    _connections: list[Watched] = field(default_factory=list)

    def note(self, asked_at: float, status: int, head: bytes, answer: bytes) -> None:
        """One answer came, or none."""
        if status == 503:
            told = json.loads(answer)["error"]
            is_shaped = told["type"] == "api_error" and told["request_id"] and told["code"] and told["message"]
            if not is_shaped or b"\r\nretry-after: " not in head.lower():
                self.wrong.append(f"503 in another shape: {head!r} {answer!r}")
        self.answers.append((asked_at, time.monotonic(), status))

    async def run(self, stop: asyncio.Event) -> None:
        """As the others, over a watched connection."""
        connection = Watched(self.port, self)
        while not stop.is_set():
            state, bodies, owed = self._history()
            if self.rng.random() < 0.3:
                self.rng.shuffle(bodies)
            for body, account in bodies:
                await self._until_acknowledged(connection, account, body)
                if self.rng.random() < 0.1:
                    await self._until_acknowledged(connection, account, body)
            self.states[owed[0]] = state
            self.owed |= {(owed[0], effect) for effect in owed[1]}
        connection.close()

    def slowest(self) -> float:
        """Seconds of the slowest answer."""
        return max(answered - asked for asked, answered, _ in self.answers)

    def count(self, status: int) -> int:
        """How many answers had this status."""
        return sum(found == status for _, _, found in self.answers)

    def first_after(self, moment: float, status: int = 200) -> float | None:
        """Seconds from the moment to the first such answer to what was asked after it."""
        found = [answered - moment for asked, answered, it in self.answers if asked >= moment and it == status]
        return min(found, default=None)


@dataclass
class Rig:
    """What runs, and what is to be proved of it."""

    folder: Path
    direct: str  #: the database's URL for the proof, past whatever is broken
    load: WatchedLoad
    shop: Shop
    stop: asyncio.Event
    senders: list[asyncio.Task[None]]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The settings of every process."""
        return self.folder / "receipted.toml"

    async def start(self, name: str, command: str) -> asyncio.subprocess.Process:
        """`receipted <command>` runs and is ready; its log lies beside the settings."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from receipted.cli.main import main; main()"),
                *("--config", str(self.config), command, "--json"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        self.processes[name] = process
        await is_ready(process)
        return process

    async def quiet(self, seconds: float = 30) -> None:
        """Nobody sends any more, and everything that was acknowledged is decided, owed and delivered."""
        self.stop.set()
        async with asyncio.timeout(seconds):
            await asyncio.gather(*self.senders)
        await until(lambda: self.load.owed <= set(self.shop.ids), seconds, "effects that are owed did not arrive")
        database = Database(self.direct)
        # Not in the loop: a wire of the test may live there.
        settled, what = partial(_is_settled, database), "the inbox and the outbox come to rest"
        await asyncio.to_thread(waiting.until, settled, seconds, lambda: what)
        database.close()

    async def acknowledged(self, more: int, seconds: float = 30) -> None:
        """Return when so many more deliveries were acknowledged."""
        wanted = len(self.load.acknowledged) + more
        await until(lambda: len(self.load.acknowledged) >= wanted, seconds, f"{more} more were not acknowledged")

    async def refused(self, more: int, seconds: float = 30) -> None:
        """Return when so many more deliveries were answered 503."""
        wanted = self.load.count(503) + more
        await until(lambda: self.load.count(503) >= wanted, seconds, f"{more} more were not answered 503")

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        """The process's log lines of this event."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line.get("event") == event]


@asynccontextmanager
async def rig(
    folder: Path, url: str, *, direct: str | None = None, shop: Shop | None = None, workers: int = 1
) -> AsyncIterator[Rig]:
    """`receipted web` and `receipted worker` on a migrated database, under load; all of it gone after the block.

    `direct` is another URL of the same database, where the processes' own may not work.
    """
    print(f"\nCHAOS_SEED={SEED}")
    shop = shop or Shop(b"k" * 32)
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
    port = free_port()
    config = CONFIG.format(
        folder=folder, port=port, shop=server.sockets[0].getsockname()[1], secret=shop.secret, **KEYS
    )
    (folder / "receipted.toml").write_text(config.replace(f"sqlite:///{folder}/receipted.db", url))
    load = WatchedLoad(port, random.Random(SEED), pause=0.02)
    found = Rig(folder, direct or url, load, shop, asyncio.Event(), [])
    try:
        await found.start("web", "web")
        for number in range(workers):
            await found.start(f"worker{number}", "worker")
        found.senders += [asyncio.create_task(load.run(found.stop)) for _ in range(CONNECTIONS)]
        await found.acknowledged(20)
        yield found
        for process in found.processes.values():
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0, "a process did not end in order"
    finally:
        for sender in found.senders:
            sender.cancel()
        for process in found.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                process.send_signal(signal.SIGCONT)
                await process.wait()
        server.close()


def migrated(url: str) -> None:
    """The database has the newest schema."""
    database = Database(url)
    migrate.upgrade(database)
    database.close()


def prove(rig: Rig) -> None:
    """Nothing that was acknowledged is lost, nothing is doubled, all is decided, and the audit finds no fault."""
    load, shop = rig.load, rig.shop
    service = Service(settings_load.load(rig.config, {"RECEIPTED_SERVICE__DATABASE": rig.direct}))
    with service.database.read() as unit:
        messages = list(_every(lambda after: inbox.find(unit, source="webhook", after=after, limit=500)))
        kept = list(_every(lambda after: payments.find(unit, after=after, limit=500)))
        owed = list(_every(lambda after: outbox.find(unit, after=after, limit=500)))
    stored = {message.body: message.id for message in messages}
    refs = {payment.id: payment.provider_ref for payment in kept}
    report = service.audit().run()
    service.close()
    lost = {body for body, message_id in load.acknowledged.items() if stored.get(body) != message_id}
    doubled = {owed for owed, ids in shop.ids.items() if len(ids) > 1}
    print(
        f"{load.sent} sent, {len(load.acknowledged)} distinct acknowledged, {load.count(503)} answered 503, "
        f"{load.count(0)} without an answer, slowest {load.slowest():.2f} s; {len(lost)} lost, {len(doubled)} doubled; "
        f"{len(kept)} payments, {len(owed)} effects owed, {shop.received} received by the shop"
    )
    assert load.wrong == [], f"answers that nobody should get: {load.wrong[:3]}"
    assert lost == set()
    assert len(stored) == len(messages), "a delivery is kept twice"
    assert doubled == set(), "an effect came under two ids"
    assert {payment.provider_ref: payment.state for payment in kept} == load.states
    assert len(refs) == len(load.states), "a payment is kept twice"
    assert {message.status for message in messages} == {"decided"}
    assert sorted((refs[each.payment_id or ""], each.effect, each.status) for each in owed) == sorted(
        (ref, effect, "delivered") for ref, effect in load.owed
    )
    assert set(shop.ids) == load.owed
    assert {len(bodies) for bodies in shop.bodies.values()} == {1}
    assert shop.forged == 0
    assert report.faults == []
    assert report.signatures == len(messages)
    assert load.slowest() < BOUND


def _every(page: Callable[[str], list[Any]]) -> Iterator[Any]:
    after = ""
    while rows := page(after):
        yield from rows
        after = rows[-1].id


def _is_settled(database: Database) -> bool:
    with database.read() as unit:
        return not inbox.depth(unit).get("pending") and not outbox.depth(unit).get("pending")


@contextmanager
def unit_of(url: str) -> Iterator[Unit]:
    """A unit of work of the test's own, which reads."""
    database = Database(url)
    try:
        with database.read() as unit:
            yield unit
    finally:
        database.close()
