"""The inbox on every database: once, under a lease, never lost."""

import threading
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import batches, inbox
from storage.errors import LeaseLost, NotFound
from storage.ids import new_id
from tests.support.builders import a_message
from tests.support.clock import START

LEASE = timedelta(seconds=60)


def record(database, *messages):
    with database.write() as unit:
        return inbox.record(unit, messages)


def claim(database, now=START, limit=10, **kw):
    with database.write() as unit:
        return inbox.claim(unit, now, LEASE, limit, **kw)


def decide(database, message, status="decided"):
    message.status, message.decided_at = status, START
    message.outcomes = [{"outcome": "noted", "reason": "a test"}]
    with database.write() as unit:
        batches.finish(unit, [message])


def get(database, message_id):
    with database.read() as unit:
        return inbox.get(unit, message_id)


def test_the_same_delivery_is_kept_once_and_counted(database):
    """A redelivery is no second message; how often it came, and when last, is known."""
    first = record(database, a_message(delivery_key="k"))[0]
    later = START + timedelta(seconds=9)
    repeats = [record(database, a_message(delivery_key="k", received_at=later))[0] for _ in range(3)]

    assert not first.is_duplicate
    assert all(r.is_duplicate and r.id == first.id for r in repeats)
    assert (get(database, first.id).redeliveries, get(database, first.id).last_redelivered_at) == (3, later)
    with database.read() as unit:
        assert len(inbox.find(unit)) == 1


def test_the_same_delivery_twice_in_one_batch_is_kept_once(database):
    """Group commit may hold a delivery and its repeat."""
    one, two, other = record(
        database, a_message(delivery_key="k"), a_message(delivery_key="k"), a_message(delivery_key="l")
    )

    assert (one.id, True, False) == (two.id, two.is_duplicate, other.is_duplicate)
    assert get(database, one.id).redeliveries == 1


def test_other_content_under_the_same_key_is_kept_as_a_variant(database):
    """Neither content is lost, the second points to the first, and its own repeats are counted."""
    first = record(database, a_message(delivery_key="k", body=b"1"))[0]
    variant = record(database, a_message(delivery_key="k", body=b"2"))[0]
    repeat = record(database, a_message(delivery_key="k", body=b"2"))[0]

    assert (variant.is_variant, variant.is_duplicate) == (True, False)
    assert (repeat.is_variant, repeat.is_duplicate, repeat.id) == (True, True, variant.id)
    assert (get(database, variant.id).variant_of, get(database, variant.id).body) == (first.id, b"2")
    assert get(database, first.id).body == b"1"


def test_keys_are_one_account_s_own(database):
    """Two accounts may be told the same delivery key."""
    record(database, a_message(delivery_key="k"))
    assert not record(database, a_message(delivery_key="k", account="other"))[0].is_duplicate


def test_recording_nothing_is_nothing(database):
    """An empty batch is no error."""
    assert record(database) == []


def test_two_claimers_one_winner(database, again):
    """A claimed message is nobody else's while its lease lasts."""
    record(database, a_message())

    assert [len(claim(database)), len(claim(again))] == [1, 0]
    assert claim(again, START + LEASE - timedelta(microseconds=1)) == []


def test_an_expired_lease_returns_and_the_old_token_is_refused(database, again):
    """The late worker cannot finish or put off what another has claimed since."""
    record(database, a_message())
    late = claim(database)[0]
    new = claim(again, START + LEASE)[0]
    assert (late.id, late.claim_token + 1) == (new.id, new.claim_token)

    with pytest.raises(LeaseLost):
        decide(database, late)
    with pytest.raises(LeaseLost), database.write() as unit:
        batches.postpone(unit, [(late, START, "late")])
    decide(again, new)
    assert get(database, new.id).status == "decided"
    with pytest.raises(LeaseLost):
        decide(again, new)


