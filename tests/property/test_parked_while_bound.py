"""A webhook that comes while the answer to its create call is applied is decided, whoever of the two is quicker."""

import random
from contextlib import closing

from providers.contract import Answer
from receiver.intake import verified_message
from statemachine import own_statements
from statemachine.phases import Source
from storage import inbox
from storage.ids import new_id
from tests.property.pipeline_voices import VOICES, Telling
from tests.support.builders import our_message
from tests.support.pipeline_world import World

GENIUS = VOICES["stable_genius.payment_intent"]


def at_once(world, seed):
    """The webhook's message, after two workers have applied it and the answer, in the order that the seed says."""
    name, ref, payment_id = f"genius-{seed}", f"pi_{seed}", new_id()
    member = world.join(name, GENIUS.provider, adopts=False)
    wanted = own_statements.CreateWanted(GENIUS.kind, ref, 450, "USD")
    world.record(our_message(wanted, about=payment_id, at=world.clock(), account=name))
    world.settle()
    told = Telling(ref, None, "awaiting_payment", 450, world.clock(), new_id())
    paid = Telling(ref, None, "confirmed", 450, world.clock(), new_id())
    answer = Answer(200, GENIUS.answer(told), world.clock(), GENIUS.kind, None)
    delivery = GENIUS.delivery(GENIUS.webhook(paid), world.clock())
    (bound,) = world.record(world.answered(name, Source.CREATE, answer, payment_id))
    (came,) = world.record(verified_message(member.receiving, None, None, delivery, world.clock()))
    works = [lambda each=each: world.worker().step([each.id]) for each in (bound, came)]
    assert world.interleaving.run(random.Random(seed), *works) == [None, None]
    world.settle()
    with world.database.read() as unit:
        return inbox.get(unit, came.id)


def test_what_is_parked_while_its_payment_is_bound_is_decided(postgresql, template, tmp_path):
    """It never waits for a payment that is known: parked before the payment was bound, it is decided again."""
    with closing(World(template, tmp_path / "unused.db", database=postgresql.cleaned())) as world:
        ended = [at_once(world, seed) for seed in range(40)]

        assert [message.reason for message in ended if message.status != "decided"] == []
        assert world.audit().first is None
