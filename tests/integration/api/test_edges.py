"""The edges of the API: paths, methods, HTTPS, request ids, how fast a key may call, and what a bug looks like."""

import io
import json

import httpx2
import pytest

from api.application import operations
from api.validation import MAX_FAULTS
from receipted import logs
from receipted.settings import load
from storage.errors import StorageUnavailable
from tests.integration.cli.conftest import forget_logs
from tests.support.api import create, error, serving, wish
from tests.support.settings_file import LIVE_ACCOUNT, write_settings

SOME = "01a1fdca-6b5b-712f-b9f0-87ef6d7b7107"


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/payments/", "/v1//payments", "/v1/%0A"])
def test_a_path_with_nothing_there(shared, path):
    assert error(shared.client().get(path), 404)["code"] == "unknown_path"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/payments", "GET, HEAD, POST"),
        ("PUT", f"/v1/payments/{SOME}", "GET, HEAD"),
        ("GET", f"/v1/payments/{SOME}/cancel", "POST"),
        ("OPTIONS", "/v1/events", "GET, HEAD"),
        ("QUERY", "/v1/events", "GET, HEAD"),
    ],
)
def test_a_method_that_the_path_does_not_take(shared, method, path, allowed):
    answer = shared.client().request(method, path)

    assert error(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == allowed


def test_head_is_get_without_a_body(shared):
    client = shared.client()
    head, got = client.head("/v1/accounts"), client.get("/v1/accounts")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))


def test_a_get_takes_no_body_and_a_change_without_a_form_takes_none(api):
    (payment,) = api.payments()

    refused = api.client().post(f"/v1/payments/{payment.id}/refresh", json={"a": 1})
    assert error(refused, 400)["code"] == "unknown_field"


def test_every_answer_names_its_request(shared):
    client = shared.client()
    ids = [client.get("/v1/accounts").headers["x-request-id"] for _ in range(3)]

    assert len(set(ids)) == 3
    assert error(client.get("/v1/nothing"), 404)["request_id"] not in ids


def test_plain_http_is_refused_before_the_key_is_looked_at(tmp_path, sandbox_url, template):
    path = write_settings(tmp_path, sandbox_url, extra=LIVE_ACCOUNT)
    (tmp_path / "receipted.db").write_bytes(template.read_bytes())
    text = path.read_text().replace("development = true", "development = true\ntrusted_proxies = ['127.0.0.0/8']")
    path.write_text(text)
    found = load.load(path, {})
    insecure = found.model_copy(update={"service": found.service.model_copy(update={"development": False})})
    with serving(insecure) as api:
        refused = httpx2.get(f"{api.base_url}/v1/accounts", headers={"authorization": "Bearer nonsense"})
        assert error(refused, 403)["code"] == "https_required"
        secure = api.client(headers={"x-forwarded-proto": "https"}).get("/v1/accounts")
        assert secure.status_code == 200


def test_a_key_that_is_too_fast_is_told_when_to_go_on(slow):
    client, other = slow.client(slow.key()), slow.client(slow.key())
    answers = [client.get("/v1/accounts") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}
    assert error(answers[3], 429)["code"] == "rate_limit_exceeded"
    assert 0 < int(answers[3].headers["retry-after"]) <= 30
    assert 60 < int(answers[3].headers["x-ratelimit-reset"]) <= 90
    assert other.get("/v1/accounts").status_code == 200


def test_services_on_one_postgresql_share_a_keys_limit(tmp_path, sandbox_url, postgresql):
    database = postgresql.cleaned()
    bounds = "\n[api]\nburst = 5\nrequests_per_second = 0.01\n"
    path = write_settings(tmp_path, sandbox_url, extra=LIVE_ACCOUNT + bounds)
    found = load.load(path, {"RECEIPTED_SERVICE__DATABASE": database.url})
    with serving(found) as one, serving(found) as other:
        key = one.key()
        clients = [api.client(key) for api in (one, other)]
        answers = [client.get("/v1/accounts") for client in clients * 3]
        assert other.client().get("/v1/accounts").status_code == 200  # another key
    database.close()

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    assert 0 < int(answers[5].headers["retry-after"]) <= 100
    assert 400 < int(answers[5].headers["x-ratelimit-reset"]) <= 500


def test_a_count_that_the_database_cannot_take_is_told_as_anything_that_it_cannot_do(api, monkeypatch):
    def away(*_):
        raise StorageUnavailable("the database refused")

    client = api.client()
    monkeypatch.setattr("storage.token_buckets.LocalBuckets.take", away)
    answer = client.get("/v1/accounts")

    assert error(answer, 503)["code"] == "storage_unavailable"
    assert int(answer.headers["retry-after"]) > 0


def test_a_database_that_is_away_is_told_with_when_to_come_again(api, monkeypatch):
    def away():
        raise StorageUnavailable("the database refused")

    client = api.client()
    monkeypatch.setattr(api.service.database, "read", away)
    answer = client.get("/v1/accounts")

    assert error(answer, 503)["code"] == "storage_unavailable"
    assert int(answer.headers["retry-after"]) > 0


@pytest.fixture
def logged():
    """What the process logs, as it does in production."""
    lines = io.StringIO()
    logs.configure("info", "json", lines)
    yield lines
    forget_logs()


def test_a_bug_is_an_internal_error_without_a_word_of_what_it_was(api, monkeypatch, logged):
    def broken(*_args, **_options):
        raise RuntimeError("a card number 4242424242424242")

    monkeypatch.setattr("storage.search.payments", broken)
    answer = api.client().get("/v1/payments")

    refused = error(answer, 500)
    assert refused["code"] == "internal"
    assert "4242" not in answer.text
    (line,) = [json.loads(line) for line in logged.getvalue().splitlines() if '"request.failed"' in line]
    assert line["request_id"] == refused["request_id"]
    assert "4242" not in json.dumps(line)


