"""Fixtures that every kind of test may use: a clock and a migrated database in a file; and the order of tests."""

import functools
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import httpcore2
import pytest
import structlog

from receipted import logs
from storage.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.databases import PostgreSQL, copy_of, template_file


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which tests run in another order."""
    parser.addoption(
        "--order-seed", type=int, default=None, help="shuffle the files, and the tests of each, by this number"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say how the same order is had again."""
    seed = config.getoption("--order-seed")
    return None if seed is None else f"order of tests: --order-seed={seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the files and the tests of each: a test that needs what another did, or did not do, falls in some order.

    Tests of one file stay together, so that what they share is made once.
    """
    seed = config.getoption("--order-seed")
    if seed is None:
        return
    drawn = random.Random(seed)
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    shuffled = list(files.values())
    drawn.shuffle(shuffled)
    for each in shuffled:
        drawn.shuffle(each)
    items[:] = [item for each in shuffled for item in each]


@pytest.fixture(scope="session", autouse=True)
def trust_read_once() -> Iterator[None]:
    """Let HTTP clients without a TLS context of their own share one: reading the machine's roots takes 25 ms a client.

    Nothing changes that context: who wants another makes another, and gives it to the client.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Logging as a process begins with: its sampler drops a test's lines where a neighbour wrote many just before."""
    logs._sampler = logs.Sampler(50, 1000)
    root = logging.getLogger()
    level, handlers, configured = root.level, list(root.handlers), structlog.get_config()
    yield
    structlog.configure(**configured)
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def template() -> Path:
    return template_file()


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
