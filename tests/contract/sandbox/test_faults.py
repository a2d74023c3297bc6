"""Every fault happens as described, is counted, and happens again with the same seed."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest

from sandbox.config import AlternativePayments, Faults, Payers, SandboxConfig

from .stage import AP_BODY, BK_BODY, eventually, is_signed, scene


def paid(stage, count=1, provider="stable_genius"):
    """So many intents or sessions, paid one after the other."""
    for number in range(count):
        if provider == "stable_genius":
            ref = stage.sg_create(metadata={"reference": f"r{number}"}).json()["id"]
            stage.act(provider, "payment_intent", ref, "pay")
        else:
            ref = stage.bk_create(reference=f"r{number}").json()["id"]
            stage.act(provider, "payment_session", ref, "pay")
    stage.settled()


def test_lose(endpoint):
    """A lost event is never sent."""
    with scene(SandboxConfig(faults=Faults(lose=1))) as stage:
        stage.hook("stable_genius", endpoint.url)
        paid(stage)
        assert endpoint.posts() == []
        assert stage.outcomes("stable_genius") == {"lost": 2}


def test_lose_all(endpoint):
    """Of a provider that is silent nothing is ever sent; another's events come as ever."""
    with scene(SandboxConfig(lose_all=("stable_genius",))) as stage:
        for provider in ("stable_genius", "banked"):
            stage.hook(provider, endpoint.url)
            paid(stage, 1, provider)
        assert stage.outcomes("stable_genius") == {"lost": 2}
        assert len(endpoint.posts()) == stage.outcomes("banked")["delivered"] > 0


def test_duplicate(endpoint):
    """A duplicated event comes two or three times with the same body, each validly signed."""
    with scene(SandboxConfig(faults=Faults(duplicate=1))) as stage:
        stage.hook("stable_genius", endpoint.url)
        paid(stage, 4)
        bodies = [hook.body for hook in endpoint.posts()]
        assert {bodies.count(body) for body in bodies} == {2, 3}
        assert all(is_signed("stable_genius", hook) for hook in endpoint.posts())
        assert stage.outcomes("stable_genius")["duplicated"] == 8


def test_delay(endpoint):
    """A delayed event comes later than its state, and is counted."""
    with scene(SandboxConfig(speed=100, faults=Faults(delay=1, delay_seconds=20))) as stage:
        stage.hook("stable_genius", endpoint.url)
        paid(stage, 3)
        assert len(endpoint.posts()) == 6
        assert stage.outcomes("stable_genius")["delayed"] == 6


def test_reorder(endpoint):
    """A held event really arrives after its successor."""
    with scene(SandboxConfig(faults=Faults(reorder=1))) as stage:
        stage.hook("banked", endpoint.url)
        ref = stage.bk_create().json()["id"]
        stage.act("banked", "payment_session", ref, "step")
        stage.act("banked", "payment_session", ref, "step")
        stage.act("banked", "payment_session", ref, "step")
        stage.settled()
        assert [hook.json["state"] for hook in endpoint.posts()] == ["pending", "initiated"]
        assert stage.outcomes("banked")["reordered"] == 1


def test_reorder_holds_no_event_for_ever(endpoint):
    """A held event without a successor comes when its hold is over, and is not counted as reordered."""
    with scene(SandboxConfig(speed=1000, faults=Faults(reorder=1))) as stage:
        stage.hook("payfield", endpoint.url)
        stage.pf_create(external_id="r")
        stage.act("payfield", "payin", "r", "pay")
        stage.settled()
        assert len(endpoint.posts()) == 1
        assert "reordered" not in stage.outcomes("payfield")


@pytest.mark.parametrize(
    ("fault", "provider"),
    [
        ("corrupt_signature", "stable_genius"),
        ("corrupt_signature", "banked"),
        ("stale_timestamp", "stable_genius"),
        ("stale_timestamp", "banked"),
    ],
)
def test_bad_first_attempts(endpoint, fault, provider):
    """The first attempt does not verify, and the retry after its refusal does."""
    with scene(SandboxConfig(speed=100, faults=Faults(**{fault: 1}))) as stage:
        stage.hook(provider, endpoint.url)
        tried = {}

        def answer(_number, _headers, body):
            tried[body] = tried.get(body, 0) + 1
            return 401 if tried[body] == 1 else 200

        endpoint.answer = answer
        paid(stage, 2, provider)
        hooks = endpoint.posts()
        assert [is_signed(provider, hook) for hook in hooks] == [hook.answered == 200 for hook in hooks]
        outcomes = stage.outcomes(provider)
        name = "corrupted" if fault == "corrupt_signature" else "stale"
        assert outcomes[name] == outcomes["refused"] == outcomes["delivered"]
        assert f"{name}_accepted" not in outcomes


