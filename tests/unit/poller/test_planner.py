"""The planner on a real file: it learns from what was decided, sets prices, and says when the budget is short."""

import random
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from poller.hazard import BINS
from poller.planner import Planner
from poller.schedule import PolledAccount, PollPolicy, PollSchedule
from statemachine.phases import Source
from storage import payment_polls, poll_plans
from storage.poll_plans import HazardKey
from storage.tables_support import Hazard, PollPlan
from storage.types import PollPriority
from tests.support.pipeline_world import World
from tests.support.worker_desk import KIND, Desk

PLACE = HazardKey("acme", KIND, "awaiting_payment")


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


def accounts(desk, **schedule):
    lifecycle = desk.member.provider.lifecycles[KIND]
    return {
        "acme": PolledAccount(
            PollPolicy(**schedule), lambda _kind, state: lifecycle.is_terminal(state), frozenset({KIND})
        )
    }


def planner(desk, allowed=None, **schedule):
    return Planner(desk.database, accounts(desk, **schedule), {"acme": allowed}, desk.clock)


def book(desk, **schedule):
    return PollSchedule(desk.database, accounts(desk, **schedule), desk.clock)


def plan(desk):
    with desk.database.read() as unit:
        return poll_plans.plans(unit)["acme"]


def learnt(desk):
    with desk.database.read() as unit:
        return poll_plans.hazards(unit)[PLACE]


def live(desk, planner, count, draw):
    """Payments come a minute apart, and are confirmed by webhook at an age that is drawn."""
    rng, due = random.Random(3), {}
    for number in range(count):
        desk.told("awaiting_payment", ref=f"pi_{number}")
        due[number] = desk.clock() + timedelta(seconds=draw(rng))
        for other in [other for other, at in due.items() if at <= desk.clock()]:
            del due[other]
            desk.told("confirmed", ref=f"pi_{other}")
        planner.step()
        desk.clock.advance(60)


def test_what_was_pushed_is_learnt(desk):
    """Half an hour to pay on average is what the curve says after some ninety payments."""
    live(desk, planner(desk), 95, lambda rng: rng.expovariate(1 / 1_800))
    curve = book(desk).forecast(desk.payment("pi_94")).curve

    assert 0.45 < curve.changed_by(1_800) < 0.8
    assert 55 < sum(learnt(desk).changes) < 95


def test_what_was_asked_is_learnt_within_its_interval(desk):
    """Nobody knows when between two questions it changed; it counts as one change between them."""
    planning = planner(desk)
    desk.told("awaiting_payment")
    for age, status in ((100, "awaiting_payment"), (400, "confirmed")):
        desk.clock.advance(100 if age == 100 else 300)
        desk.answer(Source.POLL, status)
        desk.work()
        planning.step()
    desk.clock.advance(60)
    planning.step()
    changes = learnt(desk).changes

    assert sum(changes) == pytest.approx(1.0, abs=1e-3)
    assert sum(changes[:14]) == 0.0  # below the age of 90 s


def test_a_word_of_our_own_teaches_nothing(desk):
    """What an operator resolves says nothing of when payers pay; the time before counts as watched."""
    planning = planner(desk)
    desk.told("awaiting_payment")
    desk.clock.advance(1_000)
    desk.answer(Source.CANCEL, "cancelled")
    desk.work()
    desk.clock.advance(60)
    planning.step()

    assert sum(learnt(desk).changes) == 0.0
    assert sum(learnt(desk).exposure) == pytest.approx(1_000, abs=1)


def test_a_history_from_before_is_learnt_from_its_beginning(desk):
    """A planner that starts on a database with payments in it draws every lesson, in as many turns as that takes."""
    for number in range(30):
        desk.told("awaiting_payment", ref=f"pi_{number}")
    desk.clock.advance(500)
    for number in range(20):
        desk.told("confirmed", ref=f"pi_{number}")
    desk.clock.advance(60)
    planner(desk).step()

    assert sum(learnt(desk).changes) == pytest.approx(20.0)
    assert sum(learnt(desk).exposure) == pytest.approx(20 * 500 + 10 * 560, rel=0.05)


def test_the_price_rises_with_what_there_is_to_ask(desk):
    """So that no more is wanted than the budget allows; without a limit a question costs what it is worth."""
    for number in range(50):
        desk.told("awaiting_payment", ref=f"pi_{number}")
    planner(desk, allowed=0.5).step()
    assert plan(desk).price_seconds > 10.0
    assert plan(desk).wanted_per_second == pytest.approx(0.5, rel=0.01)
    assert plan(desk).watched == 50

    desk.clock.advance(60)
    planner(desk, min_price=3.0).step()
    assert plan(desk).price_seconds == 3.0


