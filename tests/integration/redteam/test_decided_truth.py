"""Orders of events in which goods or money could be lost, doubled or lied about."""

import json
from datetime import timedelta

import pytest

from providers.contract import Answer
from statemachine import own_statements
from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import ConflictPolicy, Review, Source
from storage import payment_polls
from tests.support import keeping
from tests.support.builders import PROVIDERS, a_message
from tests.support.worker_desk import KIND, Desk

REFUSED = own_statements.CallFailed("create", "amount_too_small", "no", 400, is_ambiguous=False)
TIMEOUT = own_statements.CallFailed("create", "timeout", "no answer", None, is_ambiguous=True)


def operation(**fields):
    content = {"id": 7, "external_id": "ORDER-1", "status": "success", "amount": "5.00", "currency": "INR"}
    return json.dumps(content | {"updated_at": "2026-04-01T10:00:00Z"} | fields).encode()


def callback(desk, body, kind=None, **changes):
    changes = {"account": "shop", "body": body, "kind": kind, "received_at": desk.clock()} | changes
    message_id = desk.keep(a_message(**changes))
    desk.work()
    return desk.message(message_id)


def rest(desk):
    """Nobody is to be asked about for an hour."""
    desk.clock.advance(5)
    with desk.database.write() as unit:
        for payment in desk.payments():
            payment_polls.set_next(unit, payment.id, desk.clock() + timedelta(hours=1))


# what is handed over


def test_a_payout_is_never_told_as_a_payment_that_was_paid(desk):
    """A shop that ships on payment.paid must not ship because money went out."""
    desk.world.join("shop", PROVIDERS["payfield"])
    callback(desk, operation(), kind="payout")

    payout = desk.payment("ORDER-1")
    assert (payout.kind, payout.phase) == ("payout", "paid")
    assert desk.effects(payout.id) == ["payout.paid"]
    assert json.loads(desk.owed(payout.id)[0].payload)["type"] == "payout.paid"
    assert desk.world.audit().faults == []


@pytest.mark.parametrize(("state", "told"), [("failed", "refund.failed"), ("sent", "refund.refunded")])
def test_a_refund_s_end_is_not_told_as_the_payment_s(desk, state, told):
    """A refund may carry its payment's reference: that it failed says nothing about the order."""
    desk.world.join("shop", PROVIDERS["banked"])
    callback(desk, json.dumps({"id": "r1", "webhook_type": "refund", "state": state, "reference": "ORDER-1"}).encode())

    assert desk.effects(desk.payment("r1").id) == [told]


def test_a_failure_after_a_refused_create_is_told(desk):
    """The shop heard of the refusal, wished again, and must hear how that ended."""
    desk.world.join("shop", PROVIDERS["payfield"])
    wanted = own_statements.CreateWanted("payin", "ORDER-1", 500, "INR")
    payment_id = "0190a5c8-6b1e-7000-8000-000000000001"
    desk.say(wanted, payment_id, account="shop", delivery_key="create:ORDER-1")
    desk.say(REFUSED, payment_id, account="shop")
    desk.work()
    desk.say(REFUSED, payment_id, account="shop")
    desk.work()
    assert desk.effects(payment_id) == ["payment.failed"]

    callback(desk, operation(status="pending"), kind="payin", source="create", about=payment_id)
    callback(desk, operation(status="failed"), kind="payin")
    assert desk.get(payment_id).state == "failed"
    assert desk.effects(payment_id) == ["payment.failed", "payment.failed"]
    assert desk.world.audit().faults == []


# whose payment it is


def test_a_create_answer_about_another_payment_does_not_move_the_one_that_was_bound(desk):
    """Two payments at the provider for one reference: each keeps its own state, and a person is told."""
    payment_id = desk.wish()
    desk.told("awaiting_payment", ref="pi_theirs", metadata={"reference": "order-1"})
    assert desk.get(payment_id).provider_ref == "pi_theirs"

    desk.answer(Source.CREATE, "confirmed", ref="pi_ours", about=payment_id)
    desk.work()

    assert (desk.get(payment_id).state, desk.get(payment_id).review) == ("awaiting_payment", Review.CREATE_UNKNOWN)
    assert desk.payment("pi_ours").state == "confirmed"
    assert "payment.paid" not in desk.effects(payment_id)
    assert desk.world.audit().faults == []


