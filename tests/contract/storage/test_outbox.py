"""The outbox on every database: owed once, in order, under a lease."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from storage import inbox, outbox
from storage.columns import table_of
from storage.errors import EffectOvertaken, LeaseLost, NotFound
from storage.tables import DeliveryAttempt, OutboxQueueTable
from storage.types import OutboxStatus
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START

LEASE = timedelta(seconds=60)


@pytest.fixture
def cause(database):
    message = a_message()
    with database.write() as unit:
        inbox.record(unit, [message])
    return message.id


@pytest.fixture
def payment(database):
    return a_kept_payment(database)


def a_kept_payment(database):
    kept = a_payment()
    with database.write() as unit:
        keeping.keep(unit, kept)
    return kept.id


def owe(database, payment, cause, **changes):
    defaults = {"account": "acme", "effect": "payment.paid", "sink": "shop", "occurrence": 0, "payload": "{}"}
    with database.write() as unit:
        return outbox.owe(unit, payment_id=payment, cause=cause, now=START, **(defaults | changes))


def claim(database, now=START, sinks=("ledger", "shop"), limits=(10, 10, 10)):
    with database.write() as unit:
        each = (outbox.claim(unit, now, LEASE, sink, outbox.ClaimLimits(*limits)) for sink in sinks)
        return [message.id for messages in each for message in messages]


def settle(database, message, status, at=START):
    attempt = DeliveryAttempt(
        id="", outbox_id="", number=0, started_at=START, duration_ms=5, outcome=status.value, error=None
    )
    with database.write() as unit:
        outbox.settle(unit, message, attempt, status=status, next_attempt_at=at)


def claimed(database, now=START, sink="shop"):
    with database.write() as unit:
        return outbox.claim(unit, now, LEASE, sink, outbox.ClaimLimits(1, 1, 1))[0]


def test_an_effect_is_owed_once_to_each_sink(database, payment, cause):
    """However often it is owed, there is one row; another sink, effect, review or payment has its own."""
    assert owe(database, payment, cause) is not None
    assert owe(database, payment, cause) is None
    others = [{"sink": "ledger"}, {"effect": "payment.settled"}, {"occurrence": 1}]
    assert all(owe(database, payment, cause, **other) for other in others)
    assert owe(database, a_kept_payment(database), cause) is not None

    with database.read() as unit:
        assert len(outbox.of_payment(unit, payment)) == 4


def test_per_payment_and_sink_in_order(database, payment, cause):
    """A later effect waits for the earlier one to the same sink; other payments and sinks do not."""
    paid = owe(database, payment, cause)
    settled = owe(database, payment, cause, effect="payment.settled")
    elsewhere = owe(database, payment, cause, sink="ledger")
    other = owe(database, a_kept_payment(database), cause)

    assert claim(database) == [elsewhere, paid, other]
    assert claim(database) == []
    message = claimed(database, START + LEASE)
    settle(database, message, OutboxStatus.DELIVERED)
    assert settled in claim(database, START + LEASE)


def test_first_tries_and_retries_have_shares_of_a_claim(database, cause):
    """However many are tried again, they leave room for what was never tried; and have some beside it."""
    again = [owe(database, a_kept_payment(database), cause) for _ in range(6)]
    with database.write() as unit:
        tried = outbox.claim(unit, START, LEASE, "shop", outbox.ClaimLimits(9, 9, 9))
    for message in tried:
        settle(database, message, OutboxStatus.PENDING, START)
    first = [owe(database, a_kept_payment(database), cause) for _ in range(6)]

    assert claim(database, limits=(4, 1, 3)) == [again[0], *first[:3]]
    assert claim(database, limits=(4, 0, 3)) == [again[1], *first[3:]]
    assert claim(database, limits=(4, 1, 3)) == again[2:5]
    assert claim(database, limits=(4, 0, 0)) == []


@pytest.mark.parametrize("is_tried", [False, True])
def test_what_waits_for_an_earlier_one_is_put_off_until_that_is_due(database, payment, cause, is_tried):
    """So that no claim passes over it; in order all the same, and what is being delivered puts off nothing."""
    later = START + timedelta(hours=1)
    paid = owe(database, payment, cause)
    message = claimed(database)
    settled, refunded = (owe(database, payment, cause, effect=f"payment.{name}") for name in ("settled", "refunded"))
    other = owe(database, a_kept_payment(database), cause)
    if is_tried:  # as after an earlier delay of the first
        with database.write() as unit:
            queue = table_of(OutboxQueueTable)
            put_off_until = {"claim_token": 1, "next_attempt_at": START, "is_first": False}
            unit.execute(update(queue).where(queue.c.number > 1).values(put_off_until))

    def postpone():
        with database.write() as unit:
            return outbox.defer_followers(unit, START, LEASE, "shop")

    assert postpone() == 0
    settle(database, message, OutboxStatus.PENDING, later)
    assert (postpone(), postpone()) == (2, 0)
    with database.read() as unit:
        assert {row.next_attempt_at for row in outbox.of_payment(unit, payment)} == {later}
    found = claimed(database)
    assert found.id == other
    settle(database, found, OutboxStatus.DELIVERED)
    assert claim(database) == []
    for expected in (paid, settled, refunded):
        (found,) = claim(database, later)
        assert found == expected
        with database.write() as unit:
            one = outbox.get(unit, found)
        settle(database, one, OutboxStatus.DELIVERED, later)


def test_a_dead_effect_does_not_hold_back_the_next(database, payment, cause):
    """What was given up, visibly, no longer blocks the payment's later effects."""
    owe(database, payment, cause)
    settled = owe(database, payment, cause, effect="payment.settled")
    settle(database, claimed(database), OutboxStatus.DEAD)

    assert claim(database) == [settled]


