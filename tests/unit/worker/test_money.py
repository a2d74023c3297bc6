"""Goods are owed for known money under a reference of its own, once a person has accepted what was in doubt."""

import json

import pytest

from statemachine import own_statements
from statemachine.phases import ConflictPolicy, Review, Source
from tests.support import keeping
from tests.support.builders import PROVIDERS, a_message

GOODS = {"payment.paid", "payment.settled"}
ORDER = {"metadata": {"reference": "order-1"}}


def resolve(desk, state, payment=None):
    payment = payment or desk.payment()
    desk.say(own_statements.Resolution(state, "looked at it", "ada"), payment.id, account=payment.account)
    desk.work()


def shop(desk, account, **rules):
    """An account of this name at that provider, in adopt mode."""
    desk.world.join(account, PROVIDERS[account])
    desk.rules(account, **rules)


def told_by(desk, account, **body):
    desk.keep(a_message(account=account, body=json.dumps(body).encode(), received_at=desk.clock()))
    desk.work()


def payfield(desk, ref="P1", status="success", **more):
    told_by(desk, "payfield", **({"external_id": ref, "transaction_type": "payin", "status": status} | more))


def banked(desk, ref="B1", state="sent", **more):
    told_by(desk, "banked", **({"id": ref, "webhook_type": "payment_session", "state": state} | more))


# money that is not known


@pytest.mark.parametrize("amount", ["-10.00", -10, "-0.0", "1e3"])
def test_negative_money_is_none_and_makes_a_body_unreadable(desk, amount):
    """No document of a provider's knows such amounts: the message is parked, and the open payments are asked about."""
    desk.a_quiet_payment()
    message = desk.told("settled", amount=amount)

    assert message.reason.startswith("unreadable: amount")
    assert (desk.payment().state, desk.effects(desk.payment().id)) == ("awaiting_payment", [])
    assert desk.poll().next_poll_at == desk.clock()


@pytest.mark.parametrize("amount", [0, "0.00", -0.0, None])
def test_unknown_or_zero_money_gives_no_goods(desk, amount):
    """Stable Genius: a payment first heard of by a webhook, of an amount that nobody pays."""
    desk.told("settled", amount=amount)

    payment = desk.payment()
    assert (payment.state, payment.phase, payment.review) == ("settled", "settled", Review.AMOUNT_UNKNOWN)
    assert payment.amount_minor is None
    assert desk.effects(payment.id) == ["payment.review_required"]
    assert desk.poll_of(payment.id).next_poll_at == desk.clock()


@pytest.mark.parametrize("money", [{"amount": "0.00", "currency": "BDT"}, {"currency": "BDT"}, {}])
def test_unknown_money_gives_no_goods_at_payfield(desk, money):
    shop(desk, "payfield")
    payfield(desk, **money)

    payment = desk.payment("P1")
    assert (payment.phase, payment.review) == ("paid", Review.AMOUNT_UNKNOWN)
    assert desk.effects(payment.id) == ["payment.review_required"]


@pytest.mark.parametrize("money", [{"amount": 0, "currency": "GBP"}, {"currency": "GBP"}, {"amount": 1000}, {}])
def test_unknown_money_gives_no_goods_at_banked(desk, money):
    shop(desk, "banked")
    banked(desk, **money)

    payment = desk.payment("B1")
    assert (payment.phase, payment.review) == ("paid", Review.AMOUNT_UNKNOWN)
    assert desk.effects(payment.id) == ["payment.review_required"]


def test_an_answer_that_says_the_money_releases_the_goods(desk):
    """Nobody has to close by hand what the provider has answered; the goods go out once, with the amount."""
    desk.told("confirmed", amount=None)
    assert GOODS.isdisjoint(desk.effects(desk.payment().id))

    for _ in range(2):
        desk.clock.advance(1)
        desk.answer(Source.POLL, "confirmed")
        desk.work()

    payment = desk.payment()
    assert (payment.review, payment.disputed, payment.amount_minor) == (None, None, 450)
    review = ["payment.review_required", "payment.paid", "payment.review_closed"]
    assert desk.effects(payment.id) == review
    assert json.loads(desk.owed(payment.id)[1].payload)["data"]["amount"] == "4.50"
    assert desk.world.audit().first is None


