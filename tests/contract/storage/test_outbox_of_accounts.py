"""Effects about an account on every database: once for each cause and sink, in order for each alarm."""

from datetime import timedelta

import pytest

from storage import inbox, outbox
from storage.tables import DeliveryAttempt
from storage.types import OutboxStatus
from tests.support.builders import a_message
from tests.support.clock import START

LEASE = timedelta(seconds=60)


@pytest.fixture
def causes(database):
    messages = [a_message() for _ in range(3)]
    with database.write() as unit:
        inbox.record(unit, messages)
    return [message.id for message in messages]


def owe(database, cause, **changes):
    defaults = {"account": "acme", "effect": "account.silent", "sink": "shop", "occurrence": 0, "payload": "{}"}
    with database.write() as unit:
        return outbox.owe(unit, payment_id=None, cause=cause, now=START, **(defaults | changes))


def claim(database, now=START):
    with database.write() as unit:
        limits = outbox.ClaimLimits(10, 10, 10)
        return [message for sink in ("shop", "ledger") for message in outbox.claim(unit, now, LEASE, sink, limits)]


def settle(database, message, status):
    attempt = DeliveryAttempt(
        id="", outbox_id="", number=0, started_at=START, duration_ms=5, outcome=status.value, error=None
    )
    with database.write() as unit:
        outbox.settle(unit, message, attempt, status=status, next_attempt_at=START)


def test_it_is_owed_once_for_each_cause_effect_and_sink(database, causes):
    """However often it is owed, there is one row; another cause, effect or sink has its own."""
    assert owe(database, causes[0]) is not None
    assert owe(database, causes[0]) is None
    assert owe(database, causes[0], payload='{"other": 1}') is None
    assert owe(database, causes[1]) is not None
    assert owe(database, causes[0], sink="ledger") is not None
    assert owe(database, causes[0], effect="account.drift") is not None

    with database.read() as unit:
        assert len(outbox.of_accounts(unit)) == 4


def test_the_end_of_an_alarm_waits_for_its_beginning(database, causes):
    """Per sink, account and alarm in order; other alarms, accounts and sinks do not wait."""
    begun = owe(database, causes[0])
    over = owe(database, causes[1])
    apart = [
        owe(database, causes[2], effect="account.push_loss"),
        owe(database, causes[2], account="other"),
        owe(database, causes[1], sink="ledger"),
    ]

    first = claim(database)
    assert [m.id for m in first] == [begun, *apart]
    settle(database, first[0], OutboxStatus.DELIVERED)
    assert [m.id for m in claim(database)] == [over]


def test_a_dead_beginning_lets_the_end_pass(database, causes):
    """What was given up, visibly, holds nothing back; redriven, it comes again by itself."""
    begun, over = owe(database, causes[0]), owe(database, causes[1])
    settle(database, claim(database)[0], OutboxStatus.DEAD)

    assert [m.id for m in claim(database)] == [over]
    with database.write() as unit:
        assert outbox.redrive(unit, begun, START, overtaken=True).status == "pending"
    assert [m.id for m in claim(database)] == [begun]


def test_they_are_read_in_order_and_page_by_page(database, causes):
    """Every one of them, and nothing that is about a payment."""
    every = [owe(database, cause) for cause in causes]

    with database.read() as unit:
        page = outbox.of_accounts(unit, limit=2)
        rest = outbox.of_accounts(unit, after=page[-1].id, limit=2)
    assert [m.id for m in (*page, *rest)] == every
