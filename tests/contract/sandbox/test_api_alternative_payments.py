"""Alternative Payments' calls, as its pages describe them."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sandbox.config import AlternativePayments, SandboxConfig

from .stage import AP, AP_BODY, scene


@pytest.mark.parametrize(
    ("user", "secret", "grant", "status"),
    [
        (AP.client_id, AP.client_secret, "client_credentials", 200),
        ("stranger", AP.client_secret, "client_credentials", 403),
        (AP.client_id, "wrong", "client_credentials", 403),
        (AP.client_id, AP.client_secret, "password", 400),
    ],
)
def test_token(quiet, user, secret, grant, status):
    """A token costs the right credentials and the one grant; wrong credentials are 403, not 401."""
    answer = quiet.ap_oauth(user, secret, grant)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["expires_in"] == 3600
        assert answer.json()["token_type"].lower() == "bearer"


@pytest.mark.parametrize("header", [None, "Basic !!!", "Bearer x"])
def test_token_needs_a_basic_header(quiet, header):
    """Anything but a Basic header is 403."""
    headers = {"Authorization": header} if header else {}
    data = {"grant_type": "client_credentials"}
    url = quiet.url + "/alternative-payments/oauth/token"
    assert quiet.client.post(url, headers=headers, data=data).status_code == 403


@pytest.mark.parametrize("token", ["wrong", "two words"])
def test_calls_need_a_token(quiet, token):
    """Every call without a living token is 401, on every path."""
    for method, path in (
        ("POST", "/payment/request"),
        ("GET", f"/payments/request/{uuid.uuid4()}"),
        ("GET", "/payments"),
        ("GET", "/webhooks"),
        ("GET", "/webhooks/events"),
    ):
        assert quiet.ap(method, path, token=token).status_code == 401


def test_tokens_expire_with_speed():
    """A token dies after its lifetime divided by speed, and its calls are 401 then."""
    own = AlternativePayments(token_seconds=0.2)
    with scene(replace(SandboxConfig(), alternative_payments=own)) as stage:
        token = stage.ap_token()
        statuses = set()
        while 401 not in statuses:
            statuses.add(stage.ap("GET", "/payments", token=token).status_code)
        assert statuses <= {200, 401, 429}


@pytest.mark.parametrize("path", ["/payment/request", "/payments/request"])
def test_create_and_fetch(quiet, path):
    """Both spellings of the path create with 200 and find what either has made."""
    made = quiet.ap_create(path)
    assert made.status_code == 200
    assert set(made.json()) == {"id", "reference_id", "status", "url", "redirect_url"}
    assert (made.json()["status"], made.json()["reference_id"]) == ("pending", "order-1")
    for other in ("/payment/request", "/payments/request"):
        assert quiet.ap("GET", f"{other}/{made.json()['id']}").json() == made.json()
    assert quiet.truth(made.json()["id"])["amount_minor"] == 1250


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"amount": None}, 400, "amount"),
        ({"currency": None}, 400, "currency"),
        ({"redirect_url": None}, 400, "redirect_url"),
        ({"amount": 100}, 400, "amount"),
        ({"reference_id": 7}, 400, "reference_id"),
        ({"amount": "-1"}, 422, "amount"),
        ({"amount": "0"}, 422, "amount"),
        ({"amount": "1.50"}, 422, "amount"),
        ({"currency": "EUR"}, 422, "currency"),
        ({"redirect_url": "http://shop.example/thanks"}, 422, "redirect_url"),
        ({"redirect_url": "javascript:alert(1)"}, 422, "redirect_url"),
    ],
)
def test_create_errors(quiet, changes, status, field):
    """A missing or malformed field is 400, a broken rule 422, and the field is named."""
    answer = quiet.ap_create(**changes)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "validation_errors"}
    assert field in answer.json()["validation_errors"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b'{"amount":"\\ud800"}', b"[" * 100_000])
def test_create_needs_json(quiet, body):
    """What is no JSON object is 400."""
    assert quiet.ap("POST", "/payment/request", content=body).status_code == 400


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422, 429, 500, 502, 503, 504])
def test_magic_rows(quiet, status):
    """Every row of the error table can be asked for, by reference and by path."""
    assert quiet.ap_create(reference_id=f"sandbox:{status}").status_code == status
    assert quiet.ap_create(reference_id=f"sandbox {status}").status_code == status
    assert quiet.ap("GET", f"/payment/request/sandbox:{status}").status_code == status


def test_unknown_ids(quiet):
    """An id that is no UUID is 400, an unknown one 404, an unknown path 404, another method 405."""
    assert quiet.ap("GET", "/payment/request/nope").status_code == 400
    assert quiet.ap("GET", f"/payment/request/{uuid.uuid4()}").status_code == 404
    assert quiet.ap("GET", "/nothing").status_code == 404
    assert quiet.ap("DELETE", "/payments").status_code == 405


def test_unknown_status(quiet):
    """A status that no page lists can be provoked."""
    assert quiet.ap_create(reference_id="sandbox:unknown_status").json()["status"] == "under_review"


def test_no_idempotency(quiet):
    """The same create twice makes two requests."""
    assert quiet.ap_create().json()["id"] != quiet.ap_create().json()["id"]


def test_payments_are_paged(quiet):
    """Payments come in the cursor envelope, forwards and backwards."""
    for _ in range(3):
        made = quiet.ap_create().json()
        assert quiet.act("alternative_payments", "payment_request", made["id"], "pay").status_code == 200
    first = quiet.ap("GET", "/payments", params={"limit": 2}).json()
    assert (len(first["data"]), first["has_next_page"], first["has_previous_page"]) == (2, True, False)
    second = quiet.ap("GET", "/payments", params={"limit": 2, "after": first["end_cursor"]}).json()
    assert second["data"][0]["id"] not in {row["id"] for row in first["data"]}
    back = quiet.ap("GET", "/payments", params={"limit": 2, "before": second["start_cursor"]}).json()
    assert back["data"] == first["data"]


def test_nested_errors():
    """The other documented nesting of errors can be chosen."""
    with scene(replace(SandboxConfig(), alternative_payments=AlternativePayments(error_shape="nested"))) as stage:
        assert stage.ap_create(amount=None).json()["error"]["message"] == "amount is required"


def test_subscriptions(quiet):
    """A webhook is subscribed with 201, listed, unsubscribed with 200, and its errors are the documented ones."""
    body = {"endpoint_url": "https://shop.example/hooks", "topic": "payment_failed", "secret_key": "s" * 20 + "abcd"}
    made = quiet.ap("POST", "/webhooks", json=body)
    assert made.status_code == 201
    assert made.json()["secret_last_4_digits"] == "abcd"
    assert "secret_key" not in made.json()
    listed = quiet.ap("GET", "/webhooks", params={"topic": "payment_failed", "is_active": "true"}).json()
    assert made.json() in listed["data"]
    for broken, status in (
        ({"topic": ""}, 400),
        ({"topic": "no_such_topic"}, 422),
        ({"endpoint_url": ""}, 400),
        ({"endpoint_url": "http://shop.example"}, 422),
        ({"secret_key": 5}, 400),
    ):
        assert quiet.ap("POST", "/webhooks", json=body | broken).status_code == status
    gone = quiet.ap("DELETE", f"/webhooks/{made.json()['id']}")
    assert (gone.status_code, gone.json()["is_active"]) == (200, False)
    assert quiet.ap("DELETE", f"/webhooks/{made.json()['id']}").status_code == 404
    assert quiet.ap("DELETE", "/webhooks/nope").status_code == 400


def test_rate_limit_is_enforced():
    """Of many calls within a second only five pass, and the sixth answers 429."""
    with scene() as stage:
        token = stage.ap_token()  # the first of the five
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: stage.ap("GET", "/payments", token=token).status_code, range(20)))
        assert statuses.count(200) == 4
        assert statuses.count(429) == 16
        assert stage.counts()["rate_limited"]["alternative_payments"] == 16


def test_rate_limit_grows_with_speed():
    """At speed 10 fifty calls pass in the first second."""
    with scene(SandboxConfig(speed=10)) as stage:
        token = stage.ap_token()
        statuses = [stage.ap("POST", "/payment/request", token=token, json=AP_BODY).status_code for _ in range(49)]
        assert statuses == [200] * 49
