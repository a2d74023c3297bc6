"""Sessions and forms in a real browser, against the real processes: what is over or forged does nothing."""

from datetime import timedelta
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect
from pyotp import TOTP

from tests.e2e.browsing import another_site, enter, log_in
from tests.support.console import PASSWORD

pytestmark = pytest.mark.e2e

SOON = 30_000


def test_who_was_idle_logs_in_again_and_goes_on_where_they_were(deployment, context, watch):
    """The page that was open says that the session has ended; the log-in says so too, and leads back to that page."""
    payment, person = deployment.order("stable"), deployment.console.person("operator")
    path = f"/console/payments/{payment.id}?from=a-link"
    page = log_in(context.new_page(), deployment.url, person, path)
    expect(page.locator("[data-live-state=on]")).to_be_attached(timeout=SOON)

    watch.refused.add(401)
    deployment.idle(person, timedelta(hours=9))
    expect(page.locator("[data-live-told]")).to_contain_text("Your session has ended", timeout=SOON)
    page.reload()

    assert page.url == f"{deployment.url}/console/login?{urlencode({'next': path})}"
    expect(page.get_by_role("status")).to_have_text("Your session has ended. Log in to go on where you were.")
    enter(page, person)
    page.wait_for_url(f"{deployment.url}{path}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("12.50 USD")


def test_a_form_that_is_sent_after_the_session_ended_does_nothing(deployment, context, watch):
    """Who pressed a button too late is told, and led to the log-in; nobody is asked anything."""
    payment, person = deployment.order("stable"), deployment.console.person("operator")
    page = log_in(context.new_page(), deployment.url, person, f"/console/payments/{payment.id}")

    watch.refused.add(401)
    deployment.idle(person, timedelta(hours=9))
    page.get_by_role("button", name="Ask now").click()

    expect(page.get_by_role("heading", name="You are not logged in")).to_be_visible()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert deployment.actions(payment.id) == []


def test_who_sets_up_a_second_factor_is_asked_for_a_code(deployment, context, browser, watch):
    """The key is typed into an app, a code confirms it, and the next log-in wants the password and a code."""
    person = deployment.console.person("operator")
    page = log_in(context.new_page(), deployment.url, person, "/console/me")
    page.get_by_role("textbox", name="Your password").fill(PASSWORD)
    page.get_by_role("button", name="Set it up").click()
    app = TOTP(page.locator("code.secret").first.inner_text().replace(" ", ""))
    page.get_by_label("The six digits").fill(app.now())
    page.get_by_role("button", name="Confirm").click()
    recovery = page.locator("code.secret").first.inner_text()
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_text("10 recovery codes are left")).to_be_visible()

    elsewhere = watch.over(browser.new_context())
    other = elsewhere.new_page()
    other.goto(f"{deployment.url}/console/login?{urlencode({'next': '/console/me'})}")
    enter(other, person)
    watch.refused.add(401)
    other.get_by_label("The six digits").fill("000000")
    other.get_by_role("button", name="Log in").click()
    expect(other.get_by_role("alert")).to_contain_text("The code is wrong")
    other.get_by_label("The six digits").fill(recovery)
    other.get_by_role("button", name="Log in").click()
    other.wait_for_url(f"{deployment.url}/console/me")
    expect(other.get_by_text("9 recovery codes are left")).to_be_visible()
    elsewhere.close()


def test_who_ends_all_other_sessions_is_alone(deployment, context, browser, watch):
    """The other browser is at the log-in with its next click, and this one goes on."""
    person = deployment.console.person("viewer")
    watch.refused.add(401)  # of the page that keeps itself up to date there
    elsewhere = watch.over(browser.new_context())
    other = log_in(elsewhere.new_page(), deployment.url, person)
    page = log_in(context.new_page(), deployment.url, person, "/console/me")

    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_role("status")).to_contain_text("1 other session has ended")
    other.goto(f"{deployment.url}/console/accounts")
    expect(other.get_by_role("status")).to_contain_text("Your session has ended")
    expect(other.get_by_label("Password")).to_be_visible()

    page.reload()
    assert page.url == f"{deployment.url}/console/me"
    elsewhere.close()


@pytest.mark.parametrize("act", ["refresh", "resolve", "cancel"])
def test_a_form_of_another_site_does_nothing_about_a_payment(deployment, context, watch, browser, act):
    """An operator who is logged in, and lured to a page elsewhere, does nothing by its button."""
    payment, person = deployment.order("stable"), deployment.console.person("operator")
    log_in(context.new_page(), deployment.url, person)
    url = f"{deployment.url}/console/payments/{payment.id}/{act}"
    fields = "".join(
        f'<input name="{name}" value="{value}">'
        for name, value in (("state", "confirmed"), ("reason", "because"), ("csrf", "guessed"))
    )
    with another_site(f'<form method="post" action="{url}">{fields}<button>win</button></form>') as elsewhere:
        lured = browser.new_context()  # not watched: to be at another site is what this is about
        lured.add_cookies([{**kept, "sameSite": "Strict"} for kept in context.cookies()])
        page = lured.new_page()
        page.goto(elsewhere)
        with page.expect_response(url) as answer:
            page.get_by_role("button", name="win").click()
        assert answer.value.status in (401, 403)
        lured.close()

    assert deployment.actions(payment.id) == []
    assert deployment.payment(payment.id).version == payment.version


@pytest.mark.parametrize("forged", ["missing", "wrong", "of another session", "of another origin", "of nowhere"])
def test_a_forged_form_is_refused(deployment, context, forged):
    """With the browser's own cookie, and everything right but one: nothing is done, and the page says what to do."""
    payment, person = deployment.order("stable"), deployment.console.person("operator")
    page = log_in(context.new_page(), deployment.url, person, f"/console/payments/{payment.id}")
    token = page.locator("header input[name=csrf]").get_attribute("value")
    origin = {"origin": deployment.url}
    send = {
        "missing": ({}, origin),
        "wrong": ({"csrf": f"{token}0"}, origin),
        "of another session": ({"csrf": deployment.console.client("operator").csrf}, origin),
        "of another origin": ({"csrf": token}, {"origin": "https://elsewhere.example"}),
        "of nowhere": ({"csrf": token}, {}),
    }
    fields, headers = send[forged]
    url = f"{deployment.url}/console/payments/{payment.id}/resolve"
    form = {"state": "confirmed", "reason": "because", **fields}

    answer = context.request.post(url, form=form, headers=headers, max_redirects=0)

    assert answer.status == 403
    assert deployment.actions(payment.id) == []
    assert deployment.payment(payment.id).version == payment.version
    right = context.request.post(url, form={**form, "csrf": token}, headers=origin, max_redirects=0)
    assert right.status == 303, "what is right would have been taken, so that the refusal was for what was forged"
    assert [done.action for done in deployment.actions(payment.id)] == ["resolve"]
