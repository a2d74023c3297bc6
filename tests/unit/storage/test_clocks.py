"""When the database's clock is looked at, and what is told between two looks."""

from datetime import UTC, datetime, timedelta

from storage.clocks import LOOK_INTERVAL_S, DatabaseClock

THERE = datetime(2026, 4, 1, tzinfo=UTC)


class Server:
    """Answers one question, and counts how often it was asked."""

    def __init__(self):
        self.now, self.asked = THERE, 0

    def exec_driver_sql(self, _query):
        self.asked += 1
        return self

    def scalar_one(self):
        return self.now


class Machine:
    def __init__(self):
        self.wall, self.ticks, self.server = THERE + timedelta(days=9), 50.0, Server()
        self.clock = DatabaseClock(lambda: self.wall, lambda: self.ticks)

    def look(self):
        """A unit of work begins; whether the server was asked."""
        before = self.server.asked
        self.clock.look(self.server)
        return self.server.asked > before

    def later(self, seconds, *, wall=None, ticks=None):
        self.server.now += timedelta(seconds=seconds)
        self.wall += timedelta(seconds=seconds if wall is None else wall)
        self.ticks += seconds if ticks is None else ticks


def test_it_goes_on_between_two_looks():
    machine = Machine()
    assert machine.clock() == machine.wall
    assert machine.look()
    machine.later(LOOK_INTERVAL_S - 1)
    assert not machine.look()
    assert machine.clock() == machine.server.now


def test_an_old_look_is_made_anew():
    machine = Machine()
    machine.look()
    machine.later(LOOK_INTERVAL_S, ticks=LOOK_INTERVAL_S + 0.4)  # drift
    assert machine.look()
    assert machine.clock() == machine.server.now


def test_a_machine_that_was_set_or_stood_still_looks_again():
    for wall, ticks in ((3600, 1), (-3600, 1), (3600, 0)):
        machine = Machine()
        machine.look()
        machine.later(1, wall=wall, ticks=ticks)
        assert machine.look()
        assert machine.clock() == machine.server.now