def test_a_replayed_message_is_not_finished_by_the_claim_before(database):
    """A stalled worker must not overwrite what was decided and re-opened meanwhile."""
    record(database, a_message())
    stalled = claim(database)[0]
    decide(database, claim(database, START + LEASE)[0])
    with database.write() as unit:
        inbox.replay(unit, stalled.id, START)

    with pytest.raises(LeaseLost):
        decide(database, stalled)
    assert get(database, stalled.id).status == "pending"


def test_threads_claim_each_message_once(database, again):
    """However many workers claim at once, each message has one."""
    record(database, *(a_message() for _ in range(40)))
    found, gate = [], threading.Barrier(4)

    def work(opened):
        gate.wait()
        for _ in range(5):
            found.extend(m.id for m in claim(opened, limit=5))

    threads = [threading.Thread(target=work, args=(opened,)) for opened in (database, again) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 40
    assert len(set(found)) == 40


def test_claims_in_order_of_arrival_up_to_the_limit(database):
    """The oldest first, no more than asked for, and only the wanted ones where some are named."""
    ids = [recorded.id for recorded in record(database, *(a_message() for _ in range(5)))]

    assert [m.id for m in claim(database, limit=2)] == ids[:2]
    assert [m.id for m in claim(database, only=[ids[4], ids[0]])] == [ids[4]]
    assert [m.id for m in claim(database)] == ids[2:4]


def test_put_off_messages_come_back_when_due(database):
    """A retry waits, keeps its error, and has as many attempts as were counted."""
    record(database, a_message())
    message = claim(database)[0]
    due = START + timedelta(seconds=7)
    message.attempts += 1
    with database.write() as unit:
        batches.postpone(unit, [(message, due, "no luck")])

    assert claim(database, due - timedelta(microseconds=1)) == []
    assert [(m.attempts, get(database, m.id).last_error) for m in claim(database, due)] == [(1, "no luck")]


def test_replay_keeps_what_was_decided_before(database):
    """Outcomes stay; the message is pending with all its attempts, and only an existing one can be replayed."""
    record(database, a_message())
    message = claim(database)[0]
    decide(database, message, status="dead")
    with database.write() as unit:
        inbox.replay(unit, message.id, START)

    found = get(database, message.id)
    assert (found.status, found.decision, found.decided_at, found.attempts) == ("pending", None, None, 0)
    assert found.outcomes == [{"outcome": "noted", "reason": "a test", "at": START.isoformat()}]
    assert len(claim(database)) == 1
    with pytest.raises(NotFound), database.write() as unit:
        inbox.replay(unit, new_id(), START)


def test_reopening_frees_exactly_what_awaits(database):
    """Parked messages of that account and payment become pending; others stay."""
    messages = [a_message(), a_message(account="other"), a_message(), a_message()]
    awaited = ["payin:1", "payin:1", "payin:2", "payin:1"]
    record(database, *messages)
    for message, awaits in zip(claim(database), awaited, strict=True):
        message.awaits = awaits
        decide(database, message, status="decided" if message.id == messages[3].id else "parked")
    with database.write() as unit:
        assert batches.reopen_awaiting(unit, [("acme", "payout:1"), ("acme", "payin:1")], START) == 1

    assert [get(database, m.id).status for m in messages] == ["pending", "parked", "parked", "decided"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12), st.integers(1, 4))
def test_any_mix_of_deliveries_is_kept_once_each(database, deliveries, batch):
    """One row for each identity and content, whatever order and batches they come in; the rest are counted."""
    run = new_id()
    messages = [a_message(account=run, delivery_key=f"k{key}", body=bytes([body])) for key, body in deliveries]
    for start in range(0, len(messages), batch):
        record(database, *messages[start : start + batch])

    with database.read() as unit:
        kept = inbox.find(unit, account=run)
    firsts = dict(reversed(deliveries))
    assert len(kept) == len(set(deliveries))
    assert sum(m.redeliveries for m in kept) == len(deliveries) - len(set(deliveries))
    assert {m.body[0] for m in kept if m.variant_of is None and m.delivery_key == "k0"} <= {firsts.get(0)}