def test_accepting_what_is_bad_is_counted(endpoint):
    """A receiver that takes a wrong signature, an old timestamp or a forgery is found out."""
    with scene(SandboxConfig(faults=Faults(corrupt_signature=1, forge=1))) as stage:
        stage.hook("stable_genius", endpoint.url)
        paid(stage)
        outcomes = stage.outcomes("stable_genius")
        assert outcomes["corrupted_accepted"] == outcomes["corrupted"] == 2
        assert outcomes["forged_accepted"] == outcomes["forged"] == 2


@pytest.mark.parametrize("provider", ["alternative_payments", "stable_genius", "payfield", "banked"])
def test_forge(endpoint, provider):
    """A forgery claims money in a well-formed body and does not verify; the true event comes as well."""
    with scene(SandboxConfig(faults=Faults(forge=1))) as stage:
        stage.hook(provider, endpoint.url)
        if provider == "alternative_payments":
            ref = stage.ap_create().json()["id"]
            stage.act(provider, "payment_request", ref, "attempt_fails")
        elif provider == "stable_genius":
            stage.act(provider, "payment_intent", stage.sg_create().json()["id"], "expire")
        elif provider == "payfield":
            stage.pf_create(external_id="r")
            stage.act(provider, "payin", "r", "decline")
        else:
            stage.act(provider, "payment_session", stage.bk_create().json()["id"], "decline")
        stage.settled()
        true, forged = endpoint.posts()
        assert is_signed(provider, true)
        try:
            assert not is_signed(provider, forged)
        except ValueError:
            assert provider != "alternative_payments"  # no timestamp at all to read
        text = json.dumps(forged.json)
        assert any(word in text for word in ('"succeeded"', '"confirmed"', '"success"', '"sent"'))


def test_replay_with_other_content(endpoint):
    """The replay has the same event id, another amount and a valid signature."""
    with scene(SandboxConfig(faults=Faults(replay_other_content=1))) as stage:
        stage.hook("stable_genius", endpoint.url)
        paid(stage)
        true, replayed = endpoint.posts()[:2]
        assert true.json["id"] == replayed.json["id"]
        assert true.json["data"]["amount"] != replayed.json["data"]["amount"]
        assert is_signed("stable_genius", replayed)
        assert stage.outcomes("stable_genius")["replayed_other_content"] == 2


@pytest.mark.parametrize(("action", "state"), [("expire", "expired"), ("cancel", "canceled"), ("decline", "failed")])
def test_late_money(endpoint, action, state):
    """Money comes after the end, and Payfield illegally turns success."""
    with scene(SandboxConfig(speed=1000, faults=Faults(late_money=1))) as stage:
        stage.hook("payfield", endpoint.url)
        stage.pf_create(external_id="r")
        stage.act("payfield", "payin", "r", action)
        stage.settled()
        truth = stage.truth("r")
        assert [name for name, _ in truth["history"]] == ["pending", state, "success"]
        assert (truth["ever_paid"], truth["late_money"]) == (True, True)
        assert [hook.json["status"] for hook in endpoint.posts()] == [state, "success"]


@pytest.mark.parametrize(
    ("fault", "statuses", "is_made"),
    [
        ("api_429", {429}, {False}),
        ("api_500", {500}, {False}),
        ("api_502_503_504", {502, 503, 504}, {False, True}),
    ],
)
def test_api_refusals(fault, statuses, is_made):
    """A refused call answers in the provider's words; only gateway errors may hide a call that was processed."""
    with scene() as stage:
        stage.client.put(stage.url + "/_control/faults", json={fault: 1})
        answers = [stage.bk_create(reference=f"r{number}") for number in range(20)]
        assert {answer.status_code for answer in answers} <= statuses
        assert all(answer.json()["errors"] for answer in answers)
        made = {row["reference"] for row in stage.truth()}
        assert {f"r{number}" in made for number in range(20)} == is_made
        counted = stage.counts()["requests"]["banked"]
        assert sum(counted.values()) == 20
        assert stage.sg_create().status_code in statuses


def test_payfield_has_no_429():
    """Payfield, whose table has no 429, never answers one."""
    with scene(SandboxConfig(faults=Faults(api_429=1))) as stage:
        assert stage.pf_create().status_code == 201


def test_rate_limit_fault_names_its_reset():
    """Stable Genius' 429 by fault carries X-RateLimit-Reset as well."""
    with scene(SandboxConfig(faults=Faults(api_429=1))) as stage:
        assert int(stage.sg_create().headers["X-RateLimit-Reset"]) > 1_700_000_000


