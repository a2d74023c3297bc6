"""Alternative Payments under the contract that every provider keeps, and its client against the sandbox."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from providers.catalogue import AlternativePayments
from providers.contract import Statement
from providers.engine.errors import WebhookNeedsSecret
from providers.errors import DeliveryRejected, InsecureUrl, ProviderError, UnsupportedByProvider
from providers.signing import Key, KeyRing, Window
from sandbox.config import AlternativePayments as SandboxAccount
from sandbox.config import SandboxConfig
from sandbox.server import running
from statemachine.errors import InvalidAmount
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS, NOW, Answered, Case, vectors
from tests.support.at_the_sandbox import control, line, now, order, seen, shop

REF = "0b0a3c5e-4d0f-4a2f-9d5e-0f3b8f0a6c11"
REQUEST = b'{"id":"%s","reference_id":"order-1","status":"%s","url":"https://checkout.example/1"}'


def sign(secret: bytes, _body: bytes, _at: datetime) -> dict[str, str]:
    return {"Authorization": "Bearer " + secret.decode("latin-1")}


def answered(status: str, source: Source = Source.POLL) -> Answered:
    body = REQUEST % (REF.encode(), status.encode())
    return Answered(kind="payment_request", ref=REF, status=status, body=body, source=source)


CASE = Case(
    provider=AlternativePayments.with_options(),
    sign=sign,
    body=b'{"topic":"payment_succeeded","data":{"id":"pay_1","reference_id":"order-1"}}',
    other_body=b'{"topic":"payment_succeeded","data":{"id":"pay_2","reference_id":"order-2"}}',
    answers=(
        answered("pending", Source.CREATE),
        *(answered(status) for status in ("pending", "paid", "expired", "cancelled")),
        answered("cancelled", Source.CANCEL),
    ),
    bodies=vectors("alternative_payments"),
    page=lambda things: b'{"data":[' + b",".join(things) + b'],"end_cursor":"gaFpxBAC+/","has_next_page":false}',
    lists_events=True,
    has_delivery_id=False,
    signs_body=False,
    signs_time=False,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    """Alternative Payments keeps the promise that the check's first line states."""
    check(CASE)


@pytest.mark.parametrize("body", vectors("alternative_payments"))
@pytest.mark.parametrize("source", [Source.WEBHOOK, Source.CALLBACK, Source.RETURN])
def test_an_unsigned_webhook_is_never_believed(body, source):
    """Whatever a webhook says, even in the words of an answer, it is a hint and never an observation."""
    reading = CASE.provider.parse(Statement(source, body, NOW))
    assert reading.observations == ()
    assert reading.hints_account


# The client against the sandbox, over real HTTP.

SECRETS = {"client_id": "ap_client_sandbox_0001", "client_secret": "ap_client_secret_sandbox_0001"}


@pytest.fixture(scope="module")
def sandbox_url():
    with running(SandboxConfig(alternative_payments=SandboxAccount(requests_per_second=10_000))) as place:
        yield place.base_url


def talk(url, conversation, *, secrets=SECRETS, clock=now, seconds=10, **options):
    """Run one conversation of a client with the sandbox; the result is the conversation's."""
    provider = AlternativePayments.with_options(**options)

    async def talking():
        async with line(provider, url + "/alternative-payments", secrets, clock=clock, seconds=seconds) as found:
            return await conversation(found)

    return asyncio.run(talking())


def read(answer, source):
    """The one observation of an answer, read as the worker reads it."""
    return seen(CASE.provider, answer, source)


@pytest.mark.parametrize("path", ["/payment/request", "/payments/request"])
def test_a_request_is_created_and_fetched_by_either_path(sandbox_url, path):
    """What create answers can be fetched, and both answers name the payment in the same words, on both paths."""

    async def conversation(at):
        created = await at.client.create(order(f"order{path}"))
        made = read(created, Source.CREATE)
        fetched = read(await at.client.fetch("payment_request", made.provider_ref), Source.POLL)
        assert at.sent.statuses("POST", "/oauth/token") == [200], "one token serves many calls"
        assert at.sent.sent[1].path == "/alternative-payments" + path
        return created, made, fetched

    created, made, fetched = talk(sandbox_url, conversation, payment_request_path=path)
    assert (created.status, created.ref) == (200, None)
    assert (made.status, made.reference) == ("pending", f"order{path}")
    assert (fetched.provider_ref, fetched.status, fetched.facts) == (made.provider_ref, "pending", made.facts)


