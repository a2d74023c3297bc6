"""A repeat under an Idempotency-Key: answered as the first call was, in parallel too, and after a crash done anew."""

from collections import Counter
from datetime import timedelta

import pytest

from api.application import operations
from api.credentials import Environment
from api.errors import KeyInUse, TooManyRequests, as_refusal
from api.idempotency import LEASE, RETENTION, digest_of, is_final
from providers.errors import ProviderError, UnsupportedByProvider
from service.errors import (
    AnswerUnclear,
    CancelNotSent,
    CancelUnanswered,
    CreateUnanswered,
    InvalidCommand,
    NotNamedYet,
    ReferenceConflict,
    StillApplying,
)
from statemachine.errors import ServiceError
from storage import idempotency, inbox
from storage.errors import LeaseLost, StorageUnavailable
from storage.idempotency import Answered
from tests.support.api import create, error, in_parallel, wish


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request):
    return request.getfixturevalue("api" if request.param == "sqlite" else "api_on_postgresql")


def creates(api):
    """How many answers of the provider's create call were recorded."""
    with api.service.database.read() as unit:
        return len(inbox.find(unit, source="create", limit=1000))


def post(client, body, key="k"):
    return client.post("/v1/payments", json=body, headers={"idempotency-key": key})


def test_a_repeat_gets_the_first_answer_and_does_nothing(api):
    client, body = api.client(), wish()
    first = post(client, body)
    with api.service.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE payment SET reference = 'changed meanwhile'")
    again = post(client, dict(reversed(list(body.items()))))

    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert creates(api) == 1


def test_a_create_call_needs_a_key(api):
    refused = error(api.client().post("/v1/payments", json=wish()), 400)

    assert (refused["code"], refused["param"]) == ("idempotency_key_missing", "Idempotency-Key")


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a b"])
def test_a_key_is_visible_and_not_too_long(shared, key):
    assert error(post(shared.client(), wish(), key), 400)["param"] == "Idempotency-Key"


def test_the_same_key_with_other_content_is_a_conflict(api):
    client, body = api.client(), wish()
    post(client, body)

    assert error(post(client, {**body, "amount_minor": 1}), 409)["code"] == "idempotency_key_conflict"
    track = client.post(
        "/v1/payments/track", json={"account": "payfield", "provider_ref": "x"}, headers={"idempotency-key": "k"}
    )
    assert error(track, 409)["code"] == "idempotency_key_conflict"


def test_keys_are_those_of_an_environment_and_not_of_one_api_key(api):
    body = wish()
    first = post(api.client(), body)

    assert post(api.client(api.key(name="rotated")), body).headers["idempotent-replayed"] == "true"
    live = post(api.client(api.key(environment=Environment.LIVE)), body)
    assert error(live, 403)["code"] == "environment_mismatch"
    assert first.status_code == 200


def test_a_final_refusal_is_repeated_too(api):
    client, body = api.client(), wish(extra={})
    first, again = post(client, body), post(client, body)

    refused, repeated = dict(error(first, 422)), dict(error(again, 422))
    assert refused.pop("request_id") != repeated.pop("request_id")
    assert refused == repeated
    assert again.headers["idempotent-replayed"] == "true"
    assert creates(api) == 1


def test_what_says_try_again_is_done_again(api):
    client = api.client(api.key(environment=Environment.LIVE))
    body = {"account": "shop-live", "provider_ref": "of-a-provider-that-is-away"}
    calls = [client.post("/v1/payments/track", json=body, headers={"idempotency-key": "k"}) for _ in range(2)]

    assert [call.status_code for call in calls] == [502, 502]
    assert "idempotent-replayed" not in calls[1].headers


def test_parallel_calls_are_one_call(either):
    body, keys = wish(), [either.key() for _ in range(6)]
    clients = [either.client(key) for key in keys]
    answers = in_parallel(6, lambda at: post(clients[at], body))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotent-replayed") for answer in answers) == {None: 1, "true": 5}
    assert creates(either) == 1


def test_parallel_calls_of_other_content_are_refused(either):
    reference, clients = wish()["reference"], [either.client() for _ in range(5)]
    answers = in_parallel(5, lambda at: post(clients[at], wish(reference=reference, amount_minor=100 + at)))
    codes = Counter(answer.status_code for answer in answers)

    assert codes == {200: 1, 409: 4}
    assert creates(either) == 1


def test_parallel_calls_with_keys_of_their_own_are_one_payment(either):
    body, clients = wish(), [either.client() for _ in range(5)]
    answers = in_parallel(5, lambda at: post(clients[at], body, key=f"k{at}"))
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 200}

    assert len(ids) == 1
    assert {answer.status_code for answer in answers} <= {200, 409}


