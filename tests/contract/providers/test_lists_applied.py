"""What becomes of a page of a provider's list once the worker applies it: every thing on it is accounted for."""

import json

import pytest

from providers.contract import Answer
from statemachine.phases import Source
from tests.support.pipeline_world import World
from tests.support.worker_desk import KIND, Desk


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


def intent(ref, status, **more):
    return {"id": ref, "status": status, "amount": 4.5, "currency": "usd", "metadata": {}} | more


def keep(desk, *things):
    """A page with these things is recorded and applied; the message that it became."""
    body = json.dumps({"object": "list", "data": things, "has_more": False}).encode()
    kept = desk.keep(desk.world.answered("acme", Source.LIST, Answer(200, body, desk.clock(), KIND), None))
    desk.work()
    return desk.message(kept)


def test_a_page_is_believed_as_an_answer_is(desk):
    """What is paid on the list is paid here, and what was never heard of is tracked, without another question."""
    desk.a_quiet_payment()
    message = keep(desk, intent("pi_2", "awaiting_payment"), intent("pi_1", "confirmed"))
    assert (message.status, message.decision) == ("decided", "advanced")
    assert (desk.payment("pi_1").state, desk.payment("pi_2").state) == ("confirmed", "awaiting_payment")
    assert desk.effects(desk.payment("pi_1").id) == ["payment.paid"]
    assert all(poll.next_poll_at != desk.clock() for poll in desk.polls())


def test_what_is_damaged_is_asked_about_or_parks_the_page_and_its_neighbours_are_applied(desk):
    """A thing with an id is asked about, one without leaves the page parked, and what stands beside them is applied."""
    desk.a_quiet_payment()
    damaged = {"id": "pi_1", "status": ["confirmed"], "amount": 4.5}
    message = keep(desk, intent("pi_3", "confirmed"), damaged, {"status": "confirmed"}, intent("pi_4", "expired"))
    assert message.status == "parked"
    assert (desk.payment("pi_3").state, desk.payment("pi_4").state) == ("confirmed", "expired")
    assert desk.payment("pi_1").state == "awaiting_payment"
    assert desk.poll("pi_1").next_poll_at == desk.clock()
    assert len(message.outcomes) == 4


def test_a_page_that_comes_twice_changes_nothing(desk):
    """A repeated page moves nothing and owes nothing more."""
    keep(desk, intent("pi_1", "confirmed"))
    again = keep(desk, intent("pi_1", "confirmed"))
    assert again.decision == "unchanged"
    assert len(desk.chain(desk.payment("pi_1").id)) == 1
    assert desk.effects(desk.payment("pi_1").id) == ["payment.paid"]


def test_a_body_that_is_no_page_is_parked(desk):
    """What nobody can read is kept, visibly."""
    body = b"<html>maintenance</html>"
    kept = desk.keep(desk.world.answered("acme", Source.LIST, Answer(200, body, desk.clock(), KIND), None))
    desk.work()
    assert (desk.message(kept).status, desk.message(kept).body) == ("parked", body)
