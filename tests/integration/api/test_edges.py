"""The edges of the API: paths, methods, HTTPS, request ids, how fast a key may call, and what a bug looks like."""

import io
import json

import httpx2
import pytest

from receipted import logs, settings
from storage.errors import StorageUnavailable
from tests.integration.api.rig import create, error, serving
from tests.integration.cli.conftest import forget_logs
from tests.integration.cli.settings import LIVE_ACCOUNT, write_settings

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
    found = settings.load(path, {})
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
    found = settings.load(path, {"RECEIPTED_SERVICE__DATABASE": database.url})
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
    monkeypatch.setattr("storage.api_rates.Remembered.take", away)
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

    monkeypatch.setattr("storage.listing.payments", broken)
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
