"""Payfield's client against the sandbox over real HTTP, in both dialects."""

import json
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from providers.catalogue import Payfield
from providers.contract import CreateRequest, Statement
from providers.errors import ProviderError, UnsupportedByProvider
from providers.signing import Key, KeyRing, Window
from sandbox.config import SandboxConfig
from sandbox.server import running
from statemachine.phases import Source
from tests.support.at_the_sandbox import Desk, act, now, shop

SECRETS = {
    "new": {"api_key": "pf_key_sandbox_new_0001", "api_secret": "pf_api_secret_sandbox_new_0001"},
    "old": {"api_key": "pf_key_sandbox_old_0001", "api_secret": "pf_api_secret_sandbox_old_0001"},
}
PATHS = {"new": "/payfield", "old": "/payfield-old"}
CURRENCIES = {"new": "BDT", "old": "INR"}
NAMES = {"new": "payfield", "old": "payfield_old"}
PERSON = {"merchant_user_id": "user-1", "merchant_user_ip": "203.0.113.7"}

numbers = count(1)


@pytest.fixture(scope="module")
def root():
    with running(SandboxConfig()) as sandbox:
        yield sandbox.base_url


@pytest.fixture(params=["new", "old"])
def dialect(request):
    return request.param


def desk_for(root, dialect, *, secrets=None, clock=now, change=None, **options):
    provider = Payfield.with_options(dialect=dialect, allow_loopback_http=True, **options)
    return Desk(provider, root + PATHS[dialect], SECRETS[dialect] | (secrets or {}), clock=clock, change=change)


def request_for(dialect, *, kind="payin", amount=500_050, reference=None, **extra):
    reference = reference or f"PAY {dialect}/{next(numbers)}"
    fields = PERSON | ({"card_number": "01700000000"} if kind == "payout" else {}) | extra
    return CreateRequest(kind, amount, CURRENCIES[dialect], reference, f"key-{reference}", extra=fields)


@pytest.mark.parametrize("kind", ["payin", "payout"])
def test_what_was_created_is_what_is_fetched(root, dialect, kind):
    """An operation is created with the exact amount, and fetched again by the merchant's own id, escaped."""
    desk, request = desk_for(root, dialect), request_for(dialect, kind=kind)

    created = desk.seen(desk.create(request), Source.CREATE)
    fetched = desk.seen(desk.fetch(kind, request.reference), Source.POLL)

    for seen in (created, fetched):
        assert (kind, request.reference, "pending") == (seen.kind, seen.provider_ref, seen.status)
        assert (500_050, CURRENCIES[dialect]) == (seen.amount_minor, seen.currency)
        assert seen.as_of is not None
        assert seen.facts["operation_id"].isdigit()
    assert (kind == "payin") == ("payment_link" in created.facts) or dialect == "old"


def test_the_amount_is_written_as_the_dialect_writes_it(root, dialect):
    """NEW sends a decimal string, OLD a JSON number with the very same digits."""
    desk = desk_for(root, dialect)
    desk.create(request_for(dialect, amount=1010))

    body = desk.sent[0].content

    assert (b'"amount":"10.10"' if dialect == "new" else b'"amount":10.10') in body


def test_a_repeated_create_is_the_same_operation(root, dialect):
    """The merchant's id is the idempotency key: a repeat answers 200 with the stored operation."""
    desk, request = desk_for(root, dialect), request_for(dialect)

    first, second = desk.create(request), desk.create(request)

    assert (first.status, second.status) == (201, 200)
    assert json.loads(first.body)["id"] == json.loads(second.body)["id"]


def test_every_end_is_read_as_the_provider_tells_it(root, dialect):
    """Each state that an operation can end in comes back in the provider's own word."""
    desk = desk_for(root, dialect)
    for action, state in (("pay", "success"), ("decline", "failed"), ("cancel", "canceled"), ("expire", "expired")):
        request = request_for(dialect)
        desk.create(request)
        act(root, NAMES[dialect], "payin", request.reference, action)

        assert state == desk.seen(desk.fetch("payin", request.reference), Source.POLL).status


