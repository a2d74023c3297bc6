"""A whole walk on PostgreSQL: the same story as on SQLite."""

import pytest

from poller.errors import ReconciliationRunning
from tests.support.pipeline_world import World
from tests.support.poller_rounds import Rounds

HOUR = 3600


@pytest.fixture
def rounds(postgresql, template, tmp_path):
    world = World(template, tmp_path / "unused.db")
    world.database.close()
    world.database = postgresql.copy()
    yield Rounds(world)
    world.runner.close()
    postgresql.drop(world.database)


def test_what_was_missed_is_found_once_and_owed_once(rounds):
    for number in range(5):
        rounds.genius.has(f"pi_{number}", "confirmed")
    rounds.known("pi_8", "expired")
    rounds.known("pi_9", is_old=True)
    rounds.clock.advance(HOUR)
    rounds.genius.has("pi_8", "confirmed")
    rounds.genius.has("pi_9", "confirmed")

    first, second = rounds.walk(), rounds.walk()

    assert (first.pages, first.asked, first.counts["adopted"], first.counts["drift"]) == (3, 2, 5, 7)
    assert {entry["found_by"] for entry in first.drift} == {"list", "fetch"}
    assert second.drift == []
    for payment in rounds.desk.payments():
        effects = rounds.desk.effects(payment.id)
        assert effects == (["payment.expired", "payment.review_required"] if payment.review else ["payment.paid"])
    assert rounds.world.audit().faults == []


def test_one_walks_and_another_is_told(rounds):
    rounds.reconciler("process 1 on a").start(rounds.wanted())

    with pytest.raises(ReconciliationRunning, match="process 1 on a"):
        rounds.reconciler("process 2 on b").start(rounds.wanted())
    rounds.clock.advance(61)
    assert rounds.reconciler("process 2 on b").start(rounds.wanted()).is_resumed
