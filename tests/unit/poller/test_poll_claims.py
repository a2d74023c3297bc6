"""Who is asked next: somebody's question first, in a room of its own; nobody while the provider is away."""

import asyncio
import random
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from poller.polling import PollClaims, Poller
from providers.contract import Answer
from providers.errors import ProviderError
from storage import payment_polls, rate_limits
from storage.types import PollPriority
from tests.support.pipeline_world import World
from tests.support.waiting import DEADLINE_S
from tests.support.worker_desk import Desk

BODY = b'{"id":"%s","status":"awaiting_payment","amount":4.5,"currency":"usd"}'
LEASE = timedelta(seconds=120)


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    found = Desk(world)
    found.member.client.present = lambda kind, ref: Answer(200, BODY % ref.encode(), found.clock(), kind, ref)
    yield found
    world.close()


def crowd(desk, count, priority=PollPriority.SCHEDULE):
    """Payments that are due by the schedule."""
    for number in range(count):
        desk.told("awaiting_payment", ref=f"pi_{number}")
    desk.clock.advance(3_600)
    with desk.database.write() as unit:
        for poll in desk.polls():
            payment_polls.note_asked(unit, poll, desk.clock())
    return {payment.provider_ref: payment for payment in desk.payments()}


def want(desk, ref, priority):
    with desk.database.write() as unit:
        payment_polls.ask_at(unit, [desk.payment(ref).id], desk.clock(), priority)


def claims(desk, concurrency=2):
    book = desk.world.book("acme")
    return PollClaims(
        desk.database, book, desk.clock, concurrency=concurrency, create_grace=timedelta(seconds=120), lease=LEASE
    )


def refs(claimed):
    return [polled.payment.provider_ref for polled in claimed.payments]


def test_a_payer_who_came_back_goes_first(desk):
    """Before a doubt, before a person; the schedule has its own room."""
    crowd(desk, 8)
    want(desk, "pi_5", PollPriority.PERSON)
    want(desk, "pi_6", PollPriority.PAYER)
    want(desk, "pi_7", PollPriority.DOUBT)
    taken = claims(desk).claim("acme")

    assert refs(taken)[:2] == ["pi_6", "pi_7"]
    assert len(taken.payments) == 4


def test_a_full_house_still_has_room_for_a_payer(desk):
    """However many scheduled questions are under way, and the other way round."""
    crowd(desk, 6)
    want(desk, "pi_5", PollPriority.PAYER)

    assert refs(claims(desk).claim("acme", urgent=0, scheduled=2)) == ["pi_5"]
    want(desk, "pi_4", PollPriority.PAYER)
    assert "pi_4" not in refs(claims(desk).claim("acme", urgent=2, scheduled=0))


def test_a_claim_is_nobody_else_s_until_its_lease_ends(desk):
    """Two pollers share the crowd."""
    crowd(desk, 4)
    first, second = claims(desk).claim("acme"), claims(desk).claim("acme")

    assert not {*refs(first)} & {*refs(second)}
    assert claims(desk).claim("acme").payments == []
    desk.clock.advance(LEASE.total_seconds() + 1)
    assert len(claims(desk).claim("acme").payments) == 2


def test_nothing_is_claimed_while_the_provider_wants_no_requests(desk):
    """Payments that wait out a pause are not held by anybody, and keep their turn."""
    crowd(desk, 2)
    with desk.database.write() as unit:
        rate_limits.pause(unit, "acme", desk.clock(), timedelta(seconds=60))
    assert claims(desk).claim("acme").payments == []

    desk.clock.advance(61)
    assert len(claims(desk).claim("acme").payments) == 2


def ask(desk):
    with capture_logs() as logs:
        asked = desk.world.run(desk.world.poller("acme").step())
    return asked, [line["event"] for line in logs]


def test_an_outage_is_met_by_few_and_tried_by_one(desk):
    """The breaker stops everybody, lets one question try at a time, and closes by an answer."""
    crowd(desk, 30)
    present = desk.member.client.present

    def away(_kind, _ref):
        raise ProviderError("away", http_status=503, may_retry=True)

    desk.member.client.present = away
    asked, events = ask(desk)
    assert asked <= 8
    assert "breaker.opened" in events
    assert ask(desk)[0] == 0

    desk.clock.advance(600)
    assert ask(desk)[0] == 1
    assert ask(desk)[0] == 0
    desk.member.client.present = present
    desk.clock.advance(600)
    asked, events = ask(desk)
    assert asked == 1
    assert "breaker.closed" in events
    assert ask(desk)[0] > 1


def test_a_payment_s_own_error_is_no_outage(desk):
    """A 404 of one payment stops nobody."""
    crowd(desk, 12)

    def gone(_kind, _ref):
        raise ProviderError("gone", http_status=404)

    desk.member.client.present = gone
    assert ask(desk)[0] == 8
    assert ask(desk)[0] == 4


class Slow:
    """A client whose answers come when the test says so."""

    def __init__(self, desk):
        self.desk, self.gates, self.asked = desk, {}, []

    async def fetch(self, kind, ref):
        self.asked.append(ref)
        await self.gates.setdefault(ref, asyncio.Event()).wait()
        return Answer(200, BODY % ref.encode(), self.desk.clock(), kind, ref)


def test_a_slow_answer_holds_up_nobody(desk):
    """Others are asked meanwhile, and a payer who comes back is asked about at once."""
    crowd(desk, 4)
    slow, done = Slow(desk), []

    async def scene():
        poller = Poller(
            desk.database, {"acme": slow}, desk.world.book("acme"), desk.clock, random.Random(0), concurrency=2,
            on_answer=done.append,
        )  # fmt: skip
        assert await poller.start("acme") == 2
        assert await poller.start("acme") == 0
        await until(lambda: len(slow.asked) == 2)
        stuck, quick = slow.asked
        slow.gates[quick].set()
        await until(lambda: done)
        assert await poller.start("acme") == 1
        other = next(ref for ref in ("pi_0", "pi_1", "pi_2", "pi_3") if ref not in {stuck, quick, slow.asked[-1]})
        want(desk, other, PollPriority.PAYER)
        assert await poller.start("acme") == 1
        await until(lambda: slow.asked[-1] == other)
        await poller.aclose()
        return stuck, quick

    with capture_logs():
        stuck, quick = desk.world.run(scene())
    assert (desk.poll(quick).polls, desk.poll(stuck).polls) == (2, 1)


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a condition of somebody else's, with a deadline
            await asyncio.sleep(0.005)
