"""A shell to type commands in, against a migrated SQLite file."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from sqlmodel import SQLModel
from typer.testing import CliRunner

from receipted import logs, redaction
from receipted.cli.main import app
from receipted.settings import load
from receipted.wiring import Service
from storage import payment_polls
from storage.types import PollPriority
from tests.support.databases import PostgreSQL, copy_to
from tests.support.rows import add
from tests.support.sandbox import generous
from tests.support.settings_file import write_settings


def forget_logs() -> None:
    """Give the process's logs back: a command set them up for streams that are closed now."""
    logging.captureWarnings(capture=False)
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, logs._Handler):
            logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)
    structlog.reset_defaults()
    redaction.forget_secrets()


class Typed(NamedTuple):
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value and nothing else."""
        return json.loads(self.out)


class Shell:
    """Types commands against one settings file."""

    def __init__(self, config: Path | None) -> None:
        self.config = config

    def __call__(self, *args: str, code: int | None = 0) -> Typed:
        """Run a command and expect its exit code; None for any."""
        given = ["--config", str(self.config), *args] if self.config else list(args)
        try:
            result = CliRunner().invoke(app, given)
        finally:
            forget_logs()
        typed = Typed(result.exit_code, result.stdout, result.stderr)
        assert code is None or typed.code == code, typed
        return typed

    def migrated(self) -> "Shell":
        """Put a migrated database where the settings say, and return the shell; tests of `migrate` type it."""
        assert self.config is not None
        copy_to(self.config.parent / "receipted.db")
        return self

    def service(self) -> Service:
        """The application behind the settings, to look inside."""
        return Service(load.load(self.config, {}))

    def write(self, *records: SQLModel) -> None:
        """The rows are there as they are given."""
        service = self.service()
        with service.database.write() as unit:
            for record in records:
                add(unit, record)
        service.close()

    def ask_at(self, payment_id: str, when: datetime) -> None:
        """The payment is asked about at that instant, since a person wants it."""
        service = self.service()
        with service.database.write() as unit:
            payment_polls.ask_at(unit, [payment_id], when, PollPriority.PERSON)
        service.close()


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    """One for all tests of the folder."""
    with generous() as found:
        yield found


@pytest.fixture
def empty(tmp_path: Path) -> Shell:
    """Settings whose database does not exist yet."""
    return Shell(write_settings(tmp_path))


@pytest.fixture
def shell(empty: Shell) -> Shell:
    """Settings with a migrated database, and providers that cannot be reached."""
    return empty.migrated()


@pytest.fixture
def at_sandbox(tmp_path: Path, sandbox_url: str) -> Shell:
    """Settings with a migrated database and an account at each provider of the sandbox."""
    return Shell(write_settings(tmp_path, sandbox_url)).migrated()


@pytest.fixture(params=["sqlite", "postgresql"])
def on_both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """As `shell`, on either database."""
    made = Shell(write_settings(tmp_path))
    if request.param == "sqlite":
        yield made.migrated()
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    opened = server.copy()
    path = tmp_path / "receipted.toml"
    path.write_text(path.read_text().replace(f"sqlite:///{tmp_path / 'receipted.db'}", opened.url))
    yield made
    server.drop(opened)
