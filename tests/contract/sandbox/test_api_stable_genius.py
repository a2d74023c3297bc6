"""Stable Genius' calls, as its pages describe them."""

import math
import time
from dataclasses import replace

import pytest

from sandbox.config import SandboxConfig, StableGenius

from .stage import SG, SG_BODY, scene, without_none

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "authorization_error",
    404: "not_found_error",
    409: "conflict_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
}


def assert_error(answer, status, code):
    """The answer is the documented error object with this status and code."""
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "param", "code"}
    assert (error["type"], error["code"]) == (TYPES[status], code)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("Bearer sk_test_nobody", "invalid_api_key"),
        ("nonsense", "invalid_api_key"),
        (f"Basic {SG.test_key}", "invalid_api_key"),
        (f"Bearer {SG.revoked_key}", "revoked_api_key"),
    ],
)
def test_authentication(quiet, header, code):
    """No key, a wrong key and a revoked key are told apart, on every call."""
    headers = {"Authorization": header} if header else {}
    for method, path in (
        ("POST", "/payment-intents"),
        ("GET", "/payment-intents"),
        ("GET", "/payment-intents/pi_x"),
        ("POST", "/payment-intents/pi_x/cancel"),
        ("POST", "/webhooks"),
    ):
        answer = quiet.client.request(method, f"{quiet.url}/stable-genius/v1{path}", headers=headers)
        assert_error(answer, 401, code)


def test_create_fetch_cancel(quiet):
    """An intent is created with 201, found, cancelled once, and then not again."""
    made = quiet.sg_create(metadata={"order": "7"})
    assert made.status_code == 201
    intent = made.json()
    expected = {"object": "payment_intent", "status": "awaiting_payment", "amount": 4.5, "currency": "usd"}
    expected |= {"chain": "base", "token": "USDC", "metadata": {"order": "7"}, "merchant_id": "mer_sandbox"}
    assert expected.items() <= intent.items()
    assert intent["qr_payload"].startswith("ethereum:")
    assert intent["qr_payload"].endswith("&uint256=4500000")
    path = f"/payment-intents/{intent['id']}"
    assert quiet.sg("GET", path).json() == intent
    cancelled = quiet.sg("POST", path + "/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["cancelled_at"]
    assert_error(quiet.sg("POST", path + "/cancel"), 409, "intent_not_cancellable")
    picture = quiet.client.get(intent["qr_image_url"])
    assert picture.content[:4] == b"\x89PNG"


def test_confirmed_intent_has_sub_cent_fees(quiet):
    """Of 4.50 the fee is 0.045 and the net amount 4.455."""
    intent = quiet.sg_create().json()
    assert quiet.act("stable_genius", "payment_intent", intent["id"], "pay").status_code == 200
    shown = quiet.sg("GET", f"/payment-intents/{intent['id']}").json()
    assert {"fee": 0.045, "net_amount": 4.455, "fee_rate": 0.01, "status": "confirmed"}.items() <= shown.items()
    assert {"tx_hash", "confirmed_at", "sender_address", "block_number"} <= set(shown)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"amount": 0}, 400, "amount_out_of_range"),
        ({"amount": 0.009}, 400, "amount_out_of_range"),
        ({"amount": 10000.01}, 400, "amount_out_of_range"),
        ({"amount": -1}, 400, "amount_out_of_range"),
        ({"amount": "4.50"}, 400, "invalid_request"),
        ({"amount": True}, 400, "invalid_request"),
        ({"amount": 1.001}, 400, "invalid_request"),
        ({"currency": "eur"}, 400, "invalid_currency"),
        ({"currency": None}, 400, "invalid_currency"),
        ({"merchant_id": "shop"}, 400, "invalid_merchant"),
        ({"merchant_id": None}, 400, "invalid_merchant"),
        ({"merchant_id": "mer_nobody"}, 404, "merchant_not_found"),
        ({"merchant_id": "mer_suspended"}, 422, "merchant_not_active"),
        ({"ttl": 59}, 400, "ttl_out_of_range"),
        ({"ttl": 3601}, 400, "ttl_out_of_range"),
        ({"metadata": {str(n): "x" for n in range(11)}}, 400, "invalid_request"),
        ({"metadata": {"x": "y" * 501}}, 400, "invalid_request"),
        ({"idempotency_key": 5}, 400, "invalid_request"),
    ],
)
def test_create_errors(quiet, changes, status, code):
    """Every row of the error table that a create can meet is met by natural input."""
    assert_error(quiet.sg_create(**changes), status, code)