@pytest.mark.parametrize(
    ("unit", "currency_minor", "expected"), [("minor", 450, 450), ("minor", 1, 1), ("major", 500, 5)]
)
def test_the_amount_is_sent_in_the_accounts_unit(sandbox_url, unit, currency_minor, expected):
    """The amount on the wire counts what the account's option says that it counts."""

    async def conversation(at):
        return read(await at.client.create(order("amount", currency_minor)), Source.CREATE).provider_ref

    ref = talk(sandbox_url, conversation, amount_unit=unit)
    truth = {item["ref"]: item for item in control(sandbox_url, "GET", "truth")}
    assert truth[ref]["amount_minor"] == expected  # this sandbox takes every amount for minor units


def test_an_amount_that_the_unit_cannot_state_is_not_sent(sandbox_url):
    """A remainder is never rounded away: the call is refused before anything is sent."""

    async def conversation(at):
        with pytest.raises(InvalidAmount):
            await at.client.create(order("fraction", 450))
        return at.sent.sent

    assert talk(sandbox_url, conversation, amount_unit="major") == []


def test_an_insecure_return_url_is_not_sent(sandbox_url):
    """A payer is never sent back over plain HTTP."""

    async def conversation(at):
        with pytest.raises(InsecureUrl):
            await at.client.create(order("plain", return_url="http://shop.example/thanks"))
        with pytest.raises(InsecureUrl):
            await at.client.create(order("plain", return_url=None, extra={"redirect_url": "http://shop.example/"}))
        return at.sent.sent

    assert talk(sandbox_url, conversation) == []


# Every row of "Troubleshooting", and a gateway's own: status, type, whether the create call may be repeated.
ROWS = [
    (400, "invalid_request_error", False),
    (401, "authentication_error", False),
    (403, "authorization_error", False),
    (404, "not_found_error", False),
    (422, "invalid_request_error", False),
    (429, "rate_limit_error", True),
    (500, "api_error", False),
    (502, "api_error", False),
    (503, "api_error", False),
    (504, "api_error", False),
]


async def failure(call):
    """The ProviderError that a call raises."""
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(("status", "kind", "may_repeat"), ROWS)
def test_each_error_of_create_is_named_and_create_is_sent_once(sandbox_url, status, kind, may_repeat):
    """Every documented error of create has its type; none leads to a second creation, a doubtful one least of all."""

    async def conversation(at):
        error = await failure(at.client.create(order(f"sandbox:{status}")))
        return error, at.sent

    error, sent = talk(sandbox_url, conversation)
    assert (error.http_status, error.type, error.may_retry) == (status, kind, may_repeat)
    assert error.is_ambiguous == (status >= 500)
    assert sent.statuses("POST", "/payment/request") == ([401, 401] if status == 401 else [status])
    assert sent.paused == ([1.0] if status == 429 else [])


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_both_error_shapes_are_read_over_the_wire(shape):
    """The provider's own words and the parameter at fault reach us in either documented shape."""
    with running(SandboxConfig(alternative_payments=SandboxAccount(error_shape=shape))) as place:

        async def conversation(at):
            return await failure(at.client.create(order("wrong", currency="EUR")))

        error = talk(place.base_url, conversation)
    assert (error.http_status, error.type, error.param) == (422, "invalid_request_error", "currency")
    assert error.message.endswith("unsupported currency")


@pytest.mark.parametrize(("status", "kind", "may_retry"), [(*row[:2], row[0] == 429 or row[0] >= 500) for row in ROWS])
def test_each_error_of_fetch_is_named(sandbox_url, status, kind, may_retry):
    """Every documented error of fetch has its type, and says whether to ask again."""

    async def conversation(at):
        return await failure(at.client.fetch("payment_request", f"sandbox:{status}"))

    error = talk(sandbox_url, conversation)
    assert (error.http_status, error.type, error.may_retry) == (status, kind, may_retry)


