"""A payment is paid, expires and is cancelled at random instants, with faults and crashes: the provider's word wins."""

import asyncio
import logging
import random
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from providers.errors import ProviderError
from service.errors import CancelNotSent, CancelUnanswered
from storage.tables import Payment
from tests.property.cancel_world import (
    AWAY,
    BROKEN,
    FORBIDDEN,
    LIMITED,
    NO_ANSWER,
    Till,
    after,
    crashing,
    failing,
    fine,
    lost,
    saying,
)

#: What the shop must have heard in the end, by the provider's state.
EFFECTS = {
    "awaiting_payment": [],
    "confirmed": ["payment.paid"],
    "expired": ["payment.expired"],
    "cancelled": ["payment.cancelled"],
}

#: How many histories share one database, and so one audit.
_A_FILE = 10

#: How many tens of histories, and how many histories.
_SHORT = {"sqlite": 4, "postgresql": 1}
_LONG = {"sqlite": 1_000, "postgresql": 200}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def tills(request, template, tmp_path_factory):
    """Opens tills without a payment, one after the other, and closes them."""
    folder, opened = tmp_path_factory.mktemp("tills"), []
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def open_till() -> Till:
        own, database = Path(folder) / str(len(opened)), None
        own.mkdir()
        if request.param == "postgresql":
            if opened:
                opened[-1].close()  # the next has the same database, without a row
            database = request.getfixturevalue("postgresql").cleaned()
        opened.append(Till(template, own, database=database))
        return opened[-1]

    open_till.kind = request.param
    yield open_till
    for till in opened:
        till.close()
    structlog.configure(**before)


class Race:
    """One payment, and everything at once."""

    def __init__(self, till: Till, seed: int) -> None:
        self.till, self.rng = till, random.Random(seed)
        self.payment: Payment = till.a_payment()
        self.ref = self.payment.provider_ref
        self.unsent: list[str] = []  #: webhooks that the provider has not sent yet
        self.returned: list[Payment] = []
        till.genius.on_move = lambda _ref, state: self.unsent.append(state)

    def run(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(1, 3)):
            self.till.genius.turns = [self._turn() for _ in range(rng.randint(0, 6))]
            if rng.random() < 0.3:
                crashing(self.till, rng.randint(1, 40), self._cancel)
            else:
                self._cancel()
            self._between()
        self._come_to_rest()

    def _cancel(self) -> None:
        async def at_once() -> None:
            count = self.rng.choice((1, 1, 2, 3))
            told = await asyncio.gather(
                *(self.till.commands().cancel(self.payment.id) for _ in range(count)), return_exceptions=True
            )
            for each in told:
                if isinstance(each, Payment):
                    self.returned.append(each)
                elif not isinstance(each, CancelNotSent | CancelUnanswered | ProviderError):
                    raise each

        asyncio.run(at_once())

    def _turn(self):
        """What becomes of one call: it may be late, fail, work unseen, or be answered with nothing."""
        rng = self.rng
        then = rng.choice(
            (
                *(fine, fine, fine, saying(b"")),
                *(failing(error) for error in (AWAY, NO_ANSWER, BROKEN, LIMITED, FORBIDDEN)),
                *(lost(error) for error in (NO_ANSWER, BROKEN)),
            )
        )
        if rng.random() < 0.3:
            then = after(rng.choice(("confirmed", "confirmed", "expired")), then)
        return self._pushing(then) if rng.random() < 0.3 else then

    def _pushing(self, then):
        def turn(genius, ref, work):
            self._push()
            return then(genius, ref, work)

        return turn

    def _push(self) -> None:
        """The provider sends one of its webhooks: now, twice, or never."""
        if self.unsent:
            state = self.unsent.pop(self.rng.randrange(len(self.unsent)))
            for _ in range(self.rng.choice((0, 1, 1, 2))):
                self.till.webhook(self.ref, state)

    def _between(self) -> None:
        rng = self.rng
        if rng.random() < 0.3:
            self.till.genius.move(self.ref, rng.choice(("confirmed", "expired")))
        if rng.random() < 0.5:
            self._push()
        if rng.random() < 0.5:
            self.till.service.inbox_worker().step()
        self.till.clock.advance(rng.choice((0, 0.5, 40, 300)))

    def _come_to_rest(self) -> None:
        self.till.genius.turns = []
        while self.unsent:
            self._push()
        self.till.clock.advance(130)  # past every lease, and the question that a cancel leaves
        self.till.work()
        self.till.poll()
        if (
            self.till.genius.states[self.ref] != "cancelled"
        ):  # what we did is found by now; the payer's part, when asked
            self.till.run(self.till.commands().refresh(self.payment.id))
        self.check()
        self.till.forget(self.payment)

    def check(self) -> None:
        truth, now = self.till.genius.states[self.ref], self.till.get(self.payment.id)
        assert (now.state, now.review) == (truth, None)
        assert self.till.effects(now) == EFFECTS[truth]
        chain = self.till.chain(now)
        assert not any(link.forced or link.via for link in chain)
        assert [link.to_state for link in chain] == ["awaiting_payment", truth][: len(chain)]
        for told in self.returned:
            assert told.state in ("awaiting_payment", truth), f"a caller was told {told.state}"


def tell(till: Till, seed: int) -> None:
    """One history; an AssertionError names its seed."""
    race = Race(till, seed)
    try:
        race.run()
    except Exception as fault:
        raise AssertionError(f"seed {seed}: {type(fault).__name__}: {fault}") from fault


def hold(open_till, seeds) -> None:
    """Histories, a few to a database, each database audited."""
    for first in range(seeds.start, seeds.stop, _A_FILE):
        till = open_till()
        for seed in range(first, min(first + _A_FILE, seeds.stop)):
            tell(till, seed)
        assert till.audit().faults == []
        till.close()


def test_whoever_wins_the_race_the_provider_s_word_is_ours(tills):
    """Cancels, payers, expiry, faults and crashes in any order: the provider's state, one effect, a sound history."""

    @settings(
        max_examples=_SHORT[tills.kind],
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(first=st.integers(0, 2**32))
    def holds(first):
        hold(tills, range(first, first + _A_FILE))

    holds()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_races(tills, pytestconfig):
    """The same for 1,000 histories, 200 on PostgreSQL; `--hypothesis-seed` sets which."""
    chosen = pytestconfig.getoption("--hypothesis-seed", default=None)
    first = random.randrange(2**32) if chosen in (None, "random") else int(chosen)
    print(f"--hypothesis-seed={first}")
    hold(tills, range(first, first + _LONG[tills.kind]))
