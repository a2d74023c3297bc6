"""A Stable Genius that a test scripts, and reconciliations of it on a real file, killed wherever the test wants."""

import asyncio
import json
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from poller.reconciler import Reconciler
from poller.reconciliation import ReconciledAccount, ReconciliationTools
from providers.contract import Answer, Capability, Page
from storage import reconciliations
from storage.reconciliations import ReconciliationRequest
from storage.tables_support import Reconciliation
from tests.support.pipeline_world import ScriptedClient, World
from tests.support.worker_desk import KIND, Desk

DAY = timedelta(days=1)
LEASE = timedelta(seconds=60)


class Genius(ScriptedClient):
    """Has intents, by ref; lists them by pages, unless it has no list; each call may be told to fail."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.intents: dict[str, dict[str, Any]] = {}
        self.size = 2
        self.has_list = True
        self.listed: list[str | None] = []  #: positions that were asked for
        self.faults: dict[str, list[Exception]] = {}  #: by ref, or "list"; raised one after the other
        self.under_way = self.most_under_way = 0
        self.present = self._present

    def has(self, ref: str, status: str, **more: Any) -> None:
        """The provider has this intent, in this state from now on."""
        told = {"id": ref, "status": status, "amount": 4.5, "currency": "usd", f"{status}_at": self._now()}
        self.intents[ref] = {**self.intents.get(ref, {}), **told, **more}

    def _now(self) -> str:
        return str(self.clock().isoformat())

    def _raise(self, what: str) -> None:
        if self.faults.get(what):
            raise self.faults[what].pop(0)

    async def fetch(self, kind: str, ref: str) -> Answer:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            return await super().fetch(kind, ref)
        finally:
            self.under_way -= 1

    def _present(self, kind: str, ref: str) -> Answer:
        self._raise(ref)
        return Answer(200, json.dumps(self.intents[ref]).encode(), self.clock(), kind, ref)

    async def list_page(self, since: datetime, until: datetime, position: str | None) -> Page:
        self.listed.append(position)
        self._raise("list")
        refs = sorted(ref for ref, intent in self.intents.items() if not intent.get("is_old"))
        start = refs.index(position) + 1 if position else 0
        page = refs[start : start + self.size]
        has_more = start + self.size < len(refs)
        body = {"object": "list", "data": [self.intents[ref] for ref in page], "has_more": has_more}
        answer = Answer(200, json.dumps(body).encode(), self.clock(), KIND)
        return Page(answer, len(page), page[-1] if has_more else None)


class Rounds:
    """One account at Stable Genius, and the reconciliations of it."""

    def __init__(self, world: World) -> None:
        self.world, self.desk = world, Desk(world)
        self.clock, self.database = world.clock, world.database
        self.genius = Genius(self.clock)
        self.world.members["acme"] = replace(self.desk.member, client=self.genius)
        self.desk.member = self.world.members["acme"]
        self.slept: list[float] = []
        self.concurrency = 2

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def _apply(self, ids: Any) -> None:
        await asyncio.to_thread(self.world.worker().step, ids)

    def reconciler(self, holder: str = "process 1 on test", *, lease: timedelta = LEASE) -> Reconciler:
        """A process that remembers nothing."""
        provider = self.desk.member.provider

        def is_terminal(kind: str, state: str | None) -> bool:
            return provider.lifecycles[kind].is_terminal(state)

        tools = ReconciliationTools(
            self.database, self.clock, self._apply, self._sleep, concurrency=self.concurrency, lease=lease
        )
        kinds = provider.capabilities().get(Capability.ASK, frozenset())
        accounts = {"acme": ReconciledAccount(self.genius, is_terminal, self.genius.has_list, kinds)}
        return Reconciler(tools, accounts, random.Random(0), holder=holder)

    def wanted(self, by: str = "ada", back: timedelta = 3 * DAY) -> ReconciliationRequest:
        return ReconciliationRequest("acme", self.clock() - back, self.clock(), by)

    def walk(self, by: str = "ada", **start: Any) -> Reconciliation:
        """One whole run by a process of its own."""
        reconciler = self.reconciler()
        started = reconciler.start(self.wanted(by), **start)
        return self.world.run(reconciler.run(started.row))

    def row(self, reconciliation_id: str) -> Reconciliation:
        with self.database.read() as unit:
            return reconciliations.get(unit, reconciliation_id)

    def rows(self) -> list[Reconciliation]:
        with self.database.read() as unit:
            return reconciliations.find(unit)

    def known(self, ref: str, status: str = "awaiting_payment", **more: Any) -> None:
        """A payment that the provider has, and that a webhook told us about."""
        self.genius.has(ref, status, **more)
        self.desk.told(status, ref)
        self.clock.advance(1)  # a range ends before its end
