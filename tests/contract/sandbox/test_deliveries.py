"""Webhooks arrive signed as the dossiers say, in the documented shapes, and are retried as documented."""

from dataclasses import replace

import pytest

from sandbox.config import SandboxConfig

from .stage import AP, PF, eventually, is_signed, mac, scene

PROVIDERS = ("alternative_payments", "stable_genius", "payfield", "payfield_old", "banked")


def make(stage, provider, reference="r1", **changes):
    """A fresh resource of this provider, as kind and ref."""
    if provider == "alternative_payments":
        return "payment_request", stage.ap_create(reference_id=reference, **changes).json()["id"]
    if provider == "stable_genius":
        return "payment_intent", stage.sg_create(metadata={"reference": reference}, **changes).json()["id"]
    if provider == "banked":
        return "payment_session", stage.bk_create(reference=reference, **changes).json()["id"]
    old = provider == "payfield_old"
    return "payin", stage.pf_create(old=old, external_id=reference, **changes).json()["external_id"]


def test_the_oracle_knows_the_dossiers_vectors():
    """The oracle reproduces the vectors that were computed outside this project's code."""
    key = "f063a7029d6b959d8cc11e23148a302929da113a6b0671238ab9d1bcfb63645a"
    body = b'{"id":"a6941fd1-f5cb-4948-814d-df03540149fb","state":"sent"}'
    want = "cba6e90da3fad4c2e6044fe4508b655822eb2769c2c69a8885c439fcc96d6002"
    assert mac(key, b"1572540334." + body).hex() == want
    want = "d8c12d0efcf72022ffb0f647a17319f541c874ebe51d91828cf11f8a62ad333e"
    assert mac("whsec_test", b'1711929612.{"id":"evt_pi_conf_001"}').hex() == want
    body = b'{"id":12345,"external_id":"PAY-BDT-001","status":"success"}'
    want = "eb2eec24a0bc14487976b7e4775e41804f7a9d275521133f27f9511b3c248976"
    assert mac("test_webhook_secret", b"2025-12-05T10:15:00Z" + body).hex() == want


@pytest.mark.parametrize("provider", PROVIDERS)
def test_signed(endpoint, provider):
    """Every delivery verifies with the provider's scheme and the configured secret, and with no other."""
    with scene() as stage:
        stage.hook(provider, endpoint.url + "/in")
        kind, ref = make(stage, provider)
        assert stage.act(provider, kind, ref, "pay").status_code == 200
        stage.settled()
        hooks = endpoint.posts()
        assert hooks
        for hook in hooks:
            assert hook.headers["content-type"] == "application/json"
            assert is_signed(provider, hook)
            assert not is_signed(provider, hook, "another_secret_of_16_bytes")
        assert stage.outcomes(provider) == {"delivered": len(hooks)}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_secrets_of_ones_own(endpoint, provider):
    """A secret given at registration is the one that signs."""
    with scene() as stage:
        stage.hook(provider, endpoint.url, secret="a_secret_of_my_own")
        kind, ref = make(stage, provider)
        stage.act(provider, kind, ref, "pay")
        stage.settled()
        assert all(is_signed(provider, hook, "a_secret_of_my_own") for hook in endpoint.posts())


def test_alternative_payments_body(endpoint):
    """A paid request tells of its Payment; without a secret nothing authenticates it; the log keeps it."""
    with scene(replace(SandboxConfig(), alternative_payments=replace(AP, requests_per_second=1000))) as stage:
        body = {"endpoint_url": endpoint.url, "topic": "payment_succeeded"}
        subscription = stage.ap("POST", "/webhooks", json=body).json()
        request = stage.ap_create().json()["id"]
        stage.act("alternative_payments", "payment_request", request, "attempt_fails")
        stage.act("alternative_payments", "payment_request", request, "pay")
        stage.settled()
        (hook,) = endpoint.posts()
        assert "authorization" not in hook.headers
        assert hook.json["topic"] == "payment_succeeded"
        assert {"total": 12.5, "payment_request_id": request, "reference_id": "order-1"}.items() <= hook.json[
            "data"
        ].items()
        events = stage.ap("GET", "/webhooks/events", params={"topic": "payment_failed"}).json()["data"]
        assert [event["topic"] for event in events] == ["payment_failed"]
        stage.ap("DELETE", f"/webhooks/{subscription['id']}")
        stage.act("alternative_payments", "payment_request", stage.ap_create().json()["id"], "pay")
        stage.settled()
        assert len(endpoint.posts()) == 1


