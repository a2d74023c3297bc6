"""A deadlock is told apart from a database that is away: a repeat will do."""

import threading

import pytest

from storage import payments
from storage.errors import StorageUnavailable
from tests.builders import a_payment
from tests.fakes import keeping


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # one writer waits for nobody
def test_of_two_units_that_wait_for_each_other_one_is_told_so(database):
    """PostgreSQL ends one of them; the other goes on, and nothing of the first is kept."""
    one, two = a_payment(), a_payment()
    with database.write() as unit:
        keeping.keep(unit, one)
        keeping.keep(unit, two)
    met, faults = threading.Barrier(2), []

    def change(first, second):
        try:
            with database.write() as unit:
                payments.get(unit, first.id, lock=True)
                met.wait(20)
                payments.get(unit, second.id, lock=True)
        except StorageUnavailable as fault:
            faults.append(fault)

    others = [threading.Thread(target=change, args=pair) for pair in ((one, two), (two, one))]
    for each in others:
        each.start()
    for each in others:
        each.join()

    assert [fault.is_rivalry for fault in faults] == [True]
    assert not StorageUnavailable().is_rivalry
