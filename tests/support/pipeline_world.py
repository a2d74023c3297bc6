"""A real database with workers, a poller and the way in, that can be crashed between any two writes."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from audit.seals import Trust
from audit.verify import Audit, AuditedAccount, AuditReport
from poller.journal import JournaledAccount, JournalReader
from poller.polling import Poller, answer_message
from poller.schedule import PolledAccount, PollPolicy, PollSchedule
from providers.contract import Answer, Capability, Client, JournalPage, Provider
from providers.errors import ProviderError
from providers.signing import Key, KeyRing, Window
from receiver.intake import ReceivingAccount
from statemachine.own_statements import Resolution
from statemachine.phases import ConflictPolicy, Source
from storage import inbox, operator_actions
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.inbox import Recorded
from storage.tables import InboxMessage
from tests.property.interleaving import Interleaving
from tests.property.pipeline_voices import SECRET
from tests.support.clock import FakeClock
from tests.support.databases import copy_of
from worker.accounts import AccountRules, ApplySettings
from worker.inbox_loop import InboxWorker, Traced

SINKS = ("shop", "ledger")
KEY = Key("k1", SECRET)


class SimulatedCrash(BaseException):
    """The process ends here; no `except Exception` can swallow it."""


class Crashes:
    """Raises SimulatedCrash at the n-th write, BEGIN or COMMIT after it was armed."""

    def __init__(self, database: Database) -> None:
        self._left: int | None = None
        event.listen(database.engine, "before_cursor_execute", self._on_statement)
        event.listen(database.engine, "commit", self._on_commit)

    def arm(self, at: int) -> None:
        """The at-th write from now on does not happen."""
        self._left = at

    def disarm(self) -> None:
        self._left = None

    def _on_statement(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN IMMEDIATE")):
            self._count()

    def _on_commit(self, _conn: Any) -> None:
        self._count()

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._left = None
                raise SimulatedCrash


#: Events on a page of the log, few enough that there are several pages.
_LOGGED_PAGE_SIZE = 2


class ScriptedClient(Client):
    """Answers a GET with what the test says that the provider has now."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.present: Any = None  #: (kind, ref) -> Answer; may raise ProviderError
        self.asked: list[tuple[str, str]] = []
        self.logged: list[bytes] = []  #: the provider's events, as their webhooks have them

    async def journal_page(self, since: datetime, position: str | None) -> JournalPage:
        start = int(position or 0)
        end = start + _LOGGED_PAGE_SIZE
        events = tuple(self.logged[start:end])
        return JournalPage(events, str(start + len(events)), end < len(self.logged), self.clock())

    async def fetch(self, kind: str, ref: str) -> Answer:
        self.asked.append((kind, ref))
        if self.present is None:
            raise ProviderError("not there", http_status=404)
        found = self.present(kind, ref)
        assert isinstance(found, Answer)
        return found


@dataclass(frozen=True)
class Member:
    """One account of the world."""

    name: str
    provider: Provider
    client: ScriptedClient
    receiving: ReceivingAccount


