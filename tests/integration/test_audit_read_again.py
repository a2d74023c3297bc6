"""Kept messages read again: what cannot be is counted, what is read otherwise is told, and whom the audit believes."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event

from audit.seals import Trust
from audit.verify import Audit, AuditedAccount
from providers.contract import UNSIGNED, Answer, Delivery, Reading
from providers.signing import Window
from receiver.intake import verified_message
from statemachine import own_statements
from statemachine.phases import Source
from storage import hashing, inbox, payments
from storage.ids import new_id
from storage.types import RetentionRule
from tests.contract.providers.test_pages import PAGES
from tests.integration.test_retention import deliver, run, told
from tests.property.pipeline_voices import VOICES, Telling
from tests.support import keeping
from tests.support.audit_case import Shop
from tests.support.builders import our_message
from tests.support.pipeline_world import KEY, World

PAYPAL_BODIES = ("event_capture_completed", "order_captured")
OLD = hashing.Sealer([("old", b"the key of before, elsewhere")])
BOTH = hashing.Sealer([("new", b"the key of now, elsewhere"), ("old", b"the key of before, elsewhere")])


@pytest.fixture
def shop(template, tmp_path):
    world = World(template, tmp_path / "shop.db")
    yield Shop(world)
    world.close()


def audited(shop, *, keys=None, **trust):
    """The report of an audit that believes this."""
    rules = shop.world.rules
    accounts = {
        name: AuditedAccount(rules[name].provider, {KEY.id: KEY} if keys is None else keys, Window())
        for name in shop.world.members
    }
    believed = Trust(**{"sealer": shop.world.database.sealer, **trust})
    return Audit(shop.world.database, accounts, believed).run()


def reads(shop, make):
    """The program reads deliveries of the account genius so from now on."""
    real = shop.world.rules["genius"].provider

    class Reader(type(real)):
        def parse(self, statement):
            return make(statement, super().parse)

    shop.world.rules["genius"] = replace(shop.world.rules["genius"], provider=Reader(real.options))


def test_what_is_read_again_comes_out_as_it_is_kept(shop):
    shop.happen()
    report = audited(shop)

    assert report.faults == []
    assert (report.read_again > 10, report.not_readable) == (True, 0)


def test_more_payments_of_a_page_take_no_more_statements(shop):
    """Each payment has namesakes and names of other kinds to be looked up, and that is done for all of a page."""

    def asked():
        said = []

        def note(_connection, _cursor, statement, *_):
            said.append(statement)

        event.listen(shop.world.database.engine, "before_cursor_execute", note)
        assert audited(shop).faults == []
        event.remove(shop.world.database.engine, "before_cursor_execute", note)
        return len(said)

    def pay(number):
        shop.webhook(f"pi_{number}", "confirmed")
        called = shop.wish("payfield", "payin", f"order-{number}", "INR")
        shop.callback(called, f"order-{number}", "success")

    pay(0)
    before = asked()
    for number in range(1, 10):
        pay(number)

    assert asked() == before


def test_statements_whose_bytes_are_gone_are_counted_and_not_called_proved(shop):
    told(shop)
    before = audited(shop)
    assert run(shop, RetentionRule.BODIES)
    report = audited(shop)

    assert report.faults == []
    assert (report.read_again, report.not_readable) == (0, before.read_again)


def test_a_late_message_after_scrubbed_ones_still_names_its_state(shop):
    """Its predecessors are gone, so that only the state that it was decided to be can be weighed."""
    payment = shop.wish("genius", "payment_intent", "order-1", "USD")
    shop.answer(Source.CREATE, "order-1", "awaiting_payment", payment)
    shop.webhook("order-1", "confirmed")
    deliver(shop)
    assert run(shop, RetentionRule.BODIES)
    shop.answer(Source.POLL, "order-1", "settled", payment)
    assert audited(shop).faults == []

    reads(shop, lambda _statement, _parse: Reading(note="nothing"))
    assert any("it does not say" in fault.problem for fault in audited(shop).faults)


def test_a_reading_that_changed_is_told_where_something_rests_on_it(shop):
    """As after an upgrade whose parser reads a body otherwise."""
    shop.webhook("pi_1", "confirmed")
    assert audited(shop).faults == []

    reads(shop, lambda _statement, _parse: Reading(unreadable="another version"))
    (fault,) = audited(shop).faults
    assert (fault.table, "says nothing about payment" in fault.problem) == ("inbox_message", True)


def test_a_reading_that_was_mended_and_replayed_is_no_fault(shop):
    """What was not understood at first moved nothing; its replay is what counts."""
    shop.webhook("pi_1", "awaiting_payment")
    real = shop.world.rules["genius"]
    reads(shop, lambda statement, parse: replace_status(parse(statement)))
    shop.webhook("pi_1", "confirmed")
    shop.world.rules["genius"] = real
    with shop.world.database.read() as unit:
        (parked,) = inbox.find(unit, status="parked")
    with shop.world.database.write() as unit:
        keeping.replay(unit, parked.id, shop.clock())
    shop.work()

    assert audited(shop).faults == []


def test_a_replay_at_the_time_of_the_first_decision_is_proved_apart(shop):
    """A clock that was set back gives both decisions one time; in between another message moved the payment."""
    shop.webhook("pi_1", "awaiting_payment")
    shop.webhook("pi_1", "confirmed")
    with shop.world.database.read() as unit:
        first = inbox.find(unit)[0]
    shop.clock.advance(-2)  # each step of the shop takes a second
    with shop.world.database.write() as unit:
        keeping.replay(unit, first.id, shop.clock())
    shop.work()
    with shop.world.database.read() as unit:
        decided = inbox.decisions(unit, [first.id])

    assert [row.outcome for row in decided] == ["advanced", "stale"]
    assert decided[0].at == decided[1].at
    assert audited(shop).faults == []


def replace_status(reading):
    """The reading of a version that knows less: the bytes say nothing to it."""
    return Reading(unreadable="not understood yet") if reading.observations else reading


@pytest.mark.parametrize("is_older", [False, True], ids=["begun-at-once", "named-later"])
def test_a_name_may_have_been_another_payments_only_later(shop, is_older):
    """A page names a payment by its reference, which becomes another payment's name at the provider afterwards."""
    world, voice = shop.world, VOICES["alternative_payments.payment_request"]
    world.join("alternative", voice.provider)

    def wish(reference):
        payment_id = new_id()
        wanted = own_statements.CreateWanted(voice.kind, reference, 450, voice.currency)
        world.record(our_message(wanted, about=payment_id, at=world.clock(), account="alternative"))
        return payment_id

    def answer(source, ref, payment_id=None):
        body = voice.answer(Telling(ref, "order-7", voice.lifecycle.initial[0], 450, world.clock(), new_id()))
        body = b'{"data":[' + body + b"]}" if source is Source.LIST else body
        told = Answer(200, body, world.clock(), voice.kind, ref if source is Source.POLL else None)
        world.record(world.answered("alternative", source, told, payment_id))

    other = wish("order-6") if is_older else None
    named = wish("order-7")
    answer(Source.LIST, "order-7")
    answer(Source.CREATE, "ref-7", named)
    answer(Source.CREATE if is_older else Source.POLL, "order-7", other)
    world.settle()
    with world.database.read() as unit:
        page = next(message for message in inbox.find(unit, account="alternative") if message.source == Source.LIST)
    assert page.payment_id == named
    assert audited(shop, retired_keys=frozenset({"alternative/-"})).faults == []


