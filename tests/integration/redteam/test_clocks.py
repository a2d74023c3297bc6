"""A clock that was wrong for a while puts nothing off for years."""

from datetime import timedelta

import pytest

from providers.contract import Answer
from storage import inbox, outbox, payment_polls, rate_limits
from storage.rate_limits import Rate
from tests.support.builders import a_message

YEARS = timedelta(days=4000).total_seconds()


@pytest.mark.parametrize("ahead", [600, YEARS], ids=["minutes", "years"])
def test_what_a_fast_clock_recorded_is_applied_and_dispatched_now(desk, ahead):
    """The web process's clock ran ahead: the worker's own clock must not make the money wait."""
    desk.keep(a_message(body=desk.event("confirmed"), received_at=desk.clock() + timedelta(seconds=ahead)))
    desk.clock.advance(ahead)
    desk.webhook("awaiting_payment", ref="pi_2")
    desk.work()
    desk.webhook("confirmed", ref="pi_2")
    desk.clock.advance(-ahead)
    desk.work()

    assert desk.payment().state == "confirmed"
    assert desk.payment("pi_2").state == "confirmed"
    with desk.database.write() as unit:
        due = outbox.claim_of_others(unit, desk.clock(), timedelta(seconds=60), [], 100)
    assert {o.effect for o in due} == {"payment.paid"}
    with desk.database.write() as unit:
        assert outbox.claim_of_others(unit, desk.clock(), timedelta(seconds=60), [], 100) == []


def test_leases_and_questions_of_a_wrong_century_are_taken_over(desk):
    """Put off by a clock that was years ahead: claimed, asked about and sent as if due."""
    desk.clock.advance(YEARS)
    desk.told("awaiting_payment")
    late = desk.webhook("confirmed")
    with desk.database.write() as unit:
        inbox.claim(unit, desk.clock(), timedelta(seconds=60), 10)
    desk.clock.advance(-YEARS)
    desk.work()
    assert desk.message(late).decision == "advanced"

    body = b'{"id":"pi_1","status":"settled","amount":4.5,"currency":"usd"}'
    desk.member.client.present = lambda kind, ref: Answer(200, body, desk.clock(), kind, ref)
    with desk.database.write() as unit:
        payment_polls.set_next(unit, desk.payment().id, desk.clock() + timedelta(days=4000))
    assert desk.world.run(desk.world.poller("acme").step()) == 1


def test_a_budget_of_a_wrong_century_is_not_waited_for(desk):
    """Neither the next slot nor a pause may silence an account for years."""
    ahead, rate = desk.clock() + timedelta(days=4000), Rate.of(1, 1.0)
    with desk.database.write() as unit:
        rate_limits.reserve(unit, "acme", ahead, rate)
        rate_limits.pause(unit, "acme", ahead, timedelta(hours=1))
        assert rate_limits.pause_left(unit, "acme", desk.clock()) == timedelta(0)
        assert rate_limits.reserve(unit, "acme", desk.clock(), rate).wait <= timedelta(0)
        rate_limits.pause(unit, "acme", desk.clock(), timedelta(hours=1))
        assert rate_limits.reserve(unit, "acme", desk.clock(), rate).wait == timedelta(hours=1)