def test_an_unknown_id_is_not_found_and_a_strange_one_stays_in_its_path(sandbox_url):
    """An id is one segment of a path, whatever characters it has."""

    async def conversation(at):
        unknown = await failure(at.client.fetch("payment_request", "00000000-0000-4000-8000-000000000000"))
        strange = await failure(at.client.fetch("payment_request", "../../payments?x=#"))
        return unknown.http_status, strange.http_status

    assert talk(sandbox_url, conversation) == (404, 400)


def test_wrong_credentials_are_refused_once(sandbox_url):
    """A 403 from the token call is an authentication error, never repeated, and leaves nothing in doubt."""

    async def conversation(at):
        error = await failure(at.client.create(order("credentials")))
        return error, at.sent.sent

    error, sent = talk(sandbox_url, conversation, secrets={**SECRETS, "client_secret": "guessed-by-somebody"})
    assert (error.http_status, error.type, error.may_retry, error.is_ambiguous) == (
        403,
        "authentication_error",
        False,
        False,
    )
    assert [(each.path, each.status) for each in sent] == [("/alternative-payments/oauth/token", 403)]
    assert "guessed" not in str(error)


def test_a_token_that_ended_unseen_is_fetched_anew_once():
    """A 401 costs one new token and one repeat, and the caller does not see it."""
    with running(
        SandboxConfig(alternative_payments=SandboxAccount(token_seconds=0.3, requests_per_second=10_000))
    ) as place:

        async def conversation(at):
            ref = read(await at.client.create(order("token")), Source.CREATE).provider_ref
            deadline = time.monotonic() + 10
            while 401 not in at.sent.statuses("GET", ref):
                assert time.monotonic() < deadline, "the token does not end"
                assert (await at.client.fetch("payment_request", ref)).status == 200
                await asyncio.sleep(0.02)
            return at.sent.statuses("GET", ref)[-2:], at.sent.statuses("POST", "/oauth/token")

        still = datetime(2026, 4, 1, tzinfo=UTC)  # this clock never sees the token end
        assert talk(place.base_url, conversation, clock=lambda: still) == ([401, 200], [200, 200])


def test_a_token_that_is_never_good_is_not_fetched_for_ever():
    """A second 401 in a row is the answer."""
    with running(SandboxConfig(alternative_payments=SandboxAccount(token_seconds=0))) as place:

        async def conversation(at):
            error = await failure(at.client.fetch("payment_request", "x"))
            return error.http_status, len(at.sent.sent)

        assert talk(place.base_url, conversation) == (401, 4)


def test_the_sixth_call_in_a_second_pauses_the_account():
    """Over five requests a second the provider answers 429, which pauses everybody of the account."""
    # The provider's second lasts a minute here, so that a busy machine has asked often enough within it.
    with running(SandboxConfig(speed=1 / 60)) as place:

        async def conversation(at):
            errors = await asyncio.gather(*(failure(at.client.fetch("payment_request", "x")) for _ in range(7)))
            return sorted(error.http_status for error in errors), at.sent.paused

        statuses, paused = talk(place.base_url, conversation)
    assert statuses[-1] == 429
    assert paused == [1.0] * statuses.count(429)


def test_calls_at_once_share_one_token(sandbox_url):
    """Whoever needs a token while one is fetched waits for that one."""

    async def conversation(at):
        await asyncio.gather(*(failure(at.client.fetch("payment_request", "sandbox:404")) for _ in range(20)))
        return at.sent.statuses("POST", "/oauth/token")

    assert talk(sandbox_url, conversation) == [200]


def test_a_token_call_over_the_limit_pauses_the_account_too():
    """The limit counts token calls; a 429 there pauses, may be repeated, and leaves nothing in doubt."""
    with running(SandboxConfig(alternative_payments=SandboxAccount(requests_per_second=0))) as place:

        async def conversation(at):
            return await failure(at.client.create(order("limited"))), at.sent.paused

        error, paused = talk(place.base_url, conversation)
    assert (error.http_status, error.type) == (429, "rate_limit_error")
    assert (error.may_retry, error.is_ambiguous, paused) == (True, False, [1.0])


