"""An account's breaker on every database: one probe among all who ask, and no write while all is well."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import event

from poller.circuit_breaker import open_duration
from storage import rate_limits
from storage.rate_limits import Breaker, Gate
from tests.support.clock import START

LEASE = timedelta(seconds=60)


def outage(database, wait=timedelta(0), *, was_probe=False):
    with database.write() as unit:
        return rate_limits.note_outage(unit, "acme", START, lambda _failures: wait, was_probe=was_probe)


def standing(database):
    with database.read() as unit:
        return rate_limits.breaker(unit, "acme")


def gate(database):
    with database.write() as unit:
        return rate_limits.gate(unit, "acme", START, LEASE)


@pytest.fixture
def writes(database):
    """The statements of the database that change something."""
    seen = []

    def watch(_connection, _cursor, statement, *_):
        if not statement.startswith(("SELECT", "BEGIN", "PRAGMA", "DISCARD")):
            seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", watch)
    return seen


def test_one_of_all_who_ask_gets_the_probe(database, again):
    """However many processes ask at the same instant, exactly one probes."""
    outage(database)
    found, ready = [], threading.Barrier(6)

    def ask(opened):
        ready.wait()
        found.append(gate(opened))

    threads = [threading.Thread(target=ask, args=(opened,)) for opened in (database, again) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer.value for answer in found) == ["open"] * 5 + ["probe"]


def test_nothing_is_written_while_all_is_well(database, writes):
    """An answer after an answer costs one look, and so does the gate."""
    for _ in range(3):
        with database.write() as unit:
            assert rate_limits.gate(unit, "acme", START, LEASE) is Gate.CLOSED
            assert not rate_limits.note_answer(unit, "acme")
    assert writes == []

    outage(database, None)
    with database.write() as unit:
        assert not rate_limits.note_answer(unit, "acme"), "it was not open"
    del writes[:]
    with database.write() as unit:
        rate_limits.note_answer(unit, "acme")
    assert writes == []
    assert standing(database) == Breaker()


def test_a_first_look_says_that_nobody_may_be_asked(database):
    """While the breaker is open and no probe is due, or the provider wants no requests; not before, and not after."""

    def barred(at=START):
        with database.read() as unit:
            return rate_limits.is_barred(unit, "acme", at)

    assert not barred()
    outage(database, None)
    assert not barred()
    outage(database, timedelta(hours=1))
    assert barred()
    with database.write() as unit:
        rate_limits.note_answer(unit, "acme")
    assert not barred()
    with database.write() as unit:
        rate_limits.pause(unit, "acme", START, timedelta(hours=1))
    assert barred()
    if database.engine.dialect.name == "sqlite":  # on PostgreSQL its own clock counts
        assert not barred(START + timedelta(hours=1))


def test_outages_of_many_are_all_counted(database, again):
    """No outage is lost between processes that note theirs at the same time, and accounts do not share them."""

    def note(opened):
        for _ in range(5):
            outage(opened, None)

    threads = [threading.Thread(target=note, args=(opened,)) for opened in (database, again)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert standing(database).failures == 10
    with database.read() as unit:
        assert rate_limits.breaker(unit, "other") == Breaker()


def test_it_opens_once_and_closes_once(database, again):
    """Of several who hear the answer, one closes it; since when it was open is kept until then."""
    assert outage(database, timedelta(seconds=5)) == timedelta(seconds=5)
    opened = standing(database)
    assert outage(again, timedelta(seconds=5)) is None, "not the probe's"
    assert outage(again, timedelta(seconds=10), was_probe=True) == timedelta(seconds=10)
    assert standing(database).broken_at == opened.broken_at
    assert standing(database).probe_at > opened.probe_at

    with database.write() as unit:
        assert rate_limits.note_answer(unit, "acme")
    with again.write() as unit:
        assert not rate_limits.note_answer(unit, "acme")
    assert standing(database) == Breaker()


def test_the_budget_and_the_breaker_leave_each_other_alone(database):
    """They share a row: an outage moves no slot, and a slot forgets no outage."""
    rate = rate_limits.Rate.of(1, 60.0)
    with database.write() as unit:
        first = rate_limits.reserve(unit, "acme", START, rate)
    outage(database, open_duration(3, 0.0))
    with database.write() as unit:
        second = rate_limits.reserve(unit, "acme", START, rate)

    assert second.at - first.at == rate.spacing
    assert standing(database).failures == 1
