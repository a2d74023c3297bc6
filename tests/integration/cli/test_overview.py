"""The first look of an operator in a terminal: money, what needs somebody, what waits, and each account."""

from datetime import timedelta

import pytest

from receipted import wiring
from receipted.cli.exits import Exit
from storage.tables_support import PushQuality, PushWatch
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.rows import a_rejection, a_transition, an_effect, id_at

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def at_ten(shell, monkeypatch):
    """Commands at an instant that stands still, 10:00 UTC."""
    monkeypatch.setattr(wiring, "utc_now", lambda: START)
    return shell


def paid(amount, currency, *, at, account="payfield", kind="payin", phase="paid", **changes):
    """A payment, and the transition by which it became so."""
    given = {"account": account, "kind": kind, "amount_minor": amount, "currency": currency, "phase": phase}
    payment = a_payment(id=id_at(at), provider_ref=id_at(at), **given, **changes)
    return payment, a_transition(payment, 1, phase, at)


def row(shown, *names):
    """The cells of the line that begins with these."""
    (found,) = (line.split() for line in shown.splitlines() if line.split()[: len(names)] == list(names))
    return found


def test_money_is_that_of_today_and_of_yesterday_by_the_same_time(at_ten):
    """By account and currency; what was given back stands apart, and what came later yesterday is not in it."""
    at_ten.write(
        *paid(12_345, "BDT", at=START - HOUR),
        *paid(100, "BDT", at=START - DAY - HOUR),
        *paid(999, "BDT", at=START - DAY + HOUR),
        *paid(50_000, "USD", at=START - HOUR, account="stable", kind="payment_intent", review="amount_mismatch"),
        *paid(700, "USD", at=START - HOUR, account="alternative", kind="payment_request"),
        *paid(300, "USD", at=START - HOUR, account="stable", kind="payment_intent", phase="refunded"),
    )

    shown, data = at_ten("overview").out, at_ten("overview", "--json").json

    assert row(shown, "payfield", "paid") == ["payfield", "paid", "123.45", "BDT", "1", "1.00", "BDT", "1"]
    assert row(shown, "stable", "paid")[2:] == ["500.00", "USD", "1", "0.00", "USD", "0", "1", "in", "doubt"]
    assert row(shown, "stable", "refunded")[2:4] == ["3.00", "USD"]
    assert row(shown, "all", "paid")[2:5] == ["507.00", "USD", "2"]
    (taken,) = (one for one in data["money"] if one["account"] == "payfield")
    assert (taken["today"]["amount_minor"], taken["yesterday_by_now"]["amount_minor"]) == (12_345, 100)
    assert [one["today"]["amount_minor"] for one in data["totals"]] == [50_700]


def test_what_needs_somebody_and_what_waits_is_counted_with_its_age(at_ten):
    """Open, in review, dead, parked, pending with the oldest, and how much comes in."""
    old, minutes = START - timedelta(hours=3), timedelta(minutes=10)
    needy = a_payment(id=id_at(old), account="stable", phase="open", review="conflict", review_opened_at=old)
    waiting = a_message(account="stable", received_at=START - minutes)
    waiting.id = id_at(START - minutes)
    at_ten.write(
        needy,
        a_payment(account="stable", phase="processing", provider_ref="pi_2"),
        an_effect(status="dead", at=START - HOUR),
        an_effect(at=START - minutes),
        waiting,
        a_rejection(account="stable", at=START - minutes),
    )

    shown, data = at_ten("overview").out, at_ten("overview", "--json").json

    assert row(shown, "Needs", "review")[2:] == ["1", "3h", "oldest:", needy.id[-12:]]
    assert row(shown, "Dead", "effects")[2:4] == ["1", "1h"]
    assert row(shown, "Inbox", "waiting")[2:4] == ["1", "10m"]
    assert row(shown, "Payments", "open")[2] == "1"
    assert row(shown, "stable")[1:3] == ["1", "1"]
    assert (data["needs_review"]["oldest"], data["needs_review"]["count"]) == (needy.id, 1)
    assert data["payments"]["processing"]["count"] == 1
    assert data["pending_messages"]["since"] == "2026-04-01T09:50:00Z"
    assert data["deliveries"]["last_hour"] == 2
    assert {"minute": "2026-04-01T09:50:00Z", "pending": 1, "rejected": 1} in data["deliveries_per_minute"]


def test_each_account_shows_its_push_its_lateness_and_what_is_in_the_way(at_ten):
    """Late questions, the worth of push, standing alarms; text of others cannot steer the terminal."""
    alarm = {"since": START.isoformat(), "reason": "nothing\x1b[2J came", "details": {}, "number": 1}
    asked = a_payment(account="stable", provider_ref="pi_1")
    of_push = {"kind": "payment_intent", "event": "confirmed", "day": START.date()}
    at_ten.write(
        asked,
        PushQuality(account="stable", **of_push, pushed=70, late=5, lost=25, lags={}, skews={}),
        PushWatch(account="stable", due_at=START, alarms={"silent": alarm}, rhythm={}, heard_at=START - HOUR),
    )
    at_ten.ask_at(asked.id, START - HOUR)

    shown, data = at_ten("overview").out, at_ten("overview", "--json").json

    assert "ALARM stable: silent: nothing" in shown
    assert "\x1b" not in shown
    assert row(shown, "stable")[3:] == ["2026-04-01", "09:00:00Z", "0", "1,", "by", "1h", "25.0%", "5.0%", "silent"]
    (stable,) = (one for one in data["accounts"] if one["account"] == "stable")
    assert (stable["questions_late"]["count"], stable["push"]["lost"], stable["alarms"]) == (1, 25, ["silent"])


def test_an_empty_database_is_no_reason_to_fail(at_ten):
    """Nothing was paid, nothing waits."""
    assert "no money today or yesterday" in at_ten("overview").out
    assert at_ten("overview", "--json").json["money"] == []


def test_the_money_of_a_day_and_the_payments_behind_it(at_ten):
    """Sums by account and currency; with --payments each payment, the newest first, page by page."""
    first, second = paid(1_000, "BDT", at=START - 2 * HOUR), paid(2_345, "BDT", at=START - HOUR, reference="=1+1")
    at_ten.write(*first, *second, *paid(77, "INR", at=START - DAY, account="payfield-old"))

    assert row(at_ten("money").out, "payfield")[1:] == ["paid", "33.45", "BDT", "2"]
    assert "payfield-old" in at_ten("money", "2026-03-31").out
    (sums,) = at_ten("money", "--currency", "bdt", "--way", "in", "--json").json
    assert (sums["amount"], sums["amount_minor"], sums["payments"]) == ("33.45", 3345, 2)
    (newest,) = (typed := at_ten("money", "--payments", "--json", "--limit", "1")).json
    assert (newest["payment_id"], newest["amount"]) == (second[0].id, "23.45"), typed
    (older,) = at_ten("money", "--payments", "--json", "--after", newest["id"]).json
    assert older["payment_id"] == first[0].id
    assert ',"\'=1+1",' in at_ten("money", "--payments", "--csv").out
    assert "no money on 2026-03-30" in at_ten("money", "2026-03-30").out


@pytest.mark.parametrize(
    "args", [["soon"], ["1969-12-31"], ["--way", "up"], ["--currency", "money"], ["--payments", "--after", "x"]]
)
def test_money_of_what_there_is_not_is_refused_in_words(at_ten, args):
    """Nothing is guessed."""
    at_ten("money", *args, code=Exit.USAGE)
