"""Log-in by OpenID Connect in a real browser: to another site and back, with the cookies that it sends there."""

from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from tests.e2e.browsing import launched, overhang
from tests.repo.tree import ROOT
from tests.support.answering import answering
from tests.support.console import on_sqlite
from tests.support.oidc_provider import CLIENT, CLIENT_SECRET, Provider

pytestmark = pytest.mark.e2e

_PICTURES = ROOT / "var" / "screenshots"


@pytest.mark.parametrize("width", [360, 1440])
def test_a_person_is_led_to_the_provider_and_back_to_the_page_that_was_wanted(tmp_path, template, width):
    """The provider is another site (localhost): the session's strict cookie only counts after a page of ours."""
    with answering() as server:
        provider = Provider(server, lambda: datetime.now(UTC), url=server.url.replace("127.0.0.1", "localhost"))
        server.answers = provider.answer
        environ = {
            "RECEIPTED_OIDC__ISSUER": provider.url,
            "RECEIPTED_OIDC__CLIENT_ID": CLIENT,
            "RECEIPTED_OIDC__CLIENT_SECRET": "env:OIDC_SECRET",
            "OIDC_SECRET": CLIENT_SECRET,
            "RECEIPTED_OIDC__OPERATORS": '["payments-operators"]',
        }
        with on_sqlite(tmp_path, template, environ=environ) as served, launched() as browser:
            client = served.mounted[0]._deps.oidc
            here = f"{served.base_url}/console/login/oidc/callback"
            object.__setattr__(client._options, "redirect_uri", here)  # the port was not known before
            page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
            page.goto(f"{served.base_url}/console/me")
            _PICTURES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=_PICTURES / f"login-oidc-{width}.png")
            assert overhang(page) == 0
            page.get_by_role("link", name="Log in with single sign-on").click()
            page.wait_for_url(f"{served.base_url}/console/me")
            expect(page.get_by_role("heading", level=1)).to_have_text("ada")
