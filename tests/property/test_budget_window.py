"""No window of the budget's length holds one request too many: any processes, any lateness, any crash, any clock."""

import asyncio
import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import literal

from poller import rate_limiter
from poller.rate_limiter import DatabaseRateLimiter
from providers.contract import Budget
from storage import rate_limits as kept_budget
from storage.database import Database
from storage.rate_limits import Rate
from storage.types import UtcDateTime
from tests.property.budget_world import Weather, fleet
from tests.support.databases import copy_of

FIVE = Budget(5, 1.0)
HUNDRED = Budget(100, 60.0)
PROCESSES = 4


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pools(request, template, tmp_path_factory):
    """The same database as several processes have it."""
    if request.param == "sqlite":
        first, server = copy_of(template, tmp_path_factory.mktemp("budget") / "budget.db"), None
    else:
        server = request.getfixturevalue("postgresql")
        first = server.copy()
    opened = [first, *(Database(first.url) for _ in range(PROCESSES - 1))]
    yield opened
    for database in opened:
        database.close()
    if server is not None:
        server.drop(first)


@pytest.fixture(scope="module")
def one_host(template, tmp_path_factory):
    """Several processes with one file, for what has nothing to do with the kind of database."""
    first = copy_of(template, tmp_path_factory.mktemp("budget") / "one.db")
    opened = [first, *(Database(first.url) for _ in range(PROCESSES - 1))]
    yield opened
    for database in opened:
        database.close()


weathers = st.builds(
    Weather,
    database=st.sampled_from([0.0, 0.002, 0.02, 0.2]),
    wake=st.sampled_from([0.0, 0.005, 0.04, 0.3]),
    stall=st.sampled_from([0.0, 0.2, 3.0]),
    connect=st.sampled_from([0.0, 0.06, 0.4]),
    skew=st.sampled_from([0.0, 0.3, 4000.0]),
)
budgets = st.sampled_from([FIVE, Budget(10, 2.0), Budget(3, 0.2), Budget(20, 60.0), Budget(1, 0.5)])
troubles = st.lists(st.sampled_from(["pause", "crash", "cancel", "nap"]), max_size=4)


def chaotic(pools, budget, weather, seed, plan, trouble):
    """Everybody sends, while somebody is told to pause, dies between reserving and sending, or is stopped."""
    with fleet(pools, budget, weather, seed) as made:
        rng, window = random.Random(seed), budget.seconds

        async def disturb(what):
            await asyncio.sleep(rng.uniform(0, 4 * window))
            pacer = rng.choice(made.paces)
            if what == "pause":
                seconds = rng.uniform(0, 3 * window)
                await pacer.pause(seconds)
                made.run.paused.append((made.loop.time(), made.loop.time() + seconds - 2 * weather.database))
            elif what == "crash":
                await pacer.turn()  # and nothing is sent
            elif what == "cancel":
                waiter = asyncio.create_task(made.send(pacer, is_patient=False))
                await asyncio.sleep(rng.uniform(0, window))
                waiter.cancel()
                await asyncio.wait([waiter])
            else:
                await pacer.turn()
                await asyncio.sleep(rng.uniform(0, 3 * window))  # a token is fetched, or the process is stopped
                await pacer.leave()
                made.run.left.append((made.loop.time(), False))

        senders = [
            made.keep_sending(made.paces[at % len(pools)], requests, is_patient=is_patient)
            for at, (requests, is_patient) in enumerate(plan)
        ]
        return made.until_done(*senders, *(disturb(what) for what in trouble))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    budget=budgets,
    weather=weathers,
    seed=st.integers(0, 2**32),
    plan=st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=6),
    trouble=troubles,
)
def test_no_window_holds_one_request_too_many(pools, budget, weather, seed, plan, trouble):
    """Whatever is late, dies, pauses or is cancelled: all requests leave, and never too many in any sliding window."""
    run = chaotic(pools, budget, weather, seed, plan, trouble)
    note(f"{len(run.left)} requests, at most {run.most_in_a_window()} in {budget.seconds} s")

    assert run.most_in_a_window() <= budget.requests
    assert len(run.waits) >= sum(requests for requests, _ in plan)
    for began, ended in run.paused:
        within = [at for at in run.times() if began + _unseen(budget, weather) < at < ended]
        assert within == [], "a turn that is waited for is held up by a pause too"


def _unseen(budget, weather):
    """Somebody whose turn had come already when the pause was said may still send."""
    return Rate.of(budget.requests, budget.seconds).lateness.total_seconds() + 4 * weather.database + 2.1


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    budget=budgets,
    weather=weathers,
    seed=st.integers(0, 2**32),
    plan=st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=10),
    trouble=troubles,
)
def test_no_window_holds_one_request_too_many_for_long(pools, budget, weather, seed, plan, trouble):
    """The same with more of everything."""
    run = chaotic(pools, budget, weather, seed, plan, trouble)
    note(f"{len(run.left)} requests, at most {run.most_in_a_window()} in {budget.seconds} s")

    assert run.most_in_a_window() <= budget.requests


def together(pools, budget, weather, plan, seed=7):
    """Everybody sends as fast as they may."""
    with fleet(pools, budget, weather, seed) as made:
        return made.until_done(
            *(
                made.keep_sending(made.paces[at % len(pools)], requests, is_patient=is_patient)
                for at, (requests, is_patient) in enumerate(plan)
            )
        )


