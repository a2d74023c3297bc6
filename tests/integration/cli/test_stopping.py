"""SIGTERM ends a process in bounded time, whatever a handler of the shop does, and a warning names the handler."""

import json
import time
from pathlib import Path

import pytest

from storage.database import Database
from tests.support.databases import fill
from tests.support.owing import Owing
from tests.support.processes import started
from tests.support.serving import eventually
from tests.support.settings_file import write_settings

STOP_S = 3
#: What a busy machine may add to it.
SPARE_S = 25


@pytest.mark.parametrize(
    ("process", "handler"),
    [
        ("serve", "in_a_thread"),
        ("worker", "busy_in_a_thread"),
        ("serve", "in_the_loop"),
        ("worker", "in_the_loop"),
        ("serve", "that_will_not_be_cancelled"),
    ],
)
def test_a_handler_without_an_end_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: str, process: str
) -> None:
    """The exit code is 0, and the effect is delivered again by the next start."""
    begun = tmp_path / "begun"
    monkeypatch.setenv("HANGING", str(begun))
    name = f"tests.integration.cli.hanging:{handler}"
    config = write_settings(tmp_path)
    text = config.read_text().replace("development = true", f"development = true\nstop_timeout_seconds = {STOP_S}", 1)
    head, _, rest = text.partition("[[sinks]]")
    rest = rest[rest.index("\n\n") :]
    config.write_text(f'{head}[[sinks]]\nname = "shop"\nkind = "python"\nhandler = "{name}"\n{rest}')
    database = Database(f"sqlite:///{tmp_path / 'receipted.db'}")
    fill(database)
    Owing(database).owe(1, effects=("payment.paid",))

    errors = tmp_path / "errors"
    with started("--config", str(config), process, errors=errors) as running:
        eventually(begun.exists)
        began = time.monotonic()
        code = running.stop()
        took = time.monotonic() - began

    assert code == 0
    assert took < STOP_S + SPARE_S
    told = [json.loads(line) for line in errors.read_text().splitlines() if "handler.abandoned" in line]
    assert told
    assert all(f"shop ({name})" in line["handlers"] for line in told)
    with database.read() as unit:
        assert unit.rows("SELECT status FROM outbox") == [("pending",)]
    database.close()