@pytest.mark.parametrize("skew", [timedelta(0), timedelta(milliseconds=-50), timedelta(minutes=-1)], ids=str)
def test_a_clock_that_is_behind_takes_no_claim_over(api, skew):
    now, lease = api.service.clock(), LEASE
    for at, token in ((now, 1), (now + skew, None)):
        with api.service.database.write() as unit:
            found = idempotency.begin(unit, "test", "k", "d", at, lease=lease, keep=RETENTION)
        assert found.token == token


def claim(api, key, body, *, at):
    """As a process does that dies before it answers."""
    found = {"kind": None, "return_url": None, **body}
    operation = next(o for o in operations() if o.operation_id == "create_payment")
    model = operation.body_model.model_validate(found)

    digest = digest_of(operation.operation_id, {}, model)
    with api.service.database.write() as unit:
        return idempotency.begin(unit, "test", key, digest, at, lease=LEASE, keep=RETENTION)


def test_while_the_first_call_lasts_a_repeat_is_told_so(api, monkeypatch):
    monkeypatch.setattr("api.idempotency.WAIT_S", 0.2)
    body = wish()
    assert claim(api, "k", body, at=api.service.clock()).token == 1

    refused = error(post(api.client(), body), 409)
    assert (refused["code"], refused["type"]) == ("idempotency_key_in_use", "conflict_error")
    assert creates(api) == 0


def test_a_repeat_after_a_crash_does_it(api):
    body = wish()
    died_at = api.service.clock() - LEASE - timedelta(seconds=1)
    assert claim(api, "k", body, at=died_at).token == 1

    assert post(api.client(), body).status_code == 200
    assert creates(api) == 1


def test_a_key_is_forgotten_after_a_day(api):
    body = wish()
    long_ago = api.service.clock() - RETENTION - timedelta(seconds=1)
    standing = claim(api, "k", body, at=long_ago)
    with api.service.database.write() as unit:
        idempotency.finish(unit, "test", "k", standing.token, Answered(200, "{}"), long_ago)
        assert idempotency.sweep(unit, api.service.clock() - timedelta(days=2)) == 0

    other = post(api.client(), wish())
    assert other.status_code == 200
    assert "idempotent-replayed" not in other.headers


def test_every_other_change_may_have_a_key(api):
    client = api.client()
    made = create(client).json()
    headers = {"idempotency-key": "r"}
    first = client.post(f"/v1/payments/{made['id']}/refresh", headers=headers)
    again = client.post(f"/v1/payments/{made['id']}/refresh", headers=headers)

    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"


REFUSED_FOR_EVER = {
    "another payment's reference": ReferenceConflict(),
    "the provider's refusal": ProviderError("no", type="invalid_request_error", http_status=422),
    "no such call": UnsupportedByProvider(),
    "no such state": InvalidCommand(),
}
NOT_FINAL = {
    "an outcome that is not known": CreateUnanswered(),
    "an answer that says nothing": AnswerUnclear(),
    "a cancel that nobody knows of": CancelUnanswered(),
    "nothing was sent yet": CancelNotSent(),
    "not named yet": NotNamedYet(),
    "not applied yet": StillApplying(),
    "in use here": KeyInUse(),
    "in use at the provider": ProviderError("in use", type="conflict_error", http_status=409),
    "in doubt at the provider": ProviderError("no", type="invalid_request_error", http_status=422, is_ambiguous=True),
    "no answer": ProviderError("no answer", is_ambiguous=True),
    "broken": ProviderError("broken", type="api_error", http_status=500),
    "too early": ProviderError("early", type="invalid_request_error", http_status=425, may_retry=True),
    "too fast here": TooManyRequests(),
    "too fast at the provider": ProviderError("slow down", type="rate_limit_error", http_status=429),
    "storage": StorageUnavailable(),
    "a bug": ServiceError(),
}


@pytest.mark.parametrize("error", REFUSED_FOR_EVER.values(), ids=REFUSED_FOR_EVER)
def test_what_nothing_can_change_is_kept(error):
    assert is_final(as_refusal(error))


@pytest.mark.parametrize("error", NOT_FINAL.values(), ids=NOT_FINAL)
def test_what_a_repeat_may_not_meet_is_not_kept(error):
    assert not is_final(as_refusal(error))


def test_whoever_was_overtaken_keeps_nothing(api):
    now, lease = api.service.clock(), timedelta(minutes=1)
    database = api.service.database
    with database.write() as unit:
        first = idempotency.begin(unit, "test", "k", "d", now, lease=lease, keep=RETENTION)
    with database.write() as unit:
        second = idempotency.begin(unit, "test", "k", "d", now + 2 * lease, lease=lease, keep=RETENTION)
    with pytest.raises(LeaseLost), database.write() as unit:
        idempotency.finish(unit, "test", "k", first.token, Answered(200, "late"), now)
    with database.write() as unit:
        idempotency.release(unit, "test", "k", first.token)
        idempotency.finish(unit, "test", "k", second.token, Answered(200, "right"), now)
        found = idempotency.begin(unit, "test", "k", "d", now, lease=lease, keep=RETENTION)

    assert found.answered == Answered(200, "right")
