"""A world of real parts for what the worker is told."""

import pytest

from tests.support.pipeline_world import World
from tests.support.worker_desk import Desk


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()
