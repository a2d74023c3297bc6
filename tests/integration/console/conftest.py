"""The console over real HTTP: real application parts, a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Served, cheap_passwords, on_sqlite
from tests.support.sandbox import generous


@pytest.fixture(scope="module", autouse=True)
def passwords_cost_nothing() -> Iterator[None]:
    """Hash passwords cheaply; tests/unit/console/test_passwords.py hashes at the usual cost."""
    with cheap_passwords():
        yield


@pytest.fixture
def console(tmp_path: Path, template: Path) -> Iterator[Served]:
    """The console on SQLite."""
    with on_sqlite(tmp_path, template) as served:
        yield served


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    """One for all tests of the folder."""
    with generous() as found:
        yield found


@pytest.fixture
def at_sandbox(tmp_path: Path, template: Path, sandbox_url: str) -> Iterator[Served]:
    """The console with an account at each provider of the sandbox."""
    with on_sqlite(tmp_path, template, sandbox_url=sandbox_url) as served:
        yield served
