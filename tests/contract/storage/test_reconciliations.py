"""Reconciliations on every database: one unfinished walk per account, fenced, and only what is its own is found."""

import threading
from datetime import timedelta

import pytest

from statemachine.phases import Source
from storage import inbox, payment_polls, reconciliations
from storage.errors import LeaseLost, NotFound
from storage.ids import new_id
from storage.reconciliations import ReconciliationRequest
from storage.types import ReconciliationStatus
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.waiting import DEADLINE_S

LEASE = timedelta(seconds=60)
DAY = timedelta(days=1)


def begin(database, account="acme", by="ada", now=START):
    with database.write() as unit:
        return reconciliations.begin(unit, ReconciliationRequest(account, now - DAY, now, by), "process 1", now, LEASE)


def claim(database, now):
    with database.write() as unit:
        row = reconciliations.unfinished(unit, "acme", lock=True)
        return reconciliations.claim(unit, row, "process 2", now, LEASE)


def kept(database, row):
    with database.read() as unit:
        return reconciliations.get(unit, row.id)


def test_an_account_has_one_unfinished_walk(database):
    """A second is not begun; another account's is, and another one after the first has ended."""
    first = begin(database)
    assert (first.status, first.stage, first.claim_token) == ("running", "listing", 1)
    assert begin(database) is None
    assert begin(database, "other") is not None

    with database.write() as unit:
        reconciliations.finish(unit, first, START, ReconciliationStatus.DONE, drift=[{"payment": "p"}], counts={"a": 1})
    assert begin(database) is not None
    assert (kept(database, first).drift, kept(database, first).counts) == ([{"payment": "p"}], {"a": 1})


def test_of_many_that_begin_at_once_one_does(database):
    """Processes that come at the same moment: one has the walk, the others are told that there is one."""
    found, barrier = [], threading.Barrier(4)

    def come():
        barrier.wait(DEADLINE_S)
        found.append(begin(database))

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sum(row is not None for row in found) == 1


def test_whoever_claims_shuts_out_who_had_it(database):
    """Neither progress, nor an end, nor giving back is kept of one whose token is out of date."""
    first = begin(database)
    assert reconciliations.is_held(first, START + timedelta(seconds=59))
    assert not reconciliations.is_held(first, START + LEASE)
    second = claim(database, START + LEASE)

    for late in (
        lambda unit: reconciliations.keep(unit, first, START, LEASE, pages=9),
        lambda unit: reconciliations.finish(unit, first, START, ReconciliationStatus.DONE),
        lambda unit: reconciliations.release(unit, first, START, resume_at=START),
        lambda unit: reconciliations.claim(unit, first, "process 3", START, LEASE),
    ):
        with pytest.raises(LeaseLost), database.write() as unit:
            late(unit)
    assert (kept(database, second).pages, kept(database, second).held_by) == (0, "process 2")


def test_what_is_not_committed_is_not_in_the_row(database):
    """A row that was given stays as it is until its unit of work is committed."""
    row = begin(database)

    def fail(unit):
        assert reconciliations.keep(unit, row, START, LEASE, pages=1).pages == 1
        raise RuntimeError

    with pytest.raises(RuntimeError), database.write() as unit:
        fail(unit)
    assert (row.pages, kept(database, row).pages) == (0, 0)


def test_a_walk_that_is_given_back_is_free_at_once(database):
    """The schedule waits until `resume_at`, a person need not."""
    row = begin(database)
    with database.write() as unit:
        reconciliations.release(unit, row, START, resume_at=START + DAY, error="away")

    found = kept(database, row)
    assert not reconciliations.is_held(found, START)
    assert (found.resume_at, found.last_error) == (START + DAY, "away")
    assert claim(database, START).last_error is None


