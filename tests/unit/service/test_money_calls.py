"""Capturing and refunding, whatever the provider answers: no money moves twice, and none is lost sight of."""

import asyncio
import json
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from providers.contract import Answer, Capability
from providers.engine.provider import built_in
from providers.errors import ProviderError, UnsupportedByProvider
from service.errors import InvalidCommand, MoneyExceeded, MoneyInDoubt, MoneyUnanswered, WishConflict
from statemachine.phases import Phase, Review, Source
from tests.property.cancel_world import ACCOUNT, AWAY, BROKEN, KIND, NO_ANSWER, Genius, Till
from tests.support.builders import PROVIDERS

STRIPE = built_in("stripe").with_options()
REFUSED = ProviderError("answered 400", type="conflict_error", provider_code="charge_disputed", http_status=400)


class Stripe(Genius):
    """Holds intents of 11.30 with their refunds, and keeps what each idempotency key was answered."""

    def __init__(self, clock):
        super().__init__(clock)
        self.refunds: list[dict] = []
        self.keys: list[str] = []
        self.answers: dict[str, dict] = {}
        self.captured: dict[str, int] = {}
        self.within: timedelta | None = timedelta(hours=23)
        self.status = "succeeded"  #: of new refunds

    def repeats_within(self, call):
        return self.within

    async def refund(self, request):
        def made():
            refund = {"id": f"re_{len(self.refunds)}", "amount": request.amount_minor, "currency": "eur"}
            self.refunds.append(refund | {"status": self.status})
            return self.refunds[-1]

        return await self._once("refund", request, made)

    async def capture(self, request):
        def made():
            self.captured[request.ref] = request.amount_minor
            self.states[request.ref] = "succeeded"
            return self._intent(request.ref)

        return await self._once("capture", request, made)

    async def _once(self, call, request, made):
        self.keys.append(request.idempotency_key)

        def work():
            if request.idempotency_key not in self.answers:
                self.answers[request.idempotency_key] = made()
            body = json.dumps(self.answers[request.idempotency_key]).encode()
            return Answer(200, body, self._clock(), request.kind, request.ref)

        return await self._take_turn(call, request.ref, work)

    def _intent(self, ref):
        received = self.captured.get(ref, 1130 if self.states[ref] == "succeeded" else 0)
        intent = {"id": ref, "status": self.states[ref], "amount": 1130, "currency": "eur", "amount_received": received}
        return intent | {"latest_charge": {"id": "ch_1", "refunds": {"data": self.refunds}}}

    def _shown(self, ref):
        return Answer(200, json.dumps(self._intent(ref)).encode(), self._clock(), KIND, ref)


@pytest.fixture
def till(template, tmp_path):
    made = Till(template, tmp_path)
    made.has_provider(STRIPE)
    made.genius = Stripe(made.clock)
    with capture_logs():
        yield made
    made.close()


def paid(till, state="succeeded"):
    ref = f"pi_{len(till.genius.states)}"
    till.genius.states[ref] = state
    payment = asyncio.run(till.commands().track(ACCOUNT, ref))
    till.genius.calls.clear()
    return payment


def refund(till, payment, key="k1", amount_minor=None):
    till.clock.advance(1)
    return till.run(till.commands().refund(payment.id, key=key, amount_minor=amount_minor))


def refused(till, payment, error, key="k1", amount_minor=None):
    with pytest.raises(error) as raised:
        refund(till, payment, key, amount_minor)
    return raised.value


# refunds


def test_a_part_and_the_rest_are_refunded_and_told(till):
    payment = paid(till)

    part = refund(till, payment, "k1", 130)
    whole = refund(till, payment, "k2")

    assert (part.refunded_minor, part.phase) == (130, Phase.PAID)
    assert (whole.refunded_minor, whole.phase) == (1130, Phase.REFUNDED)
    assert [each["amount"] for each in till.genius.refunds] == [130, 1000]
    changed = "payment.refund_changed"
    assert till.effects(payment) == ["payment.paid", changed, changed, "payment.refunded"]
    assert till.audit().faults == []


