"""One wish under several names and attempts: found by any, fulfilled once, compared with what was asked for."""

import json

import pytest

from providers.contract import Answer
from statemachine import own_statements
from statemachine.observation import Observation
from statemachine.phases import Review, Source
from storage import batches, outbox, payments
from storage.ids import new_id
from storage.tables import Payment
from tests.support.builders import our_message
from tests.support.made_up import OrderProvider, body_of
from tests.support.pipeline_world import SINKS, World


class Orders:
    """One account of orders, and what its provider says."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.join("orders", OrderProvider())
        self.payment_id = new_id()

    def want(self, ref: str = "at_1", *, names: tuple[str, ...] = ()) -> None:
        wanted = own_statements.CreateWanted("order", "order-1", 1130, "USD")
        at = self.world.clock()
        self.world.record(our_message(wanted, about=self.payment_id, at=at, account="orders", delivery_key="create:1"))
        self.world.settle()
        self.say(ref, "created", source=Source.CREATE, about=self.payment_id, names=names)

    def say(
        self,
        ref: str,
        state: str,
        *,
        kind: str = "order",
        amount: int | None = 1130,
        names: tuple[str, ...] = (),
        source: Source = Source.POLL,
        about: str | None = None,
        has_reference: bool = True,
    ) -> None:
        """One statement, decided."""
        self.world.clock.advance(5)
        reference = "order-1" if kind == "order" and has_reference else None
        seen = Observation(source, status=state, amount_minor=amount, reference=reference, names=names)
        answer = Answer(200, body_of(ref, kind, seen, new_id()), self.world.clock(), kind, None if about else ref)
        self.world.record(self.world.answered("orders", source, answer, about))
        self.world.settle()

    def payment(self) -> Payment:
        with self.world.database.read() as unit:
            found = payments.find(unit, account="orders")
        assert len(found) == 1
        return found[0]

    def owed(self) -> list[str]:
        with self.world.database.read() as unit:
            found = outbox.of_payment(unit, self.payment().id)
        return [
            f"{message.effect}:{json.loads(message.payload)['data']['review']}"
            if message.effect.endswith("review_required")
            else message.effect
            for message in found
            if message.sink == SINKS[0]
        ]


@pytest.fixture
def orders(template, tmp_path):
    world = World(template, tmp_path / "orders.db")
    yield Orders(world)
    report = world.audit()
    world.close()
    assert report.first is None


def test_an_attempt_of_another_amount_is_not_fulfilled(orders):
    """1.30 instead of 11.30 under the order's reference, and an id of its own."""
    orders.want()
    orders.say("at_2", "captured", amount=130)
    assert orders.owed() == ["payment.review_required:amount_mismatch"]
    assert orders.payment().amount_minor == 1130


def test_a_session_and_what_it_names_are_one_payment_and_paid_once(orders):
    orders.want("cs_1", names=("ch_1",))
    orders.say("ch_1", "taken", kind="charge", amount=None)
    assert orders.owed() == []
    orders.say("cs_1", "captured")
    orders.say("ch_1", "taken", kind="charge", amount=None)
    assert orders.owed() == ["payment.paid"]


def test_a_failed_attempt_is_no_failed_payment_while_another_is_open(orders):
    orders.want()
    orders.say("at_2", "pending")
    orders.say("at_2", "refused")
    assert (orders.payment().phase, orders.payment().provider_ref, orders.owed()) == ("open", "at_1", [])
    orders.say("at_1", "refused")
    assert (orders.payment().phase, orders.owed()) == ("failed", ["payment.failed"])


def test_an_attempt_after_one_that_failed_is_paid_under_the_same_payment(orders):
    orders.want()
    orders.say("at_1", "refused")
    orders.say("at_2", "created")
    assert orders.payment().phase == "open"
    orders.say("at_2", "closed")
    assert orders.payment().provider_ref == "at_2"
    assert orders.owed() == ["payment.failed", "payment.paid", "payment.settled"]


def test_two_paid_attempts_are_fulfilled_once_and_reviewed_once(orders):
    orders.want()
    orders.say("at_1", "captured")
    orders.say("at_2", "captured")
    orders.say("at_2", "closed")
    assert orders.owed() == ["payment.paid", "payment.review_required:paid_twice"]
    assert orders.payment().review == Review.PAID_TWICE
    said = own_statements.Resolution("captured", "one is given back", "ada")
    orders.world.note_resolution("orders", orders.payment().id, said)
    at = orders.world.clock()
    orders.world.record(our_message(said, about=orders.payment().id, at=at, account="orders"))
    orders.world.settle()
    orders.say("at_2", "closed")
    assert orders.payment().review is None
    orders.say("at_1", "returned")
    assert (orders.payment().provider_ref, orders.payment().phase) == ("at_2", "settled")


def test_paid_twice_waits_for_the_review_that_stands_and_is_opened_after_it(orders):
    orders.want()
    orders.say("at_2", "captured", amount=130)
    orders.say("at_1", "captured")
    assert orders.payment().review == Review.AMOUNT_MISMATCH
    said = own_statements.Resolution("captured", "seen", "ada")
    orders.world.note_resolution("orders", orders.payment().id, said)
    at = orders.world.clock()
    orders.world.record(our_message(said, about=orders.payment().id, at=at, account="orders"))
    orders.world.settle()
    assert orders.payment().review == Review.PAID_TWICE
    assert orders.owed().count("payment.paid") == 1


def test_a_charge_that_nobody_knows_is_never_a_payment(orders):
    orders.want()
    orders.say("ch_7", "taken", kind="charge", amount=None)
    assert orders.owed() == []
    orders.say("at_1", "captured", names=("ch_7",))
    assert orders.payment().names == [{"name": "ch_7"}]


def test_a_payment_adopted_before_its_reference_was_known_becomes_the_wish_that_it_is(orders):
    wanted = own_statements.CreateWanted("order", "order-1", 1130, "USD")
    failed = own_statements.CallFailed("create", "timeout", "no answer", None, is_ambiguous=True)
    for statement in (wanted, failed):
        at = orders.world.clock()
        orders.world.record(our_message(statement, about=orders.payment_id, at=at, account="orders"))
        orders.world.settle()
    orders.world.clock.advance(600)
    orders.say("at_5", "pending", has_reference=False)
    orders.say("at_5", "pending")
    with orders.world.database.read() as unit:
        wish, adopted = payments.find(unit, account="orders")
    assert (wish.id, wish.provider_ref, wish.phase, wish.review) == (orders.payment_id, "at_5", "processing", None)
    assert (adopted.provider_ref, adopted.state, adopted.phase) == (None, "not_created", "failed")
    orders.say("at_5", "captured")
    with orders.world.database.read() as unit:
        owed = [(each.payment_id, each.effect) for each in outbox.find(unit) if each.sink == SINKS[0]]
    assert (wish.id, "payment.paid") in owed
    assert adopted.id not in {payment_id for payment_id, _ in owed}


def test_many_names_are_looked_up_by_one_statement(orders):
    orders.want(names=("ch_1", "ch_2"))
    keys = [("orders", "order", name) for name in ("ch_1", "ch_2", "ch_3")] + [("other", "order", "ch_1")]
    with orders.world.database.read() as unit:
        assert batches.by_name(unit, keys) == dict.fromkeys(keys[:2], orders.payment().id)