def test_a_dearer_plan_means_later_questions(desk):
    """The book says so at once, in this process and, after half a minute, in every other."""
    for number in range(50):
        desk.told("awaiting_payment", ref=f"pi_{number}")
    known = book(desk)
    cheap = known.next_at(desk.payment("pi_1"), desk.poll("pi_1"), desk.clock())
    planner(desk, allowed=0.05).step()
    assert known.next_at(desk.payment("pi_1"), desk.poll("pi_1"), desk.clock()) == cheap
    desk.clock.advance(31)
    assert known.next_at(desk.payment("pi_1"), desk.poll("pi_1"), desk.clock()) > cheap


def test_a_budget_that_is_too_small_is_said_once(desk):
    """When it begins, and when it is enough again; the longest waits are stretched meanwhile."""
    for number in range(20):
        desk.told("awaiting_payment", ref=f"pi_{number}")
    events = []
    for allowed in (0.001, 0.001, 10.0, 10.0):
        with capture_logs() as logs:
            planner(desk, allowed=allowed, max_interval=timedelta(hours=1)).step()
        events.append([line["event"] for line in logs])
        stretch = plan(desk).stretch
        desk.clock.advance(60)

    assert events == [["budget.short"], [], ["budget.sufficed"], []]
    assert stretch == 1.0


def test_two_planners_plan_once(desk):
    """The second comes in the same minute and has nothing to do."""
    desk.told("awaiting_payment")

    assert planner(desk).step() == 1
    assert planner(desk).step() == 0


def test_a_crash_loses_a_minute_and_no_lesson(desk):
    """Between any two writes: lessons that were not kept are drawn again in the next turn."""
    desk.told("awaiting_payment")
    desk.clock.advance(300)
    desk.told("confirmed")
    desk.clock.advance(60)
    for at in range(1, 8):
        with desk.world.crashing(at):
            planner(desk).step()
        desk.clock.advance(60)
    planner(desk).step()

    assert sum(learnt(desk).changes) == pytest.approx(1.0)


def test_why_is_said_in_words(desk):
    """What `payments show` says of the next question."""
    known, clock = book(desk), desk.clock
    desk.a_quiet_payment()
    with desk.database.write() as unit:
        payment_polls.note_asked(unit, desk.poll(), desk.poll().next_poll_at, seen_at=clock())
    payment = desk.payment()
    assert "of payments have left awaiting_payment at that age" in known.explain_next_poll(
        payment, desk.poll(), clock()
    )

    with desk.database.write() as unit:
        payment_polls.ask_at(unit, [payment.id], clock(), PollPriority.PAYER)
    assert known.explain_next_poll(desk.payment(), desk.poll(), clock()) == "a payer has come back"

    desk.told("expired")
    assert (
        known.explain_next_poll(desk.payment(), desk.poll(), clock()) == "it ended without money, and money may be late"
    )
    desk.told("confirmed", ref="pi_2")
    with desk.database.write() as unit:
        payment_polls.note_asked(unit, desk.poll("pi_2"), clock(), error="away")
    assert known.explain_next_poll(desk.payment("pi_2"), desk.poll("pi_2"), clock()) == "the last question failed"


def test_what_cannot_be_read_of_the_plans_fails_no_decision(desk, monkeypatch):
    """When to ask next is then as without a plan, or as it was known before; the next try is half a minute later."""
    known = book(desk)
    desk.told("awaiting_payment", ref="pi_1")
    (payment,), (poll,) = desk.payments(), desk.polls()
    tries = []

    def unreadable(_unit):
        tries.append(desk.clock())
        raise ValueError("no JSON")

    monkeypatch.setattr("poller.schedule.poll_plans.hazards", unreadable)
    with capture_logs() as logged:
        assert known.next_at(payment, poll, desk.clock()) is not None
        known.next_at(payment, poll, desk.clock())

    assert len(tries) == 1
    assert [line["event"] for line in logged] == ["budget.unreadable"]
    monkeypatch.undo()
    desk.clock.advance(31)
    known.next_at(payment, poll, desk.clock())
    assert known._read_at == desk.clock()


@pytest.mark.parametrize("number", [float("inf"), -1.0, 1e300])
def test_what_no_planner_can_have_written_plans_nothing(desk, number):
    """A price, a stretch or a hazard that is no quantity overflows no wait: it is as if there were no plan."""
    with desk.database.write() as unit:
        row = PollPlan(account="acme", planned_at=desk.clock(), price_seconds=number, stretch=number)
        sad = Hazard(
            account="acme",
            kind=KIND,
            state="awaiting_payment",
            exposure=[number] * BINS,
            changes=[1.0] * BINS,
            learned_at=desk.clock(),
        )
        poll_plans.keep(unit, [row], [sad] if number != float("inf") else [], None)
    desk.told("awaiting_payment", ref="pi_1")
    (payment,) = desk.payments()

    assert book(desk).next_at(payment, desk.poll(), desk.clock()) is not None
