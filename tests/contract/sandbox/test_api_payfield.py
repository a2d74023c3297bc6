"""Payfield's calls in both dialects, as its pages describe them."""

import base64
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.config import SandboxConfig

from .stage import PF, PF_OLD, mac, pf_body, scene

DIALECTS = pytest.mark.parametrize("old", [False, True])


def ago(seconds):
    """An `X-Timestamp` of so many seconds ago."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def assert_error(answer, status, message, *, old=False, field=""):
    """The answer is the dialect's error object."""
    assert (answer.status_code, answer.json()["message"]) == (status, message)
    expected = {"message"} | ({"errors"} if field else set()) | (set() if old else {"code", "error"})
    assert set(answer.json()) == expected
    if field:
        assert answer.json()["errors"] == [{"field": field, "message": message}]
    if not old:
        assert answer.json()["error"] == {"code": answer.json()["code"], "message": message}


@DIALECTS
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"key": None}, "API key required"),
        ({"key": "pf_nobody"}, "Invalid API key"),
        ({"stamp": None}, "Timestamp required"),
        ({"signature": None}, "Signature required"),
        ({"stamp": "yesterday"}, "Invalid timestamp format"),
        ({"stamp": "-5"}, "Invalid timestamp format"),
        ({"stamp": "9" * 40}, "Invalid timestamp format"),
        ({"stamp": ago(3600)}, "Timestamp window exceeded"),
        ({"stamp": ago(-3600)}, "Timestamp window exceeded"),
        ({"signature": "00"}, "Invalid signature"),
        ({"secret": "some_other_secret"}, "Invalid signature"),
        ({"key": None, "stamp": None}, "API key required"),
        ({"stamp": None, "signature": None}, "Timestamp required"),
    ],
)
def test_authentication(quiet, old, overrides, message):
    """The seven failures of section 1 are 401, in the order key, timestamp, signature."""
    for method, path, body in (
        ("POST", "/payins", pf_body(old=old)),
        ("POST", "/payouts", pf_body("payouts", old=old)),
        ("GET", "/payins/x", None),
        ("GET", "/payouts/x", None),
        ("GET", "/balance", None),
    ):
        answer = quiet.pf(method, path, body, old=old, **overrides)
        assert_error(answer, 401, message, old=old)
        if not old:
            assert answer.json()["code"] == "unauthorized"


def test_unix_timestamps(quiet):
    """The timestamp may be unix seconds, and is signed exactly as it was sent."""
    assert quiet.pf("GET", "/balance", stamp=str(int(time.time()))).status_code == 200


def test_signature_covers_the_raw_body(quiet):
    """Another spelling of the same JSON does not verify."""
    stamp, body = ago(0), json.dumps(pf_body(external_id="raw-1"))
    signature = mac(PF.api_secret, stamp.encode() + body.encode()).hex()
    other = json.dumps(json.loads(body), indent=1).encode()
    assert quiet.pf("POST", "/payins", other, stamp=stamp, signature=signature).status_code == 401


def test_published_example(quiet):
    """The dossier's computed signature is the one that this oracle computes."""
    body = b'{"external_id":"PAY-BDT-001","amount":"5000.00","currency":"BDT"}'
    want = "fae5c26c74dd035a8ac9d180db7284bbcacd8d47cea327dfdd81318164274166"
    assert mac("test_secret", b"2025-12-05T10:00:00Z" + body).hex() == want


@DIALECTS
@pytest.mark.parametrize("kind", ["payins", "payouts"])
def test_create_repeat_fetch(quiet, old, kind):
    """An operation is created with 201, repeated with 200, and fetched by external_id and shop_code."""
    name = f"crf-{kind}"
    made = quiet.pf_create(kind, old=old, external_id=name, callback_url="https://shop.example/cb")
    assert made.status_code == 201
    assert {"status": "pending", "external_id": name, "transaction_type": kind[:-1]}.items() <= made.json().items()
    assert made.json()["amount"] == "5000.00"
    assert made.json()["updated_at"].endswith("Z")
    assert isinstance(made.json()["id"], int)
    again = quiet.pf_create(kind, old=old, external_id=name, callback_url="https://shop.example/cb")
    assert (again.status_code, again.json()) == (200, made.json())
    shop = (PF_OLD if old else PF).shop_code
    for path in (f"/{kind}/{name}", f"/{kind}/{name}?shop_code={shop}"):
        fetched = quiet.pf("GET", path, old=old)
        assert fetched.status_code == 200
        assert {"id": made.json()["id"], "status": "pending", "amount": "5000.00"}.items() <= fetched.json().items()
    assert quiet.pf("GET", f"/{kind}/{name}?shop_code=other", old=old).status_code == 404
    assert quiet.pf("GET", f"/{'payouts' if kind == 'payins' else 'payins'}/{name}", old=old).status_code == 404


