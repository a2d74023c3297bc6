"""Several processes at one socket, as an operating system sees them."""

import json
import os
import signal
from pathlib import Path

import httpx2
import pytest

from receipted.cli.exits import Exit
from storage.database import Database
from tests.support.processes import finished, started
from tests.support.serving import eventually
from tests.support.settings_file import write_settings


@pytest.fixture
def config(tmp_path, postgresql):
    """Settings for a database of its own."""
    database: Database = postgresql.copy()
    path = write_settings(tmp_path, "http://127.0.0.1:9")
    lines = path.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("database"))
    lines[at] = f'database = "{database.url}"'
    path.write_text("\n".join(lines))
    yield path
    postgresql.drop(database)


def children(process: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


def lost(errors: Path) -> int:
    return sum(json.loads(line)["event"] == "worker.lost" for line in errors.read_text().splitlines())


def probe(url: str) -> int:
    return httpx2.get(f"{url}/webhooks/stable").status_code


def test_a_process_that_is_lost_is_begun_again_and_all_end_in_order(config, tmp_path):
    """Two answer; one is killed and another takes its place; SIGTERM ends all of them, with 0."""
    errors = tmp_path / "err"
    with started("--config", str(config), "web", "--workers", "2", "--json", errors=errors) as process:
        url = process.json()["url"]
        first = children(process.child.pid)
        assert probe(url) == 200
        assert len(first) == 2
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(children(process.child.pid) - {victim}) == 2)
        assert [probe(url) for _ in range(10)] == [200] * 10
        assert process.stop() == Exit.DONE
    assert lost(errors) == 1
    assert not any(Path(f"/proc/{child}").exists() for child in first)


def test_processes_end_with_whoever_began_them(config, tmp_path):
    """Nobody goes on answering that nobody looks after."""
    with started("--config", str(config), "web", "--workers", "2", "--json", errors=tmp_path / "err") as process:
        process.json()
        begun = children(process.child.pid)
        process.stop(signal.SIGKILL)
        eventually(lambda: not any(_lives(child) for child in begun))
    assert len(begun) == 2


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sqlite_has_one_writer(shell):
    """More than one process is refused, with the reason, and nothing listens."""
    result = finished("--config", str(shell.config), "web", "--workers", "2")

    assert result.returncode == Exit.USAGE
    assert "SQLite has one writer" in result.stderr
    assert "(one_writer)" in result.stderr
