"""What one batch makes of messages that have to do with each other."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from providers.contract import Reading
from statemachine import own_statements
from statemachine.observation import Observation
from statemachine.phases import Outcome, Source
from storage import batches, inbox
from storage.database import Unit
from storage.errors import LeaseLost, StorageUnavailable
from storage.ids import new_id
from tests.support import keeping
from tests.support.builders import PROVIDERS, a_message
from tests.support.worker_desk import KIND
from worker.payment_session import Session


@pytest.fixture(autouse=True)
def large(desk):
    """Everything that is said is one batch."""
    desk.set(batch=100)


def test_many_messages_of_one_payment_are_decided_in_order(desk):
    """Each sees what those before it did, and the chain has no gap."""
    ids = [desk.webhook(status) for status in ("awaiting_payment", "awaiting_payment", "confirmed", "settled")]
    assert desk.work() == 4

    payment = desk.payment()
    assert [t.to_state for t in desk.chain(payment.id)] == ["awaiting_payment", "confirmed", "settled"]
    assert [desk.message(i).decision for i in ids] == ["advanced", "unchanged", "advanced", "advanced"]
    assert (payment.version, desk.poll().statements) == (3, 4)
    assert desk.effects(payment.id) == ["payment.paid", "payment.settled"]
    assert desk.world.audit().first is None


def test_two_payments_whose_references_are_told_crosswise(desk):
    """Each name is bound to the wish of the reference that comes with it."""
    one, two = desk.wish("order-1"), desk.wish("order-2")
    desk.webhook("confirmed", "pi_b", metadata={"reference": "order-1"})
    desk.webhook("confirmed", "pi_a", metadata={"reference": "order-2"})
    desk.webhook("settled", "pi_a", metadata={"reference": "order-1"})  # says now what the other said
    desk.work()

    assert [(desk.get(i).provider_ref, desk.get(i).state) for i in (one, two)] == [
        ("pi_b", "confirmed"),
        ("pi_a", "settled"),
    ]
    assert [desk.get(i).reference for i in (one, two)] == ["order-1", "order-2"]
    assert len(desk.payments()) == 2


def test_an_older_wish_of_the_reference_is_found_when_the_newer_has_a_name(desk):
    """The database holds several payments of one reference: what it answered first is not all."""
    old, new = desk.wish("order-1"), new_id()
    desk.say(own_statements.CreateWanted(KIND, "order-1", 450, "USD"), new, delivery_key="create:again")
    desk.work()
    for ref in ("pi_1", "pi_2"):
        desk.webhook("confirmed", ref, metadata={"reference": "order-1"})
    desk.work()

    assert [desk.get(i).provider_ref for i in (old, new)] == ["pi_2", "pi_1"]


def test_what_is_adopted_is_found_by_its_name_in_the_same_batch(desk):
    """One payment, not two."""
    desk.webhook("awaiting_payment", "pi_new")
    desk.webhook("confirmed", "pi_new")
    desk.work()

    assert [(p.provider_ref, p.state, p.version) for p in desk.payments()] == [("pi_new", "confirmed", 2)]


def test_what_was_parked_earlier_in_the_batch_is_reopened_by_a_binding(desk):
    """The message that named an unknown payment is decided in the next step."""
    desk.rule(adopts_unknown=False)
    wished = desk.wish()
    early = desk.webhook("confirmed", "pi_1")
    desk.answer(Source.CREATE, "awaiting_payment", "pi_1", about=wished)
    desk.work()
    assert desk.message(early).status == "pending"
    assert [entry["outcome"] for entry in desk.message(early).outcomes] == ["parked"]

    desk.work()
    assert (desk.message(early).decision, desk.get(wished).state) == ("advanced", "confirmed")
    assert desk.world.audit().first is None


def test_what_is_parked_after_a_binding_stays_parked(desk):
    """The binding reopens what waited before it: a later message waits for another."""
    with desk.database.write() as unit:
        kept = a_message(received_at=desk.clock())
        inbox.record(unit, [kept])
    with desk.database.write() as unit:
        batch = Session(unit, desk.clock())
        (message,) = batches.due(unit, desk.clock(), 10)
        batch.reopen_awaiting("acme", ["payout:1"])
        message.status, message.awaits, message.decision = "parked", "payout:1", "parked"
        message.reason, message.decided_at = "waits", desk.clock()
        batch.finish(message)
        batch.flush()

    assert (desk.message(kept.id).status, desk.message(kept.id).awaits) == ("parked", "payout:1")


def test_kinds_that_share_an_id_are_asked_about(desk):
    """Both payments are made in this very batch; a statement that fits both decides neither."""
    provider = PROVIDERS["payfield"]

    class Kinds(type(provider)):
        def parse(self, statement):
            kind = statement.body.decode() or None
            return Reading(observations=(Observation(statement.source, kind=kind, provider_ref="1", status="created"),))

    desk.rule(provider=Kinds(provider.options))
    ids = [
        desk.keep(a_message(body=kind.encode(), kind=kind or None, received_at=desk.clock()))
        for kind in ("payin", "payout", "")
    ]
    desk.work()

    assert [len(desk.message(i).outcomes) for i in ids] == [1, 1, 2]
    assert {entry["reason"] for entry in desk.message(ids[2]).outcomes} == {
        "another kind has this id too; the provider is asked"
    }
    assert [p.next_poll_at for p in desk.polls()] == [desk.clock(), desk.clock()]


def test_a_hint_asks_about_what_the_batch_has_just_adopted(desk):
    """By its address, which no database has yet."""
    address = "0x" + "a" * 40
    desk.webhook("expired", "pi_1", payment_address=address)
    body = b'{"type": "transaction.created", "data": {"to": "%s"}}' % address.encode()
    hint = desk.keep(a_message(body=body, received_at=desk.clock()))
    desk.work()

    payment = desk.payment()
    assert (payment.review, desk.poll().next_poll_at) == ("conflict", desk.clock())
    assert desk.message(hint).payment_id == payment.id


def test_an_effect_is_owed_once_across_batches(desk):
    """Whether the payment was read, adopted here, or moved twice."""
    for _ in range(2):
        desk.webhook("confirmed")
        desk.webhook("settled")
        desk.work()
    with desk.database.write() as unit:
        for message in inbox.find(unit):
            keeping.replay(unit, message.id, desk.clock())
    desk.work()

    assert sorted(desk.effects(desk.payment().id)) == ["payment.paid", "payment.settled"]


def test_a_poison_message_in_the_middle_costs_the_batch_its_speed_alone(desk):
    """The payment's other messages are applied in order, as if it were not there."""

    def parse(statement, real):
        if b"pi_bad" in statement.body:
            raise KeyError("a bug of ours")
        return real(statement)

    desk.read_as(parse)
    ids = [
        desk.webhook(status, ref)
        for status, ref in (("awaiting_payment", "pi_1"), ("x", "pi_bad"), ("settled", "pi_1"))
    ]
    with capture_logs() as logs:
        desk.work()

    assert [desk.message(i).status for i in ids] == ["decided", "pending", "decided"]
    assert desk.payment().version == 2
    assert [entry["event"] for entry in logs].count("message.retried") == 1


