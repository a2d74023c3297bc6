"""A deadlock is told apart from a database that is away: a repeat will do."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from storage import payments, poll_plans
from storage.errors import StorageUnavailable
from storage.tables_support import Hazard, PollPlan
from tests.support import keeping
from tests.support.builders import START, a_payment
from tests.support.waiting import DEADLINE_S


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
                met.wait(DEADLINE_S)
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


def test_two_planners_whose_clocks_are_apart_keep_their_first_plans_at_the_same_moment(database, again):
    """Both had a turn, and neither has seen the other's rows: the later one wins, and nobody fails."""

    def keep(on, price, when):
        plan = PollPlan(account="acme", planned_at=when, price_seconds=price)
        hazard = Hazard(account="acme", kind="payin", state="open", learned_at=when)
        poll_plans.keep(on, [plan], [hazard], None)

    faults, has_begun = [], threading.Event()

    def second():
        try:
            with again.write() as unit:
                has_begun.set()
                keep(unit, 2.0, START + timedelta(minutes=5))
        except (StorageUnavailable, IntegrityError) as fault:
            faults.append(fault)

    other = threading.Thread(target=second)
    with database.write() as unit:
        assert poll_plans.begin(unit, START, timedelta(minutes=1)) is not None
        keep(unit, 1.0, START)
        other.start()
        if unit.dialect == "postgresql":
            assert has_begun.wait(DEADLINE_S)
    other.join(DEADLINE_S)

    assert not faults
    with database.read() as unit:
        assert poll_plans.plans(unit)["acme"].price_seconds == 2.0