def test_no_secret_and_no_payload_is_logged(api, logged):
    client = api.client()
    extra = {"merchant_user_id": "secret-of-a-customer", "merchant_user_ip": "192.0.2.1"}
    made = create(client, reference="logged-nowhere-77", extra=extra).json()
    client.get("/v1/payments", params={"reference": "logged-nowhere-77"})
    key = client.post("/v1/keys", json={"name": "n", "scopes": ["read"]}).json()["key"]
    client.get("/v1/nothing")
    written = logged.getvalue()

    assert "request.refused" in written
    assert made["id"] in written
    for secret in (key, client.headers["authorization"].split()[1], "secret-of-a-customer", "logged-nowhere-77"):
        assert secret not in written


@pytest.mark.parametrize(
    "operation", [each for each in operations() if "{id}" in each.path], ids=lambda operation: operation.operation_id
)
def test_an_id_that_nothing_has_is_told_of_its_resource_whatever_its_form(shared, operation):
    """As one of the right form that nothing has: the path is there, and the thing is not."""
    client = shared.client()
    body = {"reason": "r", "state": "paid"} if operation.operation_id == "resolve_payment" else {"reason": "r"}
    options = {"json": body} if operation.body_model is not None and operation.operation_id != "rotate_key" else {}
    if operation.operation_id in ("capture_payment", "refund_payment"):
        options = {"json": {}, "headers": {"idempotency-key": "of-nothing"}}
    for given in ("nope", "%2e%2e", SOME[:-1], f"{SOME}0", "%00", "0"):
        answer = client.request(operation.method, operation.path.replace("{id}", given), **options)
        refused = error(answer, 404)
        assert (refused["type"], refused["code"]) == ("not_found_error", operation.resource.missing), given
        assert refused["param"] == "id"
        assert f"no {operation.resource.words} of this id" in refused["message"]
    if operation.operation_id == "rotate_key":
        options = {"json": {}}
    whole = error(client.request(operation.method, operation.path.replace("{id}", SOME), **options), 404)
    assert whole["code"] in (operation.resource.missing, "outbox_message_not_dead")


def test_an_id_is_looked_at_after_the_key(shared):
    refused = httpx2.get(f"{shared.base_url}/v1/payments/nope")

    assert error(refused, 401)["code"] == "api_key_missing"


@pytest.mark.parametrize(
    ("path", "meant"), [("/v1/payment", "/v1/payments"), ("/v1/payments/", "/v1/payments"), ("/v1/zzz", None)]
)
def test_a_path_that_is_nearly_one_is_told_which(shared, path, meant):
    refused = error(shared.client().get(path), 404)

    assert (f"did you mean {meant}?" in refused["message"]) is (meant is not None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("amount", "amount_minor"),
        ("amountMinor", "amount_minor"),
        ("ref", "reference"),
        ("currency_", "currency"),
        ("returnUrl", "return_url"),
    ],
)
def test_a_field_that_is_nearly_one_is_told_which(shared, given, meant):
    refused = error(create(shared.client(), **{given: "x"}), 400)

    assert (refused["code"], refused["param"]) == ("unknown_field", given)
    assert f"did you mean {meant}?" in refused["message"]


def test_a_field_that_is_near_to_none_is_told_what_there_is(shared):
    refused = error(create(shared.client(), zzz=1), 400)

    assert "account, amount_minor, currency, reference, kind, return_url, extra" in refused["message"]


def test_all_that_is_wrong_with_a_request_is_told_at_once(shared):
    """Of the query, of the headers and of the body; the first stands where every error has its words."""
    body = {"accounts": "payfield", "amount_minor": -1, "currency": "BD", "extra": 7}
    refused = error(shared.client().post("/v1/payments?limit=3&limit=4", json=body), 400)

    assert {(fault["where"], fault["code"], fault["param"]) for fault in refused["errors"]} == {
        ("header", "idempotency_key_missing", "Idempotency-Key"),
        ("query", "repeated_field", "limit"),
        ("query", "unknown_field", "limit"),
        ("body", "missing_field", "account"),
        ("body", "unknown_field", "accounts"),
        ("body", "invalid_value", "amount_minor"),
        ("body", "invalid_value", "currency"),
        ("body", "missing_field", "reference"),
        ("body", "invalid_value", "extra"),
    }


def test_all_that_is_wrong_with_a_query_is_told_at_once(shared):
    query = {"limit": "many", "after": "x", "phase": "payed", "accounts": "payfield"}
    refused = error(shared.client().get("/v1/payments", params=query), 400)

    assert sorted(fault["param"] for fault in refused["errors"]) == ["accounts", "after", "limit", "phase"]
    assert {fault["where"] for fault in refused["errors"]} == {"query"}


def test_more_faults_than_anybody_reads_are_not_all_told(shared):
    body = {f"field_{number}": number for number in range(200)}
    refused = error(shared.client().post("/v1/payments", json=body, headers={"idempotency-key": "many"}), 400)

    assert len(refused["errors"]) == MAX_FAULTS
    assert len(json.dumps(refused)) < 20_000


def test_no_value_that_was_given_is_in_what_is_told(shared):
    body = {**wish(), "amount_minor": "4242424242424242", "kind": ["secret-of-a-customer"], "zz": "secret-too"}
    answer = shared.client().post("/v1/payments?x=secret-as-well", json=body)

    assert error(answer, 400)["errors"]
    assert "secret" not in answer.text
    assert "4242" not in answer.text
