"""Banked's client against the sandbox over real HTTP, in both generations and both ways to authorise."""

import asyncio
import json
from dataclasses import replace
from itertools import count
from uuid import UUID

import httpx2
import pytest

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.contract import CreateRequest, Statement
from providers.errors import InsecureUrl, ProviderError, UnsupportedByProvider
from providers.signing import Key, KeyRing, Window
from sandbox.config import Banked as BankedConfig
from sandbox.config import SandboxConfig
from sandbox.server import running
from statemachine.phases import Source
from tests.support.at_the_sandbox import Desk, act, now, shop

SECRETS = {"api_key": "bk_test_sandbox_0001", "api_secret": "sk_test_banked_sandbox_0001"}
RETURN = "https://shop.example/return/token"
AUTHS = {"basic": {}, "oauth": {"auth": "oauth", "scope": "app_sandbox_0001"}}
STARTS = {"payment_session": "awaiting_provider", "payin": "CREATED"}

numbers = count(1)


@pytest.fixture(scope="module")
def root():
    with running(SandboxConfig()) as sandbox:
        yield sandbox.base_url


@pytest.fixture(params=["payment_session", "payin"])
def kind(request):
    return request.param


def desk_for(root, *, secrets=None, change=None, **options):
    provider = Banked(BankedOptions(allow_loopback_http=True, **options))
    return Desk(provider, root + "/banked", SECRETS | (secrets or {}), change=change)


def request_for(kind="payment_session", *, amount=400, reference=None, key=None, **extra):
    number = next(numbers)
    return CreateRequest(
        kind, amount, "GBP", reference or f"Order {number}", key or f"key-{number}", return_url=RETURN, extra=extra
    )


@pytest.mark.parametrize("auth", AUTHS)
def test_what_was_created_is_what_is_fetched(root, kind, auth):
    """A payment is created with its exact amount and read again by the provider's id, under Basic and OAuth."""
    desk, request = desk_for(root, **AUTHS[auth]), request_for(kind)

    created = desk.seen(desk.create(request), Source.CREATE)
    fetched = desk.seen(desk.fetch(kind, created.provider_ref), Source.POLL)

    for seen in (created, fetched):
        assert (seen.kind, seen.provider_ref, seen.status) == (kind, created.provider_ref, STARTS[kind])
        assert (seen.amount_minor, seen.currency, seen.reference) == (400, "GBP", request.reference)
        assert seen.as_of is not None
        assert seen.facts["payment_link"].endswith(created.provider_ref)
        assert seen.facts["live"] == "false"


def test_every_state_is_read_as_the_provider_tells_it(root, kind):
    """Each step to the money comes back in the provider's own word, legal in the lifecycle."""
    desk = desk_for(root)
    ref = desk.seen(desk.create(request_for(kind)), Source.CREATE).provider_ref
    lifecycle, seen = desk.provider.lifecycles[kind], []
    for _ in range(4):
        act(root, "banked", kind, ref, "move", state=lifecycle.moves[seen[-1] if seen else STARTS[kind]][0])
        seen.append(desk.seen(desk.fetch(kind, ref), Source.POLL).status)

    walked = ["awaiting_payment_consent", "initiated", "pending", "sent"]
    assert seen == (walked if kind == "payment_session" else ["AWAITING_AUTHORIZATION", "INITIATED", "PENDING", "SENT"])


def test_a_failure_says_why(root, kind):
    """A payment that failed carries the provider's reason."""
    desk = desk_for(root)
    ref = desk.seen(desk.create(request_for(kind)), Source.CREATE).provider_ref
    act(root, "banked", kind, ref, "decline")

    seen = desk.seen(desk.fetch(kind, ref), Source.POLL)

    assert seen.status.lower() == "failed"
    assert seen.failure_reason == "BANK_REJECTED"


def test_latest_error_is_no_failure_and_goes_again(root, kind):
    """An error while processing is a fact that is removed when the provider resets it, and never moves the state."""
    desk = desk_for(root)
    ref = desk.seen(desk.create(request_for(kind)), Source.CREATE).provider_ref
    act(root, "banked", kind, ref, "error", code="PAYER_ACCOUNT_BLOCKED")
    troubled = desk.seen(desk.fetch(kind, ref), Source.POLL)
    act(root, "banked", kind, ref, "resolve")
    resolved = desk.seen(desk.fetch(kind, ref), Source.POLL)

    assert (troubled.status, troubled.failure_reason) == (STARTS[kind], None)
    assert troubled.facts["latest_error"] == "PAYER_ACCOUNT_BLOCKED"
    assert (resolved.status, resolved.facts["latest_error"]) == (STARTS[kind], None)


