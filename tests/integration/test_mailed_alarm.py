"""An account falls silent: two workers measure and deliver, and people get one mail, and one when it is over."""

import asyncio
import ipaddress
import random
from datetime import timedelta

import pytest

from fulfilment.backoff import Backoff
from fulfilment.contract import EMAIL_DEFAULT_PATTERNS, EffectFilter
from fulfilment.email_message import Letterhead
from fulfilment.email_sink import EmailSink
from poller.webhook_health import PushMonitor, PushMonitorSettings
from storage import outbox
from tests.support import tls
from tests.support.builders import PROVIDERS, a_message
from tests.support.pipeline_world import SINKS, World
from tests.support.smtp import SmtpServer
from tests.support.worker_desk import Desk
from worker.dispatch import Dispatcher

HEAD = Letterhead("receipted@example.com", ("on-call@example.com",), "https://pay.example.com")
TAKES = {
    "shop": EffectFilter(EMAIL_DEFAULT_PATTERNS),
    **{sink: EffectFilter(("payment.*",)) for sink in SINKS if sink != "shop"},
}


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "world.db")
    made = Desk(world)
    made.set(takes=lambda sink, effect: TAKES[sink](effect), batch=500)
    yield made
    world.close()


@pytest.fixture(scope="module")
def authority():
    return tls.authority("a test's authority")


@pytest.fixture
def server(authority, tmp_path):
    with SmtpServer(tls.served(tmp_path / "mail", "mail.example", authority)) as made:
        yield made


async def here(_host, _port):
    return ["127.0.0.1"]


def measure(desk):
    """Two processes look at the same minute."""
    settings = PushMonitorSettings(every=timedelta(minutes=30))
    for _ in range(2):
        while PushMonitor(desk.database, {"acme": PROVIDERS["stable_genius"]}, desk.clock, settings).step():
            pass
    desk.world.settle()


def dispatch(desk, server, authority):
    """Two workers deliver what is due, at the same time."""

    async def whole():
        given = {
            "authorities": authority.pem.decode(),
            "allowed_networks": [ipaddress.ip_network("127.0.0.0/8")],
            "resolver": here,
        }
        sinks = [EmailSink("shop", f"smtp://mail.example:{server.port}", HEAD, **given) for _ in range(2)]
        workers = [
            Dispatcher(
                desk.database,
                {"shop": sink},
                desk.clock,
                random.Random(7),
                backoff=Backoff((5.0, 5.0), max_attempts=3, jitter=0.0),
            )
            for sink in sinks
        ]
        for _ in range(2):
            await asyncio.gather(*(worker.step() for worker in workers))
        for sink in sinks:
            await sink.aclose()

    asyncio.run(whole())


def a_day_of_deliveries(desk):
    """One each ten minutes for two days, measured as they come."""
    for number in range(288):
        desk.world.record(a_message(body=desk.event("confirmed", f"pi_{number}"), received_at=desk.clock()))
        desk.clock.advance(600)
        if number % 3 == 0:
            desk.world.settle()
            measure(desk)


def subjects(server):
    return [taken.mail["Subject"].partition(":")[0] for taken in server.taken]


def test_one_mail_when_it_begins_and_one_when_it_is_over(desk, server, authority):
    a_day_of_deliveries(desk)
    dispatch(desk, server, authority)
    assert subjects(server) == []

    for _ in range(10):
        desk.clock.advance(1800)
        measure(desk)
        dispatch(desk, server, authority)
    assert subjects(server) == ["[Receipted] acme is silent"]

    server.mode.message = "451 4.3.0 later"  # its end is put off once
    desk.told("confirmed", "pi_again")
    for _ in range(2):
        desk.clock.advance(1800)
        measure(desk)
        dispatch(desk, server, authority)
        server.mode.message = "250 2.0.0 queued"
    assert subjects(server) == ["[Receipted] acme is silent", "[Receipted] acme is silent no more"]

    begun, over = (taken.mail for taken in server.taken)
    assert over["In-Reply-To"] == begun["Message-ID"]
    with desk.database.read() as unit:
        owed = outbox.of_accounts(unit)
        paid = outbox.find(unit, sink="shop", limit=1000)
    assert [(row.sink, row.status) for row in owed] == [("shop", "delivered")] * 2
    assert {row.effect for row in paid} == {"account.silent"}
    assert desk.world.audit().faults == []
