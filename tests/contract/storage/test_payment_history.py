"""A payment's story by pages, and the mark that changes with it, on every database."""

from datetime import timedelta

import pytest

from storage import inbox, operator_actions, outbox, payment_history, payment_polls, quarantine, transitions
from storage.changes import payment_marks
from storage.errors import NotFound
from storage.ids import new_id
from storage.tables import DeliveryAttempt, RejectedDelivery
from storage.types import OutboxStatus
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START


@pytest.fixture
def told(database):
    """A payment of which something of every kind has happened; with the ids of that, the newest first."""
    payment, messages = a_payment(), [a_message() for _ in range(3)]
    with database.write() as unit:
        keeping.keep(unit, payment)
        inbox.record(unit, messages)
        keeping.moved_to_paid(unit, payment, messages[0])
        keeping.change(unit, payment)
        for message in inbox.claim(unit, START, timedelta(seconds=9), 9):
            message.status, message.payment_id, message.decision = "decided", payment.id, "unchanged"
            keeping.decide(unit, [message])
        owed = outbox.owe(
            unit,
            payment_id=payment.id,
            account="acme",
            effect="payment.paid",
            sink="shop",
            occurrence=0,
            cause=messages[0].id,
            payload="{}",
            now=START,
        )
    with database.write() as unit:
        (claimed,) = outbox.claim_of_others(unit, START, timedelta(seconds=9), [], 9)
        outbox.settle(unit, claimed, attempt(), status=OutboxStatus.PENDING, next_attempt_at=START)
        rejected = RejectedDelivery(
            id="",
            account="acme",
            received_at=START,
            reason="signature_wrong",
            client="192.0.2.1",
            headers=[],
            body=b"x",
            about=payment.id,
        )
        quarantine.keep(unit, rejected, at_most=9)
        for subject in (payment.id, messages[1].id, owed, new_id()):
            operator_actions.note(
                unit, account="acme", at=START, actor="Ada", action="replay", subject=subject, reason="so"
            )
    return payment, owed


def attempt():
    return DeliveryAttempt(
        id="", outbox_id="", number=0, started_at=START, duration_ms=1, http_status=500, outcome="failed", error="no"
    )


def test_everything_that_happened_is_on_the_pages_once(database, told):
    """Whatever the length of a page, together they hold messages, attempts, actions and refusals, newest first."""
    payment, owed = told
    for limit in (1, 2, 3, 100):
        seen, before = [], None
        while True:
            with database.read() as unit:
                page = payment_history.read(unit, payment.id, before=before, limit=limit)
            seen += page.rows
            before = page.older
            if before is None:
                break
        kinds = [type(happening).__name__ for happening in seen]
        assert sorted(kinds) == sorted(
            ["InboxMessage"] * 3 + ["DeliveryAttempt"] + ["OperatorAction"] * 3 + ["RejectedDelivery"]
        )
        assert [happening.id for happening in seen] == sorted((h.id for h in seen), reverse=True)
    assert [message.id for message in page.owed] == [owed]
    assert [each.http_status for each in page.attempts] == [500]
    with database.read() as unit:
        assert page.transitions == transitions.of_payment(unit, payment.id)


def test_a_story_of_nobody_is_not_found(database):
    """A payment that does not exist has no story."""
    with database.read() as unit, pytest.raises(NotFound):
        payment_history.read(unit, new_id())


def test_messages_that_are_not_decided_are_told_apart(database, told):
    """What waits is there whichever page is read."""
    payment, _ = told
    waiting = a_message(about=payment.id)
    with database.write() as unit:
        inbox.record(unit, [waiting])
    with database.read() as unit:
        page = payment_history.read(unit, payment.id, before="0" * 8 + "-0000-7000-8000-000000000000", limit=5)

    assert [message.id for message in page.waiting] == [waiting.id]
    assert page.rows == []


def test_a_mark_changes_with_whatever_is_told_and_with_nothing_else(database, told):
    """Who watches several payments is told of that which has changed."""
    payment, _ = told
    other = a_payment()
    with database.write() as unit:
        keeping.keep(unit, other)

    def marks():
        with database.read() as unit:
            return payment_marks(unit, [payment.id, other.id, new_id()])

    first = marks()
    assert first == marks()
    assert set(first) == {payment.id, other.id}
    with database.write() as unit:
        (claimed,) = outbox.claim_of_others(unit, START, timedelta(seconds=9), [], 9)
        outbox.settle(unit, claimed, attempt(), status=OutboxStatus.DEAD, next_attempt_at=START)
    sent = marks()
    with database.write() as unit:
        outbox.redrive(unit, claimed.id, START)
    redriven = marks()
    with database.write() as unit:
        payment_polls.set_next(unit, payment.id, START)
    asked = marks()

    assert len({found[payment.id] for found in (first, sent, redriven, asked)}) == 4
    assert {found[other.id] for found in (first, sent, redriven, asked)} == {first[other.id]}
