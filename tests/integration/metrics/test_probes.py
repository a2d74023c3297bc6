"""/healthz and /readyz: each cause by its own name, and well again when it is over."""

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from receipted import monitoring
from receipted.metrics.catalogue import LabelBounds
from receipted.metrics.health import HealthChecks, LoopMonitor
from receipted.metrics.process import MetricSources, ProcessFigures, SharedSnapshots
from receipted.settings import load
from receipted.settings.load import Settings
from receipted.wiring import Service
from storage import inbox
from storage.database import Database
from storage.errors import StorageUnavailable
from tests.support.builders import a_message
from tests.support.clock import FakeClock
from tests.support.databases import PostgreSQL
from tests.support.serving import eventually, serving, settings
from tests.support.settings_file import write_settings
from tests.support.waiting import DEADLINE_S


class Steps:
    """A clock of seconds that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def checks(
    database: Database, clock: FakeClock, steps: Steps, *, works: bool = True
) -> tuple[HealthChecks, LoopMonitor]:
    pulse = LoopMonitor(steps)
    lag = timedelta(seconds=300) if works else None
    return HealthChecks(database, pulse, clock, stalled_after=600, lag_after=lag, monotonic=steps), pulse


def causes(found: HealthChecks) -> list[str]:
    return [cause["cause"] for cause in asyncio.run(found.ready()).causes]


def test_a_worker_that_lags_is_not_ready_and_a_receiver_is(either: Database, clock: FakeClock) -> None:
    steps = Steps()
    worker, _ = checks(either, clock, steps)
    receiver, _ = checks(either, clock, steps, works=False)
    assert causes(worker) == []
    with either.write() as unit:
        inbox.record(unit, [a_message(received_at=clock() - timedelta(seconds=301))])
    steps.now += 2

    assert causes(worker) == ["inbox_lag"]
    found = asyncio.run(receiver.ready())
    assert found.is_well
    assert found.inbox_lag_seconds == 301


def test_an_old_schema_is_told(either: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipted.metrics.health._newest", lambda: "9999")

    assert causes(checks(either, clock, Steps())[0]) == ["schema_outdated"]


def test_a_database_that_is_away_is_told(tmp_path: Path, clock: FakeClock) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/nothing")

    assert causes(checks(nowhere, clock, Steps())[0]) == ["storage_unavailable"]
    nowhere.close()


def test_a_loop_that_stands_still_is_told_and_goes_on(clock: FakeClock, database: Database) -> None:
    steps = Steps()
    found, pulse = checks(database, clock, steps)

    async def beat(name: str) -> None:
        async def loop() -> None:
            pulse.begin_step()

        await asyncio.create_task(loop(), name=name)

    for name in ("inbox", "reconcile.shop", "housekeeping"):
        asyncio.run(beat(name))
    steps.now += 601
    assert found.alive().causes == [{"cause": "loop_stalled", "loop": "inbox"}]
    asyncio.run(beat("inbox"))
    assert found.alive().is_well
    pulse.failed.append("outbox")
    assert found.alive().causes == [{"cause": "loop_failed", "loop": "outbox"}]
    assert "loop_failed" in causes(found)


def test_the_health_of_a_process_that_works_is_told_by_the_one_that_answers(clock: FakeClock) -> None:
    steps, board, nowhere = Steps(), SharedSnapshots(2), Database("postgresql://nobody@127.0.0.1:9/nothing")

    def figures(slot: int) -> ProcessFigures:
        bounds = LabelBounds((), (), "1")
        made = ProcessFigures(MetricSources(), nowhere, bounds, version="1", queue=1, monotonic=steps)
        made.join(board, slot)
        return made

    web, worker = figures(0), figures(1)
    pulse = LoopMonitor(steps)
    own = HealthChecks(nowhere, pulse, clock, stalled_after=600, lag_after=None, held=lambda: ["p1"])
    found = HealthChecks(
        nowhere, LoopMonitor(steps), clock, stalled_after=600, lag_after=None, others=web.others_health
    )
    web.publish(None)
    assert found.alive().is_well, "the worker has not begun"
    worker.publish(own.own())
    assert found.alive().is_well
    assert found.alive().held_payments == ["p1"]
    pulse.failed.append("inbox")
    worker.publish(own.own())
    assert found.alive().causes == [{"cause": "loop_failed", "loop": "inbox"}]
    pulse.failed.clear()
    worker.publish(own.own())
    steps.now += 61
    assert found.alive().causes == [{"cause": "process_silent", "seconds": 61}]
    nowhere.close()


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return settings(tmp_path, tick=0.05)


def test_the_application_lives_and_is_ready(config: Settings) -> None:
    with serving(config, with_work=True) as served:
        assert served.request("GET", "/healthz").json() == {"alive": True, "causes": []}
        answer = served.request("GET", "/readyz")
        assert answer.status == 200
        assert answer.json()["ready"] is True
        assert answer.headers["cache-control"] == "no-store"
        eventually(lambda: set(served.service.pulse._beats) >= {"inbox", "outbox", "planner", "push", "poller.sg"})
        served.service.pulse.failed.append("inbox")

        assert served.request("GET", "/healthz").status == 503


def test_an_application_without_its_tables_is_alive_and_not_ready(config: Settings) -> None:
    with serving(config, migrated=False) as served:
        answer = served.request("GET", "/readyz")

        assert answer.status == 503
        assert answer.json() == {"ready": False, "causes": [{"cause": "schema_outdated"}]}
        assert served.request("GET", "/healthz").status == 200
        scrape = served.request("GET", "/metrics")
        assert scrape.status == 200
        assert b"receipted_inbox_messages{" not in scrape.body
        assert b'receipted_scrape_errors_total{figures="inbox"} 1.0' in scrape.body


def test_a_database_that_takes_no_writes_is_told_and_so_is_one_that_does_again(
    either: Database, clock: FakeClock, request: pytest.FixtureRequest
) -> None:
    """As after a failover, or a file that was mounted so: nothing acknowledged is lost, and no balancer sends more."""
    steps = Steps()
    if either.url.startswith("sqlite"):
        path = either.url.removeprefix("sqlite:///")
        shut = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
        found, _ = checks(shut, clock, steps)
        assert causes(found) == [], "nobody has tried to write"
        with pytest.raises(StorageUnavailable), shut.write() as unit:
            inbox.record(unit, [a_message()])
        steps.now += 2
        assert causes(found) == ["storage_read_only"]
        shut.close()
        return
    name = make_url(either.url).database
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")
    found, _ = checks(either, clock, steps)
    assert causes(found) == []
    postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
    postgresql.execute(ends)
    try:
        steps.now += 2
        assert causes(found) == ["storage_read_only"]
    finally:
        postgresql.execute(f"ALTER DATABASE {name} RESET ALL")
        postgresql.execute(ends)
    steps.now += 2
    assert causes(found) == []


def test_figures_that_cannot_be_shared_once_are_shared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug while figures are shared is logged, and makes the process look silent for no longer than it lasts."""
    service = Service(load.load(write_settings(tmp_path), {}))
    board = SharedSnapshots(1)
    service.metrics_slot = (board, 0)
    written: list[bool] = []
    is_enough = asyncio.Event()

    def write(slot: int, content: bytes) -> None:
        written.append(len(written) not in (1, 2))
        if len(written) == 5:
            is_enough.set()
        if not written[-1]:
            raise ZeroDivisionError

    monkeypatch.setattr(board, "write", write)
    monkeypatch.setattr(monitoring, "_PUBLISH_INTERVAL_S", 0.001)

    async def run() -> None:
        async with monitoring.ProcessMonitor(service, receives=True).running():
            await is_enough.wait()

    with capture_logs() as logged:
        asyncio.run(asyncio.wait_for(run(), DEADLINE_S))
    service.close()

    assert written[:5] == [True, False, False, True, True]
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["process.failed"] * 2