def test_a_batch_takes_a_handful_of_statements(desk, monkeypatch):
    """However many messages: one statement for each table, and what is read is read together."""
    for number in range(30):
        desk.webhook("awaiting_payment", f"pi_{number}")
    desk.work()
    # what the poller knows is read for each payment in this world
    desk.rule(next_poll=lambda _payment, _poll, now: now)
    for number in range(60):
        desk.webhook("confirmed", f"pi_{number}")
    said = []
    for name in ("execute", "rows", "run", "run_each"):
        real = getattr(Unit, name)
        monkeypatch.setattr(Unit, name, lambda *a, real=real, **kw: (said.append(str(a[1])), real(*a, **kw))[1])
    assert desk.work() == 60

    writes = [statement.split()[:3] for statement in said if statement.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert sorted(" ".join(words) for words in writes) == [
        "DELETE FROM inbox_queue",
        "INSERT INTO decision",
        "INSERT INTO outbox_message",
        "INSERT INTO outbox_queue",
        "INSERT INTO payment",
        "INSERT INTO payment_poll",
        "INSERT INTO transition",
        "UPDATE payment SET",
        "UPDATE payment_poll SET",
    ]
    assert len(said) <= 16


@pytest.mark.parametrize("moved", ["payment SET version = 7", "payment_poll SET statements = 7"])
def test_a_payment_that_another_has_moved_since_it_was_read_is_not_written(desk, moved):
    """Whatever a lock should have seen to: the version and the statement that were read are those that are changed."""
    desk.told("awaiting_payment")

    def late(unit):
        batch = Session(unit, desk.clock())
        payment = batch.get(desk.payment().id)
        unit.run(f"UPDATE {moved}")
        payment.state = "confirmed"
        batch.save(payment)
        batch.flush()

    with pytest.raises(LeaseLost), desk.database.write() as unit:
        late(unit)
    assert (desk.payment().version, desk.payment().state, desk.poll().statements) == (1, "awaiting_payment", 1)


def test_a_message_that_leaves_the_payment_as_it_is_does_not_write_it(desk, monkeypatch):
    """Only when it was heard of changes, and no column of an index."""
    desk.told("awaiting_payment")
    before, poll = desk.payment(), desk.poll()
    desk.clock.advance(60)
    desk.webhook("awaiting_payment")
    said = []
    for name in ("execute", "run", "run_each"):
        real = getattr(Unit, name)
        monkeypatch.setattr(Unit, name, lambda *a, real=real, **kw: (said.append(str(a[1])), real(*a, **kw))[1])
    assert desk.work() == 1

    assert [" ".join(words.split()[:2]) for words in said if words.startswith("UPDATE")] == [
        "UPDATE payment_poll",
    ]
    assert desk.payment() == before
    assert desk.poll() == replace(poll, heard_at=desk.clock(), statements=2, seal=desk.poll().seal)


def test_what_a_message_was_decided_to_mean_is_not_written_over_another_decision(desk):
    """The token that was read, and pending: else nothing of the batch is kept."""
    message_id = desk.webhook("confirmed")

    def late(unit):
        (message,) = batches.due(unit, desk.clock(), 10)
        inbox.replay(unit, message_id, desk.clock())
        message.status, message.decision = "decided", Outcome.NOTED.value
        keeping.decide(unit, [message])

    with pytest.raises(LeaseLost), desk.database.write() as unit:
        late(unit)
    assert desk.message(message_id).decision is None


def test_what_came_in_behind_later_ones_is_looked_for(desk):
    """While every batch is full, the next is looked for behind the last; now and then from the beginning."""
    desk.set(batch=2)
    ids = [new_id() for _ in range(9)]
    late = ids.pop(0)
    for number, message_id in enumerate(ids):
        body = desk.event("confirmed", f"pi_{number}")
        desk.keep(a_message(message_id=message_id, body=body, received_at=desk.clock()))
    worker = desk.world.worker()
    worker.step()
    desk.keep(a_message(message_id=late, body=desk.event("confirmed", "pi_late"), received_at=desk.clock()))
    worker.step()
    assert desk.message(late).status == "pending"

    desk.clock.advance(1)
    worker.step()
    assert desk.message(late).status == "decided"
    while worker.step():
        pass
    with desk.database.read() as unit:
        assert inbox.depth(unit) == {"decided": 9}


def test_what_came_in_behind_is_not_waited_for_when_nothing_else_is_there(desk):
    """A batch that is not full has looked everywhere."""
    desk.set(batch=2)
    late, *ids = (new_id() for _ in range(4))
    worker = desk.world.worker()
    for number, message_id in enumerate(ids[:2]):
        body = desk.event("confirmed", f"pi_{number}")
        desk.keep(a_message(message_id=message_id, body=body, received_at=desk.clock()))
    worker.step()
    desk.keep(a_message(message_id=late, body=desk.event("confirmed", "pi_late"), received_at=desk.clock()))
    worker.step()

    assert desk.message(late).status == "decided"


def test_a_put_off_message_is_not_due_at_once(desk):
    """Nobody has claimed it under a lease, and yet it waits."""
    desk.wish()
    message_id = desk.webhook("confirmed", "pi_unknown", metadata={"reference": "order-9"})
    desk.work()
    assert desk.message(message_id).last_error == "a create call is under way"
    assert desk.work() == 0

    desk.clock.advance(1)
    assert desk.work() == 1


def test_storage_that_goes_away_in_the_middle_is_told(desk, monkeypatch):
    """No message is blamed, and nothing is kept."""
    message_id = desk.webhook("confirmed")

    def away(*_args):
        raise StorageUnavailable

    monkeypatch.setattr(batches, "append", away)
    with pytest.raises(StorageUnavailable):
        desk.work()

    assert (desk.message(message_id).status, desk.message(message_id).attempts) == ("pending", 0)
    assert desk.payments() == []


def test_a_batch_that_another_worker_was_quicker_than_is_tried_once_more(desk, monkeypatch):
    """What the other did is seen then; nothing is applied one by one."""
    ids = [desk.webhook("confirmed", ref) for ref in ("pi_1", "pi_2")]
    real, calls = batches.finish, []

    def finish(unit, messages):
        calls.append(len(messages))
        if len(calls) == 1:
            raise LeaseLost
        real(unit, messages)

    monkeypatch.setattr(batches, "finish", finish)
    with capture_logs() as logs:
        desk.work()

    assert calls == [2, 2]
    assert [desk.message(i).status for i in ids] == ["decided", "decided"]
    assert [entry["event"] for entry in logs].count("message.retried") == 1
