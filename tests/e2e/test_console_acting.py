"""Operators at work in a real browser, against the real processes: they see what happens, decide, and are on record."""

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.browsing import log_in
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

#: Milliseconds within which a page must show what has happened, on a machine that does other things too.
SOON = 30_000


def test_a_payment_turns_paid_before_the_eyes_of_who_looks_at_it(deployment, context, watch, browser):
    """The payer pays at the provider's checkout, and the open page says so without being loaded again."""
    payment = deployment.order("stable", 4_200)
    path = f"/console/payments/{payment.id}"
    page = log_in(context.new_page(), deployment.url, deployment.console.person("viewer"), path)
    expect(page.locator("[data-live-state=on]")).to_be_attached(timeout=SOON)
    expect(page.locator("#head h1")).to_contain_text("open")
    page.evaluate("window.isTheSame = true")

    payer = browser.new_page()
    payer.goto(deployment.checkout(payment))
    payer.get_by_role("button", name="Pay", exact=True).click()

    expect(page.locator("#head h1")).to_contain_text("paid", timeout=SOON)
    expect(page.locator(".state.current .line-1")).to_have_text("confirmed")
    expect(page.locator("#effects")).to_contain_text("delivered", timeout=SOON)
    assert page.evaluate("window.isTheSame"), "the page was loaded again"
    deployment.shop.wait_for(lambda: deployment.shop.paid().get(payment.id) == 1, "the shop has heard of it")
    payer.close()


def test_a_conflict_is_resolved_and_it_is_kept_by_whom_and_why(deployment, context):
    """Who resolves says why; the payment has the state, and the action is in the table for everybody to read."""
    payment, operator, reason = deployment.in_conflict(), deployment.console.person("operator"), deployment.reason()
    page = log_in(context.new_page(), deployment.url, operator, f"/console/payments/{payment.id}")
    expect(page.get_by_role("heading", name="A person must look: conflict")).to_be_visible()

    acts = page.locator("#actions")
    acts.locator("summary", has_text="Resolve").click()
    acts.get_by_label("The true state").select_option("confirmed")
    acts.get_by_label("Why?").fill(reason)
    acts.get_by_role("button", name="Resolve").click()

    expect(page.get_by_role("status").filter(has_text="Your word is recorded")).to_be_visible()
    expect(page.locator("#head h1")).to_contain_text("paid")
    expect(page.get_by_role("heading", name="A person must look")).to_have_count(0)
    known = deployment.payment(payment.id)
    assert (known.state, known.review) == ("confirmed", None)
    page.goto(f"{deployment.url}/console/tables/actions/list?actor={operator.name}")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    for words in ("resolve", operator.name, reason):
        expect(row).to_contain_text(words)


def test_a_dead_letter_is_redriven_and_arrives(deployment, context):
    """From the outbox to the effect, and out again to the shop that is open now."""
    owed, operator, reason = deployment.dead_letter(), deployment.console.person("operator"), deployment.reason()
    page = log_in(context.new_page(), deployment.url, operator, "/console/tables/outbox/list?status=dead")
    page.locator(f'a[href="/console/tables/outbox/detail?pk={owed.id}"]').click()
    expect(page.get_by_role("heading", name="payment.paid to shop")).to_be_visible()

    deployment.shop.is_closed = False
    page.locator("summary", has_text="Redrive").click()
    page.get_by_label("Why?").fill(reason)
    page.get_by_role("button", name="Redrive").click()

    expect(page.get_by_role("status").filter(has_text="payment.paid is due again")).to_be_visible()
    until(
        lambda: deployment.owed(owed.payment_id)[0].status == "delivered",
        30,
        lambda: str(deployment.owed(owed.payment_id)),
    )
    page.reload()
    expect(page.locator("main")).to_contain_text("delivered")
    assert deployment.shop.paid()[owed.payment_id] == 1
    (done,) = deployment.actions(owed.id)
    assert (done.action, done.actor, done.reason) == ("redrive", operator.name, reason)


def test_every_dead_letter_is_redriven_at_once_and_one_sees_how_far_it_is(deployment, context):
    """One reason for all of them; the page tells how many are due again, and each is on record."""
    operator, reason = deployment.console.person("operator"), deployment.reason()
    dead = [deployment.dead_letter() for _ in range(3)]
    page = log_in(context.new_page(), deployment.url, operator, "/console/tables/outbox/list?status=dead&sink=shop")

    deployment.shop.is_closed = False
    page.get_by_label("Why?").fill(reason)
    page.get_by_role("button", name="Redrive every dead one that fits").click()

    expect(page.get_by_role("heading", name="Redriving: done")).to_be_visible(timeout=SOON)
    told = re.search(r"(\d+) due again", page.get_by_role("status").inner_text())
    assert told
    assert int(told[1]) >= len(dead)
    progress = page.get_by_role("progressbar", name="Redriving")
    assert progress.get_attribute("value") == progress.get_attribute("max") == told[1]
    for owed in dead:
        until(
            lambda owed=owed: deployment.owed(owed.payment_id)[0].status == "delivered",
            30,
            lambda owed=owed: str(deployment.owed(owed.payment_id)),
        )
        assert [(done.action, done.actor, done.reason) for done in deployment.actions(owed.id)] == [
            ("redrive", operator.name, reason)
        ]


def test_a_viewer_is_offered_nothing_and_gets_nothing_by_a_form_of_their_own(deployment, context, watch):
    """There is no button, and a form that is put together by hand, with all that forms need, is refused."""
    payment = deployment.order("stable")
    path = f"/console/payments/{payment.id}"
    page = log_in(context.new_page(), deployment.url, deployment.console.person("viewer"), path)

    assert page.locator("main form").count() == 0
    assert page.locator("main button:not([data-copy])").count() == 0
    watch.refused.add(403)
    for act, fields in (("refresh", {}), ("resolve", {"state": "confirmed"}), ("cancel", {})):
        answer = page.evaluate(
            """async ([path, fields]) => {
              const csrf = document.querySelector("input[name=csrf]").value;
              const body = new URLSearchParams({csrf, reason: "because", ...fields});
              const answer = await fetch(path, {method: "POST", body, redirect: "manual"});
              return [answer.status, await answer.text()];
            }""",
            [f"{path}/{act}", fields],
        )
        assert answer[0] == 403, answer
        assert "your role is viewer" in answer[1].lower()
    assert deployment.actions(payment.id) == []
    assert deployment.payment(payment.id).version == payment.version