def test_stable_genius_events(endpoint):
    """Each end of an intent has its event in the documented envelope, and settlement has one of its own."""
    with scene() as stage:
        stage.hook("stable_genius", endpoint.url)
        for action in ("cancel", "expire", "pay"):
            _, ref = make(stage, "stable_genius", action)
            stage.act("stable_genius", "payment_intent", ref, action)
        stage.act("stable_genius", "payment_intent", ref, "settle")
        stage.act("stable_genius", "payment_intent", ref, "settle_fails")
        stage.settled()
        events = [hook.json for hook in endpoint.posts()]
        kinds = [event["type"] for event in events]
        assert sorted(kinds) == [
            "payment_intent.cancelled",
            "payment_intent.confirmed",
            "payment_intent.expired",
            "settlement.completed",
            "settlement.failed",
            "transaction.created",
        ]
        for event in events:
            assert set(event) == {"id", "object", "type", "api_version", "created_at", "data"}
            assert (event["object"], event["api_version"], event["id"][:4]) == ("event", "2026-04-01", "evt_")
        assert len({event["id"] for event in events}) == len(events)
        expired = events[kinds.index("payment_intent.expired")]["data"]
        names = {"id", "object", "status", "amount", "currency", "merchant_id", "expired_at", "metadata"}
        assert set(expired) == names


def test_stable_genius_late_money(endpoint):
    """Money after the end shows only as a transaction without an intent; the intent stays as it was."""
    with scene() as stage:
        stage.hook("stable_genius", endpoint.url)
        _, ref = make(stage, "stable_genius")
        assert stage.act("stable_genius", "payment_intent", ref, "late_pay").status_code == 409
        stage.act("stable_genius", "payment_intent", ref, "cancel")
        assert stage.act("stable_genius", "payment_intent", ref, "late_pay").json() == {"state": "cancelled"}
        stage.settled()
        last = endpoint.posts()[-1].json
        assert (last["type"], last["data"]["payment_intent"]) == ("transaction.created", None)
        truth = stage.truth(ref)
        assert (truth["ever_paid"], truth["late_money"]) == (False, True)


def test_environments_have_endpoints_of_their_own(endpoint):
    """An endpoint for the test environment hears nothing of live intents."""
    with scene() as stage:
        stage.hook("stable_genius", endpoint.url, kind="test")
        live = stage.sg_create("sk_live_sandbox_0001").json()["id"]
        stage.act("stable_genius", "payment_intent", live, "pay")
        stage.settled()
        assert endpoint.posts() == []


def test_payfield_callbacks(endpoint):
    """Each change is one callback without an event field; the request's URL comes before the shop's."""
    with scene() as stage:
        stage.hook("payfield", endpoint.url + "/shop", kind="payout")
        make(stage, "payfield", "own", callback_url=endpoint.url + "/own")
        stage.pf_create("payouts", external_id="shop")
        make(stage, "payfield", "none")
        for kind, ref in (("payin", "own"), ("payout", "shop"), ("payin", "none")):
            assert stage.act("payfield", kind, ref, "pay").json() == {"state": "success"}
        stage.act("payfield", "payin", "own", "refund")
        stage.settled()
        seen = sorted((hook.path, hook.json["external_id"], hook.json["status"]) for hook in endpoint.posts())
        assert seen == [("/own", "own", "refunded"), ("/own", "own", "success"), ("/shop", "shop", "success")]
        names = {"id", "external_id", "shop_code", "status", "amount", "currency", "updated_at"}
        assert all(set(hook.json) == names for hook in endpoint.posts())
        assert all(is_signed("payfield", hook) for hook in endpoint.posts())


def test_banked_v2_bodies(endpoint):
    """v2 bodies are flat, spelt as the provider spells them, redacted where asked, and have no event id."""
    with scene() as stage:
        for path, events in (
            ("/plain", ["payment_initiated", "payment_pending", "payment_sent", "payment_failed"]),
            ("/redacted", ["payment_sent_redacted"]),
            ("/payouts", ["payout_pending", "payout_sent"]),
        ):
            body = {"target_url": endpoint.url + path, "events": events}
            assert stage.bk("POST", "/v2/webhooks", json=body).status_code == 201
        _, ref = make(stage, "banked")
        stage.act("banked", "payment_session", ref, "pay")
        payout = stage.bk("POST", "/v2/payouts", json={"amount": 9, "currency": "GBP", "payee": {"name": "Jo"}})
        stage.act("banked", "payout", payout.json()["id"], "pay")
        stage.settled()
        by_path = {path: [h.json for h in endpoint.posts() if h.path == path] for path in ("/plain", "/redacted")}
        plain = by_path["/plain"]
        assert [body["webhook_event"] for body in plain] == ["payment_initiated", "payment_pending", "payment_sent"]
        assert [body["state"] for body in plain] == ["initiated", "pending", "sent"]
        assert all(body["webook_type"] == "payment_session" and "webhook_type" not in body for body in plain)
        assert plain[0]["id"] == ref
        (redacted,) = by_path["/redacted"]
        assert (redacted["webhook_event"], redacted["webhook_type"]) == ("payment_sent", "payment_session")
        assert not {"payer", "payee"} & set(redacted)
        payouts = [hook.json for hook in endpoint.posts() if hook.path == "/payouts"]
        assert [body["webhook_event"] for body in payouts] == ["payout_pending", "payout_sent"]
        assert all(body["webhook_type"] == "payout" for body in payouts)
        assert all(is_signed("banked", hook) for hook in endpoint.posts())