LANES = {"urgent": [(12, False)] * 4, "patient": [(12, True)] * 4, "both": [(12, False)] * 2 + [(12, True)] * 2}


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(("budget", "least"), [(FIVE, 0.85), (HUNDRED, 0.98)], ids=["5/s", "100/min"])
def test_a_busy_account_uses_its_budget(one_host, budget, least, lanes):
    """At saturation 85 % of five a second and 98 % of a hundred a minute leave, on an ordinary day."""
    run = together(one_host, budget, Weather(database=0.004, wake=0.01), LANES[lanes])

    assert run.rate() >= least * budget.requests / budget.seconds
    assert run.most_in_a_window() <= budget.requests


@pytest.mark.parametrize(("budget", "least"), [(FIVE, 0.85), (HUNDRED, 0.98)], ids=["5/s", "100/min"])
def test_a_busy_account_uses_its_budget_on_every_database(pools, budget, least):
    """The same for both lanes together."""
    run = together(pools, budget, Weather(database=0.004, wake=0.01, skew=4000), [(8, False)] * 2 + [(8, True)] * 2)

    assert run.rate() >= least * budget.requests / budget.seconds


def test_patient_callers_keep_their_share(pools):
    """While urgent ones would take every slot, one in five stays the patient ones'."""
    run = together(pools, FIVE, Weather(), [(15, False)] * 4 + [(6, True)] * 4)
    until = run.times(of_patients=False)[-1]
    served = [is_patient for at, is_patient in run.left if at <= until]

    assert sum(served) >= len(served) // 5 - 2
    assert sum(served) <= len(served) // 5 + 2


def test_an_urgent_caller_does_not_queue_behind_patient_ones(one_host):
    """Forty wait patiently, and whoever comes back from paying waits for one slot only."""
    with fleet(one_host, FIVE, Weather(), 3) as made:
        spacing = Rate.of(FIVE.requests, FIVE.seconds).spacing.total_seconds()

        async def payer(after):
            await asyncio.sleep(after)
            await made.send(made.paces[0])

        run = made.until_done(
            *(made.keep_sending(made.paces[at % PROCESSES], 1, is_patient=True) for at in range(40)),
            *(payer(1.0 + 1.37 * at) for at in range(5)),
        )

    assert len(run.left) == 45
    assert max(wait for wait, is_patient in run.waits if not is_patient) <= 2 * spacing + 0.05


def test_waiting_patiently_writes_little(one_host):
    """Many that wake at one instant look first: a slot costs a few small writes, and not one for each that waits."""
    run = together(one_host, FIVE, Weather(), [(2, True)] * 40)

    assert len(run.left) == 80
    assert run.writes <= 2 * len(run.left)


def test_a_slow_database_starves_nobody(one_host):
    """Where every reservation takes longer than a slot is good for, everybody sends all the same."""
    run = together(one_host, FIVE, Weather(database=0.3, wake=0.3), [(6, False)] * 3 + [(6, True)] * 3)

    assert len(run.left) == 36
    assert run.most_in_a_window() <= 5


def breaks_the_budget(databases, weather, plan):
    """Whether one request too many leaves under one of a few seeds."""
    return any(together(databases, FIVE, weather, plan, seed).most_in_a_window() > FIVE.requests for seed in range(10))


async def at_once(_pace):
    """Lets a request leave whenever it comes."""


def test_the_property_bites_where_late_turns_are_used(one_host, monkeypatch):
    """Without forfeiting a slot that is used late, as it once was, requests bunch together."""
    monkeypatch.setattr(rate_limiter._Lateness, "accepts", lambda *_: True)
    monkeypatch.setattr(DatabaseRateLimiter, "leave", at_once)
    assert breaks_the_budget(one_host, Weather(wake=0.2, stall=1.0), [(5, False)] * 6)


def test_the_property_bites_where_the_departure_is_unchecked(one_host, monkeypatch):
    """A turn that was in time is not enough: what happens between it and the first byte counts too."""
    monkeypatch.setattr(DatabaseRateLimiter, "leave", at_once)
    assert breaks_the_budget(one_host, Weather(connect=0.4), [(5, False)] * 6)


def test_the_property_bites_where_slots_have_no_tolerance(one_host, monkeypatch):
    """Slots as close as the budget says, each good for a while, are one too many."""
    close = Rate(timedelta(seconds=FIVE.seconds / FIVE.requests), timedelta(seconds=0.05))
    monkeypatch.setattr(Rate, "of", lambda *_: close)
    assert breaks_the_budget(one_host, Weather(wake=0.04), [(5, False)] * 6)


def test_the_property_bites_where_hosts_clocks_count(postgresql, monkeypatch):
    """On PostgreSQL the clocks of hosts differ: reckoned by them, one sends now what the other has kept for later."""
    first = postgresql.copy()
    databases = [first, Database(first.url)]

    def most():
        with fleet(databases, FIVE, Weather(), 1, skews=[0.0, -3.0]) as made:
            ahead, behind = made.paces

            async def burst(pacer, after):
                await asyncio.sleep(after)
                await asyncio.gather(*(made.send(pacer) for _ in range(5)))

            return made.until_done(burst(ahead, 0.0), burst(behind, 1.0), burst(ahead, 4.0)).most_in_a_window()

    assert most() <= FIVE.requests
    monkeypatch.setattr(kept_budget, "_clock", lambda _unit, now: literal(now, UtcDateTime()))
    assert most() > FIVE.requests
    databases[1].close()
    postgresql.drop(first)
