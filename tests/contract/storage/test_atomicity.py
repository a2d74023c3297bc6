"""Commit is all or nothing: a crash between any two writes keeps none of them."""

import sqlite3

import psycopg
import pytest

from storage import inbox, outbox, payments, transitions
from storage.ids import new_id
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.pipeline_world import Crashes, SimulatedCrash


def one_unit(database, message, payment):
    """Everything that R3 says belongs together."""
    with database.write() as unit:
        inbox.record(unit, [message])
        keeping.keep(unit, payment)
        keeping.moved_to_paid(unit, payment, message)
        keeping.change(unit, payment)
        outbox.owe(
            unit,
            payment_id=payment.id,
            account="acme",
            effect="payment.paid",
            sink="shop",
            occurrence=0,
            cause=message.id,
            payload="{}",
            now=START,
        )
        message.status, message.decision, message.decided_at = "decided", "advanced", START
        keeping.decide(unit, [message])


def everything(database):
    with database.read() as unit:
        return len(inbox.find(unit)), len(payments.find(unit)), transitions.count(unit), len(outbox.find(unit))


def test_a_crash_between_any_two_writes_keeps_nothing(database, again):
    """Seen from another process too, there is all of it or none."""
    crashes = Crashes(database)
    for at in range(1, 30):
        crashes.arm(at)
        try:
            one_unit(database, a_message(), a_payment())
        except SimulatedCrash:
            assert (0, 0, 0, 0) == everything(database) == everything(again)
        else:
            break
    crashes.disarm()

    places = 13 if database.engine.dialect.name == "sqlite" else 12  # BEGIN is no statement of its own on PostgreSQL
    assert at == places + 1, "BEGIN, the writes and COMMIT are the places to crash at"
    assert everything(again) == (1, 1, 1, 1)


def test_any_exception_keeps_nothing(database):
    """An error of the program's own rolls back as a crash does."""

    def fail():
        with database.write() as unit:
            inbox.record(unit, [a_message()])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert everything(database) == (0, 0, 0, 0)


def test_a_reader_sees_one_instant(database, again):
    """What is committed while a unit of work reads does not appear in the middle of it."""
    with database.read() as unit:
        assert inbox.find(unit) == []
        with again.write() as other:
            inbox.record(other, [a_message(delivery_key=new_id())])
        assert inbox.find(unit) == []
    with database.read() as unit:
        assert len(inbox.find(unit)) == 1


def test_a_connection_that_was_in_use_at_the_close_is_closed_when_it_comes_back(again):
    """A thread may still read when its process stops; nothing is left for the garbage collector."""
    with again.read() as unit:
        unit.rows("SELECT 1")
        driver = unit._connection.connection.driver_connection
        again.close()
        unit.rows("SELECT 1")

    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError)):
        driver.execute("SELECT 1")
