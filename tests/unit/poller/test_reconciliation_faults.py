"""A provider that is away, and processes that die or come second: nothing is lost, and nobody walks beside another."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from poller.errors import ReconciliationPaused, ReconciliationRunning
from providers.errors import ProviderError
from storage import inbox, rate_limits, reconciliations
from storage.errors import LeaseLost
from tests.support.waiting import DEADLINE_S

HOUR = 3600
AWAY = ProviderError("away", http_status=503, may_retry=True)
GONE = ProviderError("no such intent", http_status=404)


def keys(rounds, source):
    with rounds.database.read() as unit:
        return [message.delivery_key for message in inbox.find(unit, source=source)]


# the provider is away


def test_an_outage_pauses_the_walk_and_another_run_goes_on(rounds):
    for number in range(30):
        rounds.known(f"pi_{number:02}", is_old=True)
        if number >= 20:
            rounds.genius.faults[f"pi_{number:02}"] = [AWAY] * 3

    with capture_logs() as logs, pytest.raises(ReconciliationPaused) as paused:
        rounds.walk()

    (row,) = rounds.rows()
    assert (row.status, row.asked, row.failed) == ("running", 20, 0)
    assert "the provider gives no answers now" in paused.value.message
    assert row.last_error == paused.value.message
    assert row.lease_ends_at <= rounds.clock() < row.resume_at
    assert [entry["event"] for entry in logs if entry["event"] == "reconcile.paused"]

    rounds.genius.faults.clear()
    rounds.genius.asked.clear()
    done = rounds.walk()
    assert (done.id, done.status, done.asked, done.failed, done.to_ask) == (row.id, "done", 30, 0, 30)
    assert len(rounds.genius.asked) == 10
    assert done.last_error is None


def test_errors_of_single_payments_are_no_outage(rounds):
    for number in range(12):
        rounds.known(f"pi_{number:02}", is_old=True)
        rounds.genius.faults[f"pi_{number:02}"] = [GONE] if number % 5 else [AWAY] * 3

    assert rounds.walk().failed == 12


def test_a_list_that_is_away_pauses_the_walk_at_its_page(rounds):
    for number in range(5):
        rounds.genius.has(f"pi_{number}", "confirmed")
    reconciler = rounds.reconciler()
    started = reconciler.start(rounds.wanted())
    rounds.genius.faults["list"] = []

    def told(row):
        if row.pages == 1 and not rounds.genius.faults["list"]:
            rounds.genius.faults["list"] = [AWAY] * 3

    with pytest.raises(ReconciliationPaused):
        rounds.world.run(reconciler.run(started.row, told))
    rounds.genius.listed.clear()
    row = rounds.walk()

    assert rounds.genius.listed == ["pi_1", "pi_3"]
    assert (row.pages, row.listed, row.counts["adopted"]) == (3, 5, 5)


def test_a_wait_that_is_too_long_pauses_the_walk(rounds):
    rounds.known("pi_1", is_old=True)
    rounds.genius.faults["pi_1"] = [ProviderError("later", http_status=503, may_retry=True, retry_after=1800)]

    with pytest.raises(ReconciliationPaused):
        rounds.walk()

    assert rounds.rows()[0].resume_at - rounds.clock() == timedelta(seconds=1800)
    assert rounds.slept == []


@pytest.mark.parametrize("http_status", [400, 403])
def test_a_list_that_is_refused_is_told_and_the_rest_is_asked(rounds, http_status):
    rounds.known("pi_1", is_old=True)
    rounds.genius.faults["list"] = [ProviderError("merchant_id is missing", http_status=http_status)]

    row = rounds.walk()

    assert (row.status, row.pages, row.asked) == ("done", 0, 1)
    assert [(entry["payment"], entry["code"]) for entry in row.unasked] == [(None, "provider_error")]
    assert "merchant_id is missing" in row.unasked[0]["reason"]


def test_a_cursor_that_the_provider_forgot_begins_the_list_again_once(rounds):
    for number in range(5):
        rounds.genius.has(f"pi_{number}", "confirmed")
    reconciler = rounds.reconciler()
    started = reconciler.start(rounds.wanted())

    def told(row):
        if row.pages == 1 and row.position is not None:
            rounds.genius.faults["list"] = [ProviderError("no such cursor", http_status=400)][
                rounds.genius.listed.count("pi_1") :
            ]

    row = rounds.world.run(reconciler.run(started.row, told))

    assert rounds.genius.listed == [None, "pi_1", None, "pi_1", "pi_3"]
    assert (row.unasked, row.counts["adopted"], len(rounds.desk.payments())) == ([], 5, 5)


def breaker(rounds):
    with rounds.database.read() as unit:
        return rate_limits.breaker(unit, "acme")


def broken(rounds, since, probe_in):
    with rounds.database.write() as unit:
        rate_limits.note_outage(unit, "acme", rounds.clock(), lambda _: timedelta(seconds=since + probe_in))
    rounds.clock.advance(since)


def test_a_breaker_that_is_open_is_waited_for_and_probed_with_one_question(rounds):
    """A list that the provider does not have tells nothing: the probe is still to be made."""
    for number in range(4):
        rounds.known(f"pi_{number}", is_old=True)
    rounds.genius.has_list = False
    broken(rounds, since=10, probe_in=7)

    row = rounds.walk()

    assert (row.asked, rounds.slept) == (4, [7])
    assert breaker(rounds).broken_at is None


def test_a_provider_that_has_been_away_for_long_is_not_asked(rounds):
    rounds.known("pi_1", is_old=True)
    broken(rounds, since=61, probe_in=100)

    with pytest.raises(ReconciliationPaused, match="it has been away since 2026-04-01 10:00:01Z"):
        rounds.walk()

    assert (rounds.genius.asked, rounds.genius.listed, rounds.slept) == ([], [], [])


def test_an_outage_opens_the_breaker_for_everybody(rounds):
    for number in range(6):
        rounds.known(f"pi_{number}", is_old=True)
        rounds.genius.faults[f"pi_{number}"] = [AWAY] * 3

    with pytest.raises(ReconciliationPaused):
        rounds.walk()

    assert breaker(rounds).broken_at is not None


def test_the_schedule_knows_of_the_answers(rounds):
    rounds.known("pi_1", is_old=True)
    rounds.clock.advance(HOUR)
    rounds.walk()

    assert rounds.desk.poll("pi_1").asked_at == rounds.clock()
    assert rounds.world.audit().faults == []


# who walks


def test_a_second_walker_is_told_who_and_since_when(rounds):
    rounds.reconciler("process 1 on a").start(rounds.wanted())
    rounds.clock.advance(10)

    with pytest.raises(
        ReconciliationRunning, match="process 1 on a has been reconciling acme since 2026-04-01 10:00:00Z"
    ):
        rounds.reconciler("process 2 on b").start(rounds.wanted())
    with pytest.raises(ReconciliationRunning):
        rounds.reconciler("process 2 on b").start(rounds.wanted(), anew=True)
    assert len(rounds.rows()) == 1


def test_a_walker_that_died_is_followed_when_its_lease_ends(rounds):
    first = rounds.reconciler("process 1 on a").start(rounds.wanted())
    rounds.clock.advance(61)
    second = rounds.reconciler("process 2 on b").start(rounds.wanted())

    assert second.is_resumed
    assert (second.row.id, second.row.claim_token) == (first.row.id, first.row.claim_token + 1)


def test_a_walker_that_was_only_slow_keeps_nothing_more(rounds):
    """Its fencing token is out of date: neither message nor position of it is committed."""
    rounds.genius.has("pi_1", "confirmed")
    slow = rounds.reconciler("process 1 on a")
    started = slow.start(rounds.wanted())
    rounds.clock.advance(61)
    rounds.walk()
    before = len(keys(rounds, "list"))

    with pytest.raises(LeaseLost):
        rounds.world.run(slow.run(started.row))

    assert len(keys(rounds, "list")) == before == 1
    assert rounds.rows()[0].status == "done"


def test_the_lease_is_renewed_while_a_question_waits_for_its_turn(rounds):
    rounds.known("pi_1", is_old=True)
    walker = rounds.reconciler(lease=timedelta(seconds=0.06))
    started = walker.start(rounds.wanted())

    async def wait_long(*_):
        rounds.clock.advance(HOUR)
        async with asyncio.timeout(DEADLINE_S):
            while not reconciliations.is_held(rounds.row(started.row.id), rounds.clock()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return rounds.genius.present("payment_intent", "pi_1")

    rounds.genius.fetch = wait_long
    assert rounds.world.run(walker.run(started.row)).status == "done"


def test_a_walk_whose_lease_is_lost_ends_in_the_middle_of_a_question(rounds):
    rounds.known("pi_1", is_old=True)
    walker = rounds.reconciler(lease=timedelta(seconds=0.06))
    started = walker.start(rounds.wanted())

    async def taken_over(*_):
        with rounds.database.write() as unit:
            row = reconciliations.unfinished(unit, "acme")
            reconciliations.claim(unit, row, "process 2 on b", rounds.clock(), timedelta(minutes=1))
        await asyncio.Event().wait()

    rounds.genius.fetch = taken_over
    with pytest.raises(LeaseLost):
        rounds.world.run(walker.run(started.row))
    assert rounds.rows()[0].held_by == "process 2 on b"


def test_another_one_ends_the_unfinished_one_as_failed(rounds):
    rounds.reconciler().start(rounds.wanted())
    rounds.clock.advance(61)

    row = rounds.walk("bob", anew=True)

    assert [(r.status, r.last_error) for r in rounds.rows()] == [
        ("done", None),
        ("failed", "left unfinished; bob began another"),
    ]
    assert (row.asked_by, row.id) == ("bob", rounds.rows()[0].id)


def test_a_walk_that_is_cancelled_gives_its_lease_back(rounds):
    rounds.known("pi_1", is_old=True)
    reconciler = rounds.reconciler()
    started = reconciler.start(rounds.wanted())

    async def interrupted():
        walking = asyncio.ensure_future(reconciler.run(started.row, lambda _: walking.cancel()))
        await walking

    with pytest.raises(asyncio.CancelledError):
        rounds.world.run(interrupted())

    assert rounds.reconciler("process 2 on b").start(rounds.wanted()).is_resumed