def test_dialects_differ_in_empty_fields(quiet):
    """NEW leaves empty fields out, OLD keeps them as null."""
    new, old = quiet.pf_create(external_id="empty").json(), quiet.pf_create(old=True, external_id="empty").json()
    assert "callback_url" not in new
    assert "finalization_date" not in new
    assert old["callback_url"] is None
    assert old["finalization_date"] is None
    assert old["paymentData"] == {}
    assert new["paymentData"]["payment_link"].startswith(quiet.url)
    assert old["payment_page_url"].startswith(quiet.url)
    assert old["payment_page_expires_at"]


@pytest.mark.parametrize(
    ("kind", "changes", "message", "field"),
    [
        ("payins", {"external_id": None}, "external_id is required", "external_id"),
        ("payins", {"external_id": ""}, "external_id is required", "external_id"),
        ("payins", {"amount": None}, "amount must be a positive decimal string", "amount"),
        ("payins", {"amount": 5000}, "amount must be a positive decimal string", "amount"),
        ("payins", {"amount": "0.00"}, "amount must be a positive decimal string", "amount"),
        ("payins", {"amount": "-1"}, "amount must be a positive decimal string", "amount"),
        ("payins", {"amount": "NaN"}, "amount must be a positive decimal string", "amount"),
        ("payins", {"currency": None}, "currency is required", "currency"),
        ("payins", {"currency": "USD"}, "Shop currency mismatch. Expected BDT.", ""),
        ("payins", {"callback_url": "shop"}, "callback_url must be a valid URL", "callback_url"),
        ("payins", {"callback_url": "http://shop.example"}, "callback_url must be a valid URL", "callback_url"),
        ("payins", {"paymentData": "x"}, "Invalid paymentData", "paymentData"),
        ("payins", {"merchant_user_id": None}, "merchant_user_id is required", "merchant_user_id"),
        ("payins", {"merchant_user_ip": None}, "merchant_user_ip is required", "merchant_user_ip"),
        ("payouts", {"card_number": None}, "card_number is required", "card_number"),
        ("payouts", {"paymentData": {"ifsc_code": "x"}}, "Invalid paymentData", "paymentData"),
        ("payouts", {"amount": "99999999999.00"}, "Insufficient balance for this payout", ""),
    ],
)
def test_create_errors(quiet, kind, changes, message, field):
    """Every message of the error table that a create can meet is met by natural input."""
    answer = quiet.pf_create(kind, **({"external_id": "bad-1"} | changes))
    assert_error(answer, 422, message, field=field)


@pytest.mark.parametrize("amount", ["5000.00", 0, -1, True, None])
def test_old_amounts_are_numbers(quiet, amount):
    """OLD takes a positive JSON number and nothing else."""
    answer = quiet.pf_create(old=True, external_id="bad-2", amount=amount)
    assert_error(answer, 422, "amount must be a positive number", old=True, field="amount")


def test_old_takes_any_user(quiet):
    """A fraction where OLD checks nothing is echoed and does no harm."""
    made = quiet.pf_create(old=True, external_id="user-2", merchant_user_id=1.5, amount=10.25)
    assert (made.status_code, made.json()["merchant_user_id"], made.json()["amount"]) == (201, 1.5, "10.25")


def test_old_needs_no_user(quiet):
    """In OLD the merchant_user fields are optional."""
    made = quiet.pf_create(old=True, external_id="nouser", merchant_user_id=None, merchant_user_ip=None)
    assert made.status_code == 201


def test_access_to_another_shop(quiet):
    """Creating for a shop that the key does not have is 403."""
    assert_error(quiet.pf_create(external_id="bad-3", shop_code="other"), 403, "Access denied")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_create_needs_json(quiet, body):
    """What is no JSON object is 422."""
    assert quiet.pf("POST", "/payins", body).status_code == 422


