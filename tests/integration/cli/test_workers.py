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
    return sum(json.loads(line)["event"] == "process.lost" for line in errors.read_text().splitlines())


def probe(url: str) -> int:
    return httpx2.get(f"{url}/webhooks/stable", timeout=60).status_code  # another process may be starting


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


def named(errors: Path) -> list[str]:
    """The processes that were lost, by name."""
    lines = [json.loads(line) for line in errors.read_text().splitlines()]
    return [line["process"] for line in lines if line["event"] == "process.lost"]


def test_serve_begins_web_and_worker_again_and_both_end_in_order(shell, tmp_path):
    """Each is killed in its turn: deliveries are answered again, and a payment is decided again."""
    errors = tmp_path / "err"
    with started("--config", str(shell.config), "serve", "--json", errors=errors) as process:
        url = process.json()["url"]
        first = children(process.child.pid)
        assert len(first) == 2
        for number, victim in enumerate(sorted(first), start=1):
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: len(named(errors)) == number, 30)  # noqa: B023 - called before it is another
            eventually(lambda: len(children(process.child.pid) - first) == number, 30)  # noqa: B023
            eventually(lambda: probe(url) == 200, 30)
        eventually(lambda: httpx2.get(f"{url}/healthz").json()["alive"], 30)
        figures = httpx2.get(f"{url}/metrics").text
        assert process.stop() == Exit.DONE
    assert sorted(named(errors)) == ["web", "worker"]
    assert "receipted_processes 2.0" in figures
    assert not any(_lives(child) for child in first)


def test_both_processes_of_serve_end_with_the_one_that_began_them(shell, tmp_path):
    """The next start finds the port free, whatever became of the last one."""
    with started("--config", str(shell.config), "serve", "--json", errors=tmp_path / "err") as process:
        process.json()
        begun = children(process.child.pid)
        process.stop(signal.SIGKILL)
        eventually(lambda: not any(_lives(child) for child in begun))
    assert len(begun) == 2


def test_sqlite_has_one_writer(shell):
    """More than one process is refused, with the reason, and nothing listens."""
    result = finished("--config", str(shell.config), "web", "--workers", "2")

    assert result.returncode == Exit.USAGE
    assert "on SQLite one process receives" in result.stderr
    assert "(one_writer)" in result.stderr
