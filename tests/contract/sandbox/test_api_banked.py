"""Banked's calls in both versions, as its pages describe them."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sandbox.config import Banked, SandboxConfig

from .stage import BK, BK_BODY, basic, eventually, scene


def codes(answer):
    """The codes of the errors array."""
    return [error["code"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    "header",
    [None, "Basic !!!", basic("stranger", BK.secret), basic(BK.key, "wrong"), "Bearer nobody", "nonsense"],
)
def test_authentication(quiet, header):
    """Every call without the right credentials is 401 unauthorized."""
    headers = {"Authorization": header} if header else {}
    for method, path in (
        ("POST", "/v2/payment_sessions"),
        ("GET", "/v2/payment_sessions/x"),
        ("DELETE", "/v2/payment_sessions/x"),
        ("POST", "/v3/payins"),
        ("GET", "/v3/payins/x"),
        ("POST", "/v2/webhooks"),
        ("POST", "/v2/refunds"),
        ("GET", "/v2/payouts/x"),
    ):
        answer = quiet.client.request(method, f"{quiet.url}/banked{path}", headers=headers)
        assert (answer.status_code, codes(answer)) == (401, ["unauthorized"])


def token(stage, user=BK.key, secret=BK.secret, grant="client_credentials", scope=BK.application_id):
    """The answer of the token call."""
    data = {"grant_type": grant, "scope": scope}
    return stage.client.post(f"{stage.url}/banked/oauth/token", auth=(user, secret), data=data)


def test_oauth(quiet):
    """A token lasts two hours and opens every call; wrong credentials are 401, other scopes invalid_business."""
    answer = token(quiet)
    assert (answer.status_code, answer.json()["expires_in"], answer.json()["token_type"]) == (200, 7200, "Bearer")
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert quiet.client.get(f"{quiet.url}/banked/v2/payment_sessions", headers=headers).status_code == 200
    assert token(quiet, secret="wrong").status_code == 401
    assert codes(token(quiet, grant="password")) == ["invalid_request"]
    assert codes(token(quiet, scope="other")) == ["invalid_business"]


def test_session_create_fetch_list_delete(quiet):
    """A session is created with 201 and its total, found, listed, and deleted into failed."""
    made = quiet.bk_create()
    assert made.status_code == 201
    session = made.json()
    expected = {"state": "awaiting_provider", "amount": 400, "currency": "GBP", "reference": "order 1", "live": False}
    assert expected.items() <= session.items()
    assert session["created_at"].endswith(" UTC")
    assert "latest_error" not in session
    path = f"/v2/payment_sessions/{session['id']}"
    assert quiet.bk("GET", path).json() == session
    assert session in quiet.bk("GET", "/v2/payment_sessions").json()
    gone = quiet.bk("DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    after = quiet.bk("GET", path).json()
    assert (after["state"], after["state_reason"]) == ("failed", "UNKNOWN")
    assert codes(quiet.bk("DELETE", path)) == ["invalid_action"]


def test_delete_can_remove():
    """Where it is configured so, a deleted session is not found any more."""
    with scene(replace(SandboxConfig(), banked=Banked(delete_result="removed"))) as stage:
        path = f"/v2/payment_sessions/{stage.bk_create().json()['id']}"
        assert stage.bk("DELETE", path).status_code == 204
        assert (stage.bk("GET", path).status_code, codes(stage.bk("GET", path))) == (404, ["session_not_found"])
        assert stage.bk("GET", "/v2/payment_sessions").json() == []
        assert [row["state"] for row in stage.truth()] == ["deleted"]


def test_delete_is_forbidden_at_the_bank(quiet):
    """Once the bank has the request, DELETE is invalid_action."""
    session = quiet.bk_create().json()["id"]
    for _ in range(2):
        assert quiet.act("banked", "payment_session", session, "step").status_code == 200
    assert quiet.bk("GET", f"/v2/payment_sessions/{session}").json()["state"] == "initiated"
    assert codes(quiet.bk("DELETE", f"/v2/payment_sessions/{session}")) == ["invalid_action"]


ITEM = BK_BODY["line_items"][0]


@pytest.mark.parametrize(
    ("changes", "code", "parameter"),
    [
        ({"line_items": None, "currency": "GBP"}, "missing_amount_or_line_items", "amount"),
        ({"line_items": None, "amount": 5}, "missing_currency_or_line_items", "currency"),
        ({"line_items": None, "amount": 0, "currency": "GBP"}, "invalid_amount", "amount"),
        ({"line_items": None, "amount": 1.5, "currency": "GBP"}, "invalid_amount", "amount"),
        ({"line_items": None, "amount_cents": -5, "currency": "GBP"}, "invalid_amount_cents", "amount_cents"),
        ({"line_items": None, "amount": 5, "currency": "ZZZ"}, "invalid_currency", "currency"),
        ({"line_items": [ITEM | {"amount": 0}]}, "invalid_line_items.amount_cents", "line_items.amount_cents"),
        ({"line_items": "x"}, "invalid_request", "line_items"),
        ({"line_items": [ITEM | {"description": "x" * 141}]}, "invalid_description", "line_items.description"),
        ({"reference": "x" * 19}, "invalid_reference", "reference"),
        ({"reference": "a-b"}, "invalid_reference", "reference"),
        ({"description": 5}, "invalid_description", "description"),
        ({"success_url": "http://shop.example"}, "invalid_success_url", "success_url"),
        ({"error_url": "shop"}, "invalid_error_url", "error_url"),
        ({"email_receipt": "yes"}, "invalid", "email_receipt"),
        ({"payee": "x"}, "invalid_payee", "payee"),
        ({"payee": {"name": ""}}, "invalid_payee_name", "payee.name"),
        ({"payee": {"name": "S", "account_number": "1"}}, "invalid_payee_account_identifier", "payee.account_number"),
        ({"payer": {"email": "nobody"}}, "invalid_payer_email", "payer.email"),
        ({"bank_account_id": "other"}, "invalid_bank_account", "bank_account_id"),
        ({"expiration": "soon"}, "invalid_expiration_format", "expiration"),
        ({"expiration": "2001-01-01T00:00:00Z"}, "invalid_expiration", "expiration"),
    ],
)
def test_session_errors(quiet, changes, code, parameter):
    """Every code that a create can meet is met by natural input, in S4's shape."""
    answer = quiet.bk_create(**changes)
    assert answer.status_code == 400
    assert {"code": code, "source": {"parameter": parameter}} == {
        name: value for name, value in answer.json()["errors"][0].items() if name != "title"
    }


