"""The console over real HTTP: real application parts, a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.console import Served, on_sqlite


@pytest.fixture
def console(tmp_path: Path, template: Path) -> Iterator[Served]:
    """The console on SQLite."""
    with on_sqlite(tmp_path, template) as served:
        yield served
