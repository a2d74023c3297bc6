"""An alarm of an account: owed to every sink once, whatever is said or processed again; it touches no payment."""

import json
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from poller.alarms import alarm_message
from statemachine.phases import Alarm
from storage import inbox, outbox
from storage.ids import effect_id
from tests.support import keeping
from tests.support.clock import START

SILENT = {"since": START, "is_over": False, "reason": "nothing came", "details": {"hours": 3, "p99_seconds": 4.5}}


def alarm(desk, alarm=Alarm.SILENT, **changes):
    """The statement is recorded and applied; the message as it is kept."""
    message_id = desk.keep(alarm_message("acme", alarm, now=desk.clock(), **(SILENT | changes)))
    desk.work()
    return desk.message(message_id)


def owed(desk):
    with desk.database.read() as unit:
        return outbox.of_accounts(unit)


def test_an_alarm_is_owed_to_every_sink_and_to_no_payment(desk):
    message = alarm(desk)

    rows = owed(desk)
    assert sorted(row.sink for row in rows) == ["ledger", "shop"]
    assert {(row.payment_id, row.account, row.effect, row.cause) for row in rows} == {
        (None, "acme", "account.silent", message.id)
    }
    assert (message.status, message.decision, message.payment_id) == ("decided", "noted", None)
    assert desk.world.audit().faults == []


def test_the_payload_says_which_alarm_and_why_and_names_no_payment(desk):
    alarm(desk)

    assert json.loads(owed(desk)[0].payload) == {
        "type": "account.silent",
        "timestamp": START.isoformat(),
        "data": {
            "effect_id": effect_id("acme", [START.isoformat(), False], "account.silent", 0),
            "account": "acme",
            "alarm": "silent",
            "since": START.isoformat(),
            "is_over": False,
            "reason": "nothing came",
            "details": {"hours": 3, "p99_seconds": 4.5},
        },
    }


@pytest.mark.parametrize("word", Alarm)
def test_every_alarm_has_an_effect_of_its_name(desk, word):
    alarm(desk, word)

    assert {row.effect for row in owed(desk)} == {f"account.{word.value}"}


def test_said_again_it_is_owed_once(desk):
    first = alarm(desk)
    again = alarm(desk)

    assert again.id == first.id
    assert (again.redeliveries, len(owed(desk))) == (1, 2)


def test_a_replay_owes_nothing_more(desk):
    message = alarm(desk)
    with desk.database.write() as unit:
        keeping.replay(unit, message.id, desk.clock())
    desk.work()

    assert len(owed(desk)) == 2
    assert [("effects" in entry) for entry in desk.message(message.id).outcomes] == [True, False]
    assert desk.world.audit().faults == []


def test_a_replay_for_a_new_sink_owes_it_to_that_one_only(desk):
    message = alarm(desk)
    desk.set(sinks=("shop", "ledger", "pager"))
    with desk.database.write() as unit:
        keeping.replay(unit, message.id, desk.clock())
    desk.work()

    assert sorted(row.sink for row in owed(desk)) == ["ledger", "pager", "shop"]
    assert desk.world.audit().faults == []


def test_the_same_alarm_in_other_words_is_parked(desk):
    alarm(desk)
    other = alarm(desk, reason="other words")

    assert len(owed(desk)) == 2
    with desk.database.read() as unit:
        (parked,) = inbox.find(unit, status="parked")
    assert parked.variant_of == other.variant_of or parked.id == other.id


def test_its_end_and_its_next_time_are_owed_too(desk):
    alarm(desk)
    alarm(desk, is_over=True, reason="it came")
    alarm(desk, since=START + timedelta(days=1))

    shop = [json.loads(row.payload)["data"] for row in owed(desk) if row.sink == "shop"]
    assert [(data["since"][:10], data["is_over"]) for data in shop] == [
        ("2026-04-01", False),
        ("2026-04-01", True),
        ("2026-04-02", False),
    ]


def test_what_comes_from_outside_is_no_alarm(desk):
    said = alarm_message("acme", Alarm.SILENT, now=START, **SILENT)
    said.source = "webhook"
    desk.keep(said)
    desk.work()

    assert owed(desk) == []


GIVEN_UP = {"reason": "given up", "details": {"messages": 0, "effects": 2, "sinks": "shop"}}


def told_of_dead_letters(desk, *, takes=lambda _sink, _effect: True, **changes):
    """The sinks that are owed the alarm."""
    desk.set(takes=takes)
    message = alarm(desk, Alarm.DEAD_LETTERS, **(GIVEN_UP | changes))
    return sorted(row.sink for row in owed(desk) if row.cause == message.id)


def test_the_alarm_of_what_is_dead_is_owed_to_the_sinks_that_take_something(desk):
    """Not to the one that is dead; and its end to those that were told of its beginning."""
    assert told_of_dead_letters(desk) == ["ledger"]
    assert told_of_dead_letters(desk, is_over=True, details={}) == ["ledger"]
    assert told_of_dead_letters(desk, since=START + timedelta(days=1), details={"messages": 1}) == ["ledger", "shop"]


def test_the_alarm_of_what_is_dead_at_every_sink_that_takes_it_is_logged(desk):
    """It is owed all the same, so that it is in the feed, and told when the sink is mended."""
    with capture_logs() as logged:
        assert told_of_dead_letters(desk, takes=lambda sink, _effect: sink == "shop") == ["shop"]
    assert [entry for entry in logged if entry["event"] == "alarm.unheard"] == [
        {"event": "alarm.unheard", "log_level": "error", "account": "acme", "alarm": "dead_letters", "sinks": "shop"}
    ]
