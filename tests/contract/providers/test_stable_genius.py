"""Stable Genius under the contract that every provider keeps, and its client against the sandbox."""

import asyncio
import hmac
import json
import time
from datetime import UTC, datetime
from hashlib import sha256

import pytest
import stamina

from providers.catalogue import StableGenius
from providers.contract import Delivery, Statement
from providers.errors import DeliveryRejected, InsecureUrl, ProviderError, UnsupportedByProvider
from providers.signing import Key, KeyRing, Window
from sandbox.config import SandboxConfig
from sandbox.config import StableGenius as SandboxAccount
from sandbox.server import running
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS, Answered, Case, vectors
from tests.support.at_the_sandbox import control, line, now, order, seen, shop

PROVIDER = StableGenius.with_options()
INTENT = b'{"id":"pi_1","object":"payment_intent","status":"%s","amount":4.50,"currency":"usd","merchant_id":"mer_1"}'


def sign(secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret, stamp.encode() + b"." + body, sha256).hexdigest()
    return {"X-StableGenius-Signature": f"sha256={digest}", "X-StableGenius-Timestamp": stamp}


def answered(status: str, source: Source = Source.POLL) -> Answered:
    return Answered(kind="payment_intent", ref="pi_1", status=status, body=INTENT % status.encode(), source=source)