def test_there_is_no_call_to_cancel_or_to_register(root, dialect):
    """What the provider documents no call for is refused here, and nothing is sent."""
    desk = desk_for(root, dialect)
    with pytest.raises(UnsupportedByProvider):
        desk.cancel("payin", "PAY-1")
    with pytest.raises(UnsupportedByProvider):
        desk.run(lambda client: client.register_webhook("https://shop.example/webhooks/a"))

    assert desk.sent == []


def test_a_request_with_a_wrong_key_or_secret_is_refused(root, dialect):
    """A wrong API key and a wrong secret are authentication errors that no repeat heals."""
    for secrets, message in (
        ({"api_key": "another"}, "Invalid API key"),
        ({"api_secret": "another"}, "Invalid signature"),
    ):
        desk = desk_for(root, dialect, secrets=secrets)
        with pytest.raises(ProviderError, match=message) as caught:
            desk.create(request_for(dialect))

        assert caught.value.type == "authentication_error"
        assert not caught.value.may_retry
        assert len(desk.sent) == 1


def test_a_late_request_is_signed_anew(root, dialect):
    """A request that came outside the provider's window is repeated with a fresh timestamp and signature."""
    clock = iter([now() - timedelta(minutes=5)])
    desk = desk_for(root, dialect, clock=lambda: next(clock, None) or now())

    answer = desk.create(request_for(dialect))

    assert answer.status == 201
    stamps = [each.headers["x-timestamp"] for each in desk.sent]
    assert len(stamps) == len(set(stamps)) == 2


def test_both_notations_of_time_are_accepted(root, dialect):
    """Unix seconds are signed and accepted as ISO 8601 is."""
    desk = desk_for(root, dialect, timestamp_format="unix")

    assert desk.create(request_for(dialect)).status == 201
    assert desk.sent[0].headers["x-timestamp"].isdigit()


def test_a_missing_field_is_refused_before_asking(root):
    """A field that the provider requires is named before anything is sent."""
    desk = desk_for(root, "new")
    request = CreateRequest("payout", 100, "BDT", "OUT-1", "key", extra=PERSON)
    with pytest.raises(ProviderError) as caught:
        desk.create(request)

    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "card_number")
    assert desk.sent == []


def test_the_shop_is_part_of_the_question(root):
    """An account with a shop code creates there and searches there, and not elsewhere."""
    desk, request = desk_for(root, "new", shop_code="shop_bdt"), request_for("new")
    desk.create(request)

    assert desk.seen(desk.fetch("payin", request.reference), Source.POLL).facts["shop_code"] == "shop_bdt"
    with pytest.raises(ProviderError) as caught:
        desk_for(root, "new", shop_code="shop other").fetch("payin", request.reference)
    assert (caught.value.http_status, caught.value.type) == (404, "not_found_error")


INVALID = "invalid_request_error"
AUTH = "authentication_error"