def test_a_person_may_release_goods_for_unknown_money(desk):
    """And the next statements without an amount open nothing again, and settle it."""
    desk.told("confirmed", amount=None)
    resolve(desk, "confirmed")
    desk.told("confirmed", amount=None)
    desk.told("settled", amount=None)

    payment = desk.payment()
    assert (payment.review, payment.reviews) == (None, 1)
    assert set(desk.effects(payment.id)) >= GOODS


def test_a_refund_of_nothing_is_none(desk):
    shop(desk, "payfield")
    payfield(desk, amount="500.00", currency="BDT")
    payfield(desk, status="refunded", amount="0.00", currency="BDT")

    payment = desk.payment("P1")
    assert (payment.state, payment.review) == ("refunded", Review.AMOUNT_UNKNOWN)
    assert desk.effects(payment.id) == ["payment.paid", "payment.review_required"]

    payfield(desk, status="refunded", amount="500.00", currency="BDT")
    assert (desk.payment("P1").review, desk.payment("P1").refunded_minor) == (None, 50_000)
    assert "payment.refunded" in desk.effects(payment.id)


# a reference that is another payment's


def test_another_payment_under_an_open_order_gives_no_goods(desk):
    """0.01 paid under the reference of an order of 4.50 that the provider has named already."""
    order = desk.wish()
    desk.answer(Source.CREATE, "awaiting_payment", about=order)
    desk.work()
    desk.told("confirmed", "pi_2", amount=0.01, **ORDER)

    other = desk.payment("pi_2")
    assert (other.phase, other.review, other.disputed) == ("paid", Review.REFERENCE_TAKEN, [f"reference:{order}"])
    assert desk.effects(other.id) == ["payment.review_required"]
    desk.told("confirmed", **ORDER)
    assert desk.effects(order) == ["payment.paid"], "the order itself is not in doubt"


@pytest.mark.parametrize("is_known", [True, False], ids=["read", "same-batch"])
def test_an_order_that_is_paid_twice_gives_goods_once(desk, is_known):
    """Two payments first heard of by webhooks, of the same reference and amount: a person looks at the second."""
    desk.webhook("confirmed", "pi_1", **ORDER)
    if is_known:
        desk.work()
    desk.webhook("confirmed", "pi_2", **ORDER)
    desk.work()

    assert desk.effects(desk.payment("pi_1").id) == ["payment.paid"]
    assert desk.payment("pi_2").review == Review.REFERENCE_TAKEN
    assert GOODS.isdisjoint(desk.effects(desk.payment("pi_2").id))


@pytest.mark.parametrize("ended", ["expired", "cancelled"])
@pytest.mark.parametrize("amount", [4.5, 0.01])
def test_a_second_attempt_gives_goods_for_as_much(desk, ended, amount):
    """The attempt before ended without money; the next is paid in full, or it is in doubt."""
    desk.told(ended, "pi_1", **ORDER)
    desk.told("confirmed", "pi_2", amount=amount, **ORDER)

    assert desk.effects(desk.payment("pi_2").id) == (["payment.paid"] if amount == 4.5 else ["payment.review_required"])


def test_a_reference_of_another_kind_of_money_is_no_doubt(desk):
    """A payout may have a payment's id; a payment of another kind may not."""
    shop(desk, "payfield")
    payfield(desk, amount="5.00", currency="BDT")
    payfield(desk, transaction_type="payout", amount="5.00", currency="BDT")
    effects = [desk.effects(payment.id) for payment in desk.payments()]
    assert effects == [["payment.paid"], ["payout.paid"]]

    shop(desk, "banked")
    banked(desk, amount=1000, currency="GBP", reference="R")
    data = {"id": "B2", "amount": 1, "currency": "GBP", "status_details": {"status": "SENT"}, "reference": "R"}
    told_by(desk, "banked", id="e", type="payment_sent", version="v3", data=data)
    assert desk.payment("B2").review == Review.REFERENCE_TAKEN


def test_many_attempts_of_one_batch_are_attempts(desk):
    """What changed in this very batch is seen before goods are owed."""
    desk.told("awaiting_payment", "pi_0", **ORDER)
    for number in range(4):
        desk.webhook("expired", f"pi_{number}", **ORDER)
    desk.webhook("confirmed", "pi_9", **ORDER)
    desk.work()

    assert desk.effects(desk.payment("pi_9").id) == ["payment.paid"]


# test money


