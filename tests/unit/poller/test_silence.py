"""An account that falls silent is told once, and once when it speaks again; what was our own doing is not told."""

import random
from datetime import timedelta

import pytest
from sqlalchemy import update

from poller.silence import DeliveryRhythm
from storage.columns import table_of
from storage.tables_support import PushWatch
from tests.support.clock import START
from tests.support.pipeline_world import World
from tests.support.worker_desk import Desk
from tests.unit.poller.test_webhook_health import Meter, a_payment, reject

SILENT = [("account.silent", False)]
OVER = [*SILENT, ("account.silent", True)]


@pytest.fixture(scope="module")
def rhythm():
    """Ten days at ten an hour, until START."""
    found, source = DeliveryRhythm(), random.Random(1)
    at = START - timedelta(days=10)
    while at < START:
        found.add_delivery(at)
        at += timedelta(hours=source.expovariate(10))
    return found.dump()


@pytest.fixture
def meter(template, tmp_path, rhythm):
    """An account that is measured, and has been heard of just now."""
    world = World(template, tmp_path / "desk.db")
    meter = Meter(Desk(world))
    a_payment(meter.desk)
    meter.desk.told("awaiting_payment")
    meter.measure()
    with world.database.write() as unit:
        unit.execute(update(table_of(PushWatch)).values(rhythm=rhythm))
    yield meter
    world.close()


def for_minutes(meter, minutes):
    """It is measured every two and a half minutes, which is not away yet."""
    for _ in range(round(minutes / 2.5)):
        meter.measure(150)
    meter.desk.work()


def test_silence_is_told_once_and_once_when_it_is_over(meter):
    for_minutes(meter, 50)
    assert meter.effects() == []
    for_minutes(meter, 60)
    assert meter.effects() == SILENT
    told = meter.watch().alarms["silent"]
    assert "should have come" in told["reason"]
    assert told["details"]["silent_seconds"] > 40 * 60

    for_minutes(meter, 120)
    assert meter.effects() == SILENT
    meter.desk.told("awaiting_payment")
    for_minutes(meter, 3)
    assert meter.effects() == OVER
    assert meter.watch().alarms == {}
    assert meter.desk.world.audit().faults == []


def test_a_redelivery_ends_a_silence_too(meter):
    message = meter.desk.told("awaiting_payment")
    for_minutes(meter, 120)
    assert meter.effects() == SILENT

    again = meter.desk.message(message.id)
    again.received_at = meter.clock()
    meter.desk.world.record(again)
    for_minutes(meter, 3)

    assert meter.effects() == OVER


def test_our_own_downtime_is_no_silence(meter):
    """While nobody measured, nobody may have listened; what is still silent long after that is told."""
    for_minutes(meter, 5)
    meter.clock.advance(86_400)
    for_minutes(meter, 40)
    assert meter.effects() == []

    for_minutes(meter, 90)
    assert meter.effects() == SILENT


def test_rejections_meanwhile_are_told_with_the_silence(meter):
    for_minutes(meter, 3)
    for _ in range(2):
        reject(meter.desk, b"{}")
    for_minutes(meter, 120)

    assert "2 were rejected" in meter.watch().alarms["silent"]["reason"]


def test_an_account_that_was_never_heard_of_is_not_silent(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    meter = Meter(Desk(world))
    a_payment(meter.desk)
    for _ in range(5):
        meter.measure(86_400)
    for_minutes(meter, 10)

    assert meter.effects() == []
    assert meter.report().heard_at is None
    world.close()
