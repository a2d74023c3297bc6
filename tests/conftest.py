"""Fixtures that every kind of test may use: a clock and a migrated database in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.engine import Database
from tests.fakes.clock import FakeClock
from tests.fakes.databases import PostgreSQL, copy_of, migrated_file


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return migrated_file(tmp_path_factory.mktemp("template"))


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Iterator[Database]:
    opened = copy_of(template, tmp_path / "receipted.db")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for each process of tests, started by the first test that wants it."""
    server = PostgreSQL()
    yield server
    server.stop()
