"""What push was worth as an operator reads it, and an account's alarms in the outbox, the audit and the export."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from poller.alarms import AlarmChange, alarm_message, set_alarm
from poller.webhook_health import QualityTally
from receipted.cli.exits import Exit
from statemachine import histograms
from statemachine.phases import Alarm
from storage import webhook_health
from storage.columns import table_of
from storage.tables_support import PushWatch

from .test_inbox_outbox import WHO, kill_everything_owed, refused_create


def begun(now, alarm=Alarm.SILENT):
    return AlarmChange(
        alarm, now - timedelta(hours=3), False, "no verified delivery for 3 h 0 min", {"silent_seconds": 10_800}
    )


@pytest.fixture
def measured(shell):
    """Two accounts with figures: one that pushes, is behind and silent, and one that was never heard of."""
    service = shell.service()
    now = service.clock()
    tally = QualityTally("stable")
    confirmed = tally.of("payment_intent", "confirmed", now)
    confirmed.pushed, confirmed.late, confirmed.lost, confirmed.deliveries = 70, 5, 25, 80
    confirmed.duplicates, confirmed.reordered = 6, 1
    histograms.add_duration(confirmed.lags, timedelta(seconds=2), 78)
    histograms.add_duration(confirmed.lags, timedelta(minutes=20), 2)
    tally.of("payment_intent", "settled", now).lost = 40
    old = tally.of("payment_intent", "expired", now - timedelta(days=20))
    old.pushed = old.deliveries = 3
    whole = tally.of("", "", now)
    whole.rejected = 4
    histograms.add_duration(whole.skews, timedelta(seconds=-30.5), 80)
    with service.database.write() as unit:
        for account in ("stable", "banked"):
            watch = webhook_health.claim(unit, account, now, timedelta(minutes=5))
            watch.measured_at = now
            if account == "stable":
                watch.heard_at = now - timedelta(hours=3)
                set_alarm(watch, begun(now), now)
                webhook_health.add(unit, account, tally.rows)
            webhook_health.keep(unit, watch)
    service.close()
    return shell


def test_figures_are_read_without_knowing_the_program(measured):
    shown = measured("push-quality").out

    assert "ALARM stable: silent since" in shown
    assert "no verified delivery for 3 h 0 min" in shown
    assert "25.0%" in shown
    assert "not pushed" in shown
    assert re.search(r"(29|30|31|32) s behind", shown)
    assert "expired" not in shown
    assert "never" in next(line for line in shown.splitlines() if line.startswith("banked"))


def test_since_when_and_of_whom_may_be_said(measured):
    assert "expired" in measured("push-quality", "--since", "30d").out
    alone = measured("push-quality", "banked").out
    assert "stable" not in alone
    assert "no delivery was measured" in alone
    assert "no account" in measured("push-quality", "nobody", code=Exit.NOT_FOUND).err
    assert "--since" in measured("push-quality", "--since", "soon", code=Exit.USAGE).err


def test_figures_for_machines(measured):
    banked, stable = sorted(measured("push-quality", "--json").json, key=lambda found: found["account"])

    assert (banked["heard_at"], banked["events"], banked["alarms"]) == (None, [], {})
    assert stable["rejected"] == 4
    assert stable["skew_seconds"] == pytest.approx(-30, rel=0.051)
    assert stable["alarms"]["silent"]["details"] == {"silent_seconds": 10_800}
    by_event = {event["event"]: event for event in stable["events"]}
    confirmed = by_event["confirmed"]
    assert (confirmed["changes"], confirmed["loss"], confirmed["pushing"]) == (100, 0.25, "yes")
    assert confirmed["lag_p50_seconds"] == pytest.approx(2, rel=0.051)
    assert confirmed["lag_p99_seconds"] == pytest.approx(1200, rel=0.051)
    assert (by_event["settled"]["pushing"], by_event["settled"]["loss"]) == ("no", None)


def test_before_anything_was_measured_that_is_said(shell):
    assert "nothing was measured yet" in shell("push-quality").out
    assert shell("push-quality", "--json").json == []


def alarmed(shell):
    """An alarm of an account has gone through the inbox."""
    service = shell.service()
    now = datetime(2026, 4, 1, tzinfo=UTC)
    told = begun(now)
    message = alarm_message(
        "stable", told.alarm, since=told.since, is_over=False, reason=told.reason, details=told.details, now=now
    )
    service.inbox_worker().take(message)
    service.close()
    return message.id


def test_an_alarm_is_listed_redriven_audited_and_exported(shell, tmp_path):
    """Like any effect, without a payment."""
    refused_create(shell)
    cause = alarmed(shell)

    assert "account.silent" in shell("outbox", "list").out
    (owed,) = [one for one in shell("outbox", "list", "--json").json if one["effect"] == "account.silent"]
    assert (owed["payment_id"], owed["account"], owed["status"]) == (None, "stable", "pending")
    assert shell("inbox", "show", cause, "--json").json["decision"] == "noted"
    assert len(kill_everything_owed(shell)) == 2
    assert "account.silent to shop is due again" in shell("outbox", "redrive", owed["id"][-12:], *WHO).out
    assert "everything holds" in shell("audit", "verify").out

    lines = [json.loads(line) for line in shell("audit", "export").out.splitlines()]
    assert [(line["table"], line.get("id") or line["message_id"]) for line in lines[-3:]] == [
        ("inbox_message", cause),
        ("decision", cause),
        ("outbox_message", owed["id"]),
    ]


def test_an_alarm_is_not_replayed_by_command(shell):
    """What our own measuring said is said anew, not repeated."""
    cause = alarmed(shell)

    assert "is not replayed" in shell("inbox", "replay", cause, *WHO, code=Exit.USAGE).err


def test_a_watch_that_somebody_holds_is_left_alone(measured):
    """A command that shows figures takes no claim."""
    service = measured.service()
    with service.database.write() as unit:
        unit.execute(update(table_of(PushWatch)).values(claim_token=7))
    measured("push-quality")
    with service.database.read() as unit:
        tokens = {row.claim_token for row in unit.execute(table_of(PushWatch).select())}
    service.close()

    assert tokens == {7}
