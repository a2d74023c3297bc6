"""The lists as the providers' pages describe them, and payments made behind the merchant's back."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sandbox.config import AlternativePayments, SandboxConfig

from .stage import AP_BODY, BK_BODY, SG_BODY, pf_body, scene

TICK = timedelta(microseconds=1)
PAYIN = {"amount": 400, "currency": "GBP"}
KINDS = {
    ("alternative_payments", "payment_request"): AP_BODY,
    ("stable_genius", "payment_intent"): SG_BODY,
    ("payfield", "payin"): pf_body(),
    ("payfield", "payout"): pf_body("payouts"),
    ("payfield_old", "payin"): pf_body(old=True),
    ("banked", "payment_session"): BK_BODY,
    ("banked", "payin"): PAYIN,
    ("banked", "payout"): PAYIN | {"payee": {}},
}


def create(stage, provider, kind, *bodies):
    """What the control made."""
    body = {"provider": provider, "kind": kind, "bodies": bodies}
    return stage.client.post(stage.url + "/_control/create", json=body)


def instant(stage, ref):
    """When a resource was created."""
    return datetime.fromisoformat(stage.truth(ref)["history"][0][1])


def text(at):
    return at.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(("provider", "kind"), KINDS)
def test_the_control_creates_what_the_provider_would(provider, kind):
    """Every kind can be made behind the merchant's back, without credentials, a limit or a fault."""
    config = SandboxConfig(alternative_payments=AlternativePayments(requests_per_second=0))
    with scene(config) as stage:
        assert stage.client.put(stage.url + "/_control/faults", json={"api_500": 1.0}).status_code == 200
        made = create(stage, provider, kind, KINDS[provider, kind])
        assert made.status_code == 200, made.text
        (ref,) = made.json()["refs"]
        row = stage.truth(ref)
        assert (row["provider"], row["kind"]) == (provider, kind)
        assert stage.counts()["requests"] == {}
        assert stage.counts()["rate_limited"] == {}


def test_the_control_creates_no_more_than_the_provider_would(quiet):
    """A refusal is the provider's own and ends the call; what was made before it stays; unknown things are 404."""
    refused = create(quiet, "stable_genius", "payment_intent", SG_BODY, SG_BODY | {"amount": 0}, SG_BODY)
    assert refused.status_code == 409
    assert "amount_out_of_range" in refused.json()["error"]
    again = create(quiet, "payfield", "payin", pf_body(external_id="twice"), pf_body(external_id="twice"))
    assert again.json() == {"refs": ["twice"]}
    assert create(quiet, "stable_genius", "payout", SG_BODY).status_code == 404
    assert create(quiet, "nobody", "payin", SG_BODY).status_code == 404
    for bodies in (None, {}, "x"):
        body = {"provider": "stable_genius", "kind": "payment_intent", "bodies": bodies}
        assert quiet.client.post(quiet.url + "/_control/create", json=body).status_code == 400
    for body in (None, 7, [], "x"):
        assert create(quiet, "banked", "payment_session", body).status_code == 409


def test_half_a_surrogate_is_refused_as_over_the_wire(quiet):
    """What could never be sent back is refused by the provider, and breaks nothing."""
    content = b'{"provider":"banked","kind":"payment_session","bodies":[{"reference":"\\ud800"}]}'
    headers = {"content-type": "application/json"}
    answer = quiet.client.post(quiet.url + "/_control/create", content=content, headers=headers)
    assert answer.status_code == 409
    assert "decoding" in answer.json()["error"]


def test_a_refund_is_created_behind_the_back_of_the_merchant(quiet):
    """Refunds too, of what was sent."""
    (session,) = create(quiet, "banked", "payment_session", BK_BODY).json()["refs"]
    assert create(quiet, "banked", "refund", {"payment_id": session}).status_code == 409
    quiet.act("banked", "payment_session", session, "pay")
    assert len(create(quiet, "banked", "refund", {"payment_id": session}).json()["refs"]) == 1