def test_a_create_without_an_answer_is_in_doubt_and_not_repeated(sandbox_url):
    """The provider created what we were not told of: one call, reported as ambiguous and not to be repeated."""

    async def conversation(at):
        await failure(at.client.fetch("payment_request", "sandbox:404"))  # fetches the token
        control(sandbox_url, "PUT", "faults", {"api_timeout": 1.0})
        try:
            return await failure(at.client.create(order("silence"))), at.sent
        finally:
            control(sandbox_url, "PUT", "faults", {"api_timeout": 0.0})

    error, sent = talk(sandbox_url, conversation, seconds=0.5)
    assert (error.is_ambiguous, error.may_retry, error.http_status) == (True, False, None)
    assert sent.statuses("POST", "/payment/request") == [None]
    truth = control(sandbox_url, "GET", "truth")
    assert sum(item["reference"] == "silence" for item in truth) == 1


def test_a_token_without_an_answer_leaves_no_doubt(sandbox_url):
    """When the token call fails, nothing was created."""

    async def conversation(at):
        control(sandbox_url, "PUT", "faults", {"api_timeout": 1.0})
        try:
            return await failure(at.client.create(order("no-token")))
        finally:
            control(sandbox_url, "PUT", "faults", {"api_timeout": 0.0})

    error = talk(sandbox_url, conversation, seconds=0.5)
    assert (error.is_ambiguous, error.may_retry) == (False, True)


def test_cancel_is_unsupported_unless_a_path_is_configured(sandbox_url):
    """No cancel call is documented, so none is made; a configured one is made to that path."""

    async def conversation(at):
        with pytest.raises((UnsupportedByProvider, ProviderError)) as caught:
            await at.client.cancel("payment_request", "a/b")
        return type(caught.value), at.sent.sent

    assert talk(sandbox_url, conversation) == (UnsupportedByProvider, [])
    kind, sent = talk(sandbox_url, conversation, cancel_path="/payment/request/{id}/cancel")
    assert kind is ProviderError
    assert [(each.method, each.path) for each in sent[1:]] == [
        ("POST", "/alternative-payments/payment/request/a%2Fb/cancel")
    ]


def test_a_webhook_is_registered_over_https_with_a_secret_only(sandbox_url):
    """An address without TLS or a subscription without a secret is not even sent."""

    async def conversation(at):
        with pytest.raises(InsecureUrl):
            await at.client.register_webhook(
                "http://127.0.0.1:9/webhooks", topic="payment_succeeded", secret_key="s" * 20
            )
        with pytest.raises(WebhookNeedsSecret):
            await at.client.register_webhook("https://shop.example/webhooks", topic="payment_succeeded")
        assert at.sent.sent == []
        made = await at.client.register_webhook(
            "https://shop.example/webhooks", topic="payout_paid", secret_key="s" * 20
        )
        refused = await failure(
            at.client.register_webhook("https://shop.example/webhooks", topic="no_topic", secret_key="s" * 20)
        )
        return made.status, refused.http_status, refused.param

    assert talk(sandbox_url, conversation) == (201, 422, "topic")


def test_a_payment_is_hinted_at_by_webhook_and_confirmed_by_asking(sandbox_url):
    """The delivery of a real subscription verifies, names the payment it may be about, and asking confirms it."""
    secret = "a-secret-key-of-the-subscription"
    with shop() as ours:

        async def conversation(at):
            await at.client.register_webhook(ours.url, secret_key=secret)
            made = read(await at.client.create(order("hinted")), Source.CREATE)
            act = {"provider": "alternative_payments", "kind": "payment_request", "ref": made.provider_ref}
            await asyncio.to_thread(control, sandbox_url, "POST", "act", {**act, "action": "pay"})
            (delivery,) = await asyncio.to_thread(ours.wait_for, 1)
            return made, delivery, read(await at.client.fetch("payment_request", made.provider_ref), Source.POLL)

        made, delivery, paid = talk(sandbox_url, conversation, allow_loopback_http=True)
    keys = KeyRing((Key("k1", secret.encode()),))
    assert CASE.provider.verify(delivery, keys, Window(), now()).key_id == "k1"
    with pytest.raises(DeliveryRejected):
        CASE.provider.verify(delivery, KeyRing((Key("k1", b"another"),)), Window(), now())
    reading = CASE.provider.parse(Statement(Source.WEBHOOK, delivery.body, now()))
    assert reading.hints_account
    assert made.provider_ref in reading.hints
    assert (paid.status, paid.provider_ref) == ("paid", made.provider_ref)
