"""The API over real HTTP: real application parts, a real database, the sandbox as every provider."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from receipted.settings import load
from receipted.settings.load import Settings
from tests.support.api import Api, serving
from tests.support.databases import PostgreSQL
from tests.support.sandbox import generous
from tests.support.settings_file import LIVE_ACCOUNT, write_settings


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    """One for all tests of the folder."""
    with generous() as found:
        yield found


@pytest.fixture
def api(tmp_path: Path, sandbox_url: str, template: Path) -> Iterator[Api]:
    """The API on SQLite."""
    with serving(_settings(tmp_path, sandbox_url, template)) as found:
        yield found


@pytest.fixture
def narrow(tmp_path: Path, sandbox_url: str, template: Path) -> Iterator[Api]:
    """An API with room for two who wait."""
    bounds = "\n[api]\nwaiting = 2\n"
    with serving(_settings(tmp_path, sandbox_url, template, bounds)) as found:
        yield found


@pytest.fixture
def narrowed(tmp_path: Path, sandbox_url: str, template: Path) -> Iterator[Api]:
    """An API whose one sink is told of what was paid, and of nothing else."""
    shutil.copyfile(template, tmp_path / "receipted.db")
    path = write_settings(tmp_path, sandbox_url)
    path.write_text(path.read_text().replace('name = "shop"', 'name = "shop"\neffects = ["payment.paid"]'))
    with serving(load.load(path, {})) as found:
        yield found


@pytest.fixture
def slow(tmp_path: Path, sandbox_url: str, template: Path) -> Iterator[Api]:
    """An API that lets each key send three requests at once, and then one in half a minute."""
    bounds = f"\n[api]\nburst = 3\nrequests_per_second = {1 / 30}\n"
    with serving(_settings(tmp_path, sandbox_url, template, bounds)) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sandbox_url: str, template: Path) -> Iterator[Api]:
    """One API for all of a module's tests that leave nothing behind."""
    with serving(_settings(tmp_path_factory.mktemp("shared"), sandbox_url, template)) as found:
        yield found


@pytest.fixture
def api_on_postgresql(tmp_path: Path, sandbox_url: str, postgresql: PostgreSQL) -> Iterator[Api]:
    """The API on PostgreSQL."""
    database = postgresql.cleaned()
    path = write_settings(tmp_path, sandbox_url, extra=LIVE_ACCOUNT)
    try:
        with serving(load.load(path, {"RECEIPTED_SERVICE__DATABASE": database.url})) as served:
            yield served
    finally:
        database.close()


def _settings(folder: Path, sandbox_url: str, template: Path, more: str = "") -> Settings:
    shutil.copyfile(template, folder / "receipted.db")
    return load.load(write_settings(folder, sandbox_url, extra=LIVE_ACCOUNT + more), {})