def test_all_errors_are_named(quiet):
    """A body that breaks two rules gets two errors."""
    assert codes(quiet.bk_create(reference="a-b", error_url="x")) == ["invalid_reference", "invalid_error_url"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b" " * (2 << 20)])
def test_decoding(quiet, body):
    """What is no JSON object, or too large, is `decoding`."""
    assert codes(quiet.bk("POST", "/v2/payment_sessions", content=body)) == ["decoding"]


S4 = [
    "invalid_action",
    "unauthorized",
    "bad_request",
    "invalid_error_url",
    "invalid_success_url",
    "invalid_reference",
    "invalid_description",
    "invalid_request",
    "invalid",
    "invalid_payee_account_identifier",
    "invalid_payer_email",
    "invalid_amount",
    "invalid_currency",
    "invalid_line_items.amount_cents",
    "missing_amount_or_line_items",
    "missing_currency_or_line_items",
    "invalid_amount_cents",
    "invalid_bank_account",
    "invalid_payee_name",
    "not_found",
    "session_not_found",
    "invalid_payee",
    "invalid_expiration",
    "invalid_expiration_format",
    "invalid_business",
    "invalid_idempotency_key",
    "decoding",
    "internal",
    "method_not_allowed",
]
REFUND_PAGES = [
    "forbidden",
    "idempotency_conflict",
    "Processing",
    "rate_limit_exceeded",
    "internal_error",
    "service_unavailable",
]
STATUS = {
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "session_not_found": 404,
    "method_not_allowed": 405,
    "invalid_action": 409,
    "invalid_idempotency_key": 409,
    "idempotency_conflict": 409,
    "Processing": 409,
    "rate_limit_exceeded": 429,
    "internal": 500,
    "internal_error": 500,
    "service_unavailable": 503,
}


@pytest.mark.parametrize("code", S4 + REFUND_PAGES)
def test_magic_rows(quiet, code):
    """Every code of S4 and of the refund pages can be asked for, by reference and by path."""
    for answer in (
        quiet.bk_create(reference=f"sandbox {code}"),
        quiet.bk("GET", f"/v2/payment_sessions/sandbox:{code}"),
    ):
        assert (answer.status_code, codes(answer)) == (STATUS.get(code, 400), [code])


@pytest.mark.parametrize(("number", "code"), list(enumerate(S4, 1)))
def test_short_magic_rows(quiet, number, code):
    """Every code has a number that fits into 18 characters."""
    assert codes(quiet.bk_create(reference=f"sandbox e{number}")) == [code]


def test_newer_error_shape(quiet):
    """Payins and refunds write errors as code, message and params, and name internal errors their own way."""
    broken = quiet.bk("POST", "/v3/payins", json={"amount": 0, "currency": "AUD"})
    assert broken.status_code == 400
    assert set(broken.json()["errors"][0]) == {"code", "message", "params"}
    body = {"amount": 5, "currency": "AUD"}
    body |= {"payment_identification": {"end_to_end_identification": "sandbox internal"}}
    assert codes(quiet.bk("POST", "/v3/payins", json=body)) == ["internal_error"]


