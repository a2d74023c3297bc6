"""What the schedule is planned with, on every database: who stands where, who left when, whose turn it is."""

from datetime import timedelta

from storage import batches, inbox, payment_polls, poll_plans, transitions
from storage.poll_plans import HazardKey
from storage.tables_support import Hazard, PollPlan
from storage.types import PollPriority
from tests.support import keeping
from tests.support.builders import a_message, a_payment, a_poll
from tests.support.clock import START

MINUTE = timedelta(minutes=1)
EDGES = (0.0, 10.0, 100.0, 1000.0)


def seconds(count):
    return timedelta(seconds=count)


def kept(database, *found):
    with database.write() as unit:
        for payment, asked in found:
            keeping.keep(unit, payment, **asked)
    return [payment for payment, _ in found]


def asked(at=START, priority=PollPriority.SCHEDULE, **changes):
    """A payment that is asked about at that instant."""
    return a_payment(**changes), {"next_poll_at": at, "poll_priority": priority}


def standing_since(at, **changes):
    return asked(state="pending", changed_at=at, **changes)


def test_one_of_all_processes_plans_each_minute(database, again):
    """Who comes second in the same minute has nothing to do."""
    with database.write() as unit:
        assert poll_plans.begin(unit, START, MINUTE) == poll_plans.Turn(None)
    with again.write() as unit:
        assert poll_plans.begin(unit, START + seconds(59), MINUTE) is None
        assert poll_plans.begin(unit, START + seconds(60), MINUTE) is not None


def test_a_planner_of_a_wrong_century_is_taken_over(database):
    """A clock that was far ahead does not end planning."""
    with database.write() as unit:
        assert poll_plans.begin(unit, START + timedelta(days=4000), MINUTE) is not None
        assert poll_plans.begin(unit, START, MINUTE) is not None


def test_payments_are_counted_by_the_age_of_their_state(database):
    """Those that are asked about, by place and bin; a bin begins at its edge."""
    kept(
        database,
        standing_since(START),
        standing_since(START - seconds(9.5)),
        standing_since(START - seconds(10)),
        standing_since(START - seconds(5000)),
        standing_since(START - seconds(50), account="other"),
        asked(None, state="pending", changed_at=START),  # not asked about
        asked(provider_ref=None),  # not named yet
        asked(state=None, changed_at=START),
    )
    with database.read() as unit:
        found = poll_plans.standing(unit, START, EDGES)

    assert found[HazardKey("acme", "payment_intent", "pending")] == poll_plans.OpenPayments("open", [2, 1, 0, 1])
    assert found[HazardKey("other", "payment_intent", "pending")] == poll_plans.OpenPayments("open", [0, 1, 0, 0])
    assert found[HazardKey("acme", "payment_intent", "")] == poll_plans.OpenPayments("open", [1, 0, 0, 0])
    assert len(found) == 3


def test_who_left_a_state_is_told_once_and_in_order(database):
    """With when it entered, was last seen there, and who told; not first words, nor what was just recorded."""
    (payment,) = kept(database, asked(None, expires_at=START + timedelta(hours=1)))
    answer = {"source": "poll", "about": payment.id}

    def move(unit, message, state, at, as_of=None):
        inbox.record(unit, [message])
        message.payment_id, message.status = payment.id, "decided"
        batches.append(
            unit, [transitions.link(unit.sealer, payment, message, state, "open", (), False, None, "a test", as_of, at)]
        )
        keeping.change(unit, payment)

    with database.write() as unit:
        move(unit, a_message(), "pending", START)
        early = a_message(provider_time=START + seconds(30), **answer)
        inbox.record(unit, [early])
        claimed = inbox.claim(unit, START, MINUTE, 10, only=[early.id])[0]
        claimed.payment_id, claimed.status = payment.id, "decided"
        keeping.decide(unit, [claimed])
        told = a_message(provider_time=START + seconds(90), **answer)
        move(unit, told, "sent", START + seconds(91), as_of=START + seconds(90))
        move(unit, a_message(), "paid", START + seconds(200))
    with database.read() as unit:
        found, last = poll_plans.lessons(unit, START + seconds(100), None, 10)
        rest, _ = poll_plans.lessons(unit, START + seconds(300), last, 10)

    (left,) = found
    assert (left.place.state, left.entered_at, left.recorded_at) == ("pending", START, START + seconds(91))
    assert (left.seen_at, left.asked_at) == (START + seconds(30), START + seconds(90))
    assert (left.source, left.expires_at) == ("poll", START + timedelta(hours=1))
    assert [one.place.state for one in rest] == ["sent"]


