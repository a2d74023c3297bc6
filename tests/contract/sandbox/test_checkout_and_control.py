"""People can pay on the hosted pages, payers are simulated, and the control says and does what is true."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from sandbox.config import AlternativePayments, Faults, Payers, SandboxConfig, StableGenius

from .stage import eventually, scene


def buttons(page):
    """The actions that a checkout page offers."""
    return re.findall(r'name="action" value="(\w+)"', page.text)


def test_pay_on_the_page(quiet):
    """The page shows what is to be paid, and paying sends the browser to the merchant with 303."""
    made = quiet.ap_create(reference_id="<script>alert(1)</script>").json()
    page = quiet.client.get(made["url"])
    assert page.status_code == 200
    assert "12.50 USD" in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "width=device-width" in page.text
    assert "prefers-color-scheme:dark" in page.text
    assert buttons(page) == ["pay", "cancel", "expire"]
    done = quiet.client.post(made["url"], data={"action": "pay"})
    assert (done.status_code, done.headers["location"]) == (303, "https://shop.example/thanks")
    assert quiet.truth(made["id"])["state"] == "paid"
    assert quiet.client.post(made["url"], data={"action": "pay"}).status_code == 409
    assert buttons(quiet.client.get(made["url"])) == []


@pytest.mark.parametrize(
    ("action", "state", "location"),
    [("pay", "sent", "https://shop.example/ok?id={id}"), ("decline", "failed", "https://shop.example/no")],
)
def test_banked_return_urls(quiet, action, state, location):
    """A payer returns to success_url with the payment's id, or to error_url."""
    session = quiet.bk_create().json()
    assert buttons(quiet.client.get(session["url"])) == ["pay", "decline", "cancel", "expire"]
    done = quiet.client.post(session["url"], data={"action": action})
    assert done.headers["location"] == location.format(id=session["id"])
    assert quiet.truth(session["id"])["state"] == state


def test_page_without_a_return_url(quiet):
    """Where the merchant gave no address the page leads back to itself."""
    link = quiet.pf_create(external_id="page-1").json()["paymentData"]["payment_link"]
    done = quiet.client.post(link, data={"action": "decline"}, follow_redirects=True)
    assert done.status_code == 200
    assert "failed" in done.text
    assert quiet.truth("page-1")["state"] == "failed"


def test_pages_of_nobody(quiet):
    """An unknown payment is 404, an unknown action 409."""
    assert quiet.client.get(quiet.url + "/checkout/banked/nobody").status_code == 404
    assert quiet.client.post(quiet.url + "/checkout/banked/nobody", data={"action": "pay"}).status_code == 404
    url = quiet.ap_create().json()["url"]
    assert quiet.client.post(url, data={"action": "late_pay"}).status_code == 409


def test_index(quiet):
    """The list of open payments links to their pages, also for providers that give no link."""
    intent = quiet.sg_create().json()["id"]
    page = quiet.client.get(quiet.url + "/checkout")
    assert f"/checkout/stable_genius/{intent}" in page.text
    assert buttons(quiet.client.get(f"{quiet.url}/checkout/stable_genius/{intent}")) == ["pay", "cancel", "expire"]


def test_control_refuses(quiet):
    """An illegal act is 409 and changes nothing; unknown resources are 404; forms are not taken."""
    intent = quiet.sg_create().json()["id"]
    for action in ("settle", "decline", "refund", "dance", "late_pay", "move"):
        answer = quiet.act("stable_genius", "payment_intent", intent, action)
        assert answer.status_code == 409
        assert answer.json()["error"]
    assert quiet.truth(intent)["state"] == "awaiting_payment"
    assert quiet.act("stable_genius", "payment_intent", "pi_nobody", "pay").status_code == 404
    assert quiet.act("nobody", "payment_intent", intent, "pay").status_code == 404
    assert quiet.client.post(quiet.url + "/_control/act", data={"action": "pay"}).status_code == 400
    url = quiet.url + "/_control/webhook"
    assert quiet.client.put(url, json={"provider": "banked", "url": "http://shop.example"}).status_code == 400
    assert quiet.client.put(url, json={"provider": "nobody", "url": "https://shop.example"}).status_code == 404


@pytest.mark.parametrize(("action", "state"), [("expire", "expired"), ("cancel", "cancelled")])
def test_late_money_on_alternative_payments(quiet, action, state):
    """Late money turns an expired or cancelled request paid."""
    ref = quiet.ap_create().json()["id"]
    assert quiet.act("alternative_payments", "payment_request", ref, action).json() == {"state": state}
    assert quiet.act("alternative_payments", "payment_request", ref, "late_pay").json() == {"state": "paid"}
    assert quiet.ap("GET", f"/payment/request/{ref}").json()["status"] == "paid"