def test_other_sinks_are_left_alone(database, payment, cause):
    """A claim is for one sink."""
    owe(database, payment, cause)
    ledger = owe(database, payment, cause, sink="ledger")

    assert claim(database, sinks=["ledger"]) == [ledger]


def test_what_was_not_tried_is_due_at_once_when_it_is_released(database, payment, cause):
    """But by whoever has claimed it last, and only while it is owed."""
    owe(database, payment, cause)
    late, new = claimed(database), claimed(database, START + LEASE)
    with database.write() as unit:
        outbox.release(unit, [late])
    assert claim(database, START + LEASE) == []
    with database.write() as unit:
        outbox.release(unit, [new])
    assert claim(database, START + LEASE) == [new.id]


def test_what_is_settled_together_is_kept_together(database, payment, cause):
    """Where another has claimed one of them since, none is."""
    owe(database, payment, cause)
    owe(database, a_kept_payment(database), cause)
    with database.write() as unit:
        messages = outbox.claim(unit, START, LEASE, "shop", outbox.ClaimLimits(10, 10, 10))
        claimed_again = outbox.claim(unit, START + LEASE, LEASE, "shop", outbox.ClaimLimits(1, 1, 1))

    def together(found):
        attempts = [DeliveryAttempt(outbox_id="", number=0, id="", started_at=START, duration_ms=1, outcome="dead")] * 2
        pairs = zip(found, attempts, strict=True)
        with database.write() as unit:
            outbox.settle_all(unit, [outbox.Settlement(m, replace(a), OutboxStatus.DEAD, START) for m, a in pairs])

    with pytest.raises(LeaseLost):
        together(messages)
    with database.read() as unit:
        assert outbox.depth(unit) == {"pending": 2}
        assert outbox.attempts_of(unit, [message.id for message in messages]) == []
    together([next((n for n in claimed_again if n.id == m.id), m) for m in messages])
    with database.read() as unit:
        assert outbox.depth(unit) == {"dead": 2}
        assert len(outbox.attempts_of(unit, [message.id for message in messages])) == 2


def test_an_expired_lease_returns_and_the_old_token_is_refused(database, payment, cause):
    """Whoever was too slow cannot record an attempt."""
    owe(database, payment, cause)
    late = claimed(database)
    assert claim(database) == []
    new = claimed(database, START + LEASE)

    with pytest.raises(LeaseLost):
        settle(database, late, OutboxStatus.DELIVERED)
    settle(database, new, OutboxStatus.DELIVERED)
    with pytest.raises(LeaseLost):
        settle(database, new, OutboxStatus.DELIVERED)
    with database.read() as unit:
        found = outbox.get(unit, new.id)
        assert (found.status, found.attempts, len(outbox.attempts_of(unit, [new.id]))) == ("delivered", 1, 1)


def test_only_a_dead_effect_is_redriven(database, payment, cause):
    """A redrive makes it due again, with its tries kept; anything else is refused."""
    owed = owe(database, payment, cause)
    with pytest.raises(NotFound), database.write() as unit:
        outbox.redrive(unit, owed, START)
    settle(database, claimed(database), OutboxStatus.DEAD)
    with database.write() as unit:
        assert outbox.redrive(unit, owed, START).status == "pending"

    assert claimed(database).attempts == 1


def test_a_dead_effect_that_was_overtaken_is_redriven_only_where_that_is_meant(database, payment, cause):
    """By what its sink has had of the payment, or is being given; not by what waits, or another sink has had."""
    owed = owe(database, payment, cause)
    settle(database, claimed(database), OutboxStatus.DEAD)
    owe(database, payment, cause, sink="ledger")
    settle(database, claimed(database, sink="ledger"), OutboxStatus.DELIVERED)
    owe(database, payment, cause, effect="payment.refunded")
    redrive(database, owed)
    settle(database, claimed(database), OutboxStatus.DEAD)

    later = claimed(database)
    with pytest.raises(EffectOvertaken, match=r"refunded, which shop is being given"):
        redrive(database, owed)
    settle(database, later, OutboxStatus.DELIVERED)
    with pytest.raises(EffectOvertaken, match=r"refunded, which shop has had"):
        redrive(database, owed)
    redrive(database, owed, overtaken=True)


def redrive(database, owed, **kw):
    with database.write() as unit:
        assert outbox.redrive(unit, owed, START, **kw).status == "pending"
