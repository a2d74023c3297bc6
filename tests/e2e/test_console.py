"""The console in a real browser: what only a browser decides about cookies, forms, policies and the keyboard."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.e2e.browsing import another_site
from tests.support.console import PASSWORD, Served, on_sqlite

pytestmark = pytest.mark.e2e

PAGES = ("/console/", "/console/me", "/console/people", "/console/accounts", "/console/tables/payments/list")


@pytest.fixture
def console(tmp_path, template) -> Iterator[Served]:
    with on_sqlite(tmp_path, template) as served:
        yield served


def log_in(console: Served, context: BrowserContext, path: str = "/console/me", role: str = "admin") -> Page:
    page, person = context.new_page(), console.person(role)
    page.goto(f"{console.base_url}{path}")
    page.get_by_label("Name").fill(person.name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{console.base_url}{path}")
    return page


def test_somebody_who_is_logged_in_follows_a_link_from_another_site(console, browser):
    """A strict cookie is not sent with it; one page of ours stands between, and nobody has to log in again."""
    context = browser.new_context()
    log_in(console, context)
    with another_site(f'<a href="{console.base_url}/console/people">look</a>') as url:
        page = context.new_page()
        page.goto(url)
        page.get_by_role("link", name="look").click()
        page.wait_for_url(f"{console.base_url}/console/people")

        assert page.get_by_role("heading", name="People").is_visible()


def test_somebody_who_is_not_logged_in_and_follows_it_is_asked_to(console, browser):
    """The page that stands between leads nobody round in circles."""
    with another_site(f'<a href="{console.base_url}/console/people">look</a>') as url:
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("link", name="look").click()

        page.get_by_label("Password").wait_for()


def test_a_form_of_another_site_does_nothing(console, browser):
    """The browser sends neither the cookie nor an origin of ours, and the session goes on."""
    context = browser.new_context()
    page = log_in(console, context)
    with another_site(
        f'<form method="post" action="{console.base_url}/console/logout"><button>win</button></form>'
    ) as url:
        other = context.new_page()
        other.goto(url)
        with other.expect_response(f"{console.base_url}/console/logout") as answer:
            other.get_by_role("button", name="win").click()
        assert answer.value.status == 401
    page.reload()
    assert page.url == f"{console.base_url}/console/me"


def test_another_site_cannot_frame_a_page(console, browser):
    """The browser shows nothing of ours in a frame."""
    context = browser.new_context()
    log_in(console, context)
    with another_site(f'<iframe src="{console.base_url}/console/login"></iframe>') as url:
        page = context.new_page()
        page.goto(url)

        assert "Log in" not in page.frames[-1].content()


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_breaks_no_policy(console, browser, width, scheme):
    """Nothing is wider than the window, no policy is broken, and no script fails."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = log_in(console, context)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda fault: told.append(str(fault)))
    for path in PAGES:
        page.goto(f"{console.base_url}{path}")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
    assert told == []


def test_the_keyboard_is_enough(console, browser):
    """The first key leads past the navigation, and what has the focus shows it."""
    page = log_in(console, browser.new_context())
    page.keyboard.press("Tab")

    skip = page.get_by_role("link", name="Skip to the content")
    assert skip.evaluate("link => link === document.activeElement")
    assert skip.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_without_scripts_everything_is_there(console, browser):
    """On a telephone without JavaScript the navigation opens, and a form does what it says."""
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 800})
    page = log_in(console, context)
    page.locator(".nav-small summary").click()
    page.locator(".nav-small").get_by_role("link", name="People").click()
    page.get_by_label("Name").fill("grace")
    page.get_by_role("button", name="Add, and show a password").click()

    assert page.locator("code.secret").is_visible()


#: Contrast by WCAG 2.2: of each visible text with its nearest painted background.
_CONTRAST = """
() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const curved = share => share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  const channel = value => curved(value / 255);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const under = element => {
    for (let at = element; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      if (found.startsWith('rgb(')) return parse(found);
    }
    return [255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest('svg')) continue;
    const style = getComputedStyle(element);
    const [one, two] = [light(parse(style.color)), light(under(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) low.push(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return low;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(console, browser, scheme):
    """Each text has the contrast that WCAG AA asks for, in both schemes."""
    page = log_in(console, browser.new_context(color_scheme=scheme))
    for path in (*PAGES, "/console/nothing"):
        page.goto(f"{console.base_url}{path}")
        assert page.evaluate(_CONTRAST) == [], path
