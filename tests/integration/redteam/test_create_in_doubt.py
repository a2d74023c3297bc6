"""A create call without an answer must never become "failed" because a later call was refused."""

import asyncio
from datetime import timedelta

import pytest
import stamina

from providers.api_calls import Caller
from providers.catalogue import StableGenius
from providers.contract import Answer, HttpAnswer
from providers.engine.errors import namer
from providers.errors import ProviderError
from service.errors import CreateUnanswered
from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import Review
from tests.support.clock import START

NO_ANSWER = ProviderError("the provider did not answer", may_retry=True, is_ambiguous=True)


def refused():
    """One of its own for each call: what is in doubt is noted on it."""
    return ProviderError("the key is revoked", http_status=401)


def made(ref, status="awaiting_payment"):
    body = b'{"id":"%s","status":"%s","amount":4.5,"currency":"usd"}' % (ref.encode(), status.encode())
    return Answer(201, body, START, "payment_intent")


class Line:
    """A transport that plays its script."""

    def __init__(self, *script):
        self.script = list(script)

    async def turn(self):
        pass

    async def pause(self, seconds):
        pass

    async def send(self, method, url, *, headers, content=b""):
        said = self.script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


@pytest.mark.parametrize(
    "last",
    [
        ProviderError("the provider cannot be reached", may_retry=True),
        HttpAnswer(422, {}, b"{}", START),
        HttpAnswer(429, {}, b"{}", START),
    ],
    ids=["unreachable", "refused", "limited"],
)
def test_an_attempt_without_an_answer_keeps_the_call_in_doubt(last):
    """The first attempt may have created the payment, whatever becomes of the repeats within one call."""

    async def authorize(_method, _path, _body):
        return {}

    name_error = namer(StableGenius.with_options().page)
    caller = Caller("https://x.example", Line(NO_ANSWER, last, last, last), authorize, name_error)
    with stamina.set_testing(True, attempts=4, cap=True), pytest.raises(ProviderError) as raised:
        asyncio.run(caller.call("POST", "/payment-intents", attempts=4))

    assert raised.value.is_ambiguous


def test_a_refused_repeat_does_not_fail_a_payment_that_may_exist(till):
    """Timeout, then a repeat that is refused: the shop must not hear that the payment failed."""
    till.client.script = [NO_ANSWER, refused()]
    for _ in range(2):
        with pytest.raises(ProviderError):
            till.create()

    (payment,) = till.payments()
    assert (payment.state, payment.review) == (None, Review.CREATE_UNKNOWN)
    assert "payment.failed" not in till.effects(payment.id)


def test_a_refused_repeat_after_a_crash_does_not_fail_a_payment_that_may_exist(till):
    """The process ended between the provider's answer and its record: nothing says that there was a call at all."""
    till.client.script = [KeyboardInterrupt(), refused()]
    with pytest.raises(KeyboardInterrupt):
        till.create()
    with pytest.raises(ProviderError):
        till.create()

    (payment,) = till.payments()
    assert (payment.state, payment.review) == (None, Review.CREATE_UNKNOWN)


def test_a_first_call_that_is_refused_has_failed(till):
    """Nothing was ever in doubt, and the next try is a call of its own, with a key of its own."""
    till.client.script = [refused(), refused(), made("pi_1")]
    for _ in range(2):
        with pytest.raises(ProviderError):
            till.create()
    (payment,) = till.payments()
    assert (payment.state, payment.review) == (NOT_CREATED, None)

    assert till.create().state == "awaiting_payment"
    first, second, third = (request.idempotency_key for request in till.client.created)
    assert first != second == third


@pytest.mark.parametrize("status", [302, 408, 409, 500, 503])
def test_only_a_refusal_is_a_refusal(till, status):
    """A redirect or a broken gateway says nothing of what was done; 409 says that our key was used before."""
    till.client.script = [ProviderError("?", http_status=status)]
    with pytest.raises(ProviderError):
        till.create()

    assert [p.review for p in till.payments()] == [Review.CREATE_UNKNOWN]


def test_a_repeat_that_the_provider_would_not_recognise_is_not_sent(till):
    """After 24 hours the key is forgotten, and the same call would make a second payment."""
    till.client.script = [NO_ANSWER, made("pi_2")]
    with pytest.raises(ProviderError):
        till.create()
    till.now += timedelta(hours=25)

    with pytest.raises(CreateUnanswered):
        till.create()
    assert len(till.client.created) == 1


def test_what_a_person_resolved_is_not_created_again(till):
    """The provider's dashboard shows it paid: a repeat of the wish must not make a second payment to be paid."""
    till.client.script = [NO_ANSWER, made("pi_2")]
    with pytest.raises(ProviderError):
        till.create()
    (payment,) = till.payments()
    asyncio.run(till.commands().resolve(payment.id, state="confirmed", reason="dashboard", by="ann"))

    assert till.create().state == "confirmed"
    assert len(till.client.created) == 1