def test_plans_and_lessons_are_kept(database, again):
    """What is kept replaces what was before, for every process."""
    place = HazardKey("acme", "payment_intent", "pending")

    def hazard(changes):
        return Hazard(**place._asdict(), exposure=[1.5, 2.0], changes=changes, learned_at=START)

    def plan(price):
        return PollPlan(account="acme", planned_at=START, price_seconds=price)

    with database.write() as unit:
        poll_plans.begin(unit, START, MINUTE)
        poll_plans.keep(unit, [plan(1.0)], [hazard([0.0, 1.0])], None)
    with again.write() as unit:
        poll_plans.keep(unit, [plan(2.5)], [hazard([0.25, 1.0])], a_payment().id)
    with database.read() as unit:
        assert poll_plans.hazards(unit)[place].changes == [0.25, 1.0]
        assert {name: kept.price_seconds for name, kept in poll_plans.plans(unit).items()} == {"acme": 2.5}
    with database.write() as unit:
        assert poll_plans.begin(unit, START + MINUTE, MINUTE).learned_to is not None


# -- whose question goes first


def test_what_somebody_wants_is_taken_before_the_schedule(database):
    """By priority, then the longest overdue; the schedule has a list of its own."""

    def due(priority, late):
        return asked(START - seconds(late), priority)

    hint, person, payer, doubt, later, late, _future = kept(
        database,
        *(
            due(priority, 1)
            for priority in (PollPriority.HINT, PollPriority.PERSON, PollPriority.PAYER, PollPriority.DOUBT)
        ),
        due(PollPriority.SCHEDULE, 400),
        due(PollPriority.SCHEDULE, 500),
        asked(START + seconds(1), PollPriority.PAYER),
    )
    with database.write() as unit:
        wanted = [found.payment.id for found in payment_polls.wanted(unit, "acme", START, 10)]
        scheduled = [found.payment.id for found in payment_polls.due_by_schedule(unit, "acme", START, 10)]

    assert wanted == [payer.id, doubt.id, person.id, hint.id]
    assert scheduled == [late.id, later.id]


def test_a_question_that_was_asked_sets_the_priority_back(database):
    """Unless somebody has wanted it anew meanwhile."""
    (one, other) = kept(database, *(asked(priority=PollPriority.PAYER) for _ in range(2)))
    with database.write() as unit:
        payment_polls.ask_at(unit, [other.id], START - seconds(1), PollPriority.DOUBT)
        for payment in (one, other):
            as_asked = a_poll(payment, next_poll_at=START)
            payment_polls.note_asked(unit, as_asked, START + MINUTE, seen_at=START)
    with database.read() as unit:
        one, other = (payment_polls.get(unit, payment.id) for payment in (one, other))

    assert (one.poll_priority, one.next_poll_at, one.asked_at) == (PollPriority.SCHEDULE, START + MINUTE, START)
    assert (other.poll_priority, other.next_poll_at) == (PollPriority.PAYER, START - seconds(1))


def test_failures_in_a_row_are_counted(database):
    """An answer forgets them, and a failure does not say that the payment was seen."""
    (payment,) = kept(database, asked())
    counts = []
    with database.write() as unit:
        for error in ("away", "away", None, "away"):
            found = payment_polls.get(unit, payment.id)
            payment_polls.note_asked(unit, found, START, seen_at=None if error else START, error=error)
            found = payment_polls.get(unit, payment.id)
            counts.append((found.poll_failures, found.poll_error, found.asked_at))

    assert counts == [(1, "away", None), (2, "away", None), (0, None, START), (1, "away", START)]
