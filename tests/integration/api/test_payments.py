"""Payments over the API: each call's good and bad ways, at a provider that is played over real HTTP."""

import json

import pytest

from api.credentials import Environment
from service.permissions import KeyScope
from storage.ids import new_id
from tests.support.api import create, error, wish


def test_a_payment_is_created_at_the_provider_and_told(api):
    made = create(api.client(), reference="order-1")

    assert made.status_code == 200
    payment = made.json()
    assert payment["object"] == "payment"
    assert (payment["reference"], payment["phase"], payment["environment"]) == ("order-1", "open", "test")
    assert (payment["amount_minor"], payment["amount"], payment["currency"]) == (50_000, "500.00", "BDT")
    assert payment["checkout_url"].startswith("http")
    assert payment["created_at"].endswith("Z")
    assert api.client().get(f"/v1/payments/{payment['id']}").json() == payment


def test_the_same_reference_is_the_same_payment_whatever_the_key(api):
    client = api.client()
    first, second = (create(client, reference="order-2", key=key) for key in ("one", "two"))

    assert first.json()["id"] == second.json()["id"]
    assert len(client.get("/v1/payments").json()["data"]) == 1


def test_a_currency_in_small_letters_is_the_same_currency(api):
    assert create(api.client(), currency="bdt").json()["currency"] == "BDT"


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"account": "nobody"}, 404, "unknown_account", "account"),
        ({"account": "shop-live"}, 403, "environment_mismatch", None),
        ({"amount_minor": 0}, 400, "invalid_value", "amount_minor"),
        ({"amount_minor": "500"}, 400, "invalid_value", "amount_minor"),
        ({"amount_minor": 10**16}, 400, "invalid_value", "amount_minor"),
        ({"amount_minor": 1.5}, 400, "invalid_value", "amount_minor"),
        ({"amount_minor": True}, 400, "invalid_value", "amount_minor"),
        ({"amount_minor": None}, 400, "invalid_value", "amount_minor"),
        ({"currency": "BD"}, 400, "invalid_value", "currency"),
        ({"currency": "€€€"}, 400, "invalid_value", "currency"),
        ({"reference": ""}, 400, "invalid_value", "reference"),
        ({"reference": "a\x00b"}, 400, "invalid_value", "reference"),
        ({"reference": "x" * 201}, 400, "invalid_value", "reference"),
        ({"return_url": "javascript:alert(1)"}, 400, "invalid_value", "return_url"),
        ({"amounts": 5}, 400, "unknown_field", "amounts"),
        ({"extra": []}, 400, "invalid_value", "extra"),
        ({"kind": "gift"}, 422, "invalid_command", "kind"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_wish_is_named(shared, changes, status, code, param):
    refused = error(create(shared.client(), **changes), status)

    assert (refused["code"], refused["param"]) == (code, param)
    assert shared.client().get("/v1/payments").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"\xff\xfe", "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 400, "invalid_value"),
        (b"null", "application/json", 400, "invalid_value"),
        (b"[" * 100_000, "application/json", 400, "invalid_json"),
        (b'{"reference": "\\ud800"}', "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "missing_body"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", None, 415, "unsupported_media_type"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"x" * 300_000, "application/json", 413, "body_too_large"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_body_that_is_none_is_refused(shared, body, media_type, status, code):
    headers = {"idempotency-key": "k", **({"content-type": media_type} if media_type else {})}
    answer = shared.client().post("/v1/payments", content=body, headers=headers)

    assert error(answer, status)["code"] == code


def test_json_in_utf_8_may_be_said_to_be_so(api):
    headers = {"idempotency-key": "k", "content-type": "application/json; charset=utf-8"}

    assert api.client().post("/v1/payments", json=wish(), headers=headers).status_code == 200


def test_a_refusal_of_the_provider_keeps_its_type_and_has_the_status_of_it(api):
    refused = error(create(api.client(), extra={}), 422)

    assert refused["type"] == "invalid_request_error"
    (payment,) = api.client().get("/v1/payments").json()["data"]
    assert (payment["state"], payment["phase"]) == ("not_created", "failed")


def test_a_provider_that_cannot_be_reached_is_a_bad_gateway_and_nothing_is_lost(api):
    client = api.client(api.key(environment=Environment.LIVE))
    refused = error(create(client, account="shop-live", reference="away"), 502)

    assert refused["type"] == "api_error"
    (payment,) = client.get("/v1/payments", params={"reference": "away"}).json()["data"]
    assert payment["account"] == "shop-live"


def test_a_payment_of_elsewhere_is_tracked(api):
    made = create(api.client()).json()
    body = {"account": "payfield", "provider_ref": made["provider_ref"]}

    assert api.client().post("/v1/payments/track", json=body).json()["id"] == made["id"]
    missing = api.client().post("/v1/payments/track", json={**body, "provider_ref": "nothing-of-that-name"})
    assert error(missing, 404)["type"] == "not_found_error"


def test_a_payment_is_refreshed_and_cancelled(api):
    client = api.client()
    made = create(client, account="stable", currency="USD", extra={}).json()

    assert client.post(f"/v1/payments/{made['id']}/refresh").json()["asked_at"] is not None
    assert client.post(f"/v1/payments/{made['id']}/cancel").json()["phase"] == "cancelled"
    assert client.post(f"/v1/payments/{made['id']}/cancel", json={}).json()["phase"] == "cancelled"


def test_a_person_resolves_with_a_reason_and_a_name(api):
    client = api.client(api.key(KeyScope.OPERATE, KeyScope.READ, KeyScope.WRITE, name="back office"))
    made = create(client).json()
    url = f"/v1/payments/{made['id']}/resolve"

    assert error(client.post(url, json={"state": "success"}), 400)["param"] == "reason"
    assert error(client.post(url, json={"state": "success", "reason": "  "}), 400)["param"] == "reason"
    assert error(client.post(url, json={"state": "heaven", "reason": "r"}), 422)["param"] == "state"
    done = client.post(url, json={"state": "success", "reason": "seen in the bank", "by": "Ada L."})
    assert done.json()["phase"] == "paid"
    timeline = client.get(f"/v1/payments/{made['id']}/timeline").json()
    (action,) = timeline["actions"]
    assert (action["actor"], action["action"]) == ("Ada L. (key back office)", "resolve")
    assert [link["actor"] for link in timeline["transitions"]][-1] == "Ada L. (key back office)"
    assert [owed["effect"] for owed in timeline["outbox"]] == ["payment.paid"]
    assert [entry["of"] for entry in timeline["entries"]].count("action") == 1
    assert timeline["entries"] == sorted(timeline["entries"], key=lambda entry: entry["at"])


def test_the_history_and_its_proof_are_told(api):
    client = api.client()
    made = create(client).json()
    links = client.get(f"/v1/payments/{made['id']}/transitions").json()
    proof = client.get(f"/v1/payments/{made['id']}/proof").json()

    assert [(link["number"], link["to_state"], link["prev_hash"]) for link in links["data"]] == [(1, "pending", "")]
    assert (proof["holds"], proof["messages"], proof["transitions"], proof["faults"]) == (True, 2, 1, [])
    exported = client.get(f"/v1/payments/{made['id']}/export")
    assert exported.headers["content-type"] == "application/x-ndjson"
    tables = sorted(json.loads(line)["table"] for line in exported.text.splitlines())
    about = ["decision", "decision", "inbox_message", "inbox_message", "payment", "payment_poll", "transition"]
    assert tables == about


def test_a_payment_that_was_tampered_with_is_proved_wrong(api):
    client = api.client()
    made = create(client).json()
    with api.service.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE payment SET amount_minor = 1")
    proof = client.get(f"/v1/payments/{made['id']}/proof").json()

    assert not proof["holds"]
    assert [fault["problem"] for fault in proof["faults"]] == [
        "what is kept of the payment has changed",
        "by its messages its amount_minor is 50000, and 1 is kept",
    ]


@pytest.mark.parametrize("path", ["", "/transitions", "/timeline", "/proof", "/export"])
def test_what_is_not_there_and_what_is_another_environments(api, path):
    client = api.client()
    (live,) = api.payments(account="shop-live")
    (gone,) = api.payments(account="not-configured-any-more")

    assert error(client.get(f"/v1/payments/{new_id()}{path}"), 404)["code"] == "payment_not_found"
    assert error(client.get(f"/v1/payments/{gone.id}{path}"), 404)["code"] == "unknown_account"
    assert error(client.get(f"/v1/payments/{live.id}{path}"), 403)["code"] == "environment_mismatch"
    assert error(client.get(f"/v1/payments/no-id{path}"), 404)["code"] == "payment_not_found"


@pytest.mark.parametrize("call", ["refresh", "cancel", "resolve"])
def test_nobody_changes_a_payment_of_the_other_environment(api, call):
    (live,) = api.payments(account="shop-live")
    body = {"state": "success", "reason": "r"} if call == "resolve" else {}

    assert error(api.client().post(f"/v1/payments/{live.id}/{call}", json=body), 403)["code"] == "environment_mismatch"


def test_an_id_may_be_written_in_capitals(api):
    (payment,) = api.payments()

    assert api.client().get(f"/v1/payments/{payment.id.upper()}").json()["id"] == payment.id
