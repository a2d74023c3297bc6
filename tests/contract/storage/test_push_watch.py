"""Measuring push on every database: one at a time, from where it ended, and figures that add up."""

from datetime import timedelta

import pytest

from statemachine.phases import Source
from storage import inbox, transitions, webhook_health
from storage.errors import LeaseLost
from storage.tables_support import PushQuality
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START

LEASE = timedelta(minutes=5)
LATER = START + timedelta(minutes=10)


def claim(database, now=START, account="acme"):
    with database.write() as unit:
        return webhook_health.claim(unit, account, now, LEASE)


def record(database, *messages):
    with database.write() as unit:
        inbox.record(unit, messages)
    return [message.id for message in messages]


def decided(database, message_id, status="decided", at=START):
    with database.write() as unit:
        message = inbox.get(unit, message_id)
        message.status, message.decided_at = status, at
        keeping.decide(unit, [message])


def after(database, message_id=None, now=LATER, limit=100):
    with database.read() as unit:
        found, passed, is_all = webhook_health.pushes_after(unit, "acme", message_id, now, limit)
    return [message.id for message in found], passed, is_all


def figures(**changes):
    row = PushQuality(account="acme", kind="k", event="paid", day=START.date(), **changes)
    return {("k", "paid", START.date()): row}


def keep_with_figures(database, watch):
    with database.write() as unit:
        webhook_health.add(unit, "acme", figures(pushed=1))
        webhook_health.keep(unit, watch)


def test_one_at_a_time_and_in_turn(database, again):
    """Whoever comes first has the account until the lease ends or it is kept; nobody is kept out for ever."""
    first = claim(database)
    assert first is not None
    assert claim(again) is None
    assert claim(again, account="other") is not None

    first.due_at = START + timedelta(minutes=1)
    with database.write() as unit:
        webhook_health.keep(unit, first)
    assert claim(again, START + timedelta(seconds=59)) is None
    second = claim(again, START + timedelta(minutes=1))
    assert (second.claim_token, second.account) == (first.claim_token + 1, "acme")
    assert claim(database, START + timedelta(minutes=1) + LEASE) is not None


def test_a_clock_that_was_wrong_puts_nothing_off(database):
    """What is due in more than a day is due now."""
    assert claim(database, START + timedelta(days=30)) is not None
    assert claim(database, START) is not None


def test_whoever_was_too_slow_keeps_nothing(database, again):
    """LeaseLost undoes the figures with the watermark."""
    slow = claim(database)
    quick = claim(again, START + LEASE)
    assert quick is not None

    with pytest.raises(LeaseLost):
        keep_with_figures(database, slow)
    with database.read() as unit:
        assert webhook_health.between(unit, "acme", START.date(), START.date()) == []


def test_figures_add_up_by_bins_and_counts(database):
    """Each is the sum of what was added, whoever added it."""
    for _ in range(2):
        with database.write() as unit:
            webhook_health.add(unit, "acme", figures(pushed=2, lost=1, lags={"3": 1, "-2": 4}))
            webhook_health.add(unit, "acme", figures(late=5, lags={"3": 2}, skews={"0": 1}))

    with database.read() as unit:
        (row,) = webhook_health.between(unit, "acme", START.date(), START.date(), kind="k")
    assert (row.pushed, row.late, row.lost) == (4, 10, 2)
    assert (row.lags, row.skews) == ({"3": 6, "-2": 8}, {"0": 2})


def test_only_what_is_decided_and_settled_is_measured(database):
    """In order, up to the first that is not; what is behind it is known of and waits."""
    first, second, third = record(database, *(a_message() for _ in range(3)))
    assert after(database) == ([first, second, third], None, True)
    for message_id in (first, third):
        decided(database, message_id)

    assert after(database) == ([first, second, third], first, True)
    assert after(database, first) == ([second, third], first, True)
    decided(database, second, at=LATER)
    assert after(database)[1] == first
    assert after(database, now=LATER + webhook_health.SETTLES)[1] == third


