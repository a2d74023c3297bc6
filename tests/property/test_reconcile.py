"""Catching up: what was missed is found once, a killed walk ends as if it had not been, and a second finds nothing."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.pipeline_world import SimulatedCrash, World
from tests.support.poller_rounds import Rounds

STATES = ("awaiting_payment", "confirmed", "settled", "expired", "cancelled")

#: What we know (None: never heard of it), what the provider has, and whether its list names it.
INTENTS = st.lists(
    st.tuples(st.sampled_from([None, *STATES]), st.sampled_from(STATES), st.booleans()), min_size=1, max_size=4
)
LASTING = ("pages", "listed", "to_ask", "asked", "failed", "counts", "unasked", "status")
OF_AN_ENTRY = ("provider_ref", "was", "is", "phase", "is_adopted", "since", "effects", "reviews", "found_by", "reason")


def prepared(template, folder, intents):
    """A world in which so much was missed, an hour before the walk."""
    rounds = Rounds(World(template, folder / "world.db"))
    with capture_logs():
        for number, (known, has, is_listed) in enumerate(intents):
            ref = f"pi_{number}"
            if known is not None:
                rounds.known(ref, known)
            rounds.genius.has(ref, has, is_old=not is_listed)
        rounds.clock.advance(3600)
    return rounds


def walked(rounds):
    """The row of a walk to its end, by a process that remembers nothing."""
    with capture_logs():
        return rounds.walk()


def summary(row):
    """What a walk came to, without what tells one run from another."""
    entries = [{name: entry[name] for name in OF_AN_ENTRY} for entry in row.drift]
    row_says = {name: getattr(row, name) for name in LASTING}
    row_says["unasked"] = [entry["code"] for entry in row.unasked]
    return row_says, sorted(entries, key=lambda entry: entry["provider_ref"])


def story(rounds):
    """What every payment is, and what it made owed."""
    return {p.provider_ref: (p.state, p.review, rounds.desk.effects(p.id)) for p in rounds.desk.payments()}


def closed(rounds):
    assert rounds.world.audit().faults == []
    rounds.world.close()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(intents=INTENTS)
def test_a_second_walk_right_after_a_first_finds_nothing(template, tmp_path_factory, intents):
    """All that was missed is in the first report; the second is empty, and owes nothing twice."""
    rounds = prepared(template, tmp_path_factory.mktemp("second"), intents)
    first = walked(rounds)
    after = story(rounds)
    second = walked(rounds)

    assert (second.drift, second.counts["drift"]) == ([], 0)
    assert story(rounds) == after
    for number, (known, has, is_listed) in enumerate(intents):
        if known == has or (known is None and not is_listed):
            assert f"pi_{number}" not in {entry["provider_ref"] for entry in first.drift}
        elif known in (None, "awaiting_payment"):
            assert after[f"pi_{number}"][0] == has
    for _, _, effects in after.values():
        assert len(effects) == len(set(effects))
    closed(rounds)


SCENE = [
    ("awaiting_payment", "confirmed", True),
    (None, "confirmed", True),
    ("expired", "confirmed", True),
    ("awaiting_payment", "expired", False),
    ("cancelled", "confirmed", False),
    (None, "awaiting_payment", True),
]


def run_to_a_crash(rounds, at):
    """Whether the walk was killed at that write."""
    with rounds.world.crashing(at) as crashed, capture_logs():
        rounds.walk()
    return bool(crashed)


def check_crashes(template, tmp_path_factory, points):
    whole = prepared(template, tmp_path_factory.mktemp("whole"), SCENE)
    expected, ending = summary(walked(whole)), story(whole)
    closed(whole)
    for at in points:
        rounds = prepared(template, tmp_path_factory.mktemp("killed"), SCENE)
        was_killed = run_to_a_crash(rounds, at)
        rounds.clock.advance(61)
        row = walked(rounds) if was_killed else rounds.rows()[0]
        assert summary(row) == expected, at
        assert story(rounds) == ending, at
        closed(rounds)
        if not was_killed:
            return


@pytest.mark.parametrize("first", range(2))
def test_a_walk_that_is_killed_at_a_write_ends_as_if_it_had_not_been(template, tmp_path_factory, first):
    """A sample of all the writes of a walk: another run goes on after the lease, with the same report and effects."""
    check_crashes(template, tmp_path_factory, range(first * 12 + 2, 10_000, 23))


@pytest.mark.slow
def test_a_walk_that_is_killed_at_any_write_ends_as_if_it_had_not_been(template, tmp_path_factory):
    """The same at every single write, BEGIN and COMMIT of a walk."""
    check_crashes(template, tmp_path_factory, range(1, 10_000))


def test_the_kill_does_kill(template, tmp_path_factory):
    """The crash of these tests ends a run in the middle, with the walk still running and its lease still held."""
    rounds = prepared(template, tmp_path_factory.mktemp("kill"), SCENE)
    rounds.world.crashes.arm(20)
    with pytest.raises(SimulatedCrash):
        walked(rounds)
    rounds.world.crashes.disarm()

    (row,) = rounds.rows()
    assert row.status == "running"
    assert row.lease_ends_at > rounds.clock()
    rounds.world.close()
