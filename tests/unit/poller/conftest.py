"""A desk at a world of its own, and reconciliations of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pipeline_world import World
from tests.support.poller_rounds import Rounds


@pytest.fixture
def rounds(template: Path, tmp_path: Path) -> Iterator[Rounds]:
    world = World(template, tmp_path / "rounds.db")
    yield Rounds(world)
    world.close()