def test_the_schedule_finds_where_it_was(database):
    """When its newest walk began, and up to when those that were finished have looked; a person's do not count."""
    first = begin(database, by="schedule")
    with database.write() as unit:
        reconciliations.finish(unit, first, START, ReconciliationStatus.DONE)
    second = begin(database, by="schedule", now=START + DAY)
    with database.write() as unit:
        reconciliations.finish(unit, second, START + DAY, ReconciliationStatus.FAILED)
    begin(database, by="ada", now=START + 2 * DAY)

    with database.read() as unit:
        assert reconciliations.last_begun(unit, "acme", "schedule") == START + DAY
        assert reconciliations.covered_to(unit, "acme", "schedule") == START
        assert reconciliations.last_begun(unit, "other", "schedule") is None
        assert [row.asked_by for row in reconciliations.find(unit)] == ["ada", "schedule", "schedule"]
        assert reconciliations.find(unit, account="other") == []
        assert [row.id for row in reconciliations.find(unit, after=second.id)] == [first.id]
        with pytest.raises(NotFound):
            reconciliations.get(unit, new_id())


def test_only_its_own_messages_are_a_walk_s(database):
    """Another walk's, another account's, and keys that look alike are not; pages of them join without a gap."""
    row = begin(database)
    own = [
        a_message(source=Source.LIST.value, delivery_key=reconciliations.key(row.id, f"page:{number}"))
        for number in range(5)
    ]
    alike = [
        a_message(delivery_key=reconciliations.key(new_id(), "page:1")),
        a_message(delivery_key=f"reconcile:{row.id}"),
        a_message(delivery_key=f"reconcile:{row.id};page:1"),
        a_message(delivery_key=f"RECONCILE:{row.id}:page:1"),
        a_message(delivery_key=reconciliations.key(row.id, "page:1"), account="other"),
    ]
    with database.write() as unit:
        inbox.record(unit, [*own, *alike])

    with database.read() as unit:
        found = reconciliations.messages(unit, row, limit=3)
        found += reconciliations.messages(unit, row, after=found[-1].id, limit=3)
        assert [heard.id for heard in found] == [message.id for message in own]
        assert reconciliations.pending(unit, row) == [message.id for message in own]
        assert reconciliations.pending(unit, row, limit=2) == [message.id for message in own[:2]]


def test_the_candidates_are_those_of_the_range(database):
    """Created or changed from `since` to before `until`, of this account, in order of creation."""
    row = begin(database)
    made = {
        "before": a_payment(created_at=START - 2 * DAY),
        "at_since": a_payment(created_at=START - DAY),
        "within": a_payment(created_at=START - timedelta(hours=1)),
        "changed": a_payment(created_at=START - 3 * DAY, changed_at=START - timedelta(hours=2)),
        "at_until": a_payment(created_at=START),
        "elsewhere": a_payment(created_at=START - timedelta(hours=1), account="other"),
    }
    with database.write() as unit:
        for payment in made.values():
            keeping.keep(unit, payment)

    with database.read() as unit:
        found = reconciliations.candidates(unit, row)
        assert [c.id for c in found] == [made[name].id for name in ("at_since", "within", "changed")]
        assert reconciliations.these(unit, [made["before"].id])[0].provider_ref == made["before"].provider_ref
        assert set(reconciliations.payments(unit, [made["before"].id, new_id()])) == {made["before"].id}


def test_what_rests_on_its_messages_is_found(database):
    """Transitions by their cause, the one before, and when the provider last answered before that."""
    message = a_message(source=Source.POLL.value, provider_time=START)
    later, payment = a_message(source=Source.POLL.value, provider_time=START + DAY), a_payment()
    with database.write() as unit:
        inbox.record(unit, [message, later])
        keeping.keep(unit, payment)
        first = keeping.moved_to_paid(unit, payment, message)
        second = keeping.moved_to_paid(unit, payment, later)
        keeping.change(unit, payment)
        for told in (message, later):
            told.payment_id, told.status = payment.id, "decided"
            keeping.decide(unit, [told])

    with database.write() as unit:
        assert [t.id for t in reconciliations.transitions(unit, [later.id])] == [second.id]
        assert reconciliations.transition_before(unit, second).id == first.id
        assert reconciliations.transition_before(unit, first) is None
        assert reconciliations.last_answered(unit, payment.id, later.id) == START
        assert reconciliations.last_answered(unit, payment.id, message.id) is None
        payment_polls.note_answered(unit, payment.id, START)
        payment_polls.note_answered(unit, payment.id, START - DAY)
        assert payment_polls.get(unit, payment.id).asked_at == START
