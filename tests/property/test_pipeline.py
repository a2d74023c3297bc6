"""The property that everything rests on, over the real pipeline on a real file (DESIGN section 3)."""

import logging
import random
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.property.pipeline_history import run_history
from tests.property.pipeline_voices import VOICES
from tests.property.pipeline_world import World

#: How many histories share one database file, and so one audit.
_A_FILE = 10


@pytest.fixture(scope="module")
def worlds(template, tmp_path_factory):
    """Opens worlds in files of their own, and closes them."""
    folder, opened = tmp_path_factory.mktemp("worlds"), []
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # a log of all is slow

    def open_world() -> World:
        opened.append(World(template, Path(folder) / f"{len(opened)}.db"))
        return opened[-1]

    yield open_world
    for world in opened:
        world.close()  # a repeat does nothing
    structlog.configure(**before)


class Telling:
    """Tells histories of one voice, a few to a file, each file audited."""

    def __init__(self, open_world, voice):
        self._open, self._voice = open_world, voice
        self._world: World | None = None
        self._count = 0

    def tell(self, seed: int) -> None:
        """One history; after one that fails the next begins in a file of its own."""
        world, self._world = self._world or self._open(), None
        run_history(world, self._voice, seed)
        self._count += 1
        if self._count % _A_FILE:
            self._world = world
        else:
            self.audit(world, seed)

    def audit(self, world: World | None, seed: int | None) -> None:
        """What was told since the last audit is proved."""
        if world is not None:
            report = world.audit()
            world.close()
            assert report.first is None, f"up to seed {seed} of {self._voice.name}.{self._voice.kind}: {report.first}"

    def end(self) -> None:
        self.audit(self._world, None)


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_any_order_loss_and_crash_ends_in_the_provider_s_state(worlds, voice):
    """Whatever happens to a legal history's messages, one poll later state, history, effects and audit are right."""
    each = 60 // sum(other.name == voice.name for other in VOICES.values())
    telling = Telling(worlds, voice)

    @settings(
        max_examples=each,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(seed=st.integers(0, 2**32))
    def hold(seed):
        telling.tell(seed)

    hold()
    telling.end()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_two_thousand_histories(worlds, voice, pytestconfig):
    """The same for 2,000 histories of each provider; `--hypothesis-seed` sets which."""
    chosen = pytestconfig.getoption("--hypothesis-seed", default=None)
    first = random.randrange(2**32) if chosen in (None, "random") else int(chosen)
    each = 2_000 // sum(other.name == voice.name for other in VOICES.values())
    print(f"--hypothesis-seed={first}")

    telling = Telling(worlds, voice)
    for seed in range(first, first + each):
        telling.tell(seed)
    telling.end()