def test_a_callback_about_another_reference_does_not_name_the_payment(desk):
    """A callback at one payment's URL whose body is about another operation binds nothing."""
    desk.world.join("shop", PROVIDERS["payfield"])
    payment_id = "0190a5c8-6b1e-7000-8000-000000000001"
    wanted = own_statements.CreateWanted("payin", "ORDER-2", 500, "INR")
    desk.say(wanted, payment_id, account="shop", delivery_key="create:ORDER-2")
    desk.work()
    desk.clock.advance(300)
    callback(desk, operation(), kind="payin", source="callback", about=payment_id)

    assert desk.get(payment_id).provider_ref is None
    assert desk.payment("ORDER-1").state == "success"


def test_a_callback_that_may_be_about_a_payin_or_a_payout_moves_neither(desk):
    """One id, two kinds, and nothing that tells them apart: both are asked about."""
    desk.world.join("shop", PROVIDERS["payfield"])
    for kind in ("payin", "payout"):
        callback(desk, operation(status="pending", id=kind), kind=kind)
    rest(desk)
    callback(desk, operation())

    assert [(p.state, desk.poll_of(p.id).next_poll_at) for p in desk.payments()] == [("pending", desk.clock())] * 2


def test_a_hint_asks_about_every_kind_that_has_the_id(desk):
    """With default_kind = ask, a callback about the payout must not ask about the payin alone."""
    provider = PROVIDERS["payfield"]
    desk.world.join("shop", type(provider)(provider.options.model_copy(update={"default_kind": "ask"})))
    for kind in ("payin", "payout"):
        callback(desk, operation(status="pending", id=kind), kind=kind)
    rest(desk)
    callback(desk, operation())

    assert [p.next_poll_at for p in desk.polls()] == [desk.clock()] * 2


def test_the_review_of_an_unanswered_create_ends_when_the_payment_is_found(desk):
    """Tracked by an operator after a timeout: nothing is unknown any more."""
    payment_id = desk.wish()
    desk.say(TIMEOUT, payment_id)
    desk.work()
    assert desk.get(payment_id).review == Review.CREATE_UNKNOWN

    desk.answer(Source.POLL, "awaiting_payment", metadata={"reference": "order-1"})
    desk.work()
    assert (desk.get(payment_id).provider_ref, desk.get(payment_id).review) == ("pi_1", None)


def test_a_refusal_does_not_undo_what_a_person_said(desk):
    """Resolved as paid while a create call was under way, in an account that trusts its provider."""
    desk.rule(policy=ConflictPolicy.TRUST_PROVIDER)
    payment_id = desk.wish()
    desk.say(own_statements.Resolution("confirmed", "dashboard", "ann"), payment_id)
    desk.say(REFUSED, payment_id)
    desk.work()

    assert desk.get(payment_id).state == "confirmed"
    assert desk.effects(payment_id) == ["payment.paid"]


# the same identity, other content


def test_the_truth_may_be_the_variant(desk):
    """The provider gives a wrong content an identity first: the true one is asked about, although it is unknown."""
    wrong = desk.event("awaiting_payment", ref="pi_wrong")
    key = json.loads(wrong)["id"]
    desk.keep(a_message(body=wrong, delivery_key=key, received_at=desk.clock()))
    true = desk.event("confirmed", ref="pi_true", amount=0.01)
    desk.keep(a_message(body=true, delivery_key=key, received_at=desk.clock()))
    desk.work()

    assert [payment.provider_ref for payment in desk.payments()] == ["pi_wrong"]
    desk.world.run(desk.world.poller("acme").step())
    assert ("payment_intent", "pi_true") in desk.member.client.asked
    assert desk.world.audit().faults == []


def test_a_variant_of_a_hint_asks_all_the_same(desk):
    """A hint is never believed, so that other content under its identity costs a question at most."""
    desk.told("awaiting_payment")
    rest(desk)
    for data in ({"note": "nothing"}, {"intent": "pi_1"}):
        event = {"id": "evt_9", "type": "transaction.created", "data": data}
        desk.keep(a_message(body=json.dumps(event).encode(), delivery_key="evt_9", received_at=desk.clock()))
        desk.work()

    assert desk.poll().next_poll_at == desk.clock()


# answers that were overtaken