@pytest.mark.parametrize("is_live", [True, False], ids=["live-account", "test-account"])
@pytest.mark.parametrize("name", ["live", "livemode", "test"])
def test_money_of_the_other_environment_gives_nothing(desk, is_live, name):
    """Both ways, under whatever name a body says it; the shop is not even told that it failed."""
    desk.rule(is_live=is_live)
    other, same = (name == "test") is is_live, (name != "test") is is_live
    desk.told("confirmed", "pi_1", **{name: other})
    desk.told("expired", "pi_2", **{name: other})
    desk.told("confirmed", "pi_3", **{name: same})

    assert (desk.payment("pi_1").state, desk.payment("pi_1").review) == ("confirmed", Review.WRONG_ENVIRONMENT)
    for ref in ("pi_1", "pi_2"):
        assert desk.effects(desk.payment(ref).id) == ["payment.review_required"]
    assert desk.effects(desk.payment("pi_3").id) == ["payment.paid"]


def test_test_money_does_not_bind_a_live_order(desk):
    """An order's number may exist in both environments."""
    desk.rule(is_live=True)
    order = desk.wish()
    desk.clock.advance(200)
    desk.told("confirmed", "pi_test", live=False, **ORDER)
    assert desk.get(order).provider_ref is None
    assert desk.payment("pi_test").review == Review.WRONG_ENVIRONMENT

    desk.told("confirmed", "pi_1", live=True, **ORDER)
    assert desk.effects(order) == ["payment.paid"]


@pytest.mark.parametrize("account", ["banked", "payfield"])
def test_test_money_in_a_live_account_is_withheld_at_every_provider(desk, account):
    shop(desk, account, is_live=True)
    if account == "banked":
        banked(desk, amount=1000, currency="GBP", live=False)
    else:
        payfield(desk, "B1", amount="10.00", currency="BDT", test=True)

    assert desk.payment("B1").review == Review.WRONG_ENVIRONMENT
    assert desk.effects(desk.payment("B1").id) == ["payment.review_required"]


# refunds


@pytest.mark.parametrize(
    ("given_back", "minor", "effect", "phase"),
    [("200.00", 20_000, "payment.refund_changed", "paid"), ("500.00", 50_000, "payment.refunded", "refunded")],
)
def test_an_amount_that_comes_with_refunded_is_the_refund_s(desk, given_back, minor, effect, phase):
    """It is no doubt about what was paid; what is told has the refund's own sum beside the payment's.

    Only all of it is `payment.refunded`.
    """
    shop(desk, "payfield")
    payfield(desk, amount="500.00", currency="BDT")
    payfield(desk, status="refunded", amount=given_back, currency="BDT")

    payment = desk.payment("P1")
    assert (payment.amount_minor, payment.refunded_minor, payment.review) == (50_000, minor, None)
    assert (payment.state, payment.phase) == ("refunded", phase)
    assert desk.effects(payment.id) == ["payment.paid", effect]
    told = json.loads(desk.owed(payment.id)[-1].payload)["data"]
    assert (told["amount_minor"], told["refunded_minor"], told["refunded"]) == (50_000, minor, given_back)
    assert desk.world.audit().faults == []


def test_a_refund_in_two_parts_is_refunded_with_the_second(desk):
    """Repeats of either change nothing, and neither does the state without a sum."""
    shop(desk, "payfield")
    payfield(desk, amount="500.00", currency="BDT")
    for given_back in ("200.00", "200.00", None, "500.00", "500.00"):
        payfield(desk, status="refunded", **({"amount": given_back} if given_back else {}), currency="BDT")

    payment = desk.payment("P1")
    assert (payment.state, payment.phase, payment.refunded_minor) == ("refunded", "refunded", 50_000)
    assert desk.effects(payment.id) == ["payment.paid", "payment.refund_changed", "payment.refunded"]
    assert desk.world.audit().faults == []


def test_a_refund_of_more_than_was_paid_is_withheld(desk):
    shop(desk, "payfield")
    payfield(desk, amount="500.00", currency="BDT")
    payfield(desk, status="refunded", amount="500.01", currency="BDT")
    payment = desk.payment("P1")
    assert payment.review == Review.AMOUNT_MISMATCH
    assert desk.effects(payment.id) == ["payment.paid", "payment.review_required"]

    resolve(desk, "refunded", payment)
    payfield(desk, status="refunded", amount="500.01", currency="BDT")
    assert desk.payment("P1").review is None
    assert desk.effects(payment.id).count("payment.refunded") == 1