def test_api_timeout():
    """The call is processed, its answer withheld until the client gives up; a repeat with the key finds it."""
    with scene() as stage:
        stage.client.put(stage.url + "/_control/faults", json={"api_timeout": 1})
        with pytest.raises(httpx2.ReadTimeout):
            stage.bk("POST", "/v2/payment_sessions", "k-1", json=BK_BODY, timeout=0.2)
        stage.client.put(stage.url + "/_control/faults", json={"api_timeout": 0})
        (row,) = stage.truth()
        assert stage.bk_create("k-1").json()["id"] == row["ref"]
        assert stage.counts()["requests"]["banked"] == {"timeout": 1, "201": 1}


def test_api_timeout_ends():
    """A client that is patient gets a 504 when the hang is over."""
    with scene(SandboxConfig(faults=Faults(api_timeout=1, api_timeout_seconds=0.05))) as stage:
        assert stage.bk_create().status_code == 504


def test_api_slow():
    """A slow call is answered correctly, after its wait."""
    with scene(SandboxConfig(faults=Faults(api_slow=1, api_slow_seconds=0.2))) as stage:
        answer = stage.sg_create()
        assert answer.status_code == 201
        assert answer.elapsed.total_seconds() >= 0.2


def story(seed, order):
    """What was delivered and what became of everything, for payments created in this order."""
    faults = Faults(lose=0.2, duplicate=0.2, corrupt_signature=0.2, forge=0.2, replay_other_content=0.2)
    config = SandboxConfig(seed=seed, speed=2000, faults=faults, payers=Payers(sigma=0.1, expire=0))
    config = replace(config, alternative_payments=AlternativePayments(requests_per_second=10_000))
    with scene(config) as stage:
        for provider in ("stable_genius", "banked"):
            stage.hook(provider, "http://127.0.0.1:1/")
        for number in order:
            stage.sg_create(metadata={"reference": f"r{number}"})
            stage.bk_create(reference=f"r{number}")
        eventually(lambda: all(row["state"] not in {"awaiting_payment", "awaiting_provider"} for row in stage.truth()))
        truth = {(row["provider"], row["reference"]): (row["ref"], row["history"][1][0]) for row in stage.truth()}
        eventually(lambda: len({row["name"] for row in stage.journal()}) >= len(order) * 2 - 4)
        lost = {row["name"] for row in stage.journal() if row["fault"] == "lost"}
        sent = {row["name"] for row in stage.journal() if row["fault"] != "lost"}
        forged = {row["name"] for row in stage.journal() if row["fault"] == "forged"}
        return truth, lost, sent, forged


def test_the_seed_reproduces():
    """The same seed gives the same ids, payers and faults in whatever order things come; another seed does not."""
    first, second, other = story(1, range(12)), story(1, range(11, -1, -1)), story(2, range(12))
    assert first[0] == second[0]
    assert first[0] != other[0]
    assert first[1]
    for lost, sent in ((first[1], second[2]), (second[1], first[2])):
        assert not lost & sent


def test_one_fault_does_not_shift_another():
    """Switching a fault on leaves the choices of the others as they were."""
    from sandbox.faults import Dice

    names = [f"event-{number}" for number in range(200)]
    alone, both = Dice(3, Faults(lose=0.3)), Dice(3, Faults(lose=0.3, duplicate=0.5, forge=0.5))
    assert [alone.event(name).lose for name in names] == [both.event(name).lose for name in names]
    assert 20 < sum(alone.event(name).lose for name in names) < 100


@pytest.mark.parametrize("broken", [{"lose": 2}, {"lose": -1}, {"lose": "x"}, {"nothing": 1}])
def test_faults_are_checked(quiet, broken):
    """A fault that does not exist or is no probability is 400 and changes nothing."""
    before = quiet.client.get(quiet.url + "/_control/faults").json()
    assert quiet.client.put(quiet.url + "/_control/faults", json=broken).status_code == 400
    assert quiet.client.get(quiet.url + "/_control/faults").json() == before


def test_calls_in_parallel_are_counted():
    """Every request is counted under its provider and status."""
    config = replace(SandboxConfig(), alternative_payments=AlternativePayments(requests_per_second=10_000))
    with scene(config) as stage, ThreadPoolExecutor(8) as pool:
        token = stage.ap_token()
        list(pool.map(lambda _: stage.ap("POST", "/payment/request", token=token, json=AP_BODY), range(40)))
        assert stage.counts()["requests"]["alternative_payments"] == {"200": 41}
        assert len(stage.truth()) == 40
