"""One payment's page in a browser: it keeps itself up to date and takes nothing away from who reads or writes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.console.stories import Teller
from tests.support.console import Served, on_sqlite

pytestmark = pytest.mark.e2e


@pytest.fixture
def console(tmp_path: Path, template: Path) -> Iterator[Served]:
    with on_sqlite(tmp_path, template) as served:
        yield served


@pytest.fixture
def page(console: Served, browser: Browser) -> Iterator[Page]:
    """A browser's page in which an operator is logged in; a refusal of its policy, or a fault of a script, fails."""
    cookie = {
        "name": "receipted",
        "value": console.client("operator").http.cookies["receipted"],
        "url": console.base_url,
    }
    faults: list[str] = []
    context = browser.new_context(viewport={"width": 360, "height": 800})
    context.add_cookies([cookie])
    opened = context.new_page()
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    context.close()
    assert faults == []


def test_the_page_follows_the_payment_and_leaves_what_is_open_open(console, page):
    """A change shows by itself; unfolded messages, the focus and what is being written stay."""
    tell = Teller(console)
    message_id = tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    page.goto(f"{console.base_url}/console/payments/{payment.id}")
    expect(page.locator("[data-live-state=on]")).to_be_attached()
    page.locator(f"#d-{message_id} > summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f"#d-{message_id}")).to_have_attribute("open", "")

    tell.stable("confirmed")

    expect(page.locator("#head h1")).to_contain_text("paid", timeout=20_000)
    expect(page.locator(".state.current .line-1")).to_have_text("confirmed")
    expect(page.locator("#timeline .entry")).to_have_count(2)
    expect(page.locator(f"#d-{message_id}")).to_have_attribute("open", "")
    expect(page.locator(f"#d-{message_id} > summary")).to_be_focused()
    expect(page.locator("[data-live-told]")).to_contain_text("brought up to date")


def test_what_somebody_writes_is_left_alone(console, page):
    """A form that is being filled in stays as it is while the rest of the page follows."""
    tell = Teller(console)
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    page.goto(f"{console.base_url}/console/payments/{payment.id}")
    expect(page.locator("[data-live-state=on]")).to_be_attached()
    page.get_by_text("Resolve", exact=False).first.click()
    page.locator("#actions textarea").first.fill("seen on the statement")

    tell.stable("confirmed")

    expect(page.locator("#timeline .entry")).to_have_count(2, timeout=20_000)
    expect(page.locator("#actions textarea").first).to_have_value("seen on the statement")
    expect(page.locator("[data-live-told]")).to_contain_text("was left as it is")


def test_the_page_fits_a_telephone_and_works_without_scripts(console, page):
    """Nothing sticks out at 360 pixels, and every form is there without a script."""
    tell = Teller(console)
    for state in ("awaiting_provider", "failed", "sent"):
        tell.banked(state, note="x" * 300)
    payment = tell.by_ref("banked", "ps_1")
    page.goto(f"{console.base_url}/console/payments/{payment.id}")
    for summary in page.locator("details.held > summary").all():
        summary.click()

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    plain = page.context.browser.new_context(java_script_enabled=False)
    plain.add_cookies(page.context.cookies())
    still = plain.new_page()
    still.goto(f"{console.base_url}/console/payments/{payment.id}")
    expect(still.locator("#timeline .entry")).to_have_count(3)
    expect(still.locator(f'form[action="/console/payments/{payment.id}/resolve"]')).to_have_count(1)
    plain.close()
