"""Every page of the console at both widths and in both schemes: it fits, breaks no policy, can be used by everybody."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from pyotp import TOTP
from starlette.routing import BaseRoute, Route

from receipted.web_wiring import WebServices, console_routes
from tests.e2e import axe
from tests.e2e.browsing import Watch, overhang, shown_although_hidden, without_effect
from tests.e2e.deployment import Deployment
from tests.e2e.story import Story, told
from tests.repo.tree import ROOT
from tests.support.console import PASSWORD

pytestmark = pytest.mark.e2e

_PICTURES = ROOT / "var" / "screenshots"

#: What is no page: files, what scripts listen to, and what only leads elsewhere.
_NO_PAGE = re.compile(
    r"/console/static/\{name\}|.*/(export|live|body)|/console/tables/|/console/find|/console/login/oidc.*"
)

#: Pixels from which on a table shows every filter.
_WIDE = 641

LOOKS = [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")]


@dataclass
class Tour:
    """What was found on all pages in one look."""

    width: int
    scheme: str
    program: str | None  #: axe-core's
    sticking_out: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)  #: although hidden
    dead: list[str] = field(default_factory=list)  #: buttons, folds and links without an effect
    unfolded: list[str] = field(default_factory=list)  #: tables that begin with a screen of filters
    faults: list[str] = field(default_factory=list)

    def look(self, page: Page, name: str) -> None:
        """Keep a picture of the page that is shown, and what is wrong with it."""
        if wide := overhang(page):
            self.sticking_out.append(f"{name} is {wide} pixels too wide")
        page.screenshot(path=_PICTURES / f"{name}-{self.width}-{self.scheme}.png", full_page=True)
        if self.program is not None:
            self.unusable += axe.violations(page, self.program)
        self.shown += [f"{name}: {each}" for each in shown_although_hidden(page)]
        if self.width < _WIDE and page.locator(".sieve").count() and page.locator(".sieve .field:visible").count() > 1:
            self.unfolded.append(name)
        self.dead += [f"{name}: {each}" for each in without_effect(page)]


@pytest.fixture(scope="session")
def story(running: Deployment) -> Story:
    return told(running)


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def tour(request: pytest.FixtureRequest, story: Story, browser: Browser) -> Tour:
    width, scheme = request.param
    made = Tour(width, scheme, axe.source())
    watch = Watch(story.deployment.url)
    _PICTURES.mkdir(parents=True, exist_ok=True)
    for visit in (_as_nobody, _as_admin, _as_viewer):
        context = watch.over(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        visit(made, story, context, watch)
        context.close()
    made.faults += watch.faults
    return made


def _as_nobody(tour: Tour, story: Story, context: BrowserContext, watch: Watch) -> None:
    page, url = context.new_page(), story.deployment.url
    page.goto(f"{url}/console/login")
    tour.look(page, "login")
    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill(f"not {PASSWORD}")
    with watch.expecting(401):
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").wait_for()
    tour.look(page, "login-refused")
    page.goto(f"{url}/docs")
    tour.look(page, "api-docs")


def _as_admin(tour: Tour, story: Story, context: BrowserContext, watch: Watch) -> None:
    page, url = story.enter(context, story.admin), story.deployment.url
    for name, path in story.pages.items():
        page.goto(f"{url}{path}")
        tour.look(page, name)
    page.goto(f"{url}{story.pages['payment-conflict']}")
    for summary in page.locator("main summary").all():
        if summary.is_visible():
            summary.click()
    tour.look(page, "payment-unfolded")
    page.goto(f"{url}{story.pages['table-inbox']}")
    page.locator("input[name=id]").first.check()
    page.get_by_label("Why?").fill("once more")
    page.get_by_role("button", name="Replay the chosen").click()
    page.get_by_role("heading", name="Replaying: done").wait_for()
    tour.look(page, "many-done")
    page.goto(f"{url}/console/people")
    page.get_by_label("Name").fill(f"grace-{tour.width}-{tour.scheme}")
    page.get_by_role("button", name="Add, and show a password").click()
    page.locator("code.secret").wait_for()
    tour.look(page, "people-password")
    with watch.expecting(404):
        page.goto(f"{url}/console/nothing")
    tour.look(page, "refused")


def _as_viewer(tour: Tour, story: Story, context: BrowserContext, watch: Watch) -> None:
    page, url = story.enter(context, story.viewer), story.deployment.url
    for name in ("payment-conflict", "table-outbox", "account"):
        page.goto(f"{url}{story.pages[name]}")
        tour.look(page, f"viewer-{name}")
    _second_factor(tour, story, context)
    new = story.enter(context, story.new)
    new.goto(f"{url}/console/")
    tour.look(new, "me-temporary")


def _second_factor(tour: Tour, story: Story, context: BrowserContext) -> None:
    person = story.deployment.console.person("operator")
    page, url = story.enter(context, person), story.deployment.url
    page.goto(f"{url}/console/me")
    page.get_by_role("textbox", name="Your password").fill(PASSWORD)
    page.get_by_role("button", name="Set it up").click()
    key = page.locator("code.secret").first.inner_text()
    tour.look(page, "second-factor")
    page.get_by_label("The six digits").fill(TOTP(key.replace(" ", "")).now())
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("heading", name="Your recovery codes").wait_for()
    tour.look(page, "recovery-codes")
    page.get_by_role("link", name="I have kept them").click()
    tour.look(page, "me-second-factor")
    page.goto(f"{url}/console/login")
    page.get_by_label("Name").fill(person.name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Your code").wait_for()
    tour.look(page, "login-code")


def test_no_page_is_wider_than_its_window(tour):
    """What is wide scrolls in a box of its own."""
    assert tour.sticking_out == []


def test_no_page_breaks_a_policy_fails_or_asks_elsewhere(tour):
    """No error and no warning of a script, no violation of the policy, no request to another origin."""
    assert tour.faults == []


def test_nothing_that_is_hidden_is_shown_on_any_page(tour):
    """The attribute `hidden` wins over every class."""
    assert tour.shown == []


def test_every_button_fold_and_link_of_every_page_has_an_effect(tour):
    """What can be pressed changes what is seen, sends a form, or leads somewhere."""
    assert tour.dead == []


def test_no_table_begins_with_a_screen_of_filters_on_a_telephone(tour):
    """They are folded, whether or not something can be done about many rows, and whatever was asked for."""
    assert tour.unfolded == []


def test_every_page_can_be_used_by_everybody(tour):
    """axe-core finds nothing serious or critical."""
    if tour.program is None:
        pytest.skip(axe.WHY_NOT)
    assert tour.unusable == []


def test_every_page_was_looked_at(story):
    """A page that is added is added here too."""
    service = story.deployment.console.service
    paths = [path.partition("?")[0] for path in (*story.pages.values(), "/console/login", "/console/login/code")]
    patterns = list(_pages(console_routes(service, WebServices(service))))

    assert patterns
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, path) for path in paths)] == []


def _pages(routes: Sequence[BaseRoute]) -> Iterator[str]:
    """Expressions that the paths of pages fit, one for each route."""
    for route in routes:
        if isinstance(route, Route):
            if "GET" in (route.methods or ()) and not _NO_PAGE.fullmatch(route.path):
                yield re.sub(r"\{\w+\}", "[^/]+", route.path)
        else:
            yield from _pages(route._router.routes)  # the console, which is one route of the application