def test_a_refund_that_is_a_resource_of_its_own_has_its_own_amount(desk):
    shop(desk, "banked")
    told_by(desk, "banked", id="RF", webhook_type="refund", state="sent", amount=200, currency="GBP")

    refund = desk.payment("RF")
    assert (refund.amount_minor, refund.refunded_minor, refund.review) == (200, None, None)
    assert desk.effects(refund.id) == ["refund.refunded"]


# a resolved review stays resolved


def again(desk, *statements_):
    """Every statement is made by webhook, by answer and by replay; returns how many reviews were opened by then."""
    for status, intent in statements_:
        message = desk.told(status, **intent)
        desk.answer(Source.POLL, status, **intent)
        desk.work()
        with desk.database.write() as unit:
            keeping.replay(unit, message.id, desk.clock())
        desk.work()
    return desk.payment().reviews


@pytest.mark.parametrize(
    ("said", "other", "review"),
    [
        ({"amount": 4.51}, {"amount": 4.52}, Review.AMOUNT_MISMATCH),
        ({"currency": "EUR"}, {"currency": "GBP"}, Review.CURRENCY_MISMATCH),
        ({"amount": 4.51, "currency": "EUR"}, {"amount": 4.52, "currency": "EUR"}, Review.CURRENCY_MISMATCH),
        ({"live": False}, None, Review.WRONG_ENVIRONMENT),
    ],
)
def test_what_a_resolution_accepts_opens_nothing_again(desk, said, other, review):
    """The same statement opens no review, whoever repeats it; another one does."""
    desk.rule(is_live=True)
    order = desk.wish()
    desk.told("confirmed", **ORDER, **said)
    if desk.get(order).provider_ref is None:  # of the other environment nothing binds an order but its answer
        desk.answer(Source.CREATE, "awaiting_payment", about=order)
        desk.work()
        desk.told("confirmed", **said)
    assert desk.payment().review == review
    resolve(desk, "confirmed")

    assert again(desk, ("confirmed", said), ("settled", said)) == 1
    assert set(desk.effects(desk.payment().id)) >= GOODS
    if other is not None:
        assert again(desk, ("settled", other)) == 2
        assert desk.payment().review == Review.AMOUNT_MISMATCH if "amount" in other else Review.CURRENCY_MISMATCH
    assert desk.world.audit().first is None


@pytest.mark.parametrize("policy", list(ConflictPolicy))
@pytest.mark.parametrize("state", ["cancelled", "confirmed"])
def test_a_resolved_conflict_opens_nothing_again(desk, state, policy):
    """Neither side of it, whichever the person took; a third word does."""
    desk.told("cancelled")
    desk.told("confirmed")
    resolve(desk, state)
    desk.rule(policy=policy)

    assert again(desk, ("confirmed", {}), ("cancelled", {})) == 1
    assert (desk.payment().state, desk.payment().review) == (state, None)
    desk.told("expired")
    assert (desk.payment().reviews, desk.payment().review) == (2, Review.CONFLICT)


def test_a_resolution_that_nothing_asked_for_is_contradicted_once(desk):
    """Nobody was shown that the provider says otherwise; the second resolution knows it."""
    desk.told("cancelled")
    resolve(desk, "expired")
    assert again(desk, ("cancelled", {})) == 1
    assert desk.payment().review == Review.CONFLICT

    resolve(desk, "expired")
    assert again(desk, ("cancelled", {})) == 1


def test_an_unknown_word_that_was_resolved_opens_nothing_again(desk):
    desk.told("awaiting_payment")
    desk.told("blessed")
    resolve(desk, "awaiting_payment")

    assert again(desk, ("blessed", {})) == 1
    assert again(desk, ("cursed", {})) == 2


def test_a_reference_that_was_resolved_opens_nothing_again(desk):
    desk.told("confirmed", "pi_0", **ORDER)
    desk.told("confirmed", **ORDER)
    resolve(desk, "confirmed")

    assert again(desk, ("confirmed", ORDER), ("settled", ORDER)) == 1
    assert set(desk.effects(desk.payment().id)) >= GOODS


def test_a_move_of_the_provider_s_forgets_which_conflicts_were_accepted(desk):
    """A conflict that was accepted at one state is another one at the next."""
    desk.told("expired")
    desk.told("cancelled")
    resolve(desk, "awaiting_payment")
    assert desk.payment().accepted == ["conflict:cancelled", "conflict:expired"]

    desk.told("expired")
    assert (desk.payment().state, desk.payment().accepted) == ("expired", None)
    desk.told("cancelled")
    assert desk.payment().review == Review.CONFLICT