def test_truth(quiet):
    """The truth names every resource by what a client fetches it by, with its whole history."""
    quiet.pf_create("payouts", external_id="truth-1")
    quiet.act("payfield", "payout", "truth-1", "pay")
    row = quiet.truth("truth-1")
    expected = {"provider": "payfield", "kind": "payout", "reference": "truth-1", "state": "success"}
    expected |= {"amount_minor": 500_000, "currency": "BDT", "ever_paid": True}
    assert expected.items() <= row.items()
    assert [state for state, _ in row["history"]] == ["pending", "success"]


LEGAL = {
    "alternative_payments": {"pending": {"paid", "expired", "cancelled"}},
    "stable_genius": {"awaiting_payment": {"confirmed", "expired", "cancelled"}, "confirmed": {"settled"}},
    "payfield": {"pending": {"success", "failed", "canceled", "expired"}, "success": {"refunded"}},
    "banked": {
        "awaiting_provider": {"awaiting_payment_consent", "failed"},
        "awaiting_payment_consent": {"initiated", "pending", "sent", "failed"},
        "initiated": {"pending", "sent", "failed"},
        "pending": {"sent", "failed"},
    },
}


def test_payers():
    """Simulated payers walk legally, end everything, and their outcomes follow the configured weights."""
    config = SandboxConfig(speed=2000, payers=Payers(pay=0.5, decline=0.2, cancel=0.2, expire=0.1, skip=0.5))
    config = replace(
        config,
        alternative_payments=AlternativePayments(requests_per_second=10_000, ttl_seconds=600),
        stable_genius=StableGenius(test_requests_per_minute=10_000),
    )
    with scene(config) as stage:
        token = stage.ap_token()
        for number in range(40):
            body = {
                "amount": "5",
                "currency": "USD",
                "redirect_url": "https://shop.example",
                "reference_id": str(number),
            }
            answer = stage.ap("POST", "/payment/request", token=token, json=body)
            if answer.status_code == 401:
                token = stage.ap_token()
            stage.sg_create(metadata={"reference": str(number)})
            stage.pf_create(external_id=str(number))
            stage.bk_create(reference=str(number))
        stage.settled()
        ends = {}
        skipped = 0
        for row in stage.truth():
            states = [state for state, _ in row["history"]]
            for before, after in pairwise(states):
                assert after in LEGAL[row["provider"]][before]
            assert len(states) > 1
            ends.setdefault(row["provider"], set()).add(states[-1])
            skipped += row["provider"] == "banked" and states[-1] == "sent" and len(states) < 5
        assert {"paid", "expired", "cancelled"} <= ends["alternative_payments"]
        assert {"confirmed", "settled", "expired", "cancelled"} <= ends["stable_genius"]
        assert {"success", "failed", "canceled"} <= ends["payfield"]
        assert ends["banked"] == {"sent", "failed"}
        assert skipped


def test_payers_play_payouts_and_refunds():
    """Payouts and refunds come to an end as well."""
    with scene(SandboxConfig(speed=1000, payers=Payers())) as stage:
        for number in range(10):
            stage.bk(
                "POST", "/v2/payouts", json={"amount": 9, "currency": "GBP", "payee": {}, "reference": str(number)}
            )
            stage.pf_create("payouts", external_id=str(number))
        stage.settled()
        assert not [row for row in stage.truth() if row["state"] == "pending"]


def test_a_storm_ends(endpoint):
    """With every fault at once, everything that can be delivered is, and the sandbox comes to rest."""
    faults = Faults(
        lose=0.1,
        duplicate=0.2,
        delay=0.2,
        reorder=0.2,
        reorder_hold_seconds=20_000,  # 5 of ours: a machine that is busy takes longer than 15 ms to the next event
        corrupt_signature=0.2,
        forge=0.2,
        stale_timestamp=0.2,
        replay_other_content=0.2,
        late_money=0.3,
    )
    config = SandboxConfig(seed=5, speed=4000, faults=faults, payers=Payers())
    config = replace(config, stable_genius=StableGenius(test_requests_per_minute=100_000))
    with scene(config) as stage:
        for provider in ("stable_genius", "payfield", "banked"):
            stage.hook(provider, endpoint.url)
        for number in range(40):
            stage.sg_create(metadata={"reference": str(number)}, ttl=3600)
            stage.pf_create(external_id=str(number))
            stage.bk_create(reference=str(number))
        stage.settled()
        counts = stage.counts()
        for provider in ("stable_genius", "payfield", "banked"):
            outcomes = counts["outcomes"][provider]
            assert counts["events"][provider] == outcomes["lost"] + outcomes["delivered"]
        assert counts["outcomes"]["banked"]["reordered"]
        assert len(endpoint.posts()) == sum(counts["attempts"].values())
        eventually(lambda: any(row["late_money"] for row in stage.truth()))