CASE = Case(
    provider=PROVIDER,
    sign=sign,
    body=b'{"id":"evt_1","object":"event","type":"payment_intent.confirmed","data":{"id":"pi_1","status":"confirmed"}}',
    other_body=b'{"id":"evt_2","object":"event","type":"payment_intent.expired","data":{"id":"pi_1","status":"expired"}}',
    redelivered=b'{"id": "evt_1", "object": "event", "type": "payment_intent.confirmed", "attempt": 2, "data": {}}',
    answers=(
        answered("awaiting_payment", Source.CREATE),
        *(answered(status) for status in ("awaiting_payment", "confirmed", "settled", "expired", "cancelled")),
        answered("cancelled", Source.CANCEL),
    ),
    bodies=vectors("stable_genius"),
    page=lambda things: b'{"object":"list","data":[' + b",".join(things) + b'],"has_more":false,"total_count":9}',
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    """Stable Genius keeps the promise that the check's first line states."""
    check(CASE)


def test_a_signature_computed_elsewhere_is_accepted():
    """A vector computed with OpenSSL by the documented scheme verifies, at the second that it names."""
    delivery = Delivery(
        b'{"id":"evt_pi_conf_001"}',
        (
            (
                "x-stablegenius-signature",
                "sha256=d8c12d0efcf72022ffb0f647a17319f541c874ebe51d91828cf11f8a62ad333e",
            ),
            ("x-stablegenius-timestamp", "1711929612"),
        ),
    )
    at = datetime.fromtimestamp(1711929612, UTC)
    verified = PROVIDER.verify(delivery, KeyRing((Key("k1", b"whsec_test"),)), Window(), at)
    assert verified.key_id == "k1"
    assert verified.provider_time == at
    assert PROVIDER.delivery_key(delivery) == "evt_pi_conf_001"


# The client against the sandbox, over real HTTP.

SECRETS = {"api_key": "sk_test_sandbox_0001"}
LIVE = {"api_key": "sk_live_sandbox_0001"}


@pytest.fixture(scope="module")
def sandbox_url():
    with running(SandboxConfig(stable_genius=SandboxAccount(test_requests_per_minute=100_000))) as place:
        yield place.base_url


def talk(url, conversation, *, secrets=SECRETS, seconds=10, **options):
    """Run one conversation of a client with the sandbox; the result is the conversation's."""
    provider = StableGenius.with_options(**{"merchant_id": "mer_sandbox", **options})

    async def talking():
        async with line(provider, url + "/stable-genius/v1", secrets, seconds=seconds) as found:
            return await conversation(found)

    return asyncio.run(talking())


def read(answer, source):
    """The one observation of an answer, read as the worker reads it."""
    return seen(PROVIDER, answer, source)


async def failure(call):
    """The ProviderError that a call raises."""
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


def act(url, ref, action):
    """What a payer, the dashboard or time does to an intent."""
    control(url, "POST", "act", {"provider": "stable_genius", "kind": "payment_intent", "ref": ref, "action": action})


def test_an_intent_is_created_fetched_and_cancelled(sandbox_url):
    """What create answers can be fetched and cancelled, and all three answers name the payment in the same words."""

    async def conversation(at):
        made = read(await at.client.create(order("life", extra={"ttl": 120})), Source.CREATE)
        seen = read(await at.client.fetch("payment_intent", made.provider_ref), Source.POLL)
        gone = read(await at.client.cancel("payment_intent", made.provider_ref), Source.CANCEL)
        late = await failure(at.client.cancel("payment_intent", made.provider_ref))
        return made, seen, gone, late

    made, seen, gone, late = talk(sandbox_url, conversation)
    assert (made.status, made.reference, made.amount_minor, made.currency) == ("awaiting_payment", "life", 450, "USD")
    assert made.expires_at is not None
    assert (seen.provider_ref, seen.status, seen.facts) == (made.provider_ref, "awaiting_payment", made.facts)
    assert (gone.provider_ref, gone.status) == (made.provider_ref, "cancelled")
    assert "cancelled_at" in gone.facts
    assert (late.provider_code, late.http_status, late.type) == ("intent_not_cancellable", 409, "conflict_error")
    assert not late.may_retry


def test_what_is_sent_is_exact(sandbox_url):
    """The amount leaves as a JSON number with its cents, beside the options' fields, the key and the reference."""

    async def conversation(at):
        extra = {"metadata": {"table": "7"}, "merchant_id": "mer_second"}
        await at.client.create(order("exact", extra=extra))
        return at.sent.sent

    (sent,) = talk(sandbox_url, conversation, ttl=600, api_version="2026-04-01", reference_key="order_id")
    assert b'"amount":4.50,' in sent.content
    told = json.loads(sent.content, parse_float=str)
    assert told == {
        "amount": "4.50",
        "currency": "usd",
        "merchant_id": "mer_second",
        "ttl": 600,
        "idempotency_key": "key-exact",
        "metadata": {"table": "7", "order_id": "exact"},
    }
    assert sent.headers["x-api-version"] == "2026-04-01"
    assert sent.headers["authorization"] == "Bearer sk_test_sandbox_0001"


def test_a_repeated_create_is_the_same_intent(sandbox_url):
    """The same idempotency key with the same parameters returns the intent that exists already."""

    async def conversation(at):
        first, second = await at.client.create(order("again")), await at.client.create(order("again"))
        conflict = await failure(at.client.create(order("again", 451)))
        return first, second, conflict

    first, second, conflict = talk(sandbox_url, conversation)
    assert (first.status, second.status) == (201, 200)
    assert read(first, Source.CREATE).provider_ref == read(second, Source.CREATE).provider_ref
    assert (conflict.provider_code, conflict.http_status) == ("idempotency_key_conflict", 409)
    assert (conflict.type, conflict.may_retry, conflict.param) == ("conflict_error", False, "idempotency_key")


def test_a_create_without_an_answer_is_repeated_and_makes_one_intent(sandbox_url):
    """Gateway errors, half of which hid a creation, are repeated with the same key until an answer comes."""

    async def conversation(at):
        control(sandbox_url, "PUT", "faults", {"api_502_503_504": 0.6})
        try:
            answers = [await at.client.create(order(f"doubt-{n}")) for n in range(8)]
        finally:
            control(sandbox_url, "PUT", "faults", {"api_502_503_504": 0.0})
        return answers, at.sent.statuses("POST", "/payment-intents")

    with stamina.set_testing(True, attempts=40, cap=False):
        answers, statuses = talk(sandbox_url, conversation)
    assert len(statuses) > len(answers) == 8
    truth = [item for item in control(sandbox_url, "GET", "truth") if item["reference"].startswith("doubt-")]
    assert sorted(item["ref"] for item in truth) == sorted(read(each, Source.CREATE).provider_ref for each in answers)


def test_create_is_repeated_four_times_at_most(sandbox_url):
    """When no answer comes at all, create ends as ambiguous and may be repeated later with the same key."""

    async def conversation(at):
        control(sandbox_url, "PUT", "faults", {"api_timeout": 1.0})
        try:
            error = await failure(at.client.create(order("mute")))
        finally:
            control(sandbox_url, "PUT", "faults", {"api_timeout": 0.0})
        again = read(await at.client.create(order("mute")), Source.CREATE)
        return error, at.sent.statuses("POST", "/payment-intents"), again.provider_ref

    with stamina.set_testing(True, attempts=4, cap=True):
        error, statuses, ref = talk(sandbox_url, conversation, seconds=0.2)
    assert (error.is_ambiguous, error.may_retry) == (True, True)
    assert statuses == [None, None, None, None, 200]
    truth = control(sandbox_url, "GET", "truth")
    assert [item["ref"] for item in truth if item["reference"] == "mute"] == [ref]


# Every row of "Error Codes": code, HTTP status, type. The sandbox answers any of them for the asking.
ROWS = [
    ("amount_out_of_range", 400, "invalid_request_error"),
    ("amount_too_small", 400, "invalid_request_error"),
    ("invalid_currency", 400, "invalid_request_error"),
    ("invalid_merchant", 400, "invalid_request_error"),
    ("ttl_out_of_range", 400, "invalid_request_error"),
    ("invalid_webhook_url", 400, "invalid_request_error"),
    ("missing_api_key", 401, "authentication_error"),
    ("invalid_api_key", 401, "authentication_error"),
    ("revoked_api_key", 401, "authentication_error"),
    ("environment_mismatch", 403, "authorization_error"),
    ("merchant_not_found", 404, "not_found_error"),
    ("intent_not_cancellable", 409, "conflict_error"),
    ("idempotency_key_conflict", 409, "conflict_error"),
    ("merchant_not_active", 422, "invalid_request_error"),
    ("webhook_unreachable", 422, "invalid_request_error"),
]


@pytest.mark.parametrize(("code", "status", "kind"), ROWS)
@pytest.mark.parametrize("call", ["create", "fetch", "cancel"])
def test_each_documented_error_is_named_and_not_repeated(sandbox_url, code, status, kind, call):
    """Every documented refusal has its code and type, whichever call it answers, and is not sent again."""

    async def conversation(at):
        if call == "create":
            error = await failure(at.client.create(order(code, extra={"metadata": {"sandbox": code}})))
        else:
            error = await failure(getattr(at.client, call)("payment_intent", f"sandbox:{code}"))
        return error, len(at.sent.sent)

    error, count = talk(sandbox_url, conversation)
    assert (error.provider_code, error.http_status, error.type) == (code, status, kind)
    assert (error.may_retry, error.is_ambiguous, count) == (False, False, 1)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_fault_of_the_provider_may_be_retried(sandbox_url, status):
    """Answers of 500 and above may be asked again, and leave in doubt what the provider did."""

    async def conversation(at):
        return await failure(at.client.fetch("payment_intent", f"sandbox:internal_error_{status}"))

    error = talk(sandbox_url, conversation)
    assert (error.http_status, error.type, error.may_retry, error.is_ambiguous) == (status, "api_error", True, True)


# What really causes each refusal, without the sandbox being told to refuse.
CAUSES = [
    ("amount_out_of_range", {"amount_minor": 0}, {}, SECRETS),
    ("amount_out_of_range", {"amount_minor": 1_000_001}, {}, SECRETS),
    ("invalid_currency", {"currency": "EUR"}, {}, SECRETS),
    ("invalid_merchant", {}, {"merchant_id": "sandbox"}, SECRETS),
    ("merchant_not_found", {}, {"merchant_id": "mer_unknown"}, SECRETS),
    ("merchant_not_active", {}, {"merchant_id": "mer_suspended"}, SECRETS),
    ("ttl_out_of_range", {"extra": {"ttl": 59}}, {}, SECRETS),
    ("invalid_api_key", {}, {}, {"api_key": "sk_test_guessed"}),
    ("revoked_api_key", {}, {}, {"api_key": "sk_test_revoked"}),
]


@pytest.mark.parametrize(("code", "asked", "options", "secrets"), CAUSES)
def test_each_real_cause_leads_to_its_code(sandbox_url, code, asked, options, secrets):
    """What the provider documents as the cause of a code reaches it through our client unchanged."""

    async def conversation(at):
        return await failure(at.client.create(order("cause", **asked)))

    assert talk(sandbox_url, conversation, secrets=secrets, **options).provider_code == code


def test_a_key_of_the_other_environment_is_refused(sandbox_url):
    """A test key does not reach what a live key made."""

    async def make(at):
        return read(await at.client.create(order("other-side")), Source.CREATE).provider_ref

    ref = talk(sandbox_url, make, secrets=LIVE)

    async def conversation(at):
        return await failure(at.client.fetch("payment_intent", ref))

    error = talk(sandbox_url, conversation)
    assert (error.provider_code, error.http_status, error.type) == ("environment_mismatch", 403, "authorization_error")


def test_an_unknown_intent_is_not_found(sandbox_url):
    """An unknown id is not_found_error although its code is not documented; an odd one stays in its path."""

    async def conversation(at):
        strange = await failure(at.client.fetch("payment_intent", "../webhooks?x=#"))
        assert at.sent.sent[0].path == "/stable-genius/v1/payment-intents/..%2Fwebhooks%3Fx%3D%23"
        return await failure(at.client.fetch("payment_intent", "pi_unknown")), strange

    for error in talk(sandbox_url, conversation):
        assert (error.http_status, error.type, error.may_retry) == (404, "not_found_error", False)


@pytest.mark.parametrize("as_delta", [False, True])
def test_a_full_window_is_waited_for_until_its_reset(as_delta):
    """Over the limit, the account is paused until X-RateLimit-Reset, whichever its unit; create then goes through."""
    limited = SandboxAccount(test_requests_per_minute=2, reset_as_delta=as_delta)
    with running(SandboxConfig(stable_genius=limited, speed=60)) as place:

        async def conversation(at):
            for n in range(2):
                await at.client.create(order(f"window-{n}"))
            error = await failure(at.client.fetch("payment_intent", "pi_any"))
            before = time.monotonic()
            made = await at.client.create(order("window-3"))
            return error, at.sent.paused, made.status, time.monotonic() - before

        error, paused, status, waited = talk(place.base_url, conversation)
    assert (error.provider_code, error.type, error.may_retry) == ("rate_limit_exceeded", "rate_limit_error", True)
    assert 0 < error.retry_after <= 2
    assert paused[0] == error.retry_after
    assert len(paused) == 2, "one pause for fetch, one for create"
    assert status == 201
    assert waited >= 0.9 * paused[1]


def test_a_webhook_is_registered_only_where_the_account_says_how(sandbox_url):
    """No registration call is documented; without one nothing is sent, and never an address without TLS."""

    async def conversation(at):
        with pytest.raises(InsecureUrl):
            await at.client.register_webhook("http://shop.example/webhooks")
        with pytest.raises(UnsupportedByProvider):
            await at.client.register_webhook("https://shop.example/webhooks")
        return at.sent.sent

    assert talk(sandbox_url, conversation) == []


def test_an_unreachable_webhook_is_refused_by_the_provider(sandbox_url):
    """An address that does not answer is webhook_unreachable, which repeating does not mend."""

    async def conversation(at):
        return await failure(at.client.register_webhook("http://127.0.0.1:9/webhooks"))

    error = talk(sandbox_url, conversation, webhook_path="/webhooks", allow_loopback_http=True)
    assert (error.provider_code, error.http_status, error.may_retry) == ("webhook_unreachable", 422, False)


def test_real_events_verify_and_tell_what_asking_tells(sandbox_url):
    """Every event of two lives verifies by its endpoint's secret alone, and observations agree with the GET."""
    with shop() as ours:

        async def conversation(at):
            registered = json.loads((await at.client.register_webhook(ours.url)).body)
            made = [read(await at.client.create(order(name)), Source.CREATE) for name in ("e1", "e2")]
            paid, gone = (seen.provider_ref for seen in made)
            await asyncio.to_thread(act, sandbox_url, paid, "pay")
            await asyncio.to_thread(act, sandbox_url, paid, "settle")
            await at.client.cancel("payment_intent", gone)
            deliveries = await asyncio.to_thread(ours.wait_for, 4)
            polled = [read(await at.client.fetch("payment_intent", ref), Source.POLL) for ref in (paid, gone)]
            return registered["secret"], deliveries, polled

        secret, deliveries, polled = talk(sandbox_url, conversation, webhook_path="/webhooks", allow_loopback_http=True)
    keys, at = KeyRing((Key("endpoint", secret.encode()),)), now()
    for delivery in deliveries:
        assert PROVIDER.verify(delivery, keys, Window(), at).key_id == "endpoint"
        with pytest.raises(DeliveryRejected):
            PROVIDER.verify(delivery, KeyRing((Key("other", b"another"),)), Window(), at)
    assert len({PROVIDER.delivery_key(delivery) for delivery in deliveries}) == 4
    kinds = {
        json.loads(each.body)["type"]: PROVIDER.parse(Statement(Source.WEBHOOK, each.body, at)) for each in deliveries
    }
    assert set(kinds) == {
        *("transaction.created", "payment_intent.confirmed", "settlement.completed", "payment_intent.cancelled"),
    }
    assert polled[0].provider_ref in kinds["transaction.created"].hints
    assert kinds["settlement.completed"].hints_account
    (confirmed,), (cancelled,) = (kinds[f"payment_intent.{end}"].observations for end in ("confirmed", "cancelled"))
    assert [seen.status for seen in (confirmed, cancelled, *polled)] == [
        "confirmed",
        "cancelled",
        "settled",
        "cancelled",
    ]
    for told, asked in zip((confirmed, cancelled), polled, strict=True):
        assert (told.provider_ref, told.reference, told.amount_minor) == (
            asked.provider_ref,
            asked.reference,
            asked.amount_minor,
        )
    assert confirmed.facts["tx_hash"] == polled[0].facts["tx_hash"]
    assert confirmed.facts["fee"] == "0.045"