def intents(stage, **query):
    answer = stage.sg("GET", "/payment-intents", params={"merchant_id": "mer_sandbox", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_intents_are_listed_by_the_instant_of_their_creation():
    """Both bounds are exclusive, and the newest intent comes first."""
    with scene() as stage:
        refs = create(stage, "stable_genius", "payment_intent", *[SG_BODY] * 4).json()["refs"]
        first, last = instant(stage, refs[0]), instant(stage, refs[-1])

        def between(since, until):
            page = intents(stage, created_after=text(since), created_before=text(until))
            return [row["id"] for row in page["data"]]

        assert between(first - TICK, last + TICK) == refs[::-1]
        assert between(first, last) == refs[2:0:-1]
        assert between(last, first) == []


def test_a_cursor_keeps_its_place_when_its_intent_moves():
    """A walk through what awaits payment goes on although the last intent seen was paid meanwhile."""
    with scene() as stage:
        refs = create(stage, "stable_genius", "payment_intent", *[SG_BODY] * 5).json()["refs"][::-1]
        page = intents(stage, status="awaiting_payment", limit=2)
        assert (page["has_more"], page["total_count"]) == (True, 5)
        stage.act("stable_genius", "payment_intent", refs[1], "pay")
        rest = intents(stage, status="awaiting_payment", starting_after=refs[1], limit=3)
        assert ([row["id"] for row in rest["data"]], rest["has_more"]) == (refs[2:], False)
        back = intents(stage, ending_before=refs[3], limit=2)
        assert ([row["id"] for row in back["data"]], back["has_more"]) == (refs[1:3], True)
        assert intents(stage, ending_before=refs[2], limit=2)["has_more"] is False


@pytest.mark.parametrize(
    "query",
    [{"starting_after": "pi_none"}, {"created_after": "yesterday"}, {"created_before": ""}, {"status": "lost"}],
)
def test_a_filter_or_cursor_that_is_none_is_refused(quiet, query):
    """Nothing is silently left out of the question, which would list everything."""
    answer = quiet.sg("GET", "/payment-intents", params={"merchant_id": "mer_sandbox", **query})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_intents_of_another_merchant_or_environment_are_no_cursor(quiet):
    """A cursor belongs to the list that it came from."""
    for ref in (
        quiet.sg_create(merchant_id="mer_second").json()["id"],
        quiet.sg_create("sk_live_sandbox_0001").json()["id"],
    ):
        params = {"merchant_id": "mer_sandbox", "starting_after": ref}
        assert quiet.sg("GET", "/payment-intents", params=params).status_code == 400


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_events_are_paged_in_either_envelope(shape):
    """The log's cursors are opaque, lead through all of it, and stand where the chosen document puts them."""
    own = AlternativePayments(requests_per_second=10_000, page_shape=shape)
    with scene(replace(SandboxConfig(), alternative_payments=own)) as stage:
        for ref in create(stage, "alternative_payments", "payment_request", *[AP_BODY] * 5).json()["refs"]:
            stage.act("alternative_payments", "payment_request", ref, "pay")
        every = stage.ap("GET", "/webhooks/events").json()["data"]
        seen, query = [], {"limit": 2}
        while True:
            page = stage.ap("GET", "/webhooks/events", params=query).json()
            cursors = page["pagination"] if shape == "nested" else page
            assert set(page) == ({"data", "pagination"} if shape == "nested" else {"data", *cursors})
            seen += page["data"]
            if not cursors["has_next_page"]:
                break
            assert cursors["end_cursor"] not in {event["id"] for event in every}
            query["after"] = cursors["end_cursor"]
        assert seen == every
        assert len(seen) == 5
        times = {"created_after": every[0]["created_at"], "created_before": every[-1]["created_at"]}
        assert stage.ap("GET", "/webhooks/events", params=times).json()["data"] == every[1:-1]


@pytest.mark.parametrize("query", [{"after": "x"}, {"before": "x"}, {"created_after": "x"}, {"created_before": ""}])
def test_an_event_filter_or_cursor_that_is_none_is_refused(quiet, query):
    """As above, in this provider's words."""
    assert quiet.ap("GET", "/webhooks/events", params=query).status_code == 400


@pytest.mark.parametrize(("kind", "path"), [("payment_session", "/v2/payment_sessions"), ("payin", "/v3/payins")])
def test_banked_lists_the_newest_hundred(kind, path):
    """At most 100, newest first, by time and state, and no further."""
    with scene() as stage:
        bodies = [BK_BODY if kind == "payment_session" else PAYIN] * 103
        refs = create(stage, "banked", kind, *bodies).json()["refs"][::-1]

        def listed(**query):
            answer = stage.bk("GET", path, params=query)
            assert answer.status_code == 200, answer.text
            rows = answer.json() if kind == "payment_session" else answer.json()["data"]
            return [row["id"] for row in rows]

        assert listed() == listed(limit=500) == refs[:100]
        assert listed(limit=3) == refs[:3]
        assert listed(created_before=text(instant(stage, refs[-3]))) == refs[-2:]
        assert listed(created_after=text(instant(stage, refs[2]))) == refs[:2]
        assert listed(state="nowhere") == []
        assert stage.bk("GET", path, params={"created_after": "x"}).status_code == 400
