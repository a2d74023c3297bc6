"""A 2xx that says nothing is an unknown outcome: told at once, with its cause, at every provider and for every call."""

import gzip
import json
import shutil
import threading

import pytest

from receipted.settings import load
from tests.support.answering import GRANTED, Answering, Reply, answering
from tests.support.api import create, error, serving
from tests.support.settings_file import write_settings
from tests.support.waiting import DEADLINE_S

PAYEE = {"name": "The Shop", "account_number": "12345678", "sort_code": "010203"}

#: By account, what is wished for there.
WISHES = {
    "payfield": {},
    "stable": {"currency": "USD", "extra": {}},
    "banked": {"currency": "GBP", "extra": {"payee": PAYEE}},
    "alternative": {"currency": "USD", "extra": {}},
}

#: Answers to a create call that name no payment, whatever their status says.
UNCLEAR = {
    "a page": Reply(200, b"<html>Just a moment...</html>"),
    "nothing": Reply(200),
    "no content": Reply(204),
    "utf-16": Reply(200, '{"id": "x"}'.encode("utf-16")),
    "latin-1": Reply(200, b'{"id": "\xe9"}'),
    "an array": Reply(200, b'[{"id": "x", "external_id": "x", "status": "pending"}]'),
    "another shape": Reply(200, b'{"result": {"id": "x", "external_id": "x", "status": "pending"}}'),
    "no id": Reply(200, b'{"status": "pending"}'),
    "an error under 200": Reply(200, b'{"code": "unauthorized", "message": "Invalid signature"}'),
    "an error object": Reply(201, b'{"error": {"code": "internal", "message": "no"}}'),
    "an id of another type": Reply(200, b'{"id": {"a": 1}, "external_id": {"a": 1}, "status": "pending"}'),
    "a number for an id": Reply(200, b'{"id": 5, "external_id": 5, "status": "pending"}'),
    "an id that is none": Reply(200, b'{"id": null, "external_id": null, "status": "pending"}'),
    "bytes": Reply(200, bytes(range(256))),
}

#: Answers that never become a message: what is kept says what was wrong with them.
UNKEPT = {
    "a redirect": Reply(302, b"", {"location": "https://elsewhere.example/"}),
    "not modified": Reply(304),
    "too large": Reply(200, b" " * (1 << 20) + b"{}"),
    "no gzip": Reply(200, b"not gzip", {"content-encoding": "gzip"}),
    "too large unpacked": Reply(200, gzip.compress(b" " * (64 << 20)), {"content-encoding": "gzip"}),
    "an encoding that was not asked for": Reply(200, b"{}", {"content-encoding": "x-unheard-of"}),
}


@pytest.fixture(scope="module")
def provider():
    with answering() as found:
        yield found


@pytest.fixture(scope="module")
def api(tmp_path_factory, template, provider: Answering):
    folder = tmp_path_factory.mktemp("unclear")
    shutil.copyfile(template, folder / "receipted.db")
    with serving(load.load(write_settings(folder, provider.url), {})) as found:
        yield found


def payment_of(api, reference):
    (found,) = api.client().get("/v1/payments", params={"reference": reference}).json()["data"]
    return found