def test_a_repeated_create_is_the_same_payment(root, kind):
    """The same idempotency key with the same request answers the same payment, and it is sent as a UUID."""
    desk, request = desk_for(root), request_for(kind)

    first, second = desk.create(request), desk.create(request)

    assert first.body == second.body
    assert UUID(desk.sent[0].headers["idempotency-key"]).version == 5


def test_a_reused_key_is_a_conflict(root, kind):
    """The same idempotency key with another request is a conflict that no repeat heals."""
    desk, request = desk_for(root), request_for(kind)
    desk.create(request)
    with pytest.raises(ProviderError) as caught:
        desk.create(replace(request, amount_minor=500))

    assert (caught.value.http_status, caught.value.type, caught.value.may_retry) == (409, "conflict_error", False)
    codes = {"payment_session": "invalid_idempotency_key", "payin": "idempotency_conflict"}
    assert caught.value.provider_code == codes[kind]


def test_two_at_once_are_one_payment(root):
    """Of two parallel creates with one key the later is told to wait, repeats, and gets the same payment."""
    desk, request = desk_for(root), request_for(reference="sandbox slow")

    async def both(client):
        return await asyncio.gather(client.create(request), client.create(request))

    first, second = desk.run(both)

    assert first.body == second.body
    assert len(desk.sent) > 2, "one of them was answered 409 Processing and repeated"


def test_partial_success_keeps_the_id(root):
    """A create that failed in part is read as a payment that exists and must be asked about."""
    desk = desk_for(root)

    answer = desk.create(request_for(reference="sandbox partial"))
    seen = desk.seen(answer, Source.CREATE)

    assert answer.status == 422
    assert (seen.kind, seen.status) == ("payment_session", None)
    assert seen.facts == {"create_errors": "invalid_action"}
    fetched = desk.seen(desk.fetch("payment_session", seen.provider_ref), Source.POLL)
    assert (fetched.status, fetched.amount_minor) == ("awaiting_provider", 400)


def test_line_items_come_to_the_amount(root):
    """Line items are sent instead of the amount, and only if they come to it."""
    desk = desk_for(root)
    item = {"name": "Candle", "amount": 100, "currency": "GBP", "quantity": 4}

    seen = desk.seen(desk.create(request_for(line_items=[item])), Source.CREATE)
    with pytest.raises(ProviderError) as caught:
        desk.create(request_for(amount=500, line_items=[item]))

    assert (seen.amount_minor, seen.currency) == (400, "GBP")
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "line_items")
    assert desk.sent == [], "nothing was sent"


def test_a_deleted_session_has_the_state_that_the_provider_tells(root):
    """After a DELETE the provider is asked, and its word is recorded."""
    desk = desk_for(root)
    ref = desk.seen(desk.create(request_for()), Source.CREATE).provider_ref

    answer = desk.cancel("payment_session", ref)

    assert [each.method for each in desk.sent] == ["DELETE", "GET"]
    assert desk.seen(answer, Source.CANCEL).status == "failed"


@pytest.mark.parametrize("state", ["deleted", "failed"])
def test_a_deleted_session_that_is_gone_has_the_configured_state(state):
    """After a DELETE that leaves nothing to read, the session is what the account's options say."""
    with running(SandboxConfig(banked=BankedConfig(delete_result="removed"))) as sandbox:
        desk = desk_for(sandbox.base_url, deleted_state=state)
        ref = desk.seen(desk.create(request_for()), Source.CREATE).provider_ref

        answer = desk.cancel("payment_session", ref)

        seen = desk.seen(answer, Source.CANCEL)
        assert (answer.status, answer.body) == (204, b"")
        assert (seen.kind, seen.provider_ref, seen.status) == ("payment_session", ref, state)
        assert desk.provider.lifecycles["payment_session"].is_terminal(state)


