"""The official SDKs as oracles: they sign what our pages verify, verify what is signed as they say, and refuse alike.

They know every state of their enums, read the answers that our samples are, and build the requests that we build.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import parse_qsl

import pytest

from providers.contract import Account, CreateRequest, Delivery, HttpAnswer, Statement
from providers.engine.provider import DeclaredProvider
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source
from tests.contract.providers.test_pages import PAGES, body_of, signer

SECRET = "whsec_a-secret-of-an-endpoint"
BODIES = (b'{"id":"evt_1","object":"event"}', '{"name": "Grüße, 東京"}'.encode(), b'{\n  "amount": 1.00\n}\n')


def now() -> datetime:
    """The SDKs read the system's clock themselves."""
    return datetime.now(UTC).replace(microsecond=0)


def verdict(provider: DeclaredProvider, body: bytes, headers: Mapping[str, str], secret: str, at: datetime) -> bool:
    given = tuple((name.lower(), value) for name, value in headers.items())
    try:
        provider.verify(Delivery(body, given), KeyRing((Key("k", secret.encode()),)), Window(), at)
    except DeliveryRejected:
        return False
    return True


@dataclass(frozen=True)
class Oracle:
    """An official SDK: `accepts` verifies, and `sign` signs where it can."""

    name: str
    accepts: Callable[[bytes, Mapping[str, str], str], bool]
    sign: Callable[[bytes, str, datetime], Mapping[str, str]] | None = None
    secret: str = SECRET
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def provider(self) -> DeclaredProvider:
        return PAGES[self.name].with_options(**self.options)


def stripe_oracle() -> Oracle:
    stripe = pytest.importorskip("stripe")

    def accepts(body: bytes, headers: Mapping[str, str], secret: str) -> bool:
        try:
            stripe.WebhookSignature.verify_header(body.decode(), headers["Stripe-Signature"], secret, 300)
        except stripe.SignatureVerificationError:
            return False
        return True

    def sign(body: bytes, secret: str, at: datetime) -> Mapping[str, str]:
        stamp = int(at.timestamp())
        header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, stamp)
        return {"Stripe-Signature": header}

    return Oracle("stripe", accepts, sign)


def square_oracle() -> Oracle:
    helper = pytest.importorskip("square.utils.webhooks_helper")
    url = "https://shop.example/webhooks/square"

    def accepts(body: bytes, headers: Mapping[str, str], secret: str) -> bool:
        signature = headers["x-square-hmacsha256-signature"]
        return helper.verify_signature(
            request_body=body.decode(), signature_header=signature, signature_key=secret, notification_url=url
        )

    return Oracle("square", accepts, options={"notification_url": url})


def paddle_oracle() -> Oracle:
    notifications = pytest.importorskip("paddle_billing.Notifications")

    def accepts(body: bytes, headers: Mapping[str, str], secret: str) -> bool:
        request = SimpleNamespace(headers=headers, body=body)
        return notifications.Verifier().verify(request, notifications.Secret(secret))

    def sign(body: bytes, secret: str, at: datetime) -> Mapping[str, str]:
        stamp = int(at.timestamp())
        hmac = notifications.PaddleSignature.calculate_hmac(secret, f"{stamp}:".encode() + body)
        return {"Paddle-Signature": f"ts={stamp};h1={hmac.hexdigest()}"}

    return Oracle("paddle", accepts, sign)


ORACLES = {"stripe": stripe_oracle, "square": square_oracle, "paddle": paddle_oracle}


@pytest.mark.parametrize("name", ORACLES)
def test_what_the_sdk_signs_is_accepted_and_nothing_else(name):
    """Body, secret and time are those that were signed, or the delivery is rejected."""
    oracle, at = ORACLES[name](), now()
    if oracle.sign is None:
        pytest.skip("this SDK only verifies")
    for body in BODIES:
        headers = oracle.sign(body, oracle.secret, at)
        assert verdict(oracle.provider, body, headers, oracle.secret, at)
        assert not verdict(oracle.provider, body + b" ", headers, oracle.secret, at)
        assert not verdict(oracle.provider, body, headers, oracle.secret + "x", at)
        assert not verdict(oracle.provider, body, oracle.sign(body, "another", at), oracle.secret, at)


