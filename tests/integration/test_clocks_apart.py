"""Two workers whose clocks are minutes apart share one PostgreSQL: nothing goes by what their clocks say."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from fulfilment.backoff import Backoff
from fulfilment.contract import Delivered, Failed
from receipted.reconciler_wiring import reconciler
from receipted.settings import load
from receipted.wiring import Service
from storage import event_feed, inbox, outbox
from storage.database import Database
from storage.ids import first_id, instant_of, new_id
from storage.reconciliations import ReconciliationRequest
from tests.support.builders import a_message
from tests.support.databases import PostgreSQL
from tests.support.pipeline_world import World
from tests.support.settings_file import write_settings
from tests.support.worker_desk import Desk
from worker.dispatch import Dispatcher

APART = timedelta(minutes=5)
PAYMENTS = 300


class Machine:
    """A worker with a clock, and a pool of connections, of its own."""

    def __init__(self, url, ahead):
        self.ahead, self.database = ahead, Database(url)
        self.clock = self.database.clock(self.wall)
        world = World(None, None, database=self.database)
        world.clock = self.clock
        self.desk = Desk(world)

    def wall(self):
        return datetime.now(UTC) + self.ahead

    def an_id(self):
        """As this machine would draw it."""
        return shifted(new_id(), self.ahead)

    def dispatcher(self, sink):
        return Dispatcher(
            self.database,
            {sink.name: sink},
            self.wall,
            random.Random(7),
            work_clock=self.clock,
            lease=timedelta(seconds=35),
            backoff=Backoff((0.05, 0.1), max_attempts=1000),
        )

    def close(self):
        self.desk.world.runner.close()
        self.database.close()


def shifted(an_id, ahead):
    """The id as a machine draws it whose clock is so far ahead."""
    at = first_id(instant_of(an_id) + ahead)
    return at[:14] + an_id[14:]


@pytest.fixture
def machines(postgresql: PostgreSQL):
    database = postgresql.copy()
    made = [Machine(database.url, -APART), Machine(database.url, APART)]
    yield made
    for machine in made:
        machine.close()
    postgresql.drop(database)


class Shop:
    """Takes effects slowly, and fails now and then; keeps what it took in order."""

    name = "shop"

    def __init__(self):
        self.rng, self.took = random.Random(3), []

    async def deliver(self, owed, now):
        await asyncio.sleep(self.rng.uniform(0, 0.03))
        if self.rng.random() < 0.05:
            return Failed("answered 500", 500)
        self.took.append((json.loads(owed.payload)["data"]["provider_ref"], owed.effect))
        return Delivered()


def decide(machine, status, monkeypatch):
    """Every payment is moved by this machine's worker."""
    monkeypatch.setattr("storage.outbox.new_id", machine.an_id)
    for nth in range(PAYMENTS):
        machine.desk.webhook(status, f"pi_{nth}")
    while machine.desk.work():
        pass


async def deliver_all(machines, shop):
    """Both dispatchers at once, until nothing is owed to the shop."""
    dispatchers = [machine.dispatcher(shop) for machine in machines]
    async with asyncio.timeout(120):
        while await asyncio.to_thread(pending, machines[0].database):
            await asyncio.gather(*(dispatcher.step() for dispatcher in dispatchers))


def pending(database):
    with database.read() as unit:
        return sum(m.sink == "shop" for m in outbox.find(unit, status="pending", limit=10_000))


EXPECTED = {f"pi_{nth}": ["payment.paid", "payment.settled"] for nth in range(PAYMENTS)}


def by_payment(pairs):
    found = {}
    for ref, effect in pairs:
        found.setdefault(ref, []).append(effect)
    return found


def test_what_a_payment_owes_goes_out_once_and_in_order(machines, monkeypatch):
    """The worker ahead owes the first effect and the one behind the second; both deliver."""
    behind, ahead = machines
    decide(ahead, "awaiting_payment", monkeypatch)
    decide(ahead, "confirmed", monkeypatch)
    decide(behind, "settled", monkeypatch)
    shop = Shop()
    asyncio.run(deliver_all(machines, shop))

    assert by_payment(shop.took) == EXPECTED


