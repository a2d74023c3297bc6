"""Several processes: those at one socket answer as one, and a worker answers at a port of its own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from receipted.cli.exits import Exit
from storage.database import Database
from tests.integration.cli.test_workers import children
from tests.integration.metrics.asking import parsed
from tests.support.databases import copy_to
from tests.support.processes import finished, started
from tests.support.serving import eventually
from tests.support.settings_file import write_settings


@pytest.fixture
def on_postgresql(tmp_path: Path, postgresql) -> Iterator[Path]:
    """Settings for a database of its own."""
    database: Database = postgresql.copy()
    path = write_settings(tmp_path)
    lines = path.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("database"))
    lines[at] = f'database = "{database.url}"'
    path.write_text("\n".join(lines))
    yield path
    postgresql.drop(database)


def refused(url: str, times: int) -> None:
    """So many requests that count, each on a connection of its own, and so to whichever process is free."""
    for _ in range(times):
        assert httpx2.post(f"{url}/webhooks/stable", content=b"{}").status_code == 401


def told(url: str) -> dict:
    answer = httpx2.get(f"{url}/metrics")
    assert answer.status_code == 200
    return parsed(answer.text)


def unverified(found: dict) -> float:
    return found["receipted_deliveries_total"][("account", "stable"), ("outcome", "unverified")]


def processes(found: dict) -> float:
    return found["receipted_processes"][()]


def test_two_processes_answer_as_one_and_no_counter_goes_back(on_postgresql: Path, tmp_path: Path) -> None:
    """Whichever is asked, and after one was killed and another took its place."""
    with started("--config", str(on_postgresql), "web", "--workers", "2", "--json", errors=tmp_path / "err") as process:
        url = process.json()["url"]
        refused(url, 20)
        eventually(lambda: all(unverified(told(url)) == 20 for _ in range(10)))
        assert all(processes(told(url)) == 2 for _ in range(5))
        victim = min(children(process.child.pid))
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(children(process.child.pid) - {victim}) == 2)
        refused(url, 10)
        eventually(lambda: all(unverified(told(url)) == 30 for _ in range(10)))
        eventually(lambda: processes(told(url)) == 2)
        levels = {tuple(sorted(told(url)["receipted_inbox_messages"].items())) for _ in range(5)}
        assert len(levels) == 1
        assert process.stop() == Exit.DONE


def test_a_worker_answers_where_the_settings_say(tmp_path: Path) -> None:
    """Its own figures and the database's, and its probes; without the setting nothing listens."""
    config = write_settings(tmp_path, extra="[metrics]\nworker_port = 0\n")
    copy_to(tmp_path / "receipted.db")
    with started("--config", str(config), "worker", "--json", errors=tmp_path / "err") as process:
        url = process.json()["metrics"]
        found = told(url)
        assert found["receipted_inbox_messages"][("status", "pending"),] == 0
        assert ("receipted_deliveries_total" in found, "receipted_decisions_total" in found) == (False, True)
        assert httpx2.get(f"{url}/healthz").json() == {"alive": True, "causes": []}
        assert httpx2.get(f"{url}/readyz").status_code == 200
        assert httpx2.post(f"{url}/webhooks/stable", content=b"{}").status_code == 404
        assert process.stop() == Exit.DONE
    config = write_settings(tmp_path)
    with started("--config", str(config), "worker", "--json", errors=tmp_path / "err") as process:
        assert process.json()["metrics"] is None


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    config = write_settings(tmp_path, extra="[metrics]\nworker_port = 0\n")
    copy_to(tmp_path / "receipted.db")
    with started("--config", str(config), "worker", "--json", errors=tmp_path / "err") as process:
        port = process.json()["metrics"].rpartition(":")[2]
        second = tmp_path / "second.toml"
        second.write_text(config.read_text().replace("worker_port = 0", f"worker_port = {port}"))
        result = finished("--config", str(second), "worker")

        assert result.returncode == Exit.FAILED
        assert "cannot listen" in result.stderr
