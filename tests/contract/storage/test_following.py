"""What a follower tells on every database: each thing once, whatever order it is committed in."""

from datetime import UTC, datetime, timedelta

from storage import inbox, outbox, quarantine
from storage.changes import Follower
from storage.ids import new_id
from storage.tables import DeliveryAttempt, RejectedDelivery
from storage.types import InboxStatus, OutboxStatus
from tests.contract.storage.test_events import owe
from tests.support import keeping
from tests.support.builders import a_message, a_payment


def now():
    return datetime.now(UTC)  # ids have the time of the machine's clock


def told(follower):
    return [(event.what, event.row.account) for event in follower.news(now())]


def test_each_thing_is_told_once(database):
    """A message, its decision, the move, the effect and each of its tries; a second look tells nothing."""
    follower = Follower(database, now())
    message, payment = a_message(received_at=now()), a_payment()
    with database.write() as unit:
        inbox.record(unit, [message])
    assert told(follower) == [("received", "acme")]

    with database.write() as unit:
        (claimed,) = inbox.claim(unit, now(), timedelta(seconds=9), 1)
        keeping.keep(unit, payment)
        keeping.moved_to_paid(unit, payment, claimed)
        claimed.status, claimed.decision, claimed.decided_at = InboxStatus.DECIDED, "advanced", now()
        claimed.payment_id, claimed.reason = payment.id, "a test"
        keeping.decide(unit, [claimed])
        owe(unit, payment.id, cause=message.id)
    assert sorted(told(follower)) == [("decided", "acme"), ("moved", "acme"), ("owed", "acme")]
    assert told(follower) == []


def test_every_try_is_told_until_the_effect_is_delivered(database):
    """A failed one and the one that is taken, each with its number."""
    follower = Follower(database, now())
    with database.write() as unit:
        owe(unit, new_id())
    assert told(follower) == [("owed", "acme")]

    for number, (status, outcome) in enumerate(
        [(OutboxStatus.PENDING, "failed"), (OutboxStatus.DELIVERED, "delivered")], start=1
    ):
        with database.write() as unit:
            (claimed,) = outbox.claim_of_others(unit, now() + timedelta(days=number), timedelta(seconds=9), [], 1)
            attempt = DeliveryAttempt(
                id=new_id(),
                outbox_id=claimed.id,
                number=number,
                account=claimed.account,
                started_at=now(),
                duration_ms=7,
                http_status=500,
                outcome=outcome,
            )
            outbox.settle(unit, claimed, attempt, status=status, next_attempt_at=now())
        (event,) = follower.news(now())
        assert (event.what, event.row.number, event.row.outcome) == ("attempted", number, outcome)
    assert told(follower) == []


def test_what_is_committed_late_is_told_and_other_accounts_are_not(database):
    """Ids are made before the commit, so that an earlier one may appear later."""
    follower, others = Follower(database, now(), "acme"), Follower(database, now())
    first, second, other = a_message(), a_message(), a_message(account="other")
    with database.write() as unit:
        inbox.record(unit, [second, other])
    assert told(follower) == [("received", "acme")]
    with database.write() as unit:
        inbox.record(unit, [first])
    assert [event.row.id for event in follower.news(now())] == [first.id]
    assert len(told(others)) == 3


def test_what_was_before_is_not_told(database):
    """It begins at an instant."""
    with database.write() as unit:
        inbox.record(unit, [a_message()])
    follower = Follower(database, now() + timedelta(milliseconds=2))

    assert told(follower) == []


def test_refused_deliveries_are_told(database):
    """What is in the quarantine came too."""
    follower = Follower(database, now())
    with database.write() as unit:
        rejected = RejectedDelivery(
            account="acme", received_at=now(), reason="signature_wrong", client="192.0.2.1", headers=[], body=b"{}"
        )
        quarantine.keep(unit, rejected, at_most=10)

    assert told(follower) == [("rejected", "acme")]
