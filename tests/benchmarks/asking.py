"""Five thousand open payment requests at a provider that enforces five requests a second, in real time."""

import asyncio
import json
import random
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx2

from poller.hazard import EDGES
from poller.polling import answer_message
from providers.contract import Answer
from receipted.app import working
from receipted.settings.load import parse
from receipted.wiring import Service
from sandbox.config import AlternativePayments, SandboxConfig
from sandbox.server import Running, running
from statemachine.phases import Phase, Source
from storage import inbox, migrate, payment_polls, payments, poll_plans
from storage.tables_support import Hazard
from tests.benchmarks.polling.workloads import Mixture

KIND: Final = "payment_request"
_ACCOUNT: Final = "ap"
_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who is open when it begins, and who comes and pays meanwhile."""

    old: int = 5_000  #: open requests, of ages up to a day
    arrivals: float = 1.0  #: new ones a second
    pay: float = 0.6  #: share of the new ones that pay
    median: float = 20.0  #: seconds until they do; lognormal, sigma 1
    seconds: float = 60.0
    seed: int = 11


@dataclass(frozen=True, slots=True)
class Result:
    """What one way of asking came to."""

    name: str
    questions: int
    refused: int  #: answers of 429
    paid: int
    noticed: int
    mean_delay: float  #: seconds from being paid until noticed; what was not noticed counts up to the end

    def __str__(self) -> str:
        return (
            f"{self.name:12} mean delay {self.mean_delay:5.1f} s, noticed {self.noticed} of {self.paid} paid, "
            f"{self.questions} questions, {self.refused} answers of 429"
        )


class Scene:
    """One sandbox, one service, and payers."""

    def __init__(self, crowd: Crowd, folder: Path, provider: Running) -> None:
        self.crowd, self.provider = crowd, provider
        folder.mkdir(parents=True, exist_ok=True)
        self.ago = timedelta(0)
        self.service = Service(parse(_settings(folder, provider.base_url)))
        self.service.clock = lambda: datetime.now(UTC) - self.ago
        migrate.upgrade(self.service.database)
        self.rng = random.Random(crowd.seed)
        self.paid_at: dict[str, datetime] = {}

    def open_old(self, client: httpx2.Client) -> None:
        """The old ones are known here as if they had been asked about all the time."""
        worker, refs = self.service.inbox_worker(), self._create(client, self.crowd.old)
        for start in range(0, len(refs), _BATCH):
            self.ago = timedelta(days=1) * (1 - start / len(refs))
            self._told(worker, refs[start : start + _BATCH])
        self.ago = timedelta(0)
        with self.service.database.write() as unit:
            poll_plans.keep(unit, [], [_learnt(self.crowd, self.service.clock())], None)
        self.service.planner().step()
        now, book = self.service.clock(), self.service.poll_schedule
        with self.service.database.write() as unit:
            found = payments.find(unit, account=_ACCOUNT, limit=len(refs))
            polls = payment_polls.of(unit, found)
            for payment in found:
                poll = polls[payment.id]
                planned = book.next_poll(payment, poll, payment.changed_at)
                wait = (planned.at - payment.changed_at) if planned else timedelta(hours=1)
                seen_at = max(payment.changed_at, now - self.rng.random() * wait)
                poll.asked_at = seen_at
                payment_polls.note_asked(unit, poll, book.next_at(payment, poll, now), seen_at=seen_at)

    async def payers(self, client: httpx2.AsyncClient) -> None:
        """New requests come, and some are paid."""
        worker, begun, at = self.service.inbox_worker(), time.monotonic(), 0.0
        acting: set[asyncio.Task[None]] = set()
        while (at := at + self.rng.expovariate(self.crowd.arrivals)) < self.crowd.seconds:
            await asyncio.sleep(max(begun + at - time.monotonic(), 0.0))
            (ref,) = (await self._control(client, "create", _bodies(1)))["refs"]
            await asyncio.to_thread(self._told, worker, [ref])
            if self.rng.random() < self.crowd.pay:
                wait = self.crowd.median * 2.718281828 ** self.rng.gauss(0.0, 1.0)
                if at + wait < self.crowd.seconds - 1:
                    acting.add(asyncio.create_task(self._pay(client, ref, wait)))
        await asyncio.sleep(max(begun + self.crowd.seconds - time.monotonic(), 0.0))
        await asyncio.gather(*acting)

    async def _pay(self, client: httpx2.AsyncClient, ref: str, wait: float) -> None:
        await asyncio.sleep(wait)
        act = {"provider": "alternative_payments", "kind": KIND, "ref": ref, "action": "pay"}
        await self._control(client, "act", act)
        self.paid_at[ref] = datetime.now(UTC)

    async def _control(self, client: httpx2.AsyncClient, call: str, body: Any) -> Any:
        answer = await client.post(f"{self.provider.base_url}/_control/{call}", json=body)
        answer.raise_for_status()
        return answer.json()

    def _create(self, client: httpx2.Client, count: int) -> list[str]:
        answer = client.post(f"{self.provider.base_url}/_control/create", json=_bodies(count), timeout=60)
        answer.raise_for_status()
        return list(answer.json()["refs"])

    def _told(self, worker: Any, refs: list[str]) -> None:
        now = self.service.clock()
        messages = [
            answer_message(_ACCOUNT, Source.POLL, Answer(200, _pending(ref), now, KIND, ref), None, now) for ref in refs
        ]
        with self.service.database.write() as unit:
            inbox.record(unit, messages)
        while worker.step([message.id for message in messages]):
            pass

    def result(self, name: str) -> Result:
        """What is known now, against what is true."""
        now = datetime.now(UTC)
        with self.service.database.read() as unit:
            found = payments.find(unit, account=_ACCOUNT, phase=Phase.PAID.value, limit=10_000)
        noticed = {p.provider_ref: p.changed_at for p in found if p.provider_ref in self.paid_at}
        delays = [(noticed.get(ref, now) - at).total_seconds() for ref, at in self.paid_at.items()]
        requests = self.provider.sandbox.stage.counts.requests["alternative_payments"]
        return Result(
            name, sum(requests.values()), requests["429"], len(delays), len(noticed), sum(delays) / len(delays)
        )


async def ours(scene: Scene) -> Result:
    """As `receipted worker` does it."""
    async with httpx2.AsyncClient() as client, working(scene.service):
        await scene.payers(client)
    return scene.result("ours")


async def round_robin(scene: Scene) -> Result:
    """Whoever was asked longest ago, with the same client and the same budget."""
    async with httpx2.AsyncClient() as client, scene.service.clients() as clients:
        asking = asyncio.create_task(_ask_in_turn(scene, clients[_ACCOUNT]))
        await scene.payers(client)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    return scene.result("round robin")


async def _ask_in_turn(scene: Scene, client: Any) -> None:
    worker, known = scene.service.inbox_worker(), set[str]()
    turn: deque[Any] = deque()
    while True:
        with scene.service.database.read() as unit:
            came = [p for p in payments.find(unit, account=_ACCOUNT, phase="open", limit=10_000) if p.id not in known]
        turn.extend(came)
        known.update(payment.id for payment in came)
        for _ in range(5):
            payment = turn.popleft()
            answer = await client.fetch(KIND, payment.provider_ref)
            message = answer_message(_ACCOUNT, Source.POLL, answer, payment.id, scene.service.clock())
            await asyncio.to_thread(worker.take, message)
            if json.loads(answer.body)["status"] == "pending":
                turn.append(payment)


def compare(crowd: Crowd, folder: Path) -> list[Result]:
    """Both ways, one after the other, each at a sandbox of its own."""
    config = SandboxConfig(alternative_payments=AlternativePayments(ttl_seconds=10 * 86_400.0))
    results = []
    for number, way in enumerate((ours, round_robin)):
        with running(config) as provider:
            scene = Scene(crowd, folder / str(number), provider)
            with httpx2.Client() as client:
                scene.open_old(client)
            results.append(asyncio.run(way(scene)))
            scene.service.close()
    return results


def _learnt(crowd: Crowd, now: datetime) -> Hazard:
    """What an account with such payers has learnt in the course of a thousand of them."""
    paid = Mixture(((crowd.pay, crowd.median, 1.0),)).paid_by
    edges = (*EDGES, EDGES[-1] * 2)
    bins = list(pairwise(edges))
    return Hazard(
        account=_ACCOUNT,
        kind=KIND,
        state="pending",
        exposure=[1_000 * (high - low) * (1 - paid((low + high) / 2)) for low, high in bins],
        changes=[1_000 * (paid(high) - paid(low)) for low, high in bins],
        learned_at=now,
    )


def take(_effect: Any) -> None:
    """The shop takes every effect."""


def _pending(ref: str) -> bytes:
    body = {"id": ref, "reference_id": None, "status": "pending", "url": "https://pay.example.com", "redirect_url": ""}
    return json.dumps(body).encode()


def _bodies(count: int) -> dict[str, Any]:
    body = {"amount": "450", "currency": "USD", "redirect_url": "https://shop.example.com/thanks"}
    return {"provider": "alternative_payments", "kind": KIND, "bodies": [body] * count}


def _settings(folder: Path, base_url: str) -> dict[str, Any]:
    own = AlternativePayments()
    return {
        "service": {
            "database": f"sqlite:///{folder}/receipted.db",
            "public_url": "https://payments.example.com",
            "development": True,
            "token_keys": [{"id": "t1", "secret": "plain:a-token-key-of-the-benchmark"}],
        },
        "log": {"level": "error"},
        "poller": {"worth_seconds": 0.001, "soonest_seconds": 0.5},
        "sinks": [{"name": "shop", "kind": "python", "handler": "tests.benchmarks.asking:take"}],
        "accounts": {
            _ACCOUNT: {
                "provider": "alternative_payments",
                "base_url": f"{base_url}/alternative-payments",
                "secrets": {"client_id": f"plain:{own.client_id}", "client_secret": f"plain:{own.client_secret}"},
                "webhook_keys": [{"id": "w1", "secret": f"plain:{own.webhook_secret}"}],
                "options": {"allow_loopback_http": True},
            }
        },
    }
