"""One round of questions on a real file, with a client that answers as scripted."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from providers.contract import Answer
from providers.errors import ProviderError
from statemachine import own_statements
from statemachine.phases import Review
from storage import inbox, payment_polls
from storage.types import PollPriority
from tests.support.pipeline_world import SimulatedCrash, World
from tests.support.worker_desk import KIND, Desk

BODY = b'{"id":"pi_1","status":"%s","amount":4.5,"currency":"usd"}'


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


@pytest.fixture
def open_one(desk):
    """One payment that awaits payment and is due to be asked about."""
    desk.told("awaiting_payment")
    return desk.payment()


def ask(desk):
    with capture_logs():
        return desk.world.run(desk.world.poller("acme").step())


def present(desk, state):
    desk.member.client.present = lambda kind, ref: Answer(200, BODY % state.encode(), desk.clock(), kind, ref)


def failing(desk, error):
    def fail(_kind, _ref):
        raise error

    desk.member.client.present = fail


def recorded(desk, source):
    with desk.database.read() as unit:
        return inbox.find(unit, source=source)


def test_an_answer_is_recorded_verbatim_and_moves_nothing_itself(desk, open_one):
    """The poller writes a message; what it means is the worker's to decide (rule R1)."""
    present(desk, "confirmed")

    assert ask(desk) == 1
    (message,) = recorded(desk, "poll")
    assert (BODY % b"confirmed", KIND, "pi_1", 200, desk.clock()) == (
        message.body,
        message.kind,
        message.ref,
        message.http_status,
        message.provider_time,
    )
    assert (desk.payment().state, desk.poll().polls) == ("awaiting_payment", 1)
    desk.work()
    assert desk.payment().state == "confirmed"


def test_nobody_is_asked_before_their_time(desk, open_one):
    """After an answer the payment rests for as long as the schedule says."""
    present(desk, "awaiting_payment")
    ask(desk)
    desk.work()
    assert ask(desk) == 0

    desk.clock.advance((desk.poll().next_poll_at - desk.clock()).total_seconds())
    assert ask(desk) == 1


def test_two_pollers_do_not_ask_twice(desk, open_one):
    """Who claims first has the payment to itself until its lease ends; a crash lets another ask then."""

    def crash(_kind, _ref):
        raise SimulatedCrash

    desk.member.client.present = crash
    with pytest.raises(SimulatedCrash):
        ask(desk)

    present(desk, "awaiting_payment")
    assert ask(desk) == 0
    desk.clock.advance(121)
    assert ask(desk) == 1


def test_an_error_is_noted_and_waits_as_the_provider_says(desk, open_one):
    """Retry-After is honoured where it is longer than our own wait, and nothing is decided."""
    failing(desk, ProviderError("slow down", http_status=429, may_retry=True, retry_after=900))
    ask(desk)

    payment, poll = desk.payment(), desk.poll()
    assert timedelta(seconds=900) <= poll.next_poll_at - desk.clock() <= timedelta(seconds=1080)
    assert (payment.state, poll.polls) == ("awaiting_payment", 1)
    assert "slow down" in poll.poll_error
    assert recorded(desk, "poll") == []


def test_an_error_that_a_repeat_cannot_mend_is_not_hammered(desk, open_one):
    """A 404 is tried again once, since somebody wanted it, and then seldom."""
    failing(desk, ProviderError("no such intent", http_status=404))
    assert ask(desk) == 1
    wait = desk.poll().next_poll_at - desk.clock()
    assert wait <= 1.2 * desk.world.schedule.first_retry_wait
    desk.clock.advance(wait.total_seconds())
    assert ask(desk) == 1

    assert desk.poll().next_poll_at == desk.clock() + desk.world.schedule.max_retry_wait
    assert desk.payment().state == "awaiting_payment"


def test_an_answer_clears_the_error_before(desk, open_one):
    """What is shown is the last question's error."""
    failing(desk, ProviderError("try later", http_status=503, may_retry=True))
    ask(desk)
    desk.clock.advance(4000)
    present(desk, "awaiting_payment")
    ask(desk)

    assert desk.poll().poll_error is None


