"""The property that everything rests on, over the real pipeline on a real file (DESIGN section 3)."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.property.pipeline_history import run_history
from tests.property.pipeline_voices import VOICES
from tests.property.pipeline_world import World

#: How many histories share one database file, and so one audit.
_A_FILE = 20


@pytest.fixture(scope="module")
def worlds(template, tmp_path_factory):
    """Opens worlds in files of their own, and closes them."""
    folder, opened = tmp_path_factory.mktemp("worlds"), []

    def open_world() -> World:
        opened.append(World(template, Path(folder) / f"{len(opened)}.db"))
        return opened[-1]

    yield open_world
    for world in opened:
        world.close()


def tell(open_world, voice, seeds):
    """The histories of these seeds, a few to a file, each file audited."""
    world: World | None = None
    for count, seed in enumerate(seeds):
        if world is None or count % _A_FILE == 0:
            world = open_world()
        run_history(world, voice, seed)
        if count % _A_FILE == _A_FILE - 1:
            report = world.audit()
            assert report.first is None, f"after seed {seed} of {voice.name}.{voice.kind}: {report.first}"


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_any_order_loss_and_crash_ends_in_the_provider_s_state(worlds, voice):
    """Whatever happens to a legal history's messages, one poll later state, history, effects and audit are right."""
    each = 70 // sum(other.name == voice.name for other in VOICES.values())

    @settings(
        max_examples=each,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(seed=st.integers(0, 2**32))
    def hold(seed):
        world = worlds()
        run_history(world, voice, seed)
        report = world.audit()
        assert report.first is None, f"seed {seed}: {report.first}"
        world.close()

    hold()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_two_thousand_histories(worlds, voice, pytestconfig):
    """The same for 2,000 histories of each provider; `--hypothesis-seed` sets which."""
    chosen = pytestconfig.getoption("--hypothesis-seed", default=None)
    first = random.randrange(2**32) if chosen in (None, "random") else int(chosen)
    each = 2_000 // sum(other.name == voice.name for other in VOICES.values())
    print(f"--hypothesis-seed={first}")

    tell(worlds, voice, range(first, first + each))
