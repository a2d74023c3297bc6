"""A provider without a call that asks, through the worker, the poller and the planner: it is never asked."""

from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from poller.planner import Planner
from poller.schedule import PolledAccount, PollPolicy
from statemachine import own_statements
from statemachine.phases import Review
from storage import payment_polls, poll_plans
from storage.types import PollPriority
from tests.support.builders import Unaskable
from tests.support.pipeline_world import World
from tests.support.poller_rounds import Rounds
from tests.support.worker_desk import Desk

DAY = timedelta(days=1)


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    found = Desk(world)
    found.member = world.join("acme", Unaskable.with_options())
    yield found
    world.close()


def step(desk):
    """One round of the poller, and of the worker for what it says."""
    with capture_logs():
        asked = desk.world.run(desk.world.poller("acme").step())
    desk.work()
    return asked


def test_its_pushes_are_applied_and_it_is_never_asked(desk):
    """From the first word to the last, over weeks, no question is sent."""
    desk.told("awaiting_payment")
    for _ in range(20):
        desk.clock.advance(DAY.total_seconds())
        assert step(desk) == 0
    desk.told("confirmed")
    payment = desk.payment()
    assert (payment.state, desk.poll().next_poll_at) == ("confirmed", None)
    assert desk.effects(payment.id) == ["payment.paid"]
    for _ in range(40):
        desk.clock.advance(DAY.total_seconds())
        assert step(desk) == 0

    assert desk.member.client.asked == []
    assert desk.payment().review is None


def test_a_payment_that_it_says_nothing_about_comes_up_for_review(desk):
    """Asking cannot end in vain where nothing is asked: after the same time without a word a person looks."""
    desk.told("awaiting_payment")
    payment = desk.payment()
    assert desk.poll().next_poll_at == payment.changed_at + desk.world.schedule.give_up_after
    why = desk.world.book("acme").explain_next_poll(payment, desk.poll(), desk.clock())
    assert why == "the provider cannot be asked: a person is to look if it has said nothing by then"

    desk.clock.advance(30 * DAY.total_seconds() + 1)
    assert step(desk) == 0
    assert desk.payment().review == Review.GAVE_UP
    assert desk.poll().next_poll_at is None


def test_nobody_is_asked_because_of_a_doubt_a_payer_or_a_person(desk):
    """What would be a reason to ask is kept on the timeline, and says that there is no asking."""
    desk.told("cancelled")
    message = desk.told("confirmed")
    assert desk.payment().review == Review.CONFLICT
    assert message.reason.endswith("the provider cannot be asked")
    failed = own_statements.CallFailed("cancel", "c", "no answer", 500, is_ambiguous=True)
    asked = desk.message(desk.say(failed, desk.payment().id))
    desk.work()
    assert desk.message(asked.id).reason.endswith("the provider cannot be asked")

    assert desk.poll().next_poll_at is None
    with desk.database.write() as unit:  # as an older program would
        payment_polls.ask_at(unit, [desk.payment().id], desk.clock(), PollPriority.PERSON)
    assert step(desk) == 0
    assert desk.poll().next_poll_at is None
    asked = desk.world.run(desk.world.poller("acme").ask(desk.polled(desk.payment().id)))
    assert asked.error.code == "unsupported_by_provider"
    assert desk.member.client.asked == []


def test_no_schedule_is_planned_for_it(desk):
    """It has no price, and nothing of it counts as watched."""
    desk.told("awaiting_payment")
    account = PolledAccount(PollPolicy(), lambda _kind, _state: False, frozenset())

    assert Planner(desk.database, {"acme": account}, {"acme": None}, desk.clock).step() == 0
    with desk.database.read() as unit:
        assert poll_plans.plans(unit) == {}


def test_a_reconciliation_of_it_says_what_was_not_asked(template, tmp_path):
    """Where neither a list nor a question is to be had, the report says so of each payment."""
    world = World(template, tmp_path / "desk.db")
    rounds = Rounds(world)
    rounds.genius.has_list = False
    rounds.desk.member = replace(rounds.desk.member, provider=Unaskable.with_options())
    rounds.known("pi_1")

    row = rounds.walk()
    world.close()

    assert (row.status, row.asked, rounds.genius.asked, rounds.genius.listed) == ("done", 0, [], [])
    assert [(entry["payment"] is None, entry["code"]) for entry in row.unasked] == [
        (True, "unsupported_by_provider"),
        (False, "unsupported_by_provider"),
    ]