@pytest.mark.parametrize("name", ORACLES)
def test_the_sdk_accepts_what_is_signed_as_the_page_says(name):
    """The page's words, followed with the standard library, make what the SDK accepts; spoilt, both refuse it."""
    oracle, at = ORACLES[name](), now()
    sign = signer(oracle.provider.page.signature)
    for body in BODIES:
        headers = sign(oracle.secret.encode(), body, at)
        assert oracle.accepts(body, headers, oracle.secret)
        wrong = [(body + b" ", headers), (body, sign(b"another", body, at))]
        for changed, given in wrong:
            assert not oracle.accepts(changed, given, oracle.secret)
            assert not verdict(oracle.provider, changed, given, oracle.secret, at)


@pytest.mark.parametrize("name", ORACLES)
def test_the_sdk_and_the_page_refuse_what_is_old(name):
    """Where the time is signed, both hold it to a window."""
    oracle, at = ORACLES[name](), now() - timedelta(hours=1)
    if "{time}" not in oracle.provider.page.signature.signed:
        pytest.skip("this scheme has no time")
    headers = signer(oracle.provider.page.signature)(oracle.secret.encode(), BODIES[0], at)
    assert not oracle.accepts(BODIES[0], headers, oracle.secret)
    assert not verdict(oracle.provider, BODIES[0], headers, oracle.secret, now())


# -- the SDK's enums and models


def words_of(kind: type, name: str) -> set[str]:
    """Return the words of the Literal that annotates an attribute, also one that is text."""
    return set(re.findall(r"""["']([\w.]+)["']""", str(kind.__annotations__[name])))


def test_every_status_of_stripes_enums_has_a_meaning():
    """The page's words of intents, refunds and disputes are the SDK's, no fewer and no more."""
    stripe = pytest.importorskip("stripe")
    page = PAGES["stripe"].with_options().page
    parts = {rule.part.kind: rule.part for rule in page.events.rule if rule.part is not None}

    assert words_of(stripe.PaymentIntent, "status") == set(page.kind["payment_intent"].states)
    assert words_of(stripe.Dispute, "status") == set(parts["dispute"].states)
    assert words_of(stripe.Refund, "status") == set()  # no enum: its docstring lists five words
    assert set(parts["refund"].states) == {"pending", "requires_action", "succeeded", "failed", "canceled"}


def test_every_event_that_is_subscribed_to_is_one_of_stripes():
    """What registration asks for exists, and no event of an intent is left out."""
    params = pytest.importorskip("stripe.params")
    known = words_of(params.WebhookEndpointCreateParams, "enabled_events")
    register = PAGES["stripe"].with_options().page.calls.register
    assert register is not None
    assert set(register.defaults["enabled_events"]) <= known
    intents = {event for event in known if event.startswith("payment_intent.")}
    assert intents <= set(register.defaults["enabled_events"])


def paddle_words(enum: type) -> set[str]:
    """Return the words of an enum of Paddle's own making, over which nothing walks."""
    return {each.value for each in vars(enum).values() if isinstance(each, enum)}


def test_every_status_of_squares_and_paddles_enums_has_a_meaning():
    """The page's words of disputes, transactions and adjustments are the SDKs', no fewer and no more."""
    types, shared = (
        pytest.importorskip("square.types.dispute_state"),
        pytest.importorskip("paddle_billing.Entities.Shared"),
    )
    square, paddle = PAGES["square"].with_options().page, PAGES["paddle"].with_options().page
    disputes = [rule.part for rule in square.events.rule if rule.part is not None and rule.part.kind == "dispute"]
    assert set(re.findall(r"'(\w+)'", str(types.DisputeState))) == set(disputes[0].states)
    assert paddle_words(shared.TransactionStatus) == set(paddle.kind["transaction"].states)
    statuses = paddle_words(shared.AdjustmentStatus)
    assert [set(rule.part.states) for rule in paddle.events.rule if rule.part is not None] == [statuses] * 3


