"""Alarms of an account that cannot be asked, and of what was given up: each told once, and once when it is over."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from storage import counts, inbox, rate_limits
from tests.support.pipeline_world import World
from tests.support.rows import put_status
from tests.support.worker_desk import Desk
from tests.unit.poller.test_webhook_health import Meter, a_payment

AWAY, BACK = ("account.unreachable", False), ("account.unreachable", True)
DEAD, MENDED = ("account.dead_letters", False), ("account.dead_letters", True)


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


@pytest.fixture
def meter(desk):
    return Meter(desk)


def outage(desk, wait, *, was_probe=True):
    """A question met an outage, and the next comes after so many seconds."""
    with desk.database.write() as unit:
        rate_limits.note_outage(
            unit, "acme", desk.clock(), lambda _failures: timedelta(seconds=wait), was_probe=was_probe
        )


def answer(desk):
    with desk.database.write() as unit:
        rate_limits.note_answer(unit, "acme")


def test_an_outage_is_told_when_it_lasts_and_once(desk, meter):
    outage(desk, 300)
    meter.measure(300)
    assert meter.effects() == []
    outage(desk, 300)
    meter.measure(239)
    assert meter.effects() == []
    meter.measure(61)
    assert meter.effects() == [AWAY]
    outage(desk, 300)
    meter.measure(600)
    assert meter.effects() == [AWAY]
    (told,) = meter.watch().alarms.values()
    assert told["details"] == {"away_seconds": 600, "outages": 2}


def test_it_is_over_when_a_question_is_answered_and_may_come_again(desk, meter):
    for _ in range(2):
        outage(desk, 600)
        meter.measure(600)
        answer(desk)
        meter.measure()
        meter.measure()
    assert meter.effects() == [AWAY, BACK] * 2
    assert meter.watch().alarms == {}
    assert desk.world.audit().faults == []


def test_another_outage_ends_the_one_before(desk, meter):
    """The breaker closed and opened again between two measurements."""
    outage(desk, 600)
    meter.measure(600)
    answer(desk)
    outage(desk, 600)
    meter.measure()
    assert meter.effects() == [AWAY, BACK]
    meter.measure(600)
    assert meter.effects() == [AWAY, BACK, AWAY]


def test_who_is_not_asked_is_not_away(desk, meter):
    """The breaker opened, and then there was nothing to ask: nobody knows whether the provider is back."""
    outage(desk, 5)
    meter.measure(3600)
    assert meter.effects() == []


def test_how_long_is_a_setting(desk):
    meter = Meter(desk, unreachable=timedelta(minutes=1))
    outage(desk, 60)
    meter.measure(60)
    assert meter.effects() == [AWAY]


def kill(desk, table, condition="1 = 1"):
    with desk.database.write() as unit:
        if table == "inbox_message":
            put_status(unit, "dead", condition)
        else:
            unit.execute(text(f"UPDATE {table} SET status = 'dead' WHERE {condition}"))  # noqa: S608 - a test's own


def mend(desk, table, status):
    with desk.database.write() as unit:
        if table == "inbox_message":
            put_status(unit, status)
        else:
            unit.execute(text(f"UPDATE {table} SET status = '{status}' WHERE status = 'dead'"))  # noqa: S608


@pytest.mark.parametrize(("table", "status"), [("outbox_queue", "pending"), ("inbox_message", "decided")])
def test_what_is_dead_is_told_until_nothing_is(desk, meter, table, status):
    a_payment(desk)
    desk.told("confirmed")
    meter.measure()
    assert meter.effects() == []
    kill(desk, table)
    meter.measure()
    meter.measure()
    assert meter.effects() == [DEAD]
    (told,) = meter.watch().alarms.values()
    assert told["details"]["messages" if table == "inbox_message" else "effects"] == 2
    mend(desk, table, status)
    meter.measure()
    meter.measure()
    assert meter.effects() == [DEAD, MENDED]


def test_an_alarm_that_is_dead_begets_no_alarm(desk, meter):
    """Else each would be told by the next, for ever."""
    outage(desk, 600)
    meter.measure(600)
    kill(desk, "outbox_queue")
    with desk.database.read() as unit:
        assert counts.dead_of_account(unit, "acme") == counts.Dead(0, 0)
    meter.measure()
    meter.measure()
    assert meter.effects() == [AWAY]


def test_others_dead_are_not_this_accounts(desk, meter):
    a_payment(desk)
    desk.told("confirmed")
    kill(desk, "inbox_message")
    with desk.database.read() as unit:
        assert counts.dead_of_account(unit, "another") == counts.Dead(0, 0)
        assert counts.dead_of_account(unit, "acme").messages == len(inbox.find(unit, status="dead"))


def test_the_alarm_names_the_sinks_that_take_nothing(desk, meter):
    """By them the worker knows whom it is not to tell."""
    a_payment(desk)
    desk.told("confirmed")
    with desk.database.write() as unit:
        unit.execute(text("UPDATE outbox_queue SET status = 'dead' WHERE sink = 'ledger'"))
    meter.measure()

    (told,) = meter.watch().alarms.values()
    assert told["details"] == {"messages": 0, "effects": 1, "sinks": "ledger"}


def test_a_second_dead_sink_begins_an_alarm_of_its_own(desk, meter):
    """It may be the one by which people were told of the first; both alarms end when nothing is dead any more."""
    a_payment(desk)
    desk.told("confirmed")
    kill(desk, "outbox_queue", "sink = 'ledger'")
    meter.measure()
    meter.measure()
    assert meter.effects() == [DEAD]
    kill(desk, "outbox_queue", "sink = 'shop' AND payment_id IS NOT NULL")
    meter.measure()
    meter.measure()
    (told,) = meter.watch().alarms.values()
    assert (told["details"]["sinks"], len(told["earlier"])) == ("ledger, shop", 1)
    assert begun_and_over(desk) == {"ledger": [], "ledger, shop": []}
    mend(desk, "outbox_queue", "pending")
    meter.measure()
    assert meter.watch().alarms == {}
    assert begun_and_over(desk) == {"ledger": ["over"], "ledger, shop": ["over"]}


def test_a_sink_that_is_mended_and_dies_again_begins_another_alarm(desk, meter):
    """Though a second one was dead meanwhile."""
    a_payment(desk)
    desk.told("confirmed")
    kill(desk, "outbox_queue", "payment_id IS NOT NULL")
    meter.measure()
    with desk.database.write() as unit:
        unit.execute(text("UPDATE outbox_queue SET status = 'pending' WHERE sink = 'ledger'"))
    meter.measure()
    (told,) = meter.watch().alarms.values()
    assert told["details"]["sinks"] == "shop"
    kill(desk, "outbox_queue", "sink = 'ledger' AND payment_id IS NOT NULL")
    meter.measure()
    (told,) = meter.watch().alarms.values()
    assert len(told["earlier"]) == 1


def begun_and_over(desk):
    """By the sinks that each alarm named at its beginning, whether its end was told; by what is in the inbox."""
    with desk.database.read() as unit:
        said = [json.loads(m.body) for m in inbox.find(unit) if m.delivery_key.startswith("alarm:dead_letters")]
    names = {one["since"]: one["details"]["sinks"] for one in said if not one["is_over"]}
    ends = {one["since"] for one in said if one["is_over"]}
    return {name: ["over"] if since in ends else [] for since, name in names.items()}
