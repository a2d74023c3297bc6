"""Housekeeping as the worker does it: partitions first and every hour, then retention with rests, told in the log."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from storage import inbox
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.ids import instant_of, new_id
from storage.partitions import Period
from storage.retention import Retention, Rules, rested
from storage.types import RetentionRule
from tests.support import keeping
from tests.support.builders import a_message
from tests.support.clock import FakeClock
from tests.support.databases import migrated
from worker.housekeeping import Housekeeping


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    with migrated(request) as opened:
        yield opened


def _now():
    """An instant of this month after which hours pass before the next month, whose partitions are made then."""
    now = instant_of(new_id())
    return now if (now + timedelta(hours=3)).month == now.month else now - timedelta(hours=4)


class House:
    """The duty with a clock that is moved, and rests that are remembered."""

    def __init__(self, database, **days):
        self.clock, self.rests = FakeClock(_now()), []
        rules = Rules({RetentionRule(rule): after for rule, after in days.items()}, batch=2)
        retention = Retention(database, rules, self.clock)
        self.duty = Housekeeping(database, Period.MONTH, retention, self.clock, self._rest)

    async def _rest(self, seconds):
        self.rests.append(seconds)
        self.clock.advance(seconds)

    def step(self):
        return asyncio.run(self.duty.step())

    def work(self):
        for _ in range(30):
            if not self.step():
                return
        pytest.fail("no end of it")


def decided(database, count):
    with database.write() as unit:
        inbox.record(unit, [a_message() for _ in range(count)])
        for message in inbox.claim(unit, instant_of(new_id()), timedelta(seconds=60), count):
            message.status = "decided"
            keeping.decide(unit, [message])


def test_what_fell_into_the_rest_is_told(database):
    """On PostgreSQL partitions are made once, with what came before them; on SQLite there is nothing to do."""
    decided(database, 2)
    house = House(database)
    with capture_logs() as events:
        house.step()
        house.step()
        house.clock.advance(2 * 3600)
        house.step()

    is_server = database.engine.dialect.name == "postgresql"
    expected = ["partition.created", "partition.late"] if is_server else []
    assert [event["event"] for event in events] == expected


def test_retention_rests_between_its_batches_and_is_done_for_the_day(database):
    """By the rate and by its share of the time; the next day it runs again, and has nothing to do."""
    decided(database, 5)
    house = House(database, bodies=10)
    house.clock.advance(11 * 86_400)
    with capture_logs() as events:
        house.work()
        assert not house.step()
        house.clock.advance(86_400 + 1)
        house.work()

    assert [(e["rule"], e["rows"]) for e in events if e["event"] == "retention.done"] == [("bodies", 5)]
    assert len(house.rests) >= 4
    assert all(rest > 0 for rest in house.rests)
    with database.read() as unit:
        assert {message.body for message in inbox.find(unit)} == {b""}


def test_a_rest_leaves_three_quarters_to_others():
    """However fast the rate: a batch that took a second is followed by three of rest."""
    assert rested(1.0, timedelta(0)) == 3.0
    assert rested(0.001, timedelta(seconds=2)) == 2.0


def test_two_processes_share_one_rate(database):
    """The second one waits as long as the first one has to, whichever of them did the batch."""
    decided(database, 5)
    one, two = House(database, bodies=10), House(database, bodies=10)
    for house in (one, two):
        house.clock.advance(11 * 86_400)
        house.clock.now = one.clock.now
    first = one.duty._retention.step()
    one.clock.advance(first.pause.total_seconds())
    again = one.duty._retention.step()
    two.clock.now = one.clock.now
    seen = two.duty._retention.step()

    assert again.run.seen > first.run.seen
    assert (seen.run.seen, seen.pause > timedelta(0)) == (again.run.seen, True)


def test_a_database_that_is_away_is_said(tmp_path):
    """The loop around it waits and comes again."""
    database = Database(f"sqlite:///{tmp_path}/nowhere/receipted.db")
    with pytest.raises(StorageUnavailable):
        House(database, bodies=10).step()
    database.close()


def test_retention_does_not_wait_for_partitions_that_cannot_be_made(database, monkeypatch):
    """A table is in use for ever: what is old goes all the same, and the fault is raised after it."""
    house = House(database, known=1)
    decided(database, 1)
    house.clock.advance(3 * 86_400)

    def held(*_):
        raise StorageUnavailable("the table is in use")

    monkeypatch.setattr("worker.housekeeping.partitions.keep_ahead", held)
    before = house.duty._retention.step

    stepped = []
    monkeypatch.setattr(house.duty._retention, "step", lambda: stepped.append(before()) or stepped[-1])
    with pytest.raises(StorageUnavailable):
        house.step()

    assert stepped[0].run is not None, "the rule had its turn"


def test_a_rule_that_fails_holds_up_no_other(database, monkeypatch):
    """The first rule meets a bug at every step; the second has its batches, and then the bug is raised."""
    house = House(database, bodies=1, known=1)
    decided(database, 1)
    house.clock.advance(3 * 86_400)
    retention, asked = house.duty._retention, []
    real = retention._step

    def failing(ask, wanted_at):
        asked.append(ask.rule)
        if ask.rule is RetentionRule.BODIES:
            raise OverflowError("a bug")
        return real(ask, wanted_at)

    monkeypatch.setattr(retention, "_step", failing)
    with pytest.raises(OverflowError):
        house.work()

    assert RetentionRule.KNOWN in asked
    assert retention.plan()[-1].last is not None, "the second rule has run"