def test_the_wish_is_recorded_before_it_is_sent_and_its_id_is_the_key(till):
    payment = paid(till)
    till.genius.turns = [lambda _genius, _ref, work: (wishes.extend(till.told(payment, Source.MERCHANT)), work())[1]]
    wishes = []

    refund(till, payment, amount_minor=130)

    assert [wish.id for wish in wishes] == till.genius.keys
    assert "1.30 EUR" in wishes[0].reason


@pytest.mark.parametrize("amount", [130, None])
def test_a_repeat_with_the_same_key_sends_nothing(till, amount):
    payment = paid(till)

    for _ in range(2):
        refund(till, payment, "k1", amount)

    assert len(till.genius.refunds) == len(till.genius.keys) == 1


def test_a_key_means_one_amount(till):
    payment = paid(till)
    refund(till, payment, "k1", 130)

    refused(till, payment, WishConflict, "k1", 131)
    refused(till, payment, WishConflict, "k1")

    assert len(till.genius.refunds) == 1


@pytest.mark.parametrize("amount", [1131, 10**9])
def test_more_than_there_is_is_refused_before_anything_is_recorded_or_sent(till, amount):
    payment = paid(till)

    assert "11.30 EUR can be refunded" in refused(till, payment, MoneyExceeded, amount_minor=amount).message

    assert till.genius.calls == []
    assert till.told(payment, Source.MERCHANT) == []


def test_what_is_pending_at_the_provider_does_not_remain(till):
    payment = paid(till)
    till.genius.status = "pending"
    pending = refund(till, payment, "k1", 1000)

    refused(till, payment, MoneyExceeded, "k2", 131)

    assert (pending.refunded_minor, pending.phase) == (0, Phase.PAID)
    assert [part["status"] for part in pending.parts] == ["pending"]


@pytest.mark.parametrize("state", ["requires_payment_method", "requires_capture", "canceled"])
def test_what_is_not_paid_is_not_refunded(till, state):
    payment = paid(till, state)

    refused(till, payment, MoneyExceeded)
    assert till.genius.calls == []


@pytest.mark.parametrize(("amount", "key"), [(0, "k"), (-1, "k"), (1, ""), (1, "x" * 256), (1, "a\0b")])
def test_nonsense_is_refused(till, amount, key):
    refused(till, paid(till), InvalidCommand, key, amount)


def test_a_provider_without_the_call_is_never_asked(till):
    payment = paid(till)
    till.has_provider(PROVIDERS["stable_genius"])

    refused(till, payment, UnsupportedByProvider)
    assert till.genius.calls == []


# refusals


def test_a_refusal_moves_nothing_and_the_next_try_has_another_key(till):
    payment = paid(till)
    till.genius.turns = [lambda _genius, _ref, _work: (_ for _ in ()).throw(REFUSED)]

    assert refused(till, payment, ProviderError).provider_code == "charge_disputed"
    assert till.get(payment.id).review is None
    again = refund(till, payment)

    first, second = till.genius.keys
    assert second == f"{first}.1"
    assert (again.refunded_minor, len(till.genius.refunds)) == (1130, 1)


def test_what_was_never_sent_leaves_no_doubt(till):
    payment = paid(till)
    till.genius.turns = [lambda _genius, _ref, _work: (_ for _ in ()).throw(AWAY)]

    refused(till, payment, ProviderError)

    assert till.get(payment.id).review is None
    assert refund(till, payment, "another key").refunded_minor == 1130


# doubt


def losing(error):
    def turn(_genius, _ref, work):
        work()
        raise error

    return turn


def saying(body):
    def turn(_genius, _ref, work):
        answer = work()
        return Answer(200, body, answer.asked_at, answer.kind, answer.ref)

    return turn


DOUBTS = {
    "no answer": losing(NO_ANSWER),
    "a 502": losing(BROKEN),
    "an empty answer": saying(b""),
    "a page": saying(b"<html>"),
    "no status": saying(b'{"id": "re_0"}'),
}