def test_not_found(quiet):
    """Each kind has its own message."""
    assert_error(quiet.pf("GET", "/payins/nobody"), 404, "PayIn not found")
    assert_error(quiet.pf("GET", "/payouts/nobody", old=True), 404, "Payout not found", old=True)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("api_key_required", 401, "API key required"),
        ("invalid_api_key", 401, "Invalid API key"),
        ("timestamp_required", 401, "Timestamp required"),
        ("signature_required", 401, "Signature required"),
        ("invalid_timestamp_format", 401, "Invalid timestamp format"),
        ("timestamp_window_exceeded", 401, "Timestamp window exceeded"),
        ("invalid_signature", 401, "Invalid signature"),
        ("forbidden", 403, "Access denied"),
        ("403", 403, "Access denied"),
        ("payin_not_found", 404, "PayIn not found"),
        ("payout_not_found", 404, "Payout not found"),
        ("external_id_required", 422, "external_id is required"),
        ("amount_not_positive", 422, "amount must be a positive decimal string"),
        ("currency_required", 422, "currency is required"),
        ("card_number_required", 422, "card_number is required"),
        ("callback_url_invalid", 422, "callback_url must be a valid URL"),
        ("payment_data_invalid", 422, "Invalid paymentData"),
        ("currency_mismatch", 422, "Shop currency mismatch. Expected BDT."),
        ("insufficient_balance", 422, "Insufficient balance for this payout"),
        ("no_default_shop", 422, "No default active shop"),
        ("500", 500, "Server error"),
    ],
)
def test_magic_rows(quiet, code, status, message):
    """Every row of the error table can be asked for, by external_id and by path."""
    for answer in (quiet.pf_create(external_id=f"sandbox:{code}"), quiet.pf("GET", f"/payins/sandbox:{code}")):
        assert (answer.status_code, answer.json()["message"]) == (status, message)


def test_no_default_shop():
    """Without a default shop a call that names none is 422."""
    with scene(replace(SandboxConfig(), payfield=replace(PF, is_default=False))) as stage:
        assert_error(stage.pf_create(external_id="a"), 422, "No default active shop")
        assert stage.pf_create(external_id="a", shop_code=PF.shop_code).status_code == 201
        assert_error(stage.pf("GET", "/payins/a"), 422, "No default active shop")
        assert stage.pf("GET", f"/payins/a?shop_code={PF.shop_code}").status_code == 200


def test_conflicting_repeat():
    """Another body under a known external_id gets the stored operation, or a refusal where that is configured."""
    with scene(replace(SandboxConfig(), payfield=replace(PF, on_conflict="refuse"))) as stage:
        assert stage.pf_create(external_id="a").status_code == 201
        assert stage.pf_create(external_id="a", amount="1.00").status_code == 422
        stage.pf_create(old=True, external_id="a")
        again = stage.pf_create(old=True, external_id="a", amount=1)
        assert (again.status_code, again.json()["amount"]) == (200, "5000.00")


def test_base64_digests():
    """A shop may sign in base64, and then hex is refused."""
    with scene(replace(SandboxConfig(), payfield=replace(PF, digest="base64"))) as stage:
        stamp = ago(0)
        digest = base64.b64encode(mac(PF.api_secret, stamp.encode())).decode()
        assert stage.pf("GET", "/balance", stamp=stamp, signature=digest).status_code == 200
        assert stage.pf("GET", "/balance").status_code == 401


def test_balance(quiet):
    """A payout moves money from available to pending."""
    before = quiet.pf("GET", "/balance").json()
    quiet.pf_create("payouts", external_id="balance-1", amount="10.50")
    after = quiet.pf("GET", "/balance").json()
    assert float(before["available"]) - float(after["available"]) == pytest.approx(10.5)
    assert float(after["pending"]) - float(before["pending"]) == pytest.approx(10.5)


def test_ids_may_hold_slashes(quiet):
    """An external_id with a slash is found by its percent-encoded path."""
    assert quiet.pf_create(external_id="a/b c").status_code == 201
    assert quiet.pf("GET", "/payins/a%2Fb%20c").json()["external_id"] == "a/b c"