@pytest.mark.parametrize("reply", UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("account", WISHES)
def test_a_create_answer_that_names_no_payment_is_told_at_once_and_kept(api, provider, account, reply):
    provider.answers, reference = lambda _call: reply, f"r{len(provider.calls)}"
    refused = error(create(api.client(), account=account, reference=reference, **WISHES[account]), 502)
    payment = payment_of(api, reference)
    timeline = api.client().get(f"/v1/payments/{payment['id']}/timeline").json()
    (answer,) = [message for message in timeline["messages"] if message["source"] == "create"]

    assert (refused["code"], refused["type"]) == ("answer_unclear", "api_error")
    assert payment["review"]["reason"] == "create_unknown"
    assert f"HTTP {reply.status}" in payment["review"]["note"]
    assert "unreadable: " in payment["review"]["note"]
    assert payment["review"]["note"] in refused["message"]
    assert answer["id"] in refused["message"]
    assert (answer["status"], answer["payment"]) == ("parked", payment["id"])
    assert api.client().get(f"/v1/inbox/{answer['id']}/body").content == reply.body


@pytest.mark.parametrize("reply", UNKEPT.values(), ids=UNKEPT)
@pytest.mark.parametrize("account", WISHES)
def test_a_create_answer_that_is_none_is_told_at_once(api, provider, account, reply):
    provider.answers, reference = lambda _call: reply, f"r{len(provider.calls)}"
    refused = error(create(api.client(), account=account, reference=reference, **WISHES[account]), 502)
    payment = payment_of(api, reference)

    assert refused["type"] == "api_error"
    assert payment["review"]["reason"] == "create_unknown"
    assert refused["message"] in payment["review"]["note"]


@pytest.mark.parametrize("account", ["payfield", "stable", "banked"])
def test_the_same_call_again_is_not_answered_from_what_was_unclear(api, provider, account):
    """Where a repeat is harmless, the second answer is the payment's, and the review is over."""
    reference, key = f"r{len(provider.calls)}", f"k{len(provider.calls)}"
    made = {"id": f"id-{reference}", "external_id": reference, "status": "pending", "state": "initiated"}
    provider.answers = lambda _call: Reply(200, b"<html>")
    error(create(api.client(), account=account, reference=reference, key=key, **WISHES[account]), 502)
    if account == "stable":
        made["status"] = "awaiting_payment"
    provider.answers = lambda _call: Reply(200, json.dumps(made).encode())
    again = create(api.client(), account=account, reference=reference, key=key, **WISHES[account])

    assert again.status_code == 200, again.text
    assert "idempotent-replayed" not in again.headers
    assert again.json()["provider_ref"] is not None
    assert again.json()["review"] is None


@pytest.mark.parametrize("call", ["refresh", "cancel"])
@pytest.mark.parametrize("reply", [UNCLEAR["a page"], UNCLEAR["an array"], UNKEPT["a redirect"]], ids=str)
def test_what_else_is_sent_is_not_told_as_success_either(api, provider, call, reply):
    intent = {"id": f"pi_{len(provider.calls)}", "status": "awaiting_payment", "amount": 10, "currency": "usd"}
    shown = Reply(200, json.dumps(intent).encode())
    provider.answers = lambda _call: shown
    payment = create(api.client(), account="stable", amount_minor=1000, **WISHES["stable"]).json()
    provider.answers = lambda call: reply if call.path.endswith("/cancel") or call == "refresh" else shown
    if call == "refresh":
        provider.answers = lambda _call: reply
    refused = api.client().post(f"/v1/payments/{payment['id']}/{call}")
    after = api.client().get(f"/v1/payments/{payment['id']}").json()

    assert refused.status_code in (502, 503), refused.text
    assert after["state"] == "awaiting_payment"
    if reply.status == 200:
        messages = api.client().get(f"/v1/payments/{payment['id']}/timeline").json()["messages"]
        assert "parked" in [message["status"] for message in messages], "the answer stands on the timeline"


def test_what_is_tracked_must_say_something(api, provider):
    provider.answers = lambda _call: UNCLEAR["a page"]
    tracked = api.client().post("/v1/payments/track", json={"account": "payfield", "provider_ref": "of-another"})

    assert error(tracked, 502)["code"] == "answer_unclear"


CONFLICT = Reply(409, b'{"error": {"code": "idempotency_key_conflict", "message": "in use"}}')
LIMITED = Reply(429, b"", {"retry-after": "0"})
BROKEN = Reply(500, b"{}")


@pytest.mark.parametrize(
    ("account", "reply"),
    [("stable", CONFLICT), ("banked", CONFLICT), ("payfield", LIMITED), ("stable", BROKEN)],
    ids=lambda value: value if isinstance(value, str) else str(value.status),
)
def test_an_answer_that_is_not_final_is_not_kept_under_the_key(api, provider, account, reply):
    reference, key = f"r{len(provider.calls)}", f"k{len(provider.calls)}"
    state = "awaiting_payment" if account == "stable" else "pending"
    made = {"id": f"id-{reference}", "external_id": reference, "status": state, "state": "initiated"}
    provider.answers = lambda _call: reply
    assert create(api.client(), account=account, reference=reference, key=key, **WISHES[account]).status_code >= 400
    provider.answers = lambda _call: Reply(200, json.dumps(made).encode())
    again = create(api.client(), account=account, reference=reference, key=key, **WISHES[account])

    assert again.status_code == 200, again.text
    assert "idempotent-replayed" not in again.headers


def test_whoever_came_while_the_outcome_was_unknown_is_told_it_later_under_the_same_key(api, provider):
    """Of a provider where a repeat may pay twice, so that nobody else may call meanwhile."""
    reference, came, may_go = f"r{len(provider.calls)}", threading.Event(), threading.Event()
    made = {"id": f"id-{reference}", "status": "pending", "url": "https://pay.example/1", "reference_id": reference}

    def slowly(_call):
        came.set()
        assert may_go.wait(DEADLINE_S)
        return Reply(200, json.dumps(made).encode())

    def call(key):
        return create(api.client(), account="alternative", reference=reference, key=key, **WISHES["alternative"])

    provider.answers, answers = slowly, []
    first = threading.Thread(target=lambda: answers.append(call("first")))
    first.start()
    try:
        assert came.wait(DEADLINE_S)
        assert error(call("second"), 409)["code"] == "create_outcome_unknown"
    finally:
        may_go.set()
        first.join(DEADLINE_S)
    assert [answer.status_code for answer in answers] == [200]
    second = call("second")

    assert second.status_code == 200
    assert second.json()["checkout_url"] == "https://pay.example/1"
    assert "idempotent-replayed" not in second.headers


@pytest.mark.parametrize("status", [302, 401, 403, 500, 503])
def test_a_call_that_was_never_sent_for_want_of_a_token_leaves_no_doubt(api, provider, status):
    reference, before = f"r{len(provider.calls)}-{status}", len(provider.calls)
    provider.tokens = lambda _call: Reply(status)
    with serving(api.service.settings) as anew:  # without a token of earlier tests
        refused = error(create(anew.client(), account="alternative", reference=reference, **WISHES["alternative"]), 502)
    provider.tokens = lambda _call: GRANTED
    payment = payment_of(api, reference)

    assert refused["type"] in ("api_error", "authentication_error", "authorization_error")
    assert (payment["review"], payment["state"]) == (None, "not_created")
    assert len(provider.calls) == before