@pytest.mark.parametrize("amount", [0.01, 10000, 1])
def test_amounts_at_the_edge(quiet, amount):
    """The smallest and the largest amount pass."""
    assert quiet.sg_create(amount=amount).status_code == 201


@pytest.mark.parametrize("body", [b"", b"{", b"[1]"])
def test_create_needs_json(quiet, body):
    """What is no JSON object, or not called JSON, is an invalid request."""
    assert quiet.sg("POST", "/payment-intents", content=body).json()["error"]["code"] == "invalid_request"
    typed = quiet.sg("POST", "/payment-intents", data={"amount": "1"})
    assert typed.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("amount_out_of_range", 400),
        ("amount_too_small", 400),
        ("invalid_currency", 400),
        ("invalid_merchant", 400),
        ("ttl_out_of_range", 400),
        ("invalid_webhook_url", 400),
        ("missing_api_key", 401),
        ("invalid_api_key", 401),
        ("revoked_api_key", 401),
        ("environment_mismatch", 403),
        ("merchant_not_found", 404),
        ("payment_intent_not_found", 404),
        ("intent_not_cancellable", 409),
        ("idempotency_key_conflict", 409),
        ("merchant_not_active", 422),
        ("webhook_unreachable", 422),
        ("rate_limit_exceeded", 429),
    ],
)
def test_magic_rows(quiet, code, status):
    """Every row of the error table can be asked for, by metadata and by path."""
    assert_error(quiet.sg_create(metadata={"sandbox": code}), status, code)
    assert_error(quiet.sg_create(metadata={"sandbox": f"sandbox:{code}"}), status, code)
    assert_error(quiet.sg("GET", f"/payment-intents/sandbox:{code}"), status, code)


def test_internal_error(quiet):
    """A 500 is an api_error."""
    assert quiet.sg_create(metadata={"sandbox": "internal_error_500"}).json()["error"]["type"] == "api_error"


def test_unknown_intent(quiet):
    """An unknown id is 404 for reading and for cancelling."""
    assert_error(quiet.sg("GET", "/payment-intents/pi_nobody"), 404, "payment_intent_not_found")
    assert_error(quiet.sg("POST", "/payment-intents/pi_nobody/cancel"), 404, "payment_intent_not_found")


def test_environments_are_apart(quiet):
    """A test key on a live intent is a mismatch, and the other way round."""
    live, test = quiet.sg_create(SG.live_key).json()["id"], quiet.sg_create().json()["id"]
    assert_error(quiet.sg("GET", f"/payment-intents/{live}"), 403, "environment_mismatch")
    assert_error(quiet.sg("GET", f"/payment-intents/{test}", SG.live_key), 403, "environment_mismatch")
    assert quiet.sg("GET", f"/payment-intents/{live}", SG.live_key).status_code == 200


