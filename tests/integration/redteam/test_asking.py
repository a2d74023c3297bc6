"""A question that somebody wants asked is asked, asking ends, and no open payment is forgotten."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from providers.contract import Answer
from providers.errors import ProviderError
from statemachine import own_statements
from statemachine.phases import Phase, Review
from storage import payment_polls
from storage.types import PollPriority
from tests.support.pipeline_world import World
from tests.support.worker_desk import Desk

BODY = b'{"id":"pi_1","status":"%s","amount":4.5,"currency":"usd"}'
MONTH = timedelta(days=31).total_seconds()


def present(desk, state):
    desk.member.client.present = lambda kind, ref: Answer(200, BODY % state.encode(), desk.clock(), kind, ref)


def failing(desk, error):
    def fail(_kind, _ref):
        raise error

    desk.member.client.present = fail


def ask(desk):
    with capture_logs():
        asked = desk.world.run(desk.world.poller("acme").step())
    desk.work()
    return asked


def given_up(desk):
    desk.told("awaiting_payment")
    present(desk, "awaiting_payment")
    ask(desk)
    desk.clock.advance(MONTH)
    assert ask(desk) == 0
    assert desk.payment().review == Review.GAVE_UP


def hint(desk):
    with desk.database.write() as unit:
        payment_polls.ask_at(unit, [desk.payment().id], desk.clock(), PollPriority.DOUBT)


def test_a_hint_after_giving_up_is_asked_about(desk):
    """Where webhooks are hints (Alternative Payments), money that comes after the month must still be found."""
    given_up(desk)
    hint(desk)
    present(desk, "confirmed")

    assert ask(desk) == 1
    assert desk.payment().state == "confirmed"
    assert "payment.paid" in desk.effects(desk.payment().id)


def test_a_hint_that_was_wrong_ends_asking_again(desk):
    """One question, and the review still stands."""
    given_up(desk)
    hint(desk)
    assert ask(desk) == 1
    assert ask(desk) == 0
    assert (desk.payment().review, desk.poll().next_poll_at) == (Review.GAVE_UP, None)


def test_a_resolution_that_leaves_the_payment_open_does_not_forget_it(desk):
    """A person closes the review and lets it stay open: it is asked about, or in review, and never neither."""
    given_up(desk)
    desk.say(own_statements.Resolution("awaiting_payment", "let us wait", "ann"), desk.payment().id)
    desk.work()
    assert desk.poll().next_poll_at is not None
    ask(desk)
    assert desk.payment().review == Review.GAVE_UP


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("gone", http_status=404),
        ProviderError("the key is revoked", http_status=401),
        ProviderError("later", http_status=503, may_retry=True),
    ],
    ids=["gone", "revoked", "away"],
)
@pytest.mark.parametrize("state", ["expired", "confirmed", "awaiting_payment"])
def test_asking_in_vain_ends(desk, error, state):
    """No payment is asked about for ever: a provider that forgets ended payments would eat the account's budget."""
    desk.told(state)
    failing(desk, error)
    asked = 0
    for _ in range(3 * 40):
        desk.clock.advance(8 * 3601)
        asked += ask(desk)
    assert desk.poll().next_poll_at is None
    assert ask(desk) == 0
    if state == "awaiting_payment":
        assert desk.payment().review == Review.GAVE_UP


def test_a_late_check_that_failed_is_not_one(desk):
    """The provider is away at the first late check: the second, a day after the end, still finds the money."""
    desk.told("expired")
    present(desk, "expired")
    ask(desk)
    failing(desk, ProviderError("later", http_status=503, may_retry=True))
    desk.clock.advance(3601)
    for _ in range(4):
        ask(desk)
        desk.clock.advance(900)
    present(desk, "expired")
    desk.clock.advance(3601)
    ask(desk)
    present(desk, "confirmed")
    desk.clock.advance(86_400)

    assert ask(desk) == 1
    assert desk.payment().review == Review.CONFLICT


STATES = ("awaiting_payment", "confirmed", "settled", "expired", "cancelled", "mystery")
STEPS = st.one_of(
    st.tuples(st.just("webhook"), st.sampled_from(STATES), st.sampled_from([4.5, 1])),
    st.tuples(st.just("poll"), st.sampled_from([*STATES, "404", "503", "401"])),
    st.tuples(st.just("resolve"), st.sampled_from(STATES[:-1])),
    st.tuples(st.just("hint")),
    st.tuples(st.just("gave_up")),
    st.tuples(st.just("refused")),
    st.tuples(st.just("wait"), st.sampled_from([1, 3600, 86_400, MONTH])),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=1, max_size=14))
def test_no_open_payment_is_forgotten(template, tmp_path_factory, steps):
    """After any message: open, named, and neither asked about nor in review does not exist; the audit holds."""
    world = World(template, tmp_path_factory.mktemp("forgotten") / "world.db")
    try:
        desk = Desk(world)
        desk.told("awaiting_payment")
        for step in steps:
            _take(desk, *step)
            desk.world.settle()
            payment = desk.payment()
            if payment.phase in (Phase.OPEN, Phase.PROCESSING):
                assert desk.poll_of(payment.id).next_poll_at is not None or payment.review is not None, (step, payment)
            owed = [(each.effect, each.occurrence, each.sink) for each in desk.owed(payment.id)]
            assert len(owed) == len(set(owed))
        assert world.audit().faults == []
    finally:
        world.close()


def _take(desk, name, *args):
    payment = desk.payment()
    if name == "webhook":
        desk.told(args[0], amount=args[1])
    elif name == "poll":
        (said,) = args
        if said.isdigit():
            failing(desk, ProviderError("no", http_status=int(said), may_retry=said == "503"))
        else:
            present(desk, said)
        ask(desk)
    elif name == "resolve":
        desk.say(own_statements.Resolution(args[0], "because", "ann"), payment.id)
    elif name == "hint":
        hint(desk)
    elif name == "gave_up":
        desk.say(own_statements.GaveUp("gave_up", "silence"), payment.id)
    elif name == "refused":
        desk.say(own_statements.CallFailed("create", "no", "no", 400, is_ambiguous=False), payment.id)
    else:
        desk.clock.advance(args[0])
