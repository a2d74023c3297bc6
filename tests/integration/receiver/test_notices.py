"""Web and worker in two processes on PostgreSQL: the worker is told, and need not look."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from storage import inbox, partitions
from storage.database import Database
from tests.support.databases import PostgreSQL
from tests.support.deliveries import event
from tests.support.serving import Served, eventually, serving, settings
from tests.support.working import worker

_THEIRS = "query ~ '(LISTEN|NOTIFY) .?receipted'"


@pytest.fixture
def url(postgresql: PostgreSQL) -> Iterator[str]:
    """Of a database of its own, with its partitions: a row that is on its way to a new one is left to the tick."""
    database = postgresql.copy()
    partitions.keep_ahead(database, datetime.now(UTC), partitions.Period.MONTH)
    yield database.url
    postgresql.drop(database)


def decided(url: str) -> int:
    database = Database(url)
    try:
        with database.read() as unit:
            return inbox.depth(unit).get("decided", 0) + inbox.depth(unit).get("parked", 0)
    finally:
        database.close()


def deliver(web: Served, url: str, before: int) -> None:
    assert web.post(event("sg")).status == 200
    eventually(lambda: decided(url) > before)


def test_a_worker_is_told_of_what_another_process_recorded(tmp_path: Path, url: str, postgresql: PostgreSQL) -> None:
    """Also after its connection was lost, and that of whoever tells."""
    with serving(settings(tmp_path, database=url)) as web, worker(settings(tmp_path, tick=600, database=url)):
        deliver(web, url, 0)
        deliver(web, url, 1)
        with web.database.read() as unit:
            count = text(f"SELECT count(*) FROM pg_stat_activity WHERE {_THEIRS}")  # noqa: S608
            found = unit.execute(count).scalar_one()
        assert found == 2
        postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_THEIRS}")  # noqa: S608
        assert web.post(event("sg")).status == 200
        eventually(lambda: decided(url) == 3)
