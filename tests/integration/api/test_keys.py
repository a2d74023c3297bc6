"""API keys: who may call, what for, and when that ends; over HTTP, the command line and the API itself."""

import base64
from datetime import timedelta
from hashlib import sha256

import httpx2
import pytest

from api.application import operations
from api.credentials import Environment
from service.permissions import KeyScope
from storage import api_keys
from storage.ids import new_id
from tests.support.api import error


def bare(api, headers=None):
    client = httpx2.Client(base_url=api.base_url, headers=headers or {})
    api.clients.append(client)
    return client


def record(api, key):
    with api.service.database.read() as unit:
        found = api_keys.by_digest(unit, sha256(key.encode()).hexdigest())
    assert found is not None
    return found


def test_a_key_is_a_bearer_token_or_the_user_name_of_basic(api):
    key = api.key()
    basic = base64.b64encode(f"{key}:".encode()).decode()

    for header in (f"Bearer {key}", f"bearer {key}", f"Basic {basic}"):
        assert bare(api, {"authorization": header}).get("/v1/accounts").status_code == 200
    assert httpx2.get(f"{api.base_url}/v1/accounts", auth=(key, "")).status_code == 200


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "api_key_missing"),
        ("Digest x", "api_key_missing"),
        ("Bearer", "api_key_invalid"),
        ("Bearer rk_test_" + "A" * 43, "api_key_invalid"),
        ("Bearer rk_test_short", "api_key_invalid"),
        ("Bearer rk_test_" + "A" * 10_000, "api_key_invalid"),
        ("Basic !!!", "api_key_invalid"),
        ("Basic /////w==", "api_key_invalid"),
    ],
)
def test_whoever_has_no_key_learns_nothing(shared, header, code):
    answer = bare(shared, {"authorization": header} if header else {}).get(f"/v1/payments/{new_id()}")

    assert error(answer, 401)["code"] == code
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "x-ratelimit-limit" not in answer.headers


def test_a_key_that_ended_and_one_that_was_revoked_are_unknown_alike(api):
    now = api.service.clock()
    ended = api.key(expires_at=now)
    revoked = api.key()
    assert api.client(revoked).get("/v1/accounts").status_code == 200
    with api.service.database.write() as unit:
        api_keys.revoke(unit, record(api, revoked).id, now)

    told = [error(api.client(key).get("/v1/accounts"), 401) for key in (ended, revoked, "rk_test_" + "B" * 43)]
    assert len({(refused["code"], refused["message"]) for refused in told}) == 1


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.operation_id)
def test_each_operation_needs_its_scope_and_no_other(shared, operation):
    path = operation.path.replace("{id}", new_id()).replace("{account}", "payfield")
    others = [scope for scope in KeyScope if scope is not operation.scope]
    call = {"method": operation.method, "url": path, "json": {} if operation.method == "POST" else None}

    assert error(shared.client(shared.key(*others)).request(**call), 403)["code"] == "scope_missing"
    answer = shared.client(shared.key(operation.scope)).request(**call)
    assert answer.status_code != 403, answer.text


def test_only_a_digest_of_a_key_is_kept(api):
    key = api.key()
    with api.service.database.engine.connect() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM api_key").mappings()

    assert key not in str(dict(row))
    assert key[20:] not in str(dict(row))
    assert key.startswith(row["prefix"])


def test_the_last_use_is_written_once_a_minute(api):
    key = api.key()
    client = api.client(key)
    now = api.service.clock()
    api.service.clock = lambda: now
    client.get("/v1/accounts")
    first = record(api, key).last_used_at
    client.get("/v1/accounts")

    assert first is not None
    assert record(api, key).last_used_at == first
    with api.service.database.write() as unit:
        api_keys.note_use(unit, record(api, key).id, first + timedelta(seconds=59))
    assert record(api, key).last_used_at == first
    with api.service.database.write() as unit:
        api_keys.note_use(unit, record(api, key).id, first + timedelta(seconds=60))
    assert record(api, key).last_used_at == first + timedelta(seconds=60)


def test_keys_make_rotate_and_revoke_keys(api):
    admin = api.client(api.key(KeyScope.ADMIN))
    made = admin.post("/v1/keys", json={"name": "shop", "scopes": ["read"], "expires_in_days": 30}).json()
    shop = api.client(made["key"])
    assert shop.get("/v1/accounts").status_code == 200
    assert made["key"].startswith(made["prefix"])

    rotated = admin.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_seconds": 3600}).json()
    assert (rotated["name"], rotated["scopes"]) == ("shop", ["read"])
    assert shop.get("/v1/accounts").status_code == 200
    assert api.client(rotated["key"]).get("/v1/accounts").status_code == 200

    revoked = admin.post(f"/v1/keys/{made['id']}/revoke").json()
    assert revoked["revoked_at"] is not None
    assert error(shop.get("/v1/accounts"), 401)["code"] == "api_key_invalid"
    assert api.client(rotated["key"]).get("/v1/accounts").status_code == 200

    listed = admin.get("/v1/keys").json()["data"]
    assert [key["replaced_by"] for key in listed] == [None, rotated["id"], None]
    assert made["key"] not in admin.get("/v1/keys").text


def test_a_rotation_without_overlap_ends_the_old_key_at_once(api):
    admin, old = api.client(api.key(KeyScope.ADMIN)), api.key()
    answer = admin.post(f"/v1/keys/{record(api, old).id}/rotate", json={"overlap_seconds": 0})

    assert answer.status_code == 200
    assert error(api.client(old).get("/v1/accounts"), 401)["code"] == "api_key_invalid"


def test_a_rotation_never_prolongs_a_key(api):
    soon = api.service.clock() + timedelta(minutes=1)
    old = api.key(expires_at=soon)
    api.client().post(f"/v1/keys/{record(api, old).id}/rotate", json={"overlap_seconds": 86_400})

    assert record(api, old).expires_at == soon


def test_a_key_makes_keys_of_its_own_environment_only(api):
    live = api.key(environment=Environment.LIVE)
    admin = api.client()
    made = admin.post("/v1/keys", json={"name": "n", "scopes": ["admin"]}).json()

    assert made["environment"] == "test"
    assert record(api, live).id not in [key["id"] for key in admin.get("/v1/keys").json()["data"]]
    for call in ("rotate", "revoke"):
        answer = admin.post(f"/v1/keys/{record(api, live).id}/{call}", json={})
        assert error(answer, 403)["code"] == "environment_mismatch"


def test_a_secret_of_a_key_is_never_kept_as_an_answer(api):
    admin = api.client()
    body = {"name": "n", "scopes": ["read"]}
    made = [admin.post("/v1/keys", json=body, headers={"idempotency-key": "k"}).json() for _ in range(2)]

    assert made[0]["key"] != made[1]["key"]
    with api.service.database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM idempotency_key").scalar() == 0