def test_idempotency(quiet):
    """A key returns the existing intent, conflicts with other parameters, and belongs to its environment."""
    first = quiet.sg_create(idempotency_key="k1")
    again = quiet.sg_create(idempotency_key="k1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert_error(quiet.sg_create(idempotency_key="k1", amount=9), 409, "idempotency_key_conflict")
    assert quiet.sg_create(SG.live_key, idempotency_key="k1").json()["id"] != first.json()["id"]


def test_idempotency_ends_after_a_day():
    """The key is forgotten after 24 hours of the provider's time."""
    with scene(SandboxConfig(speed=864_000)) as stage:
        first = stage.sg_create(idempotency_key="k1").json()["id"]
        while stage.sg_create(idempotency_key="k1").json()["id"] == first:
            pass


def test_list(quiet):
    """Intents are listed by merchant and status, newest first, page by page."""
    made = [quiet.sg_create(merchant_id="mer_second").json()["id"] for _ in range(3)]
    page = quiet.sg("GET", "/payment-intents", params={"merchant_id": "mer_second", "limit": 2}).json()
    assert (page["object"], page["has_more"], page["total_count"]) == ("list", True, 3)
    assert [row["id"] for row in page["data"]] == [made[2], made[1]]
    params = {"merchant_id": "mer_second", "starting_after": made[1]}
    assert [row["id"] for row in quiet.sg("GET", "/payment-intents", params=params).json()["data"]] == [made[0]]
    params = {"merchant_id": "mer_second", "status": "confirmed"}
    assert quiet.sg("GET", "/payment-intents", params=params).json()["data"] == []
    assert_error(quiet.sg("GET", "/payment-intents"), 400, "invalid_request")
    assert_error(quiet.sg("GET", "/payment-intents", params={"merchant_id": "x"}), 400, "invalid_merchant")
    assert_error(quiet.sg("GET", "/payment-intents", params={"merchant_id": "mer_x"}), 404, "merchant_not_found")


def test_expiry():
    """An unpaid intent expires at its TTL, divided by speed, and cannot be paid then."""
    with scene(SandboxConfig(speed=600)) as stage:
        intent = stage.sg_create(ttl=60).json()["id"]
        while (shown := stage.sg("GET", f"/payment-intents/{intent}").json())["status"] != "expired":
            pass
        assert shown["expired_at"] >= shown["expires_at"]
        assert stage.act("stable_genius", "payment_intent", intent, "pay").status_code == 409


def test_rate_limit_is_enforced():
    """The call after the last of a window is 429 and says when the window resets, as unix seconds rounded up."""
    own = StableGenius(test_requests_per_minute=3)
    with scene(replace(SandboxConfig(), stable_genius=own)) as stage:
        before = time.time()
        assert [stage.sg_create().status_code for _ in range(4)] == [201, 201, 201, 429]
        limited = stage.sg("GET", "/payment-intents/pi_x")
        assert_error(limited, 429, "rate_limit_exceeded")
        assert math.ceil(before + 60) <= int(limited.headers["X-RateLimit-Reset"]) <= math.ceil(time.time() + 60)
        assert stage.sg_create(SG.live_key).status_code == 201
        assert stage.counts()["rate_limited"]["stable_genius"] == 2


def test_rate_limit_window_passes():
    """After the reset calls pass again, and the reset can be told as a delta."""
    own = StableGenius(test_requests_per_minute=1, reset_as_delta=True)
    with scene(replace(SandboxConfig(speed=60), stable_genius=own)) as stage:
        assert stage.sg_create().status_code == 201
        limited = stage.sg_create()
        assert (limited.status_code, limited.headers["X-RateLimit-Reset"]) == (429, "1")
        deadline = time.monotonic() + 5
        while stage.sg_create().status_code == 429:
            assert time.monotonic() < deadline


def test_webhook_registration(quiet, endpoint):
    """A URL that answers a GET with 200 is taken; others are refused as S2 says."""
    taken = quiet.sg("POST", "/webhooks", json={"url": endpoint.url + "/hooks"})
    assert taken.status_code == 201
    assert [hook.method for hook in endpoint.got] == ["GET"]
    assert len(taken.json()["secret"]) >= 16
    for url in ("http://shop.example/hooks", "not a url", "", None, "ftp://shop.example"):
        answer = quiet.sg("POST", "/webhooks", json=without_none({"url": url}))
        assert_error(answer, 400, "invalid_webhook_url")
    endpoint.answer = lambda *_: 204
    assert_error(quiet.sg("POST", "/webhooks", json={"url": endpoint.url}), 422, "webhook_unreachable")
    assert_error(quiet.sg("POST", "/webhooks", json={"url": "http://127.0.0.1:1/"}), 422, "webhook_unreachable")


def test_loopback_http_can_be_refused():
    """With allow_loopback_http off, plain HTTP is refused even for this machine."""
    with scene(SandboxConfig(allow_loopback_http=False)) as stage:
        answer = stage.sg("POST", "/webhooks", json={"url": "http://127.0.0.1:9/"})
        assert_error(answer, 400, "invalid_webhook_url")
        assert stage.ap_create(redirect_url="http://127.0.0.1:9/").status_code == 422
        assert stage.pf_create(callback_url="http://127.0.0.1:9/").status_code == 422
        assert stage.bk_create(success_url="http://127.0.0.1:9/").json()["errors"][0]["code"] == "invalid_success_url"
        assert stage.sg_create(**SG_BODY).status_code == 201
