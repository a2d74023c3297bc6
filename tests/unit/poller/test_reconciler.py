"""When an account is reconciled without anybody asking, and what is told of what was found."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from poller import reconciler
from poller.reconciler import ReconciliationSchedule, last_slot
from providers.errors import ProviderError
from storage import outbox

DAY = timedelta(days=1)
HOUR = 3600
AWAY = ProviderError("away", http_status=503, may_retry=True)


def timetable(rounds, **changes):
    """A process that has just started."""
    settings = {"every": DAY, "look_back": 3 * DAY} | changes
    return ReconciliationSchedule(rounds.database, rounds.reconciler(), rounds.clock, **settings)


def step(rounds, table):
    with capture_logs() as logs:
        done = rounds.world.run(table.step("acme"))
    rounds.desk.work()  # the alarm
    return done, [entry for entry in logs if entry["event"].startswith("reconcile.")]


def alarms(rounds):
    with rounds.database.read() as unit:
        return [owed for owed in outbox.of_accounts(unit) if owed.effect == "account.drift"]


def to_the_next_slot(rounds):
    rounds.clock.now = last_slot("acme", DAY, rounds.clock()) + DAY + timedelta(seconds=1)


@pytest.fixture
def table(rounds):
    return timetable(rounds)


def test_accounts_begin_at_instants_of_their_own():
    now = datetime(2026, 4, 1, 12, tzinfo=UTC)
    slots = {last_slot(f"account {number}", DAY, now) for number in range(24)}

    assert len(slots) == 24
    assert all(now - DAY < at <= now for at in slots)
    assert max(later - earlier for earlier, later in pairwise(sorted(slots))) < timedelta(hours=9)


def test_a_slot_comes_once_a_period():
    now = datetime(2026, 4, 1, 12, tzinfo=UTC)
    first = last_slot("acme", DAY, now)

    assert last_slot("acme", DAY, first) == first
    assert last_slot("acme", DAY, first + DAY) == first + DAY
    assert last_slot("acme", DAY, first - timedelta(seconds=1)) == first - DAY


def test_once_a_day_and_not_at_the_start(rounds, table):
    assert step(rounds, table)[0] == 0
    to_the_next_slot(rounds)
    assert [step(rounds, table)[0], step(rounds, table)[0]] == [1, 0]
    rounds.clock.advance(HOUR)
    assert step(rounds, timetable(rounds))[0] == 0
    to_the_next_slot(rounds)
    assert step(rounds, table)[0] == 1

    later, first = rounds.rows()
    assert (first.asked_by, first.until - first.since) == ("schedule", 3 * DAY)
    assert later.since == later.until - 3 * DAY


def test_after_an_absence_there_is_no_hole(rounds, table):
    to_the_next_slot(rounds)
    step(rounds, table)
    rounds.clock.advance(10 * DAY.total_seconds())

    assert step(rounds, timetable(rounds))[0] == 1
    later, first = rounds.rows()
    assert later.since == first.until


def test_after_a_very_long_absence_the_range_is_bounded(rounds, table):
    to_the_next_slot(rounds)
    step(rounds, table)
    rounds.clock.advance(300 * DAY.total_seconds())
    step(rounds, table)

    assert rounds.rows()[0].since == rounds.clock() - 30 * DAY


def test_drift_alarms_once_at_every_sink_and_in_the_log(rounds, table):
    rounds.known("pi_1")
    rounds.genius.has("pi_1", "confirmed")
    to_the_next_slot(rounds)

    _, logs = step(rounds, table)

    (row,) = rounds.rows()
    (drift,) = [entry for entry in logs if entry["event"] == "reconcile.drift"]
    assert (drift["log_level"], drift["drift"], drift["reconciliation_id"]) == ("warning", 1, row.id)
    told = alarms(rounds)
    assert sorted(owed.sink for owed in told) == ["ledger", "shop"]
    data = json.loads(told[0].payload)["data"]
    assert (data["account"], data["alarm"], data["since"]) == ("acme", "drift", row.began_at.isoformat())
    assert (data["details"]["drift"], data["details"]["reconciliation"]) == (1, row.id)
    assert "1 payment was not as known here" in data["reason"]

    to_the_next_slot(rounds)
    _, logs = step(rounds, table)
    assert not [entry for entry in logs if entry["event"] == "reconcile.drift"]
    assert len(alarms(rounds)) == 2
    assert rounds.world.audit().faults == []


def test_no_drift_no_alarm(rounds, table):
    rounds.known("pi_1")
    to_the_next_slot(rounds)
    _, logs = step(rounds, table)

    assert [entry["event"] for entry in logs] == ["reconcile.started", "reconcile.done"]
    assert alarms(rounds) == []


@pytest.mark.parametrize(("age", "is_alarming"), [(60, False), (299, False), (301, True)])
def test_what_a_webhook_was_about_to_tell_does_not_alarm(rounds, table, age, is_alarming):
    """It is in the report all the same, and so is how young it was."""
    rounds.known("pi_1")
    to_the_next_slot(rounds)
    rounds.genius.has("pi_1", "confirmed")
    rounds.clock.advance(age)

    _, logs = step(rounds, table)

    (entry,) = rounds.rows()[0].drift
    assert entry["is_fresh"] is not is_alarming
    assert rounds.rows()[0].counts["fresh"] == int(not is_alarming)
    assert (alarms(rounds) != []) is is_alarming
    assert any(e["event"] == "reconcile.drift" for e in logs) is is_alarming


@pytest.mark.parametrize("answered_before", [30, HOUR])
def test_where_no_time_is_told_the_last_answer_bounds_it(rounds, table, answered_before):
    """The provider does not say since when: no longer than since it last said otherwise."""
    rounds.known("pi_1")
    to_the_next_slot(rounds)
    rounds.clock.advance(-answered_before)
    rounds.world.run(rounds.world.poller("acme").ask(rounds.desk.polled(rounds.desk.payment().id)))
    rounds.desk.work()
    rounds.clock.advance(answered_before)
    rounds.genius.has("pi_1", "confirmed", confirmed_at=None)
    step(rounds, table)

    (entry,) = rounds.rows()[0].drift
    assert (entry["since"], entry["unknown_for_seconds"], entry["at_most_seconds"]) == (None, None, answered_before)
    assert entry["is_fresh"] is (answered_before == 30)


@pytest.mark.parametrize(("state", "is_alarming"), [("awaiting_payment", False), ("confirmed", True)])
def test_an_open_payment_made_elsewhere_alarms_nobody(rounds, table, state, is_alarming):
    """Nothing has happened that a webhook would have told; of money somebody should have told."""
    rounds.genius.has("pi_1", state)
    to_the_next_slot(rounds)
    step(rounds, table)

    (entry,) = rounds.rows()[0].drift
    assert (entry["is_adopted"], entry["is_alarming"]) == (True, is_alarming)
    assert (alarms(rounds) != []) is is_alarming


def test_what_a_person_asked_for_alarms_nobody_else(rounds):
    rounds.known("pi_1")
    rounds.genius.has("pi_1", "confirmed")
    rounds.clock.advance(HOUR)

    assert rounds.walk().counts["drift"] == 1
    rounds.desk.work()
    assert alarms(rounds) == []


# what is left unfinished


def test_what_the_schedule_began_is_gone_on_with_at_once(rounds, table):
    to_the_next_slot(rounds)
    rounds.reconciler("process 1 on a").start(rounds.wanted("schedule"))
    assert step(rounds, table)[0] == 0  # its process may be alive
    rounds.clock.advance(61)

    assert step(rounds, table)[0] == 1
    (row,) = rounds.rows()
    assert (row.status, row.claim_token) == ("done", 2)


def test_what_a_person_began_is_gone_on_with_when_the_next_is_due(rounds, table):
    rounds.reconciler("process 1 on a").start(rounds.wanted("ada"))
    rounds.clock.advance(61)
    assert step(rounds, table)[0] == 0
    to_the_next_slot(rounds)

    assert [step(rounds, table)[0] for _ in range(3)] == [1, 1, 0]
    assert [(row.asked_by, row.status) for row in rounds.rows()] == [("schedule", "done"), ("ada", "done")]


def test_a_provider_that_is_away_is_left_alone_for_a_while(rounds, table):
    for number in range(6):
        rounds.known(f"pi_{number}", is_old=True)
        rounds.genius.faults[f"pi_{number}"] = [AWAY] * 3
    to_the_next_slot(rounds)
    done, logs = step(rounds, table)
    assert (done, logs[-1]["event"]) == (0, "reconcile.paused")

    asked = len(rounds.genius.asked)
    assert step(rounds, table)[0] == 0
    assert len(rounds.genius.asked) == asked
    rounds.genius.faults.clear()
    rounds.clock.advance(601)
    assert step(rounds, table)[0] == 1
    assert rounds.rows()[0].asked == 6


def test_a_bug_is_seen_and_stops_neither_the_process_nor_the_next_try(rounds, table, monkeypatch):
    rounds.known("pi_1")
    to_the_next_slot(rounds)

    def broken(*_):
        raise RuntimeError("oops")

    with monkeypatch.context() as patched:
        patched.setattr(reconciler, "build_report", broken)
        done, logs = step(rounds, table)
        assert (done, logs[-1]["event"], logs[-1]["log_level"]) == (0, "reconcile.failed", "error")
        assert step(rounds, table) == (0, [])
    assert rounds.rows()[0].last_error == "reconciling failed here: RuntimeError"
    rounds.clock.advance(HOUR + 1)
    assert step(rounds, table)[0] == 1


def test_a_clock_that_was_wrong_does_not_stop_the_schedule(rounds, table):
    now = rounds.clock()
    rounds.clock.now = now + 800 * DAY
    step(rounds, table)
    to_the_next_slot(rounds)
    rounds.clock.now = now
    table = timetable(rounds)
    to_the_next_slot(rounds)

    assert step(rounds, table)[0] == 1
