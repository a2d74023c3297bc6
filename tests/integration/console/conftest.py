"""The console over real HTTP: real application parts, a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.config import AlternativePayments, SandboxConfig, StableGenius
from sandbox.server import running
from tests.fakes.console import Served, on_sqlite


@pytest.fixture
def console(tmp_path: Path, template: Path) -> Iterator[Served]:
    """The console on SQLite."""
    with on_sqlite(tmp_path, template) as served:
        yield served


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    """A sandbox without faults or payers, and without limits that tests could reach."""
    config = SandboxConfig(
        alternative_payments=AlternativePayments(requests_per_second=10_000),
        stable_genius=StableGenius(test_requests_per_minute=10_000),
    )
    with running(config) as found:
        yield found.base_url


@pytest.fixture
def at_sandbox(tmp_path: Path, template: Path, sandbox_url: str) -> Iterator[Served]:
    """The console with an account at each provider of the sandbox."""
    with on_sqlite(tmp_path, template, sandbox_url=sandbox_url) as served:
        yield served
