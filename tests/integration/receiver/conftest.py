from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import Served, serving, settings


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The application in development, on loopback."""
    with serving(settings(tmp_path)) as running:
        yield running