def test_paths(quiet):
    """An unknown path is 404 and a known one with another method 405."""
    assert codes(quiet.bk("GET", "/v2/nothing")) == ["not_found"]
    answer = quiet.bk("PUT", "/v2/payment_sessions")
    assert (answer.status_code, codes(answer)) == (405, ["method_not_allowed"])


def test_partial_success(quiet):
    """A create whose action fails names the session that it made, and that session exists."""
    for changes in (
        {"actions": [{"action_type": "create_mandate_attempt", "mandate_id": "other"}]},
        {"actions": [{"action_type": "dance"}]},
        {"reference": "sandbox partial"},
    ):
        answer = quiet.bk_create(**changes)
        assert answer.status_code == 422
        assert codes(answer)[0] in {"not_found", "invalid_action"}
        (success,) = answer.json()["successes"]
        assert success["resource_type"] == "payment"
        assert quiet.bk("GET", f"/v2/payment_sessions/{success['resource_id']}").status_code == 200
    good = {"actions": [{"action_type": "create_mandate_attempt", "mandate_id": BK.mandates[0]}]}
    assert quiet.bk_create(**good).status_code == 201


def test_idempotency_replays(quiet):
    """The same key and body get the stored answer, 2xx and 4xx alike, and nothing is made twice."""
    first, again = quiet.bk_create("k-1"), quiet.bk_create("k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    bad = quiet.bk_create("k-2", reference="a-b")
    assert bad.content == quiet.bk_create("k-2", reference="a-b").content
    session = quiet.bk_create().json()["id"]
    for _ in range(2):
        assert quiet.bk("DELETE", f"/v2/payment_sessions/{session}", "k-3").status_code == 204


def test_idempotency_conflicts(quiet):
    """Another body or path under a used key is 409, in the words of the version."""
    quiet.bk_create("k-4")
    conflict = quiet.bk_create("k-4", reference="other")
    assert (conflict.status_code, codes(conflict)) == (409, ["invalid_idempotency_key"])
    newer = quiet.bk("POST", "/v3/payins", "k-4", json={"amount": 5, "currency": "AUD"})
    assert (newer.status_code, codes(newer)) == (409, ["idempotency_conflict"])
    assert codes(quiet.bk_create("x" * 256)) == ["invalid_idempotency_key"]


def test_idempotency_does_not_store_failures(quiet):
    """429, 5xx and Processing are answered afresh every time."""
    for code in ("429", "500", "503", "Processing"):
        key = str(uuid.uuid4())
        first = quiet.bk_create(key, reference=f"sandbox {code}")
        assert first.status_code in {429, 500, 503, 409}
        assert quiet.bk_create(key).status_code == 201


def test_parallel_calls_with_one_key(quiet):
    """While a call is being processed, another with its key is 409 Processing, and later the stored answer."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: quiet.bk_create("k-5", reference="sandbox slow"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert {codes(answer)[0] for answer in answers if answer.status_code == 409} == {"Processing"}
    made = next(answer for answer in answers if answer.status_code == 201)
    assert quiet.bk_create("k-5", reference="sandbox slow").content == made.content


def test_latest_error_comes_and_goes(quiet):
    """latest_error is absent, then an object, then null, and the state does not change by it."""
    session = quiet.bk_create().json()["id"]
    path = f"/v2/payment_sessions/{session}"
    quiet.act("banked", "payment_session", session, "error", code="ALIAS_PAYER_NOT_FOUND")
    shown = quiet.bk("GET", path).json()
    assert (shown["latest_error"]["code"], shown["state"]) == ("ALIAS_PAYER_NOT_FOUND", "awaiting_provider")
    quiet.act("banked", "payment_session", session, "resolve")
    shown = quiet.bk("GET", path).json()
    assert "latest_error" in shown
    assert shown["latest_error"] is None


@pytest.mark.parametrize(("action", "reason"), [("decline", "BANK_REJECTED"), ("expire", "PAYMENT_EXPIRED")])
def test_state_reason(quiet, action, reason):
    """A failed session says why, in state_reason and in latest_error."""
    session = quiet.bk_create().json()["id"]
    assert quiet.act("banked", "payment_session", session, action).json() == {"state": "failed"}
    shown = quiet.bk("GET", f"/v2/payment_sessions/{session}").json()
    assert (shown["state_reason"], shown["latest_error"]["code"]) == (reason, reason)


def test_payin_walk(quiet):
    """A payin walks its states in capitals; the control cancels it only before the bank has it."""
    body = {"amount": 700, "currency": "AUD", "checkout_config": {"redirect_url": "https://shop.example/back"}}
    made = quiet.bk("POST", "/v3/payins", json=body)
    assert made.status_code == 201
    assert made.json()["status_details"] == {"status": "CREATED", "reason": None}
    identifier = made.json()["id"]
    assert quiet.act("banked", "payin", identifier, "pay").json() == {"state": "SENT"}
    states = [state for state, _ in quiet.truth(identifier)["history"]]
    assert states == ["CREATED", "AWAITING_AUTHORIZATION", "INITIATED", "PENDING", "SENT"]
    assert quiet.act("banked", "payin", identifier, "cancel").status_code == 409
    other = quiet.bk("POST", "/v3/payins", json=body).json()["id"]
    assert quiet.act("banked", "payin", other, "cancel").json() == {"state": "CANCELED"}
    assert quiet.bk("GET", f"/v3/payins/{other}").json()["status_details"]["status"] == "CANCELED"
    assert {identifier, other} <= {row["id"] for row in quiet.bk("GET", "/v3/payins").json()["data"]}


def test_refunds(quiet):
    """Only sent money is refunded, never more than was sent, and a failed refund frees its share."""
    session = quiet.bk_create().json()["id"]
    assert codes(quiet.bk("POST", "/v2/refunds", json={"payment_id": "nobody"})) == ["not_found"]
    assert codes(quiet.bk("POST", "/v2/refunds", json={"payment_id": session})) == ["invalid_action"]
    quiet.act("banked", "payment_session", session, "pay")
    part = quiet.bk("POST", "/v2/refunds", json={"payment_id": session, "amount": 300})
    assert (part.status_code, part.json()["state"]) == (201, "awaiting_payment")
    over = quiet.bk("POST", "/v3/refunds", json={"payment_id": session, "amount": 101})
    assert codes(over) == ["invalid_amount"]
    assert quiet.act("banked", "refund", part.json()["id"], "decline").json() == {"state": "failed"}
    whole = quiet.bk("POST", "/v2/refunds", json={"payment_id": session}).json()
    assert whole["amount"] == 400
    moved = quiet.act("banked", "refund", whole["id"], "move", state="externally processed")
    assert moved.json() == {"state": "externally processed"}
    assert quiet.bk("GET", f"/v2/refunds/{whole['id']}").json()["state"] == "externally processed"
    assert quiet.act("banked", "payment_session", session, "refund").status_code == 200


def test_payouts(quiet):
    """A payout is created pending, found, and sent or cancelled."""
    made = quiet.bk("POST", "/v2/payouts", json={"amount": 9, "currency": "GBP", "payee": {"name": "Jo"}})
    assert (made.status_code, made.json()["state"]) == (201, "pending")
    assert quiet.act("banked", "payout", made.json()["id"], "cancel").json() == {"state": "canceled"}
    assert quiet.bk("GET", f"/v2/payouts/{made.json()['id']}").json()["state"] == "canceled"
    assert codes(quiet.bk("POST", "/v2/payouts", json={})) == ["invalid_amount", "invalid_currency", "invalid_payee"]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_webhook_registration(quiet, version):
    """Five distinct webhooks per event are taken in each version, the sixth is refused until one is deleted."""
    path, made = f"/{version}/webhooks", []
    for number in range(5):
        body = {"target_url": f"https://shop.example/{number}", "events": ["payment_failed"]}
        answer = quiet.bk("POST", path, json=body)
        assert answer.status_code == 201
        made.append(answer.json()["id"])
    sixth = {"target_url": "https://shop.example/6", "events": ["payment_failed", "payment_sent"]}
    assert codes(quiet.bk("POST", path, json=sixth)) == ["invalid_request"]
    assert quiet.bk("DELETE", f"{path}/{made[0]}").status_code == 204
    assert codes(quiet.bk("DELETE", f"{path}/{made[0]}")) == ["not_found"]
    assert quiet.bk("POST", path, json=sixth).status_code == 201
    listed = quiet.bk("GET", path).json()
    assert len(listed if version == "v2" else listed["data"]) == 5
    for broken in ({"target_url": "http://shop.example"}, {"events": []}, {"events": ["dance"]}, {"signature_key": ""}):
        assert codes(quiet.bk("POST", path, json=sixth | broken)) == ["invalid_request"]


def test_expiry():
    """An expiration in the near future ends the session as failed, but never once the bank has it."""
    with scene(SandboxConfig(speed=5_000)) as stage:
        idle, busy = stage.bk_create().json()["id"], stage.bk_create().json()["id"]
        for _ in range(2):
            stage.act("banked", "payment_session", busy, "step")
        started = time.monotonic()
        eventually(lambda: stage.truth(idle)["state"] == "failed")
        assert time.monotonic() - started < 5
        assert stage.truth(busy)["state"] == "initiated"