def test_a_retired_key_is_allowed_by_name(shop):
    shop.webhook("pi_1", "confirmed")
    assert [fault.table for fault in audited(shop, keys={}).faults] == ["inbox_message"]

    report = audited(shop, keys={}, retired_keys=frozenset({f"genius/{KEY.id}"}))
    assert (report.faults, report.unverifiable, report.signatures) == ([], 1, 0)


def test_keys_of_seals_rotate(shop):
    """What the old key sealed is opened for as long as it is configured, and counted by key."""
    shop.world.database.sealer = OLD
    shop.webhook("pi_1", "awaiting_payment")
    shop.world.database.sealer = BOTH
    shop.webhook("pi_1", "confirmed")

    report = audited(shop)
    assert report.faults == []
    assert set(report.seals) == {"old", "new"}
    new_alone = hashing.Sealer([("new", b"the key of now, elsewhere")])
    assert audited(shop, sealer=new_alone).faults != []


def test_rows_of_before_the_key_are_believed_where_that_is_said(shop):
    shop.webhook("pi_1", "confirmed")
    shop.world.database.sealer = OLD
    assert any("sealed without a key" in fault.problem for fault in audited(shop).faults)

    since = shop.clock() + timedelta(seconds=1)
    assert audited(shop, keyed_since=since).faults == []
    assert audited(shop, keyed_since=since - timedelta(days=1)).faults != []


def test_a_delivery_that_nobody_signed_is_believed_as_that_and_no_more(shop):
    """A hint leads to a question, its answer makes the payment, and the audit decides both again."""
    world = shop.world
    paypal = PAGES["paypal"]
    receiving = world.join("pay", paypal.with_options()).receiving
    hint, order = ((paypal.source.folder / "samples" / f"{name}.json").read_bytes() for name in PAYPAL_BODIES)

    world.record(verified_message(receiving, None, None, Delivery(hint, ()), shop.clock()))
    shop.work()
    with world.database.read() as unit:
        assert [message.key_id for message in inbox.find(unit, account="pay")] == [UNSIGNED]
    told = Answer(200, order, shop.clock(), "order", "5O190127TN364715T")
    world.record(world.answered("pay", Source.POLL, told, None))
    shop.work()

    report = audited(shop)
    assert report.faults == []
    with world.database.read() as unit:
        (payment,) = payments.find(unit, account="pay")
    assert (payment.state, payment.reference, payment.captured_minor) == ("CAPTURED", "order-17", 10000)