@pytest.mark.parametrize("policy", list(ConflictPolicy))
def test_an_answer_from_before_the_payment_moved_cannot_contradict_the_move(desk, policy):
    """Asked; then a webhook says paid; then the old answer arrives: it is asked again, and nothing is forced."""
    desk.rule(policy=policy)
    desk.a_quiet_payment()
    asked_at = desk.clock()
    desk.clock.advance(2)
    desk.told("confirmed")
    desk.clock.advance(2)
    old = desk.world.answered("acme", Source.POLL, _answer("expired", asked_at), desk.payment().id)
    desk.keep(old)
    desk.work()
    assert (desk.payment().state, desk.payment().review) == ("confirmed", None)
    assert desk.poll().next_poll_at == desk.clock()

    desk.clock.advance(1)
    desk.answer(Source.POLL, "expired")
    desk.work()
    if policy is ConflictPolicy.TRUST_PROVIDER:
        assert (desk.payment().state, desk.payment().review) == ("expired", None)
    else:
        assert (desk.payment().state, desk.payment().review) == ("confirmed", Review.CONFLICT)


def test_an_answer_in_flight_does_not_undo_a_resolution(desk):
    """A person resolves while the provider is being asked: the old answer is not a confirmation."""
    desk.rule(policy=ConflictPolicy.TRUST_PROVIDER)
    desk.told("expired")
    asked_at = desk.clock()
    desk.clock.advance(1)
    desk.say(own_statements.Resolution("confirmed", "bank statement", "ann"), desk.payment().id)
    desk.work()
    desk.clock.advance(1)
    desk.keep(desk.world.answered("acme", Source.POLL, _answer("expired", asked_at), desk.payment().id))
    desk.work()

    assert desk.payment().state == "confirmed"


def test_a_replay_of_an_old_answer_forces_nothing(desk):
    """The provider was trusted to move expired -> confirmed; the old answer, once more, must not move it back."""
    desk.rule(policy=ConflictPolicy.TRUST_PROVIDER)
    desk.told("awaiting_payment")
    old = desk.answer(Source.POLL, "expired")
    desk.work()
    desk.clock.advance(5)
    desk.answer(Source.POLL, "confirmed")
    desk.work()
    desk.clock.advance(5)
    with desk.database.write() as unit:
        keeping.replay(unit, old, desk.clock())
    desk.work()

    assert desk.payment().state == "confirmed"
    assert desk.world.audit().faults == []


def test_a_clock_that_was_put_back_does_not_ask_for_ever(desk):
    """A move recorded in what is now the future proves nothing about which came first."""
    desk.clock.advance(600)
    desk.told("confirmed")
    desk.clock.advance(-600)
    desk.answer(Source.POLL, "expired")
    desk.work()

    assert desk.payment().review == Review.CONFLICT


def _answer(status, asked_at):
    body = json.dumps({"id": "pi_1", "status": status, "amount": 4.5, "currency": "usd"}).encode()
    return Answer(200, body, asked_at, KIND, "pi_1")


# operators


def test_two_operators_at_once_are_both_in_the_history(desk):
    """The later word stands, goods go out once, and the audit shows both names."""
    desk.told("expired")
    payment_id = desk.payment().id
    for state, name in (("confirmed", "ann"), ("cancelled", "bob"), ("confirmed", "ann")):
        desk.say(own_statements.Resolution(state, "why", name), payment_id)
    desk.work()

    assert [(link.to_state, link.actor) for link in desk.chain(payment_id)][1:] == [
        ("confirmed", "ann"),
        ("cancelled", "bob"),
        ("confirmed", "ann"),
    ]
    assert desk.effects(payment_id).count("payment.paid") == 1
    assert desk.world.audit().faults == []


def test_withheld_goods_are_released_once(desk: Desk):
    """Another amount withholds; a person releases; neither a second release nor a settlement doubles it."""
    desk.told("awaiting_payment")
    desk.told("confirmed", amount=1)
    payment_id = desk.payment().id
    assert desk.effects(payment_id) == ["payment.review_required"]
    for _ in range(2):
        desk.say(own_statements.Resolution("confirmed", "partial is fine", "ann"), payment_id)
    desk.work()
    desk.told("settled", amount=1)
    desk.say(own_statements.Resolution("settled", "fine", "ann"), payment_id)
    desk.work()

    effects = desk.effects(payment_id)
    assert (effects.count("payment.paid"), effects.count("payment.settled")) == (1, 1)
    assert desk.get(payment_id).review is None


def test_a_refused_create_that_a_person_resolved_stays_not_created(desk):
    """`not_created` is a word of ours that a person may say, and a late webhook leaves it legally."""
    payment_id = desk.wish()
    desk.say(own_statements.Resolution(NOT_CREATED, "not in the dashboard", "ann"), payment_id)
    desk.work()
    desk.clock.advance(timedelta(hours=1).total_seconds())
    desk.told("confirmed", metadata={"reference": "order-1"})

    assert desk.get(payment_id).state == "confirmed"
    assert "payment.paid" in desk.effects(payment_id)
