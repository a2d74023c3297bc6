"""The feed of effects on every database: each effect once, and nothing is ever put before what was seen."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from storage import event_feed, outbox
from storage.ids import new_id
from tests.support.clock import START
from tests.support.databases import unguarded
from tests.support.waiting import DEADLINE_S


def owe(unit, payment_id, effect="payment.paid", sink="shop", *, occurrence=0, account="acme", cause=None):
    """One effect is owed to one sink."""
    return outbox.owe(
        unit,
        payment_id=payment_id,
        account=account,
        effect=effect,
        sink=sink,
        occurrence=occurrence,
        cause=cause or new_id(),
        payload='{"data": {}}',
        now=START,
    )


def owed(database, *args, **kw):
    """As owe(), in a commit of its own."""
    with database.write() as unit:
        return owe(unit, *args, **kw)


def numbered(database):
    """Everything is numbered."""
    while True:
        with database.write() as unit:
            if event_feed.number(unit) == 0:
                return


def feed(database, after=0, accounts=("acme",), limit=10_000, **kw):
    """What a reader sees."""
    with database.read() as unit:
        return event_feed.find(unit, accounts, after=after, limit=limit, **kw)


def test_an_effect_is_one_event_however_many_sinks_it_is_owed_to(database):
    """Two sinks, in one commit or in two, make one event."""
    payment = new_id()
    with database.write() as unit:
        owe(unit, payment, sink="shop")
        owe(unit, payment, sink="ledger")
    numbered(database)
    owed(database, payment, sink="added-later")
    owed(database, payment, sink="shop")
    numbered(database)

    assert [(told.cursor.number, told.effect, told.payment_id) for told in feed(database)] == [
        (1, "payment.paid", payment)
    ]


def test_each_review_and_each_alarm_is_an_event_of_its_own(database):
    """What may be owed more than once is told as often."""
    payment, alarm = new_id(), new_id()
    owed(database, payment, "payment.review_required", occurrence=1)
    owed(database, payment, "payment.review_required", occurrence=2)
    owed(database, None, "account.silent", cause=alarm)
    owed(database, None, "account.silent", cause=alarm, sink="ledger")
    owed(database, None, "account.silent", cause=new_id())
    numbered(database)

    told = Counter((event.effect, event.payment_id) for event in feed(database))
    assert told == {("payment.review_required", payment): 2, ("account.silent", None): 2}


def test_an_event_is_not_seen_before_it_has_a_number(database):
    """What is owed and not numbered is not in the feed, and waits."""
    owed(database, new_id())
    with database.read() as unit:
        assert event_feed.is_unnumbered(unit)
        assert event_feed.last_number(unit) == 0
    assert feed(database) == []
    numbered(database)
    with database.read() as unit:
        assert not event_feed.is_unnumbered(unit)
        assert event_feed.last_number(unit) == 1


def test_an_event_that_is_rolled_back_was_never_there(database):
    """An effect whose commit fails has no event."""

    def fail():
        with database.write() as unit:
            owe(unit, new_id())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    numbered(database)

    assert feed(database) == []


def test_a_row_that_is_made_first_and_committed_last_is_not_passed_over(postgresql):
    """The case that ids and times get wrong: a reader is past the later id when the earlier one is committed."""
    database = postgresql.copy()
    try:
        early, late = new_id(), new_id()
        with database.write() as slow:
            owe(slow, early)
            owed(database, late)
            numbered(database)
            (seen,) = feed(database)
            assert seen.payment_id == late
        numbered(database)
        (then,) = feed(database, after=seen.cursor.number)
        assert then.payment_id == early
    finally:
        postgresql.drop(database)


def test_a_clock_that_is_behind_changes_no_order(database):
    """An id of an hour ago, from a host whose clock is behind, comes after what was numbered before it."""
    owed(database, new_id())
    numbered(database)
    old = outbox.new_id
    behind = "019d0000-0000-7000-8000-000000000001"
    try:
        outbox.new_id = lambda: behind
        owed(database, payment := new_id())
    finally:
        outbox.new_id = old
    numbered(database)

    assert [event.payment_id for event in feed(database, after=1)] == [payment]


class Reader:
    """Goes on from what it saw, until it is told that nothing comes any more and has seen all of it."""

    def __init__(self, database):
        self.database, self.done, self.seen = database, threading.Event(), []

    def read(self):
        after = 0
        while True:
            is_last = self.done.is_set()
            page = feed(self.database, after=after, limit=5)
            self.seen += [(event.cursor.number, event.payment_id) for event in page]
            if page:
                after = page[-1].cursor.number
            elif is_last:
                return

    def number(self, database):
        while not self.done.is_set():
            with database.write() as unit:
                event_feed.number(unit, limit=7)


def write(database, seed, made):
    """Commits of different lengths, each effect to two sinks."""
    for nth in range(25):
        payments = [new_id() for _ in range(1 + (seed + nth) % 3)]
        with database.write() as unit:
            for payment in payments:
                owe(unit, payment, sink="shop")
                owe(unit, payment, sink="ledger")
        made.extend(payments)


def test_readers_of_a_feed_that_is_written_miss_nothing_and_get_nothing_twice(database, again):
    """Six writers, two who number and a reader: the reader has every effect once, in the order of the numbers."""
    reader, made = Reader(database), []
    writers = [threading.Thread(target=write, args=((database, again)[n % 2], n, made)) for n in range(6)]
    others = [threading.Thread(target=reader.number, args=(one,)) for one in (database, again)]
    others.append(threading.Thread(target=reader.read))
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join(DEADLINE_S)
    numbered(database)
    reader.done.set()
    for thread in others:
        thread.join(DEADLINE_S)

    assert Counter(payment for _, payment in reader.seen) == Counter(made)
    assert [number for number, _ in reader.seen] == list(range(1, len(made) + 1))


def test_a_reader_sees_the_accounts_and_effects_that_it_asks_for(database):
    """Filters choose among the events and change no number."""
    mine, yours = new_id(), new_id()
    owed(database, mine, "payment.paid")
    owed(database, yours, "payment.paid", account="other")
    owed(database, mine, "payment.refunded")
    numbered(database)

    assert [event.cursor.number for event in feed(database, accounts=("acme", "other"))] == [1, 2, 3]
    assert [event.cursor.number for event in feed(database)] == [1, 3]
    assert [event.cursor.number for event in feed(database, effects=("payment.refunded",))] == [3]
    assert [event.cursor.number for event in feed(database, payment_id=mine, accounts=("acme", "other"))] == [1, 3]
    assert feed(database, accounts=()) == []


def test_numbers_go_on_when_old_events_are_gone(database):
    """What retention takes leaves the numbering as it was."""
    owed(database, new_id())
    numbered(database)
    with database.write() as unit:
        unit.execute(sa.text("DELETE FROM event"))
    owed(database, new_id())
    numbered(database)

    assert [event.cursor.number for event in feed(database)] == [2]


def test_a_feed_without_its_row_begins_anew(database):
    """The one row of the feed is made where it is missing."""
    with database.write() as unit:
        unit.execute(sa.text("DELETE FROM event_feed"))
    owed(database, new_id())
    numbered(database)

    assert [event.cursor.number for event in feed(database)] == [1]


def test_an_event_outlives_what_its_sinks_got(database):
    """An event whose payload was taken away is still told."""
    payment = new_id()
    owed(database, payment)
    numbered(database)
    with database.write() as unit:
        unguarded(unit)
        unit.execute(sa.text("DELETE FROM outbox_message"))

    (told,) = feed(database)
    assert (told.payment_id, told.payload) == (payment, None)
    assert told.created_at - START == timedelta(0)
