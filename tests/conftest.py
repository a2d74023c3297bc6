"""Fixtures that every kind of test may use: a clock and a migrated database in a file; and the order of tests."""

import functools
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import httpcore2
import hypothesis
import pytest
import structlog

from receipted import logs
from storage.database import Database
from tests.support.clock import FakeClock
from tests.support.databases import PostgreSQL, copy_of, template_file

HERE = Path(__file__).parent

# How long a draw takes says how busy the machine is, and nothing about the code: no test fails of it.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("untimed")

#: Modules of `make test-more`, marked `more`. In `make test` is what proves most in a second of processor time; here is
#: what starts processes, proxies and collectors, waits by a real clock, or draws histories and requests for long.
#: `make test` takes under 150 s on two cores; whatever makes it longer moves modules here, by `pytest --durations=0`.
MORE = frozenset(
    {
        "contract/fulfilment/test_broker_sink.py",
        "contract/fulfilment/test_broker_tls.py",
        "contract/storage/test_token_buckets.py",
        "contract/storage/test_online_migration.py",
        "contract/storage/test_overview.py",
        "contract/storage/test_postgresql_servers.py",
        "integration/api/test_description.py",
        "integration/api/test_unclear_answers.py",
        "integration/cli/test_doctor.py",
        "integration/cli/test_encodings.py",
        "integration/cli/test_following.py",
        "integration/cli/test_processes.py",
        "integration/cli/test_reconcile.py",
        "integration/cli/test_stopping.py",
        "integration/cli/test_workers.py",
        "integration/metrics/test_together.py",
        "integration/receiver/test_backpressure.py",
        "integration/receiver/test_behind_proxies.py",
        "integration/redteam/test_asking.py",
        "integration/test_audit_forgery.py",
        "integration/test_audit_tampering.py",
        "integration/test_budget_in_real_time.py",
        "integration/test_cancelling.py",
        "integration/test_clocks_apart.py",
        "integration/test_deploying.py",
        "integration/test_held_rows.py",
        "integration/test_hostile_commands.py",
        "integration/test_hostile_requests.py",
        "integration/test_mailed_alarm.py",
        "integration/test_memory_under_faults.py",
        "integration/test_permissions.py",
        "integration/test_push_measured.py",
        "integration/test_retention.py",
        "integration/tracing/test_traces.py",
        "integration/tracing/test_without.py",
        "integration/tracing/test_workers.py",
        "property/test_budget_window.py",
        "property/test_cancel_races.py",
        "property/test_hostile_texts.py",
        "property/test_pipeline.py",
        "property/test_polling_simulated.py",
        "unit/poller/test_webhook_health.py",
        "unit/poller/test_silence_simulated.py",
        "unit/service/test_commands.py",
        "repo/test_installed.py",
    }
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which tests run in another order."""
    parser.addoption(
        "--order-seed", type=int, default=None, help="shuffle the files, and the tests of each, by this number"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say how the same order is had again."""
    seed = config.getoption("--order-seed")
    return None if seed is None else f"order of tests: --order-seed={seed}"


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the modules of `make test-more`, and shuffle the files and the tests of each where a seed is given.

    A test that needs what another did, or did not do, falls in some order. Tests of one file stay together, so that
    what they share is made once.
    """
    for item in items:
        if item.path.relative_to(HERE).as_posix() in MORE:
            item.add_marker("more")
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
