"""The property that everything rests on, over the real pipeline on both databases (DESIGN section 3)."""

import logging
import random
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.property.pipeline_history import run_history
from tests.property.pipeline_voices import VOICES
from tests.support.pipeline_world import World

#: How many histories share one database, and so one audit.
_A_WORLD = 10

#: Histories of each provider. On PostgreSQL one takes three times as long, and the same seeds are the same histories.
_SHORT = {"sqlite": 40, "postgresql": 12}
_LONG = {"sqlite": 2_000, "postgresql": 300}


@pytest.fixture(scope="module")
def quiet():
    """A log of everything is slow."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def worlds(request, quiet, template, tmp_path_factory):
    """Opens worlds without a row, one after the other, and closes them."""
    folder, opened = tmp_path_factory.mktemp("worlds"), []

    def open_world() -> World:
        database = None
        if request.param == "postgresql":
            if opened:
                opened[-1].close()  # the next is the same database, without a row
            database = request.getfixturevalue("postgresql").cleaned()
        opened.append(World(template, Path(folder) / f"{len(opened)}.db", database=database))
        return opened[-1]

    open_world.kind = request.param
    yield open_world
    for world in opened:
        world.close()  # a repeat does nothing


class Telling:
    """Tells histories of one voice, a few to a database, each database audited."""

    def __init__(self, open_world, voice, *, is_piled=False):
        self._open, self._voice, self._is_piled = open_world, voice, is_piled
        self._world: World | None = None
        self._count = 0
        self.waits = 0  #: how often one worker was seen to wait for another's lock

    def tell(self, seed: int) -> None:
        """One history; after one that fails the next begins in a database of its own."""
        world, self._world = self._world or self._open(), None
        run_history(world, self._voice, seed, is_piled=self._is_piled)
        self._count += 1
        if self._count % _A_WORLD:
            self._world = world
        else:
            self.audit(world, seed)

    def audit(self, world: World | None, seed: int | None) -> None:
        """What was told since the last audit is proved."""
        if world is not None:
            report = world.audit()
            world.close()
            assert report.first is None, f"up to seed {seed} of {self._voice.name}.{self._voice.kind}: {report.first}"
            self.waits += world.interleaving.waits if world.interleaving else 0

    def end(self) -> None:
        world, self._world = self._world, None
        self.audit(world, None)


def a_share(of: int, voice) -> int:
    """What one of a provider's voices tells of so many histories."""
    return of // sum(other.name == voice.name for other in VOICES.values())


def hold(telling, examples):
    """Hypothesis chooses the histories, and remembers those that failed."""

    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(seed=st.integers(0, 2**32))
    def holds(seed):
        telling.tell(seed)

    holds()
    telling.end()


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_any_order_loss_and_crash_ends_in_the_provider_s_state(worlds, voice):
    """Whatever happens to a legal history's messages, one poll later state, history, effects and audit are right; on
    PostgreSQL also where two workers work at once, or one while others record, in any order of their statements.
    """
    hold(Telling(worlds, voice), a_share(_SHORT[worlds.kind], voice))


@pytest.mark.parametrize("worlds", ["postgresql"], indirect=True)
def test_two_workers_in_any_order_of_their_statements_end_alike(worlds):
    """Two workers at a pile of messages about one payment wait for each other, and do everything once."""
    waits = 0
    for voice in VOICES.values():
        telling = Telling(worlds, voice, is_piled=True)
        hold(telling, 4)
        waits += telling.waits
    assert waits > 0, "nobody ever waited for another: nothing was done at once"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("is_piled", [False, True], ids=["", "piled"])
@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_thousands_of_histories(worlds, voice, is_piled, pytestconfig):
    """The same for 2,000 histories of each provider, 300 on PostgreSQL; `--hypothesis-seed` sets which."""
    chosen = pytestconfig.getoption("--hypothesis-seed", default=None)
    first = random.randrange(2**32) if chosen in (None, "random") else int(chosen)
    print(f"--hypothesis-seed={first}")

    telling = Telling(worlds, voice, is_piled=is_piled)
    for seed in range(first, first + a_share(_LONG[worlds.kind], voice)):
        telling.tell(seed)
    telling.end()