def test_a_session_at_the_bank_is_not_deleted(root):
    """A DELETE that comes too late is refused as a conflict and changes nothing."""
    desk = desk_for(root)
    ref = desk.seen(desk.create(request_for()), Source.CREATE).provider_ref
    act(root, "banked", "payment_session", ref, "pay")
    with pytest.raises(ProviderError) as caught:
        desk.cancel("payment_session", ref)

    assert (caught.value.type, caught.value.provider_code) == ("conflict_error", "invalid_action")
    assert desk.seen(desk.fetch("payment_session", ref), Source.POLL).status == "sent"


def test_what_has_no_call_is_refused_here(root):
    """A payin cannot be cancelled, a payout not created, and nothing is sent for either."""
    desk = desk_for(root)
    with pytest.raises(UnsupportedByProvider):
        desk.cancel("payin", "p")
    with pytest.raises(UnsupportedByProvider):
        desk.create(request_for("payout"))

    assert desk.sent == []


def test_a_refund_is_a_payment_of_its_own(root):
    """A refund of a sent session is created, followed to its end, and given back rather than paid."""
    desk = desk_for(root)
    session = desk.seen(desk.create(request_for()), Source.CREATE).provider_ref
    act(root, "banked", "payment_session", session, "pay")

    request = request_for("refund", amount=150, payment_session_id=session, payment_id=session)
    created = desk.seen(desk.create(request), Source.CREATE)
    act(root, "banked", "refund", created.provider_ref, "pay")
    fetched = desk.seen(desk.fetch("refund", created.provider_ref), Source.POLL)

    assert (created.kind, created.status, created.amount_minor) == ("refund", "awaiting_payment", 150)
    assert (fetched.provider_ref, fetched.status) == (created.provider_ref, "sent")
    assert desk.provider.lifecycles["refund"].phase("sent").value == "refunded"


def test_an_expired_token_is_renewed_once(root):
    """A token that the provider no longer takes is renewed, and the same call is sent again."""

    def spoil_the_second(number, headers, content):
        return (headers | {"authorization": "Bearer expired"} if number == 1 else headers), content

    desk = desk_for(root, change=spoil_the_second, **AUTHS["oauth"])
    answer = desk.create(request_for())

    assert answer.status == 201
    assert [each.url.rpartition("/banked")[2] for each in desk.sent] == [
        "/oauth/token",
        "/v2/payment_sessions",
        "/oauth/token",
        "/v2/payment_sessions",
    ]
    assert desk.sent[1].headers["idempotency-key"] == desk.sent[3].headers["idempotency-key"]


@pytest.mark.parametrize("auth", AUTHS)
def test_wrong_credentials_are_told_as_such(root, auth):
    """Wrong credentials are an authentication error that is not repeated."""
    desk = desk_for(root, secrets={"api_secret": "another"}, **AUTHS[auth])
    with pytest.raises(ProviderError) as caught:
        desk.create(request_for())

    assert (caught.value.http_status, caught.value.type, caught.value.may_retry) == (401, "authentication_error", False)
    assert len(desk.sent) == 1
    assert "another" not in str(caught.value)


@pytest.mark.parametrize(
    "reference", ["", "nineteen characters", "order-1", "Größe 1", "a\nb"], ids=["empty", "long", "-", "ö", "newline"]
)
def test_a_reference_that_banked_refuses_is_refused_before_asking(root, reference):
    """Only 1 to 18 ASCII letters, digits and spaces are a reference at Banked."""
    desk = desk_for(root)
    request = replace(request_for(), reference=reference)
    with pytest.raises(ProviderError) as caught:
        desk.create(request)

    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "reference")
    assert desk.sent == []


INVALID = "invalid_request_error"