@pytest.mark.parametrize("turn", DOUBTS.values(), ids=DOUBTS)
def test_an_unknown_outcome_is_a_review_and_the_same_key_goes_on(till, turn):
    payment = paid(till)
    till.genius.turns = [turn]

    refused(till, payment, MoneyUnanswered, "k1", 130)
    assert till.get(payment.id).review == Review.OUTCOME_UNKNOWN
    refused(till, payment, MoneyInDoubt, "k2", 130)
    after = refund(till, payment, "k1", 130)

    assert len(set(till.genius.keys)) == 1
    assert (after.review, after.refunded_minor, len(till.genius.refunds)) == (None, 130, 1)
    assert till.audit().faults == []


def test_a_person_who_looked_ends_the_doubt_and_nothing_is_sent_again(till):
    payment = paid(till)
    till.genius.turns = [losing(NO_ANSWER)]
    refused(till, payment, MoneyUnanswered, "k1", 130)

    till.run(till.commands().resolve(payment.id, state="succeeded", reason="seen", by="Ada L."))
    till.run(till.commands().refresh(payment.id))
    sent = len(till.genius.keys)
    refund(till, payment, "k1", 130)
    assert len(till.genius.keys) == sent

    assert refund(till, payment, "k2").refunded_minor == 1130
    assert [each["amount"] for each in till.genius.refunds] == [130, 1000]


@pytest.mark.parametrize("within", [timedelta(0), timedelta(minutes=1)])
def test_what_the_provider_has_forgotten_is_not_sent_again(till, within):
    payment = paid(till)
    till.genius.within, till.genius.turns = within, [losing(NO_ANSWER)]
    refused(till, payment, MoneyUnanswered, "k1", 130)
    till.clock.advance(60)

    assert "twice" in refused(till, payment, MoneyInDoubt, "k1", 130).message
    assert len(till.genius.refunds) == 1


def test_a_wish_that_a_dead_process_left_is_found_by_the_next(till):
    payment = paid(till)

    class Killed(BaseException):
        pass

    till.genius.turns = [losing(Killed())]
    with pytest.raises(Killed):
        refund(till, payment, "k1", 130)
    refused(till, payment, MoneyExceeded, "k2", 1001)  # it may be under way, and its amount is set aside
    till.clock.advance(121)
    refused(till, payment, MoneyInDoubt, "k2", 130)

    assert till.get(payment.id).review == Review.OUTCOME_UNKNOWN
    assert refund(till, payment, "k1", 130).review is None
    assert len(till.genius.refunds) == 1


def test_two_at_once_never_give_back_more_than_there_is(till):
    payment = paid(till)

    async def both():
        calls = [till.commands().refund(payment.id, key=key, amount_minor=1000) for key in ("k1", "k2")]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = till.run(both())

    assert sum(refund["amount"] for refund in till.genius.refunds) <= 1000
    assert any(isinstance(each, MoneyExceeded) for each in results)


# captures


@pytest.mark.parametrize(("amount", "captured"), [(None, 1130), (1130, 1130), (400, 400)])
def test_what_is_authorised_is_captured_all_or_part_of_it(till, amount, captured):
    payment = paid(till, "requires_capture")
    assert payment.phase == Phase.AUTHORISED

    after = till.run(till.commands().capture(payment.id, key="c1", amount_minor=amount))

    assert (after.state, after.phase, after.captured_minor) == ("succeeded", Phase.PAID, captured)
    assert till.genius.calls == ["capture", "fetch"]
    assert till.audit().faults == []


def test_more_than_is_authorised_and_what_is_captured_is_not_captured(till):
    waiting, done = paid(till, "requires_capture"), paid(till)

    for payment, amount in ((waiting, 1131), (done, None), (done, 1)):
        with pytest.raises(MoneyExceeded):
            till.run(till.commands().capture(payment.id, key="c1", amount_minor=amount))
    assert till.genius.calls == []


def test_stripe_has_both_calls():
    assert STRIPE.can(Capability.CAPTURE, KIND)
    assert STRIPE.can(Capability.REFUND, KIND)