class World:
    """One database, shared by histories that each have an account of their own: a file, unless another is given.

    On PostgreSQL two workers work at once, and their statements interleave as the seed of a history says.
    """

    def __init__(self, template: Path, path: Path, *, database: Database | None = None) -> None:
        self.database = database or copy_of(template, path)
        is_shared = self.database.engine.dialect.name == "postgresql"
        self.interleaving = Interleaving(self.database) if is_shared else None
        self.postpone = 0  #: how often a worker ended because the database was not to be had, as in a deadlock
        self.clock = FakeClock()
        self.crashes = Crashes(self.database)
        self.runner = asyncio.Runner()
        self.rules: dict[str, AccountRules] = {}
        self.members: dict[str, Member] = {}
        self.settings = ApplySettings(sinks=SINKS, batch=5)
        self.schedule = PollPolicy()
        self.is_unsigned_allowed = True  #: most histories record webhooks without a signature

    def close(self) -> None:
        self.crashes.disarm()
        self.runner.close()
        self.database.close()

    def join(
        self, name: str, provider: Provider, *, adopts: bool = True, policy: ConflictPolicy = ConflictPolicy.REVIEW
    ) -> Member:
        """An account of its own."""
        self.rules[name] = AccountRules(
            provider, lambda payment, poll, now: self.book(name).next_at(payment, poll, now), policy, adopts
        )
        receiving = ReceivingAccount(name, provider, KeyRing((KEY,)), Window())
        self.members[name] = Member(name, provider, ScriptedClient(self.clock), receiving)
        return self.members[name]

    def worker(self, traced: Traced = lambda _messages: None) -> InboxWorker:
        """A worker that remembers nothing, as after a restart."""
        return InboxWorker(self.database, self.rules, self.settings, self.clock, traced=traced)

    def work(self, rng: random.Random) -> int:
        """One step of a worker, or of two at once; returns how many messages were claimed."""
        if self.interleaving is None:
            return self.worker().step()
        claimed: list[int] = []
        settings = replace(self.settings, batch=rng.choice((1, 1, 2, 5)))  # small enough to leave the other something

        def step() -> None:
            claimed.append(InboxWorker(self.database, self.rules, settings, self.clock).step())

        self._at_once(rng, step, step)
        return sum(claimed)

    def beside_a_worker(self, rng: random.Random, act: Callable[[], None]) -> None:
        """Something else happens, and on PostgreSQL often while a worker works."""
        if self.interleaving is None or rng.random() < 0.5:
            act()
            return

        def step() -> None:
            with suppress(SimulatedCrash):  # what is to crash may be either of the two
                self.worker().step()

        self._at_once(rng, act, step)

    def _at_once(self, rng: random.Random, *works: Callable[[], object]) -> None:
        """Each ends as it does alone, or because the database was not to be had, as in a deadlock."""
        assert self.interleaving is not None
        faults = [fault for fault in self.interleaving.run(rng, *works) if fault is not None]
        self.postpone += sum(isinstance(fault, StorageUnavailable) for fault in faults)
        for fault in faults:
            if not isinstance(fault, StorageUnavailable):
                raise fault

    def poller(self, name: str) -> Poller:
        """A poller of one account that remembers nothing."""
        client = self.members[name].client
        return Poller(self.database, {name: client}, self.book(name), self.clock, random.Random(0))

    def journal(self, name: str) -> JournalReader:
        """A reader of one account's journal that remembers nothing."""
        member = self.members[name]
        accounts = {name: JournaledAccount(member.client, member.provider)}
        interval = timedelta(seconds=15)
        return JournalReader(
            self.database, accounts, self.clock, random.Random(0), interval=interval, policy=self.schedule
        )

    def book(self, name: str) -> PollSchedule:
        """What a process that has just started knows of when to ask."""
        provider = self.members[name].provider

        def is_terminal(kind: str, state: str | None) -> bool:
            return provider.lifecycles[kind].is_terminal(state)

        kinds = provider.capabilities().get(Capability.ASK, frozenset())
        return PollSchedule(self.database, {name: PolledAccount(self.schedule, is_terminal, kinds)}, self.clock)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def record(self, *messages: InboxMessage) -> list[Recorded]:
        """Record as the writer of the way in does."""
        with self.database.write() as unit:
            return inbox.record(unit, messages)

    def note_resolution(self, account: str, payment_id: str, said: Resolution) -> None:
        """Keep that a person resolves, as the command does before it records their word."""
        with self.database.write() as unit:
            operator_actions.note(
                unit,
                account=account,
                at=self.clock(),
                actor=said.actor,
                action="resolve",
                subject=payment_id,
                reason=said.reason,
            )

    def answered(self, name: str, source: Source, answer: Answer, payment_id: str | None) -> InboxMessage:
        return answer_message(name, source, answer, payment_id, self.clock())

    @contextmanager
    def crashing(self, at: int | None) -> Iterator[list[bool]]:
        """The block may end early by a crash at that write; the list says afterwards whether it did."""
        crashed: list[bool] = []
        if at is not None:
            self.crashes.arm(at)
        try:
            yield crashed
        except SimulatedCrash:
            crashed.append(True)
        finally:
            self.crashes.disarm()

    def settle(self, rng: random.Random | None = None) -> None:
        """Leases run out, and workers work until nothing is pending; two at once where there is something to draw."""
        for _ in range(60):
            while self.worker().step() if rng is None else self.work(rng):
                pass
            with self.database.read() as unit:
                if not inbox.depth(unit).get("pending"):
                    return
            self.clock.advance(61)
        raise AssertionError("messages stay pending for ever")

    def audit(self) -> AuditReport:
        """The audit's report on the whole database."""
        accounts = {
            name: AuditedAccount(self.rules[name].provider, {KEY.id: KEY}, Window(), self.rules[name].is_live)
            for name in self.members
        }
        unsigned = frozenset(f"{name}/-" for name in accounts) if self.is_unsigned_allowed else frozenset[str]()
        return Audit(self.database, accounts, Trust(self.database.sealer, retired_keys=unsigned)).run()
