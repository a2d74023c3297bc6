"""The processes as an operating system sees them: they start, answer, and stop with a code that means something."""

import json
import signal
import tomllib

import httpx2
import pytest

from receipted.cli.exits import Exit
from receipted.settings import load
from tests.support.processes import SECONDS, finished, started
from tests.support.settings_file import write_settings

from .conftest import Shell


def logged(path):
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_serve_answers_and_stops_in_order(empty, tmp_path, number):
    """It migrates when told to, answers providers, logs JSON on stderr, and stops with 0 on a signal."""
    errors = tmp_path / "stderr"
    with started("--config", str(empty.config), "serve", "--migrate", "--json", errors=errors) as process:
        url = process.json()["url"]
        ready = httpx2.get(f"{url}/webhooks/stable")
        refused = httpx2.post(f"{url}/webhooks/stable", content=b"{}")
        code = process.stop(number)

    assert (ready.status_code, ready.json()) == (200, {"account": "stable", "ready": True})
    assert "server" not in ready.headers
    assert refused.status_code == 401
    assert code == Exit.DONE
    events = logged(errors)
    assert events.index("service.started") < events.index("delivery.rejected") < events.index("service.stopped")
    assert "delivery.rejected" in events


def test_web_and_worker_share_the_work(shell, tmp_path):
    """Two processes on one database: one answers, the other applies; both stop with 0."""
    config = ("--config", str(shell.config))
    with (
        started(*config, "web", "--json", errors=tmp_path / "web") as web,
        started(*config, "worker", "--json", errors=tmp_path / "worker") as worker,
    ):
        assert worker.json()["process"] == "worker"
        assert httpx2.get(f"{web.json()['url']}/webhooks/banked").status_code == 200
        assert (web.stop(), worker.stop()) == (Exit.DONE, Exit.DONE)


def test_the_sandbox_prints_settings_that_work(tmp_path):
    """The sandbox says where it answers and with which credentials; its settings make a service that can pay."""
    with started("sandbox", "--port", "0", "--speed", "60", "--payers", "--json", errors=tmp_path / "err") as process:
        told = process.json()
        shell = Shell(write_settings(tmp_path, told["url"])).migrated()
        args = ("--amount", "5", "--currency", "USD", "--reference", "order 1")
        created = shell("payments", "create", "stable", *args, "--json").json
        assert process.stop() == Exit.DONE

    assert created["state"] == "awaiting_payment"
    loaded = load.load(shell.config, {}).accounts
    assert {account["name"] for account in told["accounts"]} == set(loaded)


def test_the_sandbox_tells_people_how_to_point_accounts_at_it(tmp_path):
    """Without --json it prints a table and a part of a settings file, which is TOML."""
    with started("sandbox", "--port", "0", errors=tmp_path / "err") as process:
        lines = []
        while not lines or "curl" not in lines[-1]:
            lines.append(process._lines.get(timeout=SECONDS))
        process.stop()

    text = "".join(lines)
    assert "ap_client_sandbox_0001" in text
    assert set(tomllib.loads(text[text.index("# For receipted.toml") :])["accounts"]) == {
        *("alternative", "stable", "payfield", "payfield-old", "banked")
    }


def test_settings_that_cannot_work_end_with_2(tmp_path):
    """A process with bad settings lists all faults on stderr and ends with 2, without a traceback."""
    path = tmp_path / "receipted.toml"
    path.write_text("[service]\nlisten_port = 99999\nlisten_hots = 'x'\n")

    result = finished("--config", str(path), "serve")

    assert result.returncode == Exit.USAGE
    for named in ("service.listen_port", "service.listen_hots", "service.public_url", "sinks", "accounts"):
        assert f"- {named} " in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_outdated_schema_ends_with_3(empty):
    """A process on an old schema says how to migrate and ends with 3."""
    result = finished("--config", str(empty.config), "worker")

    assert result.returncode == Exit.SCHEMA
    assert result.stderr == "error: there is no database yet: run receipted migrate (schema_outdated)\n"


def test_migrating_twice_changes_nothing(empty):
    """migrate is idempotent, and --check says before and after what it found."""
    empty("migrate", "--check", code=Exit.SCHEMA)

    first, second = empty("migrate", "--json").json, empty("migrate", "--json").json

    assert (first["before"], first["changed"]) == (None, True)
    assert (second["before"], second["changed"]) == (first["revision"], False)
    assert empty("migrate", "--check", "--json").json["revision"] == first["revision"]


def test_a_loop_that_ends_all_the_same_ends_the_process_with_1(shell, monkeypatch):
    """What a step raises ends no loop; where one ends by itself the process stops in order, and with a failure."""

    async def break_down(*_, **__):
        raise RuntimeError("a bug of the loop itself")

    monkeypatch.setattr("receipted.app.keep_stepping", break_down)

    typed = shell("worker", code=Exit.FAILED)

    assert "(loop_failed)" in typed.err
    assert '"event": "service.failed"' in typed.err