def test_the_feed_numbers_what_a_payment_owes_in_order(machines, monkeypatch):
    """Though all of it waited for its number together, and its ids tell otherwise."""
    behind, ahead = machines
    decide(ahead, "awaiting_payment", monkeypatch)
    decide(ahead, "confirmed", monkeypatch)
    decide(behind, "settled", monkeypatch)
    monkeypatch.setattr("storage.event_feed.BATCH", 50)
    with behind.database.write() as unit:
        while event_feed.number(unit, 50):
            pass
    with behind.database.read() as unit:
        told = event_feed.find(unit, ["acme"], after=0, limit=10_000)

    assert by_payment((json.loads(one.payload)["data"]["provider_ref"], one.effect) for one in told) == EXPECTED


def test_an_alarm_ends_after_it_began(machines, monkeypatch):
    """Its beginning was owed by the worker ahead, its end by the one behind."""
    monkeypatch.setattr("storage.outbox.new_id", machines[1].an_id)
    owe_alarm(machines[1].database)
    monkeypatch.setattr("storage.outbox.new_id", machines[0].an_id)
    owe_alarm(machines[0].database)
    with machines[0].database.write() as unit:
        (first,) = outbox.claim_of_others(unit, machines[0].clock(), timedelta(seconds=35), [], 10)

    assert first.number == 1


def owe_alarm(database):
    with database.write() as unit:
        outbox.owe(
            unit,
            payment_id=None,
            account="acme",
            effect="account.silent",
            sink="shop",
            occurrence=0,
            cause=new_id(),
            payload="{}",
            now=datetime.now(UTC),
        )


#: Where a lease, or when something is due again, is kept.
LEASES = (
    ("decision", "at"),
    ("outbox", "next_attempt_at"),
    ("payment_poll", "next_poll_at"),
    ("push_watch", "due_at"),
    ("reconciliation", "lease_ends_at"),
)


@pytest.fixture
def service(postgresql, tmp_path):
    """One whose machine's clock is a month ahead."""
    database = postgresql.copy()
    made = Service(load.load(write_settings(tmp_path), {"RECEIPTED_SERVICE__DATABASE": database.url}))
    made.clock = lambda: datetime.now(UTC) + timedelta(days=30)
    yield made
    made.close()
    postgresql.drop(database)


def test_every_lease_of_a_service_goes_by_the_databases_clock(service):
    """Deciding, delivering, asking, measuring and walking: what a machine a month ahead claims is free in minutes."""
    desk_body = {"id": "evt_1", "type": "payment_intent.confirmed"}
    intent = {"id": "pi_1", "status": "confirmed", "amount": 4.5, "currency": "usd"}
    account = "stable"
    with service.database.write() as unit:
        message = a_message(
            account=account,
            body=json.dumps({**desk_body, "data": intent}).encode(),
            received_at=datetime.now(UTC),
        )
        inbox.record(unit, [message])
    service.inbox_worker().step()
    service.push_monitor().measure(account)
    asyncio.run(work(service, account))

    with service.database.read() as unit:
        found = {
            (table, column): unit.execute(sa.text(f"SELECT max({column}) FROM {table}")).scalar()  # noqa: S608
            for table, column in LEASES
        }
    soon = datetime.now(UTC) + timedelta(days=1)
    assert {place for place, at in found.items() if at is None or at > soon} == set()


async def work(service, account):
    """The sink and the provider are away; each is tried once."""
    async with service.dispatcher() as dispatcher, service.clients() as clients:
        await dispatcher.step()
        poller = service.poller(clients)
        await poller.start(account)
        await poller.aclose()
        now = service.work_clock()
        wanted = ReconciliationRequest(account, now - timedelta(days=1), now, "a test")
        await asyncio.to_thread(reconciler(service, clients).start, wanted)
