"""The clock that those who share a database have in common, whatever their own clocks say."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.support.databases import migrated

NEAR = timedelta(seconds=5)


class Machine:
    """A machine's clocks: one that people set, and one that goes on."""

    def __init__(self, ahead):
        self.wall, self.ticks = datetime.now(UTC) + ahead, 1000.0

    def pass_by(self, seconds, *, wall=True):
        self.ticks += seconds
        self.wall += timedelta(seconds=seconds if wall else 0)


@pytest.fixture
def shared(request):
    request.param = "postgresql"
    with migrated(request) as opened:
        yield opened


def database_now(database):
    with database.read() as unit:
        return unit.execute(sa.text("SELECT clock_timestamp()")).scalar_one()


@pytest.mark.parametrize("ahead", [timedelta(minutes=7), timedelta(minutes=-7), timedelta(days=400)])
def test_a_clock_that_is_wrong_tells_the_databases_time(shared, ahead):
    """From the first unit of work on, whether it reads or writes."""
    machine = Machine(ahead)
    clock = shared.clock(lambda: machine.wall)
    for unit in (shared.write, shared.read):
        with unit():
            pass
        assert abs(clock() - database_now(shared)) < NEAR


def test_setting_the_machines_clock_changes_nothing(shared):
    """Before and after the next look at the database's."""
    machine = Machine(timedelta(0))
    clock = shared.clock(lambda: machine.wall)
    with shared.write():
        before = clock()
        machine.wall += timedelta(hours=3)
    assert abs(clock() - before) < NEAR
    with shared.write():
        assert abs(clock() - before) < NEAR


def test_on_sqlite_it_is_the_machines(database):
    """There one process writes, and shares the time with nobody."""
    machine = Machine(timedelta(days=3))
    if database.engine.dialect.name == "sqlite":
        assert database.clock(lambda: machine.wall)() == machine.wall