def test_banked_v3_envelope(endpoint):
    """v3 wraps payins and refunds with an event id, a version and a data version."""
    with scene() as stage:
        stage.hook("banked", endpoint.url)
        payin = stage.bk("POST", "/v3/payins", json={"amount": 5, "currency": "AUD"}).json()["id"]
        stage.act("banked", "payin", payin, "pay")
        refund = stage.bk("POST", "/v3/refunds", json={"payment_id": payin}).json()["id"]
        stage.act("banked", "refund", refund, "pay")
        stage.settled()
        seen = {hook.json["type"]: hook.json for hook in endpoint.posts()}
        expected = ["payment_initiated", "payment_pending", "payment_sent", "refund_pending", "refund_sent"]
        assert sorted(seen) == expected
        for kind, body in seen.items():
            assert set(body) == {"id", "type", "version", "data_version", "data"}
            assert (body["version"], body["data_version"]) == ("v3", 3 if kind.startswith("payment") else 1)


@pytest.mark.parametrize(
    ("provider", "speed", "attempts"),
    [
        ("alternative_payments", 200_000, 6),
        ("stable_genius", 200_000, 7),
        ("payfield", 200_000, 6),
        ("banked", 20_000_000, 26),
    ],
)
def test_retries_until_given_up(endpoint, provider, speed, attempts):
    """A refused event is tried as often as documented, freshly signed with the same body, and then given up."""
    config = replace(SandboxConfig(speed=speed), payfield=replace(PF, ttl_seconds=1e12))
    config = replace(config, alternative_payments=replace(AP, ttl_seconds=1e12, token_seconds=1e12))
    with scene(config) as stage:
        endpoint.answer = lambda *_: 500
        stage.hook(provider, endpoint.url)
        if provider == "stable_genius":
            _, ref = make(stage, provider, ttl=3600)
            eventually(lambda: stage.truth(ref)["state"] == "expired")
        elif provider == "banked":
            _, ref = make(stage, provider, expiration="2100-01-01T00:00:00Z")
            stage.act(provider, "payment_session", ref, "decline")
        else:
            kind, ref = make(stage, provider)
            assert stage.act(provider, kind, ref, "pay").status_code == 200
        stage.settled()
        hooks = endpoint.posts()
        assert len(hooks) == attempts
        assert len({hook.body for hook in hooks}) == 1
        assert all(is_signed(provider, hook) for hook in hooks)
        assert stage.outcomes(provider) == {"refused": attempts, "given_up": 1}


def test_documented_delays():
    """Banked's and Payfield's schedules are those of the dossiers."""
    from sandbox.banked import webhooks as banked_webhooks
    from sandbox.payfield import api as payfield

    assert sum(banked_webhooks.POLICY.delays) == 1_763_395
    assert len(banked_webhooks.POLICY.delays) == 25
    assert payfield.POLICY.delays == (60, 300, 1800, 3600, 7200)


@pytest.mark.parametrize(("status", "attempts"), [(200, 1), (204, 1), (302, 2), (400, 2), (401, 2), (503, 2)])
def test_what_counts_as_success(endpoint, status, attempts):
    """2xx ends it, anything else is tried again, and a redirect is not followed."""
    with scene(SandboxConfig(speed=10_000)) as stage:
        endpoint.answer = lambda number, *_: status if number == 1 else 200
        make(stage, "payfield", callback_url=endpoint.url)
        stage.act("payfield", "payin", "r1", "pay")
        stage.settled()
        assert [hook.path for hook in endpoint.posts()] == ["/"] * attempts


def test_gone_is_final_for_banked_only(endpoint):
    """After a 410 Banked never tries again; Payfield does."""
    with scene(SandboxConfig(speed=1000)) as stage:
        endpoint.answer = lambda number, *_: 410
        stage.hook("banked", endpoint.url)
        _, ref = make(stage, "banked", expiration="2100-01-01T00:00:00Z")
        stage.act("banked", "payment_session", ref, "decline")
        stage.settled()
        assert stage.outcomes("banked") == {"refused": 1, "gone": 1}
        endpoint.answer = lambda number, *_: 410 if number == 2 else 200
        make(stage, "payfield", callback_url=endpoint.url)
        stage.act("payfield", "payin", "r1", "pay")
        stage.settled()
        assert stage.outcomes("payfield") == {"refused": 1, "delivered": 1}


def test_unreachable_is_retried(endpoint):
    """An endpoint that nobody answers at is tried again."""
    with scene(replace(SandboxConfig(speed=100_000), payfield=replace(PF, ttl_seconds=1e9))) as stage:
        make(stage, "payfield", callback_url="http://127.0.0.1:1/")
        stage.act("payfield", "payin", "r1", "pay")
        stage.settled()
        assert stage.outcomes("payfield") == {"unreachable": 6, "given_up": 1}