def samples(name: str) -> Iterator[tuple[str, Source, bytes]]:
    for sample in PAGES[name].with_options().page.sample:
        yield sample.file, Source(sample.by), body_of(PAGES[name], sample)


def test_stripes_models_read_the_samples_as_the_page_does():
    """Id, status, amount and currency of each intent are the SDK's; the models of events, too."""
    stripe = pytest.importorskip("stripe")
    provider, compared = PAGES["stripe"].with_options(), 0
    for file, source, body in samples("stripe"):
        content = json.loads(body)
        asked_for = content["payment_intent"] if source is Source.REFUND else None
        status = None if source is Source.WEBHOOK else 200
        reading = provider.parse(Statement(source, body, now(), ref=asked_for, http_status=status))
        if content["object"] == "v2.core.event":
            continue
        if content["object"] == "event":
            content = stripe.Event.construct_from(content, "sk_test").data.object
        elif content["object"] == "refund":
            content = stripe.Refund.construct_from(content, "sk_test")
        else:
            content = stripe.PaymentIntent.construct_from(content, "sk_test")
        if isinstance(content, stripe.PaymentIntent):
            (seen,) = reading.observations
            told = (seen.provider_ref, seen.status, seen.amount_minor, seen.sums.captured_minor, seen.currency)
            said = (content.id, content.status, content.amount, content.amount_received, content.currency.upper())
            assert told == said, file
            compared += 1
        elif isinstance(content, stripe.Refund):
            (seen,) = reading.observations
            (part,) = seen.parts
            told = (seen.provider_ref, seen.currency, part.name, part.amount_minor)
            assert told == (content.payment_intent, content.currency.upper(), content.id, content.amount), file
            compared += 1
    assert compared == 13


def test_squares_models_read_the_samples_as_the_page_does():
    """Id, status and money of each payment and refund are the SDK's."""
    payments = pytest.importorskip("square.types.payment")
    refunds = pytest.importorskip("square.types.payment_refund")
    provider, compared = PAGES["square"].with_options(), 0
    for file, source, body in samples("square"):
        (seen,) = provider.parse(
            Statement(source, body, now(), http_status=None if source == "webhook" else 200)
        ).observations
        content = json.loads(body)
        thing = content if source is not Source.WEBHOOK else content["data"]["object"]
        if "payment" in thing:
            payment = payments.Payment.model_validate(thing["payment"])
            told = (seen.provider_ref, seen.status, seen.amount_minor, seen.currency)
            assert told == (payment.id, payment.status, payment.amount_money.amount, payment.amount_money.currency), (
                file
            )
            assert seen.as_of == datetime.fromisoformat(payment.updated_at)
            compared += 1
        elif "refund" in thing:
            refund = refunds.PaymentRefund.model_validate(thing["refund"])
            (part,) = seen.parts
            assert (seen.provider_ref, part.name, part.amount_minor) == (
                refund.payment_id,
                refund.id,
                refund.amount_money.amount,
            )
            compared += 1
    assert compared == 11


def test_paddles_models_read_the_samples_as_the_page_does():
    """Id, status and money of each transaction and adjustment are the SDK's."""
    transactions = pytest.importorskip("paddle_billing.Notifications.Entities.Transaction")
    adjustments = pytest.importorskip("paddle_billing.Notifications.Entities.Adjustment")
    provider, compared = PAGES["paddle"].with_options(), 0
    for file, source, body in samples("paddle"):
        content = json.loads(body)
        if source is not Source.WEBHOOK or content["event_type"].startswith("customer"):
            continue
        (seen,) = provider.parse(Statement(source, body, now())).observations
        if content["event_type"].startswith("transaction"):
            thing = transactions.Transaction.from_dict(content["data"])
            told = (seen.provider_ref, seen.status, str(seen.amount_minor), seen.currency)
            total = thing.details.totals.grand_total
            assert told == (thing.id, thing.status.value, total, thing.currency_code.value), file
        else:
            thing = adjustments.Adjustment.from_dict(content["data"])
            (part,) = seen.parts
            assert (seen.provider_ref, part.name, str(part.amount_minor)) == (
                thing.transaction_id,
                thing.id,
                thing.totals.total,
            )
        compared += 1
    assert compared == 15