def test_giving_up_opens_a_review_and_never_fails_the_payment(desk, open_one):
    """Time decides nothing about money (rule R6): the payment stays open, a person is told, asking ends."""
    desk.clock.advance(timedelta(days=31).total_seconds())
    present(desk, "awaiting_payment")
    assert ask(desk) == 0
    desk.work()

    payment = desk.payment()
    assert (
        payment.state,
        payment.phase,
        payment.review,
        desk.poll().next_poll_at,
    ) == ("awaiting_payment", "open", Review.GAVE_UP, None)
    assert desk.effects(payment.id) == ["payment.review_required"]
    assert ask(desk) == 0
    assert len(recorded(desk, "poller")) == 1


def test_an_unanswered_create_needs_review_once(desk):
    """A create call that left nothing is found after its grace, and shown once however often it is looked for."""
    payment_id = desk.wish()
    ask(desk)
    assert recorded(desk, "poller") == []

    desk.clock.advance(121)
    ask(desk)
    ask(desk)
    desk.work()
    ask(desk)
    desk.work()
    assert len(recorded(desk, "poller")) == 1
    assert (desk.get(payment_id).state, desk.get(payment_id).review) == (None, Review.CREATE_UNKNOWN)
    assert desk.effects(payment_id) == ["payment.review_required"]


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "failed"])
def test_a_wish_to_ask_at_once_outlives_the_question_under_way(desk, open_one, is_answered):
    """What is heard while the provider is being asked is asked about again; the earlier answer may not know of it."""

    def overtaken(kind, ref):
        desk.clock.advance(3)
        desk.keep_hint()
        if not is_answered:
            raise ProviderError("try later", http_status=503, may_retry=True)
        return Answer(200, BODY % b"awaiting_payment", desk.clock() - timedelta(seconds=3), kind, ref)

    def keep_hint():
        with desk.database.write() as unit:
            payment_polls.ask_at(unit, [open_one.id], desk.clock(), PollPriority.DOUBT)

    desk.keep_hint = keep_hint
    desk.member.client.present = overtaken
    ask(desk)
    desk.work()

    assert desk.poll().next_poll_at == desk.clock()


def test_an_end_that_was_told_meanwhile_is_not_put_back_on_the_open_payment_s_schedule(desk, open_one):
    """The answer's own schedule is that of the payment as it was; the worker's newer one stands."""

    def overtaken(kind, ref):
        desk.told("confirmed")
        return Answer(200, BODY % b"awaiting_payment", desk.clock(), kind, ref)

    desk.member.client.present = overtaken
    ask(desk)
    desk.work()

    assert desk.payment().state == "confirmed"
    payment, poll = desk.payment(), desk.poll()
    assert poll.next_poll_at == desk.world.book("acme").next_at(payment, poll, payment.changed_at)


def test_a_refresh_of_a_payment_without_a_name_is_refused(desk):
    """There is nothing to ask about until the provider has named it."""
    payment_id = desk.wish()
    asked = desk.world.run(desk.world.poller("acme").ask(desk.polled(payment_id)))

    assert asked.error is not None
    assert asked.message_id is None
    assert desk.member.client.asked == []


def test_the_answer_about_another_payment_is_parked(desk, open_one):
    """An answer that names somebody else moves nobody."""
    desk.member.client.present = lambda kind, ref: Answer(
        200, (BODY % b"confirmed").replace(b"pi_1", b"pi_2"), desk.clock(), kind, ref
    )
    ask(desk)
    desk.work()

    assert desk.payment().state == "awaiting_payment"
    assert [message.status for message in recorded(desk, "poll")] == ["parked"]
    assert len(desk.payments()) == 1


def test_giving_up_is_said_in_our_own_words(desk, open_one):
    """The statement is readable bytes in the inbox like any other."""
    desk.clock.advance(timedelta(days=31).total_seconds())
    ask(desk)

    (message,) = recorded(desk, "poller")
    assert own_statements.decode(message.body) == own_statements.GaveUp(
        "gave_up", "no change for as long as payments are watched"
    )
