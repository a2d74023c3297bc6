"""The console for people without a mouse, and without scripts, against the real processes."""

import pytest
from playwright.sync_api import expect

from tests.e2e.browsing import focused, log_in, tab_to
from tests.support.console import PASSWORD

pytestmark = pytest.mark.e2e


def test_the_keyboard_is_enough_and_one_sees_always_where_one_is(deployment, context):
    """Tab, Enter and letters log in, find a payment and ask about it; whatever has the focus shows it."""
    payment, person = deployment.order("stable"), deployment.console.person("operator")
    page = context.new_page()
    page.goto(f"{deployment.url}/console/")
    assert focused(page) == "Name"
    page.keyboard.type(person.name)
    tab_to(page, "Password", most=1)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{deployment.url}/console/")

    tab_to(page, "Skip to the content", most=1)
    tab_to(page, "Payments")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/tables/payments/list")
    tab_to(page, "Search")
    page.keyboard.type(str(payment.reference))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/list?q={payment.reference}**")
    tab_to(page, "Skip to the content", most=1)
    page.keyboard.press("Enter")
    tab_to(page, f"…{payment.id[-12:]}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/console/payments/{payment.id}")
    tab_to(page, "Ask now")
    page.keyboard.press("Enter")

    expect(page.get_by_role("status").filter(has_text="The provider was asked")).to_be_visible()
    assert [(done.action, done.actor) for done in deployment.actions(payment.id)] == [("refresh", person.name)]


def test_without_scripts_a_conflict_is_seen_and_resolved(deployment, browser, watch):
    """On a telephone without JavaScript: log in, find what needs review, read why, and resolve it."""
    payment, person, reason = deployment.in_conflict(), deployment.console.person("operator"), deployment.reason()
    context = watch.over(browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 800}))
    page = log_in(context.new_page(), deployment.url, person)
    page.locator(".nav-small summary").click()
    page.locator(".nav-small").get_by_role("link", name="Payments").click()
    page.get_by_label("Review").select_option("conflict")
    page.get_by_role("button", name="Show").click()
    page.locator(f'a[href="/console/payments/{payment.id}"]').first.click()
    expect(page.get_by_role("heading", name="A person must look: conflict")).to_be_visible()

    acts = page.locator("#actions")
    acts.locator("summary", has_text="Resolve").click()
    acts.get_by_label("The true state").select_option("cancelled")
    acts.get_by_label("Why?").fill(reason)
    acts.get_by_role("button", name="Resolve").click()

    expect(page.get_by_role("status").filter(has_text="Your word is recorded")).to_be_visible()
    known = deployment.payment(payment.id)
    assert (known.state, known.review) == ("cancelled", None)
    assert [(done.action, done.actor, done.reason) for done in deployment.actions(payment.id)] == [
        ("resolve", person.name, reason)
    ]
    context.close()