def test_a_full_disk_is_told_until_a_write_succeeds(database: Database, clock: FakeClock) -> None:
    """By what the last write said; the probe itself tries again, since nobody else writes while it is not ready."""
    steps = Steps()
    found, _ = checks(database, clock, steps)
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit = pages

    def bound(connection: Any, _record: object, _proxy: object) -> None:
        connection.execute(f"PRAGMA max_page_count={limit}")

    event.listen(database.engine, "checkout", bound)
    with pytest.raises(StorageUnavailable), database.write() as unit:
        inbox.record(unit, [a_message(body=b"x" * 400_000)])

    def refuse(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_full and "alembic_version SET" in statement:
            fault = sqlite3.OperationalError("database or disk is full")
            fault.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise DBAPIError(statement, None, fault)

    is_full = True
    event.listen(database.engine, "before_cursor_execute", refuse)
    assert causes(found) == ["storage_full"]
    is_full, limit = False, pages + 1000
    steps.now += 2
    assert causes(found) == []
    assert database.refusal is None


def test_a_write_that_meets_a_lock_makes_nobody_unready(database: Database, clock: FakeClock) -> None:
    """One slow write must not take a whole fleet away."""
    steps = Steps()
    found, _ = checks(database, clock, steps)
    slow = StorageUnavailable("the database refused: OperationalError: database is locked")
    database.wrote(slow)
    assert causes(found) == []