def test_one_that_cannot_be_decided_holds_up_nobody_for_ever(database):
    """What is pending for an hour is measured as it is, and what is behind it too."""
    stuck, behind = record(database, a_message(), a_message())
    decided(database, behind)

    assert after(database)[1] is None
    assert after(database, now=START + timedelta(hours=1))[1] == behind
    assert stuck < behind


def test_others_messages_are_passed_over(database):
    """A quiet account's watermark moves on with everybody's messages, batch by batch."""
    ids = record(database, a_message(), *(a_message(account="other") for _ in range(3)), a_message(source="poll"))
    for message_id in ids:
        decided(database, message_id)

    assert after(database, limit=2) == ([ids[0]], ids[1], False)
    assert after(database, ids[1], limit=2) == ([], ids[3], False)
    assert after(database, ids[3], limit=2) == ([], ids[4], True)


def test_transitions_are_passed_over_up_to_an_instant(database):
    """Those of the account, with their kind, and how far that goes."""
    mine, other = a_payment(), a_payment(account="other")
    cause = a_message()
    record(database, cause)
    with database.write() as unit:
        for payment in (mine, other):
            keeping.keep(unit, payment)
            keeping.moved_to_paid(unit, payment, cause)
            keeping.change(unit, payment)
    with database.read() as unit:
        (link,) = transitions.of_payment(unit, mine.id)
        (last,) = transitions.of_payment(unit, other.id)
        found, passed, is_all = webhook_health.transitions_after(unit, "acme", None, START, 10)
        assert [(transition.id, kind) for transition, kind in found] == [(link.id, "payment_intent")]
        assert (passed, is_all) == (last.id, True)
        assert webhook_health.transitions_after(unit, "acme", passed, START, 10) == ([], passed, True)
        early = START - timedelta(seconds=1)
        assert webhook_health.transitions_after(unit, "acme", None, early, 10) == ([], None, True)
        assert webhook_health.transitions_after(unit, "acme", None, START, 1)[1:] == (link.id, False)


def test_redeliveries_are_found_by_when_they_came(database):
    """Each once between two instants, and as many as the limit says without leaving any out."""
    keys = [f"evt_{number}" for number in range(4)]
    for seconds in (0, 60):
        for number, key in enumerate(keys):
            at = START + timedelta(seconds=seconds + (number // 2) * seconds)
            record(database, a_message(delivery_key=key, received_at=at))
    with database.read() as unit:
        whole, reached = webhook_health.redelivered(unit, "acme", None, LATER, 10)
        assert ([m.delivery_key for m in whole], reached) == (keys, LATER)
        part, reached = webhook_health.redelivered(unit, "acme", None, LATER, 3)
        assert [m.delivery_key for m in part] == keys[:2]
        rest, reached = webhook_health.redelivered(unit, "acme", reached, LATER, 3)
        assert [m.delivery_key for m in rest] == keys[2:]
        assert webhook_health.redelivered(unit, "acme", LATER, LATER, 3) == ([], LATER)
        assert webhook_health.last_redelivered_at(unit, "acme") == START + timedelta(seconds=120)
        assert webhook_health.last_push_at(unit, "acme", None) == START
        assert webhook_health.last_redelivered_at(unit, "other") is None


def test_payments_are_known_by_either_name(database):
    """The provider's or the merchant's, of the account and of these kinds."""
    named, referred = a_payment(provider_ref="pi_1"), a_payment(provider_ref="pi_2", reference="order-2")
    with database.write() as unit:
        for payment in (named, referred, a_payment(provider_ref="pi_1", account="other")):
            keeping.keep(unit, payment)
    with database.read() as unit:
        kinds = ["payment_intent"]
        assert webhook_health.known_by(unit, "acme", kinds, ["pi_1", "order-2", "x"]) == {named.id, referred.id}
        assert webhook_health.known_by(unit, "acme", ["payout"], ["pi_1"]) == set()
        assert webhook_health.known_by(unit, "acme", kinds, []) == set()
        assert webhook_health.kinds_of(unit, [named.id]) == {named.id: "payment_intent"}


def test_what_is_pushed_is_what_comes_by_itself():
    """Of all sources, webhooks and callbacks."""
    assert set(webhook_health.PUSHED) == {Source.WEBHOOK, Source.CALLBACK}