# -- the SDK's requests


class Recorded:
    """A line that keeps the one request that it is given."""

    def __init__(self, body: bytes) -> None:
        self.requests: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.body = body

    async def turn(self) -> None:
        """Any time is right."""

    async def send(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> HttpAnswer:
        self.requests.append((method, url, headers, content))
        return HttpAnswer(200, {}, self.body, now())

    async def pause(self, seconds: float) -> None:
        """Nobody waits."""


WISH = CreateRequest(
    "payment_intent", 1099, "EUR", "order 17/ä", "key-1", extra={"payment_method_types": ["card", "sepa_debit"]}
)


def test_our_requests_are_those_that_stripes_sdk_makes():
    """Method, path, fields and headers of create, fetch and cancel."""
    stripe = pytest.importorskip("stripe")
    theirs: list[tuple[str, str, Mapping[str, str], str]] = []

    class Client(stripe.HTTPClient):
        name = "recorded"

        def request(self, method, url, headers=None, post_data=None):
            theirs.append((method.upper(), url, headers or {}, post_data or ""))
            return '{"id":"pi_1","object":"payment_intent"}', 200, {}

    sdk = stripe.StripeClient("sk_test_key", http_client=Client()).v1.payment_intents
    sdk.create(
        {
            "amount": 1099,
            "currency": "eur",
            "metadata": {"reference": WISH.reference},
            "payment_method_types": ["card", "sepa_debit"],
        },
        {"idempotency_key": "key-1"},
    )
    sdk.retrieve("pi_1", {"expand": ["latest_charge.refunds"]})
    sdk.cancel("pi_1")

    line = Recorded(b'{"id":"pi_1"}')
    account = Account("a", "https://api.stripe.com", {"api_key": "sk_test_key"})
    ours = PAGES["stripe"].with_options().client(account, line, now)
    asyncio.run(ours.create(WISH))
    asyncio.run(ours.fetch("payment_intent", "pi_1"))
    asyncio.run(ours.cancel("payment_intent", "pi_1"))

    for mine, official in zip(line.requests, theirs, strict=True):
        assert mine[0] == official[0]
        (path, _, query), (their_path, _, their_query) = mine[1].partition("?"), official[1].partition("?")
        assert path == their_path
        assert sorted(_unnumbered(query)) == sorted(_unnumbered(their_query))
        assert sorted(_unnumbered(mine[3].decode())) == sorted(_unnumbered(official[3]))
        given = {name.lower(): value for name, value in official[2].items()}
        assert mine[2]["authorization"] == given["authorization"]
        assert mine[2].get("idempotency-key", "key-1") == "key-1"
    assert line.requests[0][2]["idempotency-key"] == "key-1"


def _unnumbered(form: str) -> list[tuple[str, str]]:
    """Return the pairs of a form; a list's items may be numbered or not."""
    return [(name.replace("[0]", "[]").replace("[1]", "[]"), value) for name, value in parse_qsl(form)]


@pytest.mark.filterwarnings("ignore:Risk endpoints:DeprecationWarning")
def test_our_requests_are_those_that_checkout_coms_sdk_makes():
    """Method, path, body and headers of create, fetch and void."""
    sdk = pytest.importorskip("checkout_sdk.checkout_sdk").CheckoutSdk
    environment = pytest.importorskip("checkout_sdk.environment").Environment
    requests = pytest.importorskip("requests")
    theirs: list[tuple[str, str, Mapping[str, str], str]] = []

    class Session(requests.Session):
        def request(self, method, url, headers=None, data=None, **_further):
            theirs.append((method, url, headers or {}, data or ""))
            answer = requests.Response()
            answer.status_code, answer._content = 200, b""
            return answer

    builder = SimpleNamespace(get_client=Session)
    secret = "sk_sbox_" + "a" * 26 + "k"
    made = sdk.builder().secret_key(secret).environment(environment.sandbox()).environment_subdomain("1234test")
    api = made.http_client_builder(builder).build()
    wish = {
        "amount": 1099,
        "currency": "EUR",
        "reference": WISH.reference,
        "source": {"type": "token", "token": "tok_1"},
    }
    api.payments.request_payment(wish, "key-1")
    api.payments.get_payment_details("pay_1")
    api.payments.void_payment("pay_1")

    line = Recorded(b'{"id":"pay_1"}')
    account = Account("a", "https://1234test.api.sandbox.checkout.com", {"secret_key": secret})
    ours = PAGES["checkout_com"].with_options().client(account, line, now)
    asyncio.run(ours.create(replace(WISH, kind="payment", extra={"source": wish["source"]})))
    asyncio.run(ours.fetch("payment", "pay_1"))
    asyncio.run(ours.cancel("payment", "pay_1"))

    for mine, official in zip(line.requests, theirs, strict=True):
        assert (mine[0], mine[1]) == (official[0], official[1])
        assert json.loads(mine[3] or b"null") == json.loads(official[3] or "null")
        given = {name.lower(): value for name, value in official[2].items()}
        assert mine[2]["authorization"] == given["authorization"]
        assert mine[2].get("cko-idempotency-key") == given.get("cko-idempotency-key")


def test_our_requests_are_those_that_squares_sdk_makes():
    """Method, path and body of create, fetch and cancel."""
    square, httpx = pytest.importorskip("square"), pytest.importorskip("httpx")
    theirs: list[tuple[str, str, bytes]] = []

    def answer(request):
        theirs.append((request.method, str(request.url), request.content))
        return httpx.Response(200, json={})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        payments = square.Square(token="t", httpx_client=client).payments
        money = {"amount": 1099, "currency": "EUR"}
        payments.create(source_id="cnon:1", idempotency_key="key-1", amount_money=money, reference_id=WISH.reference)
        payments.get(payment_id="p_1")
        payments.cancel(payment_id="p_1")
        begin, end = "2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z"
        list(payments.list(begin_time=begin, end_time=end, sort_order="ASC", cursor="c", limit=100))

    line = Recorded(b'{"payment":{"id":"p_1"}}')
    account = Account("a", "https://connect.squareup.com", {"access_token": "t"})
    ours = PAGES["square"].with_options().client(account, line, now)
    asyncio.run(ours.create(replace(WISH, kind="payment", extra={"source_id": "cnon:1"})))
    asyncio.run(ours.fetch("payment", "p_1"))
    asyncio.run(ours.cancel("payment", "p_1"))
    line.body = b"{}"
    page = asyncio.run(ours.list_page(datetime.fromisoformat(begin), datetime.fromisoformat(end), "c"))
    assert (page.count, page.next, page.fault) == (0, None, "")
    for mine, official in zip(line.requests, theirs, strict=True):
        (path, _, query), (their_path, _, their_query) = mine[1].partition("?"), official[1].partition("?")
        assert (mine[0], path) == (official[0], their_path)
        assert listed(query) == listed(their_query)
        assert json.loads(mine[3] or b"null") == json.loads(official[2] or b"null")


def listed(query: str) -> dict[str, object]:
    """Return a query with its instants as such: they may be written in several ways."""
    found: dict[str, object] = dict(parse_qsl(query))
    return {name: _instant(value) if name.endswith("_time") else value for name, value in found.items()}


def _instant(text: object) -> datetime:
    return datetime.fromisoformat(str(text))