#: Typed from the provider's error page: sandbox row, HTTP status, type, code, beginning of the message, field, retry.
ROWS = [
    ("api_key_required", 401, AUTH, "unauthorized", "API key required", "X-API-Key", False),
    ("invalid_api_key", 401, AUTH, "unauthorized", "Invalid API key", "X-API-Key", False),
    ("timestamp_required", 401, AUTH, "unauthorized", "Timestamp required", "X-Timestamp", False),
    ("signature_required", 401, AUTH, "unauthorized", "Signature required", "X-Signature", False),
    ("invalid_timestamp_format", 401, AUTH, "unauthorized", "Invalid timestamp format", "X-Timestamp", False),
    ("timestamp_window_exceeded", 401, AUTH, "unauthorized", "Timestamp window exceeded", "X-Timestamp", True),
    ("invalid_signature", 401, AUTH, "unauthorized", "Invalid signature", "X-Signature", False),
    ("forbidden", 403, "authorization_error", "forbidden", "Access denied", None, False),
    ("payin_not_found", 404, "not_found_error", "not_found", "PayIn not found", "external_id", False),
    ("payout_not_found", 404, "not_found_error", "not_found", "Payout not found", "external_id", False),
    ("external_id_required", 422, INVALID, "validation_error", "external_id is required", "external_id", False),
    ("amount_not_positive", 422, INVALID, "validation_error", "amount must be a positive ", "amount", False),
    ("currency_required", 422, INVALID, "validation_error", "currency is required", "currency", False),
    ("card_number_required", 422, INVALID, "validation_error", "card_number is required", "card_number", False),
    ("callback_url_invalid", 422, INVALID, "validation_error", "callback_url must be a valid", "callback_url", False),
    ("payment_data_invalid", 422, INVALID, "validation_error", "Invalid paymentData", "paymentData", False),
    ("currency_mismatch", 422, INVALID, "business_error", "Shop currency mismatch. Expected ", "currency", False),
    ("insufficient_balance", 422, INVALID, "business_error", "Insufficient balance", "amount", False),
    ("no_default_shop", 422, INVALID, "business_error", "No default active shop", None, False),
    ("server_error_500", 500, "api_error", "server_error", "Server error", None, True),
    ("server_error_502", 502, "api_error", "server_error", "Bad gateway", None, True),
    ("server_error_503", 503, "api_error", "server_error", "Service unavailable", None, True),
    ("server_error_504", 504, "api_error", "server_error", "Gateway timeout", None, True),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_error_has_its_name(root, dialect, row):
    """Each documented error is named by type, code, field and whether to repeat, in both dialects."""
    name, status, kind, code, message, param, may_retry = row
    desk = desk_for(root, dialect)
    with pytest.raises(ProviderError) as caught:
        desk.fetch("payin", f"sandbox:{name}")

    error = caught.value
    assert (status, kind, param, may_retry) == (error.http_status, error.type, error.param, error.may_retry)
    assert error.provider_code == (code if dialect == "new" else None)
    assert message in error.message
    assert error.is_ambiguous == (status >= 500)
    assert len(desk.sent) == 1, "fetch sends one request"


def test_a_server_error_is_repeated_with_the_same_operation(root, dialect):
    """A create that met a server error is sent again up to four times, each signed, all about the same id."""
    desk = desk_for(root, dialect)
    with pytest.raises(ProviderError) as caught:
        desk.create(request_for(dialect, reference="sandbox:server_error_500"))

    assert caught.value.is_ambiguous
    assert len(desk.sent) == 4
    assert len({each.content for each in desk.sent}) == 1


def test_a_callback_is_verified_and_read(root, dialect):
    """What the sandbox delivers to an operation's own URL is authentic, one event each, and moves the operation."""
    desk = desk_for(root, dialect)
    keys = KeyRing((Key("shop", f"pf_webhook_secret_sandbox_{dialect}_0001".encode()),))
    with shop() as ours:
        request = replace(request_for(dialect), callback_url=ours.url)
        desk.create(request)
        act(root, NAMES[dialect], "payin", request.reference, "pay")
        act(root, NAMES[dialect], "payin", request.reference, "refund")
        deliveries = ours.wait_for(2)

    assert len({desk.provider.delivery_key(each) for each in deliveries}) == 2
    for delivery in deliveries:
        assert desk.provider.verify(delivery, keys, Window(), now()).key_id == "shop"
    readings = [desk.provider.parse(Statement(Source.CALLBACK, each.body, now(), "payin")) for each in deliveries]
    seen = [reading.observations[0] for reading in readings]
    assert {"success", "refunded"} == {each.status for each in seen}
    assert all((each.provider_ref, each.amount_minor) == (request.reference, 500_050) for each in seen)
