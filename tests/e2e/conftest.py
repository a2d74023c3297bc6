"""A browser for a file's tests, and one deployment for all that can share it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.e2e.browsing import Watch, launched
from tests.e2e.deployment import Deployment, deployed

#: Effects are tried once more, soon, and then dead; what changes is known soon too.
_QUICK = """
[fulfilment]
schedule_seconds = [0.1]
[worker]
tick_seconds = 0.1
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one file and no longer: its loop would be in the way of tests that run one of their own."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("deployment"), more=_QUICK) as deployment:
        yield deployment


@pytest.fixture
def deployment(running: Deployment) -> Iterator[Deployment]:
    """One for all tests, with its shop open."""
    yield running
    running.shop.is_closed = False


@pytest.fixture
def watch(deployment: Deployment) -> Iterator[Watch]:
    """Faults on any page that it watches fail the test."""
    watching = Watch(deployment.url)
    yield watching
    assert watching.faults == []


@pytest.fixture
def context(browser: Browser, watch: Watch) -> Iterator[BrowserContext]:
    """A browser's window of its own, watched."""
    opened = watch.over(browser.new_context(viewport={"width": 1440, "height": 900}))
    yield opened
    opened.close()