#: Typed from the provider's error pages: code, HTTP status, type, retry.
ROWS = [
    ("invalid_action", 409, "conflict_error", False),
    ("unauthorized", 401, "authentication_error", False),
    ("bad_request", 400, INVALID, False),
    ("invalid_error_url", 400, INVALID, False),
    ("invalid_success_url", 400, INVALID, False),
    ("invalid_reference", 400, INVALID, False),
    ("invalid_description", 400, INVALID, False),
    ("invalid_request", 400, INVALID, False),
    ("invalid", 400, INVALID, False),
    ("invalid_payee_account_identifier", 400, INVALID, False),
    ("invalid_payer_email", 400, INVALID, False),
    ("invalid_amount", 400, INVALID, False),
    ("invalid_currency", 400, INVALID, False),
    ("invalid_line_items.amount_cents", 400, INVALID, False),
    ("missing_amount_or_line_items", 400, INVALID, False),
    ("missing_currency_or_line_items", 400, INVALID, False),
    ("invalid_amount_cents", 400, INVALID, False),
    ("invalid_bank_account", 400, INVALID, False),
    ("invalid_payee_name", 400, INVALID, False),
    ("not_found", 404, "not_found_error", False),
    ("session_not_found", 404, "not_found_error", False),
    ("invalid_payee", 400, INVALID, False),
    ("invalid_expiration", 400, INVALID, False),
    ("invalid_expiration_format", 400, INVALID, False),
    ("invalid_business", 400, INVALID, False),
    ("invalid_idempotency_key", 409, "conflict_error", False),
    ("decoding", 400, INVALID, False),
    ("internal", 500, "api_error", True),
    ("method_not_allowed", 405, INVALID, False),
    ("forbidden", 403, "authorization_error", False),
    ("idempotency_conflict", 409, "conflict_error", False),
    ("Processing", 409, "conflict_error", True),
    ("rate_limit_exceeded", 429, "rate_limit_error", True),
    ("internal_error", 500, "api_error", True),
    ("bad_gateway", 502, "api_error", True),
    ("service_unavailable", 503, "api_error", True),
    ("gateway_timeout", 504, "api_error", True),
]
RENAMED_IN_V3 = {"internal": "internal_error", "invalid_idempotency_key": "idempotency_conflict"}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_error_has_its_name(root, kind, row):
    """Each documented code is named by type, code, parameter and whether to repeat, in both shapes of the errors."""
    code, status, error_type, may_retry = row
    desk = desk_for(root)
    with pytest.raises(ProviderError) as caught:
        desk.fetch(kind, f"sandbox:{code}")

    error = caught.value
    assert (error.http_status, error.type, error.may_retry) == (status, error_type, may_retry)
    assert error.provider_code == (RENAMED_IN_V3.get(code, code) if kind == "payin" else code)
    assert error.param == "reference"
    assert error.is_ambiguous == (status >= 500 or code == "Processing")
    assert bool(desk.paused) == (status == 429), "a 429 pauses everybody"
    assert len(desk.sent) == 1, "fetch sends one request"


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_registered_webhook_is_verified_and_read(root, version):
    """A webhook registered with a key of ours brings authentic events, one key each, that move the payment."""
    kind = {"v2": "payment_session", "v3": "payin"}[version]
    desk = desk_for(root, webhook_version=version)
    keys = KeyRing((Key("ours", b"a-signature-key-of-ours"),))
    with shop() as ours:
        registered = desk.run(
            lambda client: client.register_webhook(ours.url, signature_key=keys.keys[0].secret.decode())
        )
        ref = desk.seen(desk.create(request_for(kind)), Source.CREATE).provider_ref
        act(root, "banked", kind, ref, "pay")
        deliveries = ours.wait_for(3)
        hook = json.loads(registered.body)["id"]
        httpx2.delete(f"{root}/banked/{version}/webhooks/{hook}", auth=tuple(SECRETS.values()))

    assert len({desk.provider.delivery_key(each) for each in deliveries}) == 3
    for delivery in deliveries:
        assert desk.provider.verify(delivery, keys, Window(), now()).key_id == "ours"
    seen = [desk.provider.parse(Statement(Source.WEBHOOK, each.body, now())).observations[0] for each in deliveries]
    assert {each.status.lower() for each in seen} == {"initiated", "pending", "sent"}
    assert {(each.kind, each.provider_ref, each.amount_minor) for each in seen} == {(kind, ref, 400)}


def test_only_https_is_registered(root):
    """A URL that is not HTTPS is refused before anything is sent."""
    desk = Desk(Banked(BankedOptions()), root + "/banked", SECRETS)
    for url in ("http://shop.example/webhooks/a", "http://127.0.0.1/webhooks/a", "shop.example", ""):
        with pytest.raises(InsecureUrl):
            desk.run(lambda client, url=url: client.register_webhook(url))
    with pytest.raises(InsecureUrl):
        desk.create(replace(request_for(), return_url="http://shop.example/return"))

    assert desk.sent == []
