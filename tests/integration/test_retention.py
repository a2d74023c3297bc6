"""What is gone by a rule is no fault, and what is gone without one is: on a real history, on both databases."""

from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import text

from audit.retention import RetentionRecords
from statemachine.phases import Source
from storage import (
    inbox,
    outbox,
    partitions,
    payments,
    quarantine,
    retention_partitions,
    retention_runs,
    transitions,
)
from storage.errors import NotFound
from storage.ids import first_id, instant_of, new_id
from storage.partitions import Period
from storage.retention import Retention, Rules
from storage.tables import DeliveryAttempt, RejectedDelivery
from storage.tables_support import RetentionRun
from storage.types import OutboxStatus, RetentionRule, RetentionStatus
from tests.support import keeping
from tests.support.audit_case import Shop, Tampering
from tests.support.builders import a_message
from tests.support.drift import drift
from tests.support.pipeline_world import SimulatedCrash, World
from tests.support.rows import put_status

LATER = timedelta(days=400)


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, template, tmp_path):
    """Two accounts; on PostgreSQL with the partitions of these days."""
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    world = World(template, tmp_path / "shop.db", database=server and server.copy())
    partitions.keep_ahead(world.database, instant_of(new_id()), Period.MONTH)
    yield Shop(world)
    world.close()
    if server is not None:
        server.drop(world.database)


@pytest.fixture
def on_postgresql(shop):
    if shop.world.database.engine.dialect.name != "postgresql":
        pytest.skip("a file has no partitions")
    return shop


def told(shop, reference="order-1"):
    """A payment whose whole story has ended: created, confirmed, settled, and every effect delivered."""
    payment = shop.wish("genius", "payment_intent", reference, "USD")
    shop.answer(Source.CREATE, reference, "awaiting_payment", payment)
    shop.webhook(reference, "confirmed")
    shop.answer(Source.POLL, reference, "settled", payment)
    deliver(shop)
    return payment


def deliver(shop):
    """Every effect is delivered, each at its second try."""
    while True:
        with shop.world.database.write() as unit:
            owed = outbox.claim_of_others(unit, shop.clock.advance(1000), timedelta(seconds=60), [], 1)
            if not owed:
                return
            is_second = owed[0].attempts > 0
            attempt = DeliveryAttempt(
                id="",
                outbox_id="",
                number=0,
                started_at=shop.clock(),
                duration_ms=1,
                outcome="delivered" if is_second else "failed",
                error=None if is_second else "no",
            )
            status = OutboxStatus.DELIVERED if is_second else OutboxStatus.PENDING
            outbox.settle(unit, owed[0], attempt, status=status, next_attempt_at=shop.clock())


def run(shop, *rules, later=LATER, steps=60, **how):
    """Every step of these rules, 30 days each, as of so much later; the runs, by rule."""
    at = [instant_of(new_id()) + later]

    def clock():
        at[0] += timedelta(seconds=1)
        return at[0]

    retention = Retention(shop.world.database, Rules(dict.fromkeys(rules, 30), **how), clock)
    wanted = clock()
    for _ in range(steps):
        if retention.step(asked_by="Ada", wanted_at=wanted).run is None:
            break
    else:
        pytest.fail("retention comes to no end")
    with shop.world.database.read() as unit:
        return [each for each in reversed(retention_runs.every(unit)) if each.rule in rules]


def messages(shop):
    with shop.world.database.read() as unit:
        return inbox.find(unit)


def problems(shop):
    return [(fault.table, fault.problem) for fault in shop.world.audit().faults]


def test_nothing_goes_unless_somebody_says_so(shop):
    """Without a setting there is no rule, and no run."""
    told(shop)

    assert run(shop) == []
    assert all(message.body for message in messages(shop))


def test_bodies_go_and_the_history_still_holds(shop):
    """The bytes are gone, their digest and every chain stay; it is on record, and a second run does nothing."""
    told(shop)
    before = messages(shop)
    (record,) = run(shop, RetentionRule.BODIES)
    after = messages(shop)

    assert (record.rows, record.status, record.asked_by, record.days) == (len(before), "done", "Ada", 30)
    assert all(message.body == b"" and message.scrubbed_at is not None for message in after)
    assert [message.digest for message in after] == [message.digest for message in before]
    report = shop.world.audit()
    assert (report.faults, report.retained) == ([], {"bodies": len(before)})
    assert run(shop, RetentionRule.BODIES, later=LATER * 2)[-1].rows == 0


def test_what_has_no_body_cannot_be_replayed(shop):
    """There is nothing to be read again, and the decision stays as it is."""
    told(shop)
    run(shop, RetentionRule.BODIES)
    with pytest.raises(NotFound, match="gone by a rule of retention"), shop.world.database.write() as unit:
        keeping.replay(unit, messages(shop)[0].id, shop.clock())

    assert problems(shop) == []


def test_a_young_body_stays(shop):
    """Twenty-nine days are no thirty."""
    told(shop)
    (record,) = run(shop, RetentionRule.BODIES, later=timedelta(days=29))

    assert (record.rows, record.seen) == (0, 0)


def test_what_is_not_over_keeps_its_bodies(shop):
    """Of what is pending, parked or dead, and of payments that are open or in review; they go when that is over."""
    shop.happen()
    is_open = shop.wish("genius", "payment_intent", "order-9", "USD")
    with shop.world.database.write() as unit:
        dead = next(m for m in inbox.find(unit) if m.status == "decided" and not m.outcomes[0].get("payment"))
        put_status(unit, "dead", "id = :id", id=bare(shop, dead.id))
    (record,) = run(shop, RetentionRule.BODIES)
    with shop.world.database.read() as unit:
        waiting = {p.id for p in payments.find(unit) if p.phase in ("open", "processing") or p.review}
    kept = [message for message in messages(shop) if message.body]

    assert is_open in waiting
    assert record.rows == 17 - len(kept) > 0
    assert sorted(record.held_back) == [message.id for message in kept]
    named = {message.id: {entry.get("payment") for entry in message.outcomes} for message in kept}
    assert all(message.status != "decided" or named[message.id] & waiting for message in kept)
    assert {"parked", "dead"} <= {message.status for message in kept}
    assert all(
        message.body for message in messages(shop) if waiting & {entry.get("payment") for entry in message.outcomes}
    )

    with shop.world.database.write() as unit:
        unit.execute(text("UPDATE payment SET review = NULL, phase = 'settled'"))
    again = run(shop, RetentionRule.BODIES, later=LATER * 2)[-1]
    assert again.rows == sum(message.status == "decided" for message in kept)


def bare(shop, an_id):
    return an_id if shop.world.database.engine.dialect.name == "postgresql" else an_id.replace("-", "")


def test_a_body_that_somebody_else_took_is_a_fault(shop):
    """Emptied and marked as scrubbed, before any run, or outside of what a run took."""
    told(shop)
    hand = Tampering(shop.world.database)
    victim = messages(shop)[2]
    hand.change("inbox_message", victim.id, body=b"", scrubbed_at=instant_of(new_id()))

    assert problems(shop) == [
        ("inbox_message", "its body is gone, and no run of retention took it"),
        ("retention_run", "1 bodies are gone, and the rule bodies took 0"),
    ]
    (record,) = run(shop, RetentionRule.BODIES)
    assert problems(shop) == [
        ("inbox_message", "its body is gone, and no run of retention took it"),
        ("retention_run", f"{record.rows + 1} bodies are gone, and the rule bodies took {record.rows}"),
    ]
    hand.close()


def test_batches_may_be_broken_off_anywhere(shop):
    """A batch is kept with its record or not at all: whatever is left is done by the next process."""
    for number in range(3):
        told(shop, f"order-{number}")
    for at in range(1, 6):
        shop.world.crashes.arm(at)
        with suppress(SimulatedCrash):
            run(shop, RetentionRule.BODIES, batch=3)
        shop.world.crashes.disarm()
        assert problems(shop) == []
    records = run(shop, RetentionRule.BODIES, batch=3)

    assert all(message.body == b"" for message in messages(shop))
    assert sum(record.rows for record in records) == len(messages(shop))


def test_attempts_go_up_to_the_first_that_is_owed(shop):
    """The rest is tried again by what is kept, and the audit counts what is gone."""
    told(shop)
    with shop.world.database.read() as unit:
        tries = len(outbox.attempts_of(unit, [owed.id for owed in outbox.find(unit)]))
    records = run(shop, RetentionRule.ATTEMPTS)

    assert sum(record.rows for record in records) == tries > 4
    report = shop.world.audit()
    assert (report.faults, report.retained) == ([], {"attempts": tries})


def test_a_partition_of_messages_goes_when_all_of_it_is_over(on_postgresql):
    """Detached, counted and kept; the digests stay, and what is missing is a count and no fault."""
    shop = on_postgresql
    told(shop)
    count = len(messages(shop))
    records = run(shop, RetentionRule.INBOX)
    taken = [record for record in records if record.rows]

    assert [(r.status, r.rows, r.partition[:13]) for r in taken] == [(RetentionStatus.DONE, count, "inbox_message")]
    assert taken[0].statements > 0
    assert messages(shop) == []
    report = shop.world.audit()
    assert report.faults == []
    assert report.retained["statements"] == taken[0].statements
    assert report.retained["messages"] > 0
    assert kept_tables(shop) >= {taken[0].partition}
    assert drift(shop.world.database) == []


def test_what_was_decided_about_messages_goes_with_them(on_postgresql, monkeypatch):
    """With its own partition, and the counts of redeliveries in the same windows of a few rows; what is later stays."""
    monkeypatch.setattr(retention_partitions, "_WINDOW", 2)
    shop = on_postgresql
    told(shop)
    with shop.world.database.write() as unit:
        count = unit.execute(text("SELECT count(*) FROM decision WHERE payment_id IS NOT NULL")).scalar_one()
        again = "INSERT INTO inbox_redelivery SELECT id, account, 1, received_at FROM inbox_message"
        unit.execute(text(again))
    taken = run(shop, RetentionRule.INBOX)

    assert sum(each.statements for each in taken) == count > 0
    with shop.world.database.read() as unit:
        for table in ("decision", "inbox_redelivery", "inbox_message"):
            assert unit.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0, table  # noqa: S608


def kept_tables(shop):
    with shop.world.database.read() as unit:
        return set(unit.execute(text("SELECT relname FROM pg_class WHERE relkind = 'r'")).scalars())


def test_a_detached_partition_may_be_dropped(on_postgresql, monkeypatch):
    """By its setting, and only after it was counted, in windows of a few rows."""
    monkeypatch.setattr(retention_partitions, "_WINDOW", 2)
    told(on_postgresql)
    records = run(on_postgresql, RetentionRule.INBOX, drops=True)

    assert not {record.partition for record in records} & kept_tables(on_postgresql)
    assert problems(on_postgresql) == []


def test_a_partition_waits_for_what_is_not_over(on_postgresql):
    """A parked message, a payment in review: it stays, whole, and the run says which are in the way."""
    shop = on_postgresql
    shop.happen()
    records = run(shop, RetentionRule.INBOX)

    assert [record.status for record in records if record.seen] == [RetentionStatus.HELD]
    assert records[0].held_back
    assert len(messages(shop)) == 16
    assert problems(shop) == []


def test_a_partition_that_waits_holds_up_no_other(on_postgresql):
    """Something parked months ago keeps its own month, and the next one goes."""
    shop = on_postgresql
    then = instant_of(new_id()) - timedelta(days=70)
    with shop.world.database.write() as unit:
        inbox.record(unit, [a_message(message_id=f"{first_id(then)[:14]}7000-8000-000000000001", received_at=then)])
    partitions.keep_ahead(shop.world.database, instant_of(new_id()), Period.MONTH)
    told(shop)
    with shop.world.database.write() as unit:
        put_status(unit, "parked", "account = 'acme'")
    records = run(shop, RetentionRule.INBOX)

    assert [record.status for record in records if record.seen] == [RetentionStatus.HELD, RetentionStatus.DONE]
    assert [message.account for message in messages(shop)] == ["acme"]


def test_history_goes_by_partition_and_a_late_word_goes_on_with_the_chain(on_postgresql):
    """What comes after is numbered and hashed on the payment's head, and the audit follows it from there."""
    shop = on_postgresql
    payment = told(shop)
    records = run(shop, RetentionRule.HISTORY)
    gone = sum(record.rows for record in records)
    report = shop.world.audit()
    assert (report.faults, report.retained) == ([], {"transitions": gone})

    shop.answer(Source.POLL, "order-1", "refunded", payment)
    with shop.world.database.read() as unit:
        chain = transitions.of_payment(unit, payment)
    if chain:
        assert chain[0].number == gone + 1
    assert problems(shop) == []
    taken = next(record.partition for record in records if record.rows)
    with pytest.raises(Exception, match="append-only"), shop.world.database.write() as unit:
        unit.execute(text(f"DELETE FROM {taken}"))  # noqa: S608 - our names
    assert partitions.keep_ahead(shop.world.database, instant_of(new_id()), Period.MONTH).moved == {}


def test_what_goes_without_a_record_is_a_fault(on_postgresql):
    """After a rule has taken a month, a message, a transition and an attempt beside it are missed all the same."""
    shop = on_postgresql
    told(shop)
    run(shop, RetentionRule.INBOX)
    run(shop, RetentionRule.HISTORY)
    run(shop, RetentionRule.ATTEMPTS)
    later = told(shop, "order-2")
    assert problems(shop) == []
    hand = Tampering(shop.world.database)
    with shop.world.database.read() as unit:
        link = transitions.of_payment(unit, later)[0]
        tried = outbox.attempts_of(unit, [owed.id for owed in outbox.of_payment(unit, later)])[0]
    with hand.editing() as raw:
        raw.execute(text("DELETE FROM inbox_message WHERE id = :id"), {"id": link.cause})
    first = problems(shop)
    hand.undo()
    assert ("retention_run", "statements") in {(table, problem.split()[1]) for table, problem in first}

    hand.take_away("transition", link.id)
    assert any("follow" in problem or "transition" in problem for _, problem in problems(shop))
    hand.undo()
    with hand.editing() as raw:
        raw.execute(text("DELETE FROM delivery_attempt WHERE id = :id"), {"id": tried.id})
    assert problems(shop)
    with hand.editing() as raw:
        raw.execute(text("UPDATE retention_run SET until_id = 'ffffffff-ffff-ffff-ffff-ffffffffffff'"))
    assert ("retention_run", "what is kept of the run has changed") in problems(shop)
    hand.close()


def test_a_record_that_is_gone_leaves_faults(on_postgresql):
    """Whoever takes the record away shows what the rule took."""
    told(on_postgresql)
    run(on_postgresql, RetentionRule.INBOX)
    with on_postgresql.world.database.write() as unit:
        unit.execute(text("DELETE FROM retention_run"))

    assert "the evidence of transition 1 is gone" in {problem for _, problem in problems(on_postgresql)}


def test_a_record_explains_its_range_and_nothing_beside_it():
    """The first id that went and the last, and not the one before or after."""
    first, last = "01a00000-0000-7000-8000-000000000001", "01a00000-0000-7000-8000-00000000000f"
    run_of_messages = RetentionRun(
        id=first,
        rule="inbox",
        days=30,
        asked_by="Ada",
        status="done",
        began_at=instant_of(first),
        changed_at=instant_of(first),
        resume_at=instant_of(first),
        since_id=first,
        until_id=last,
        partition="inbox_message_p20261101",
    )
    retained = RetentionRecords([run_of_messages])

    assert [retained.has_message(f"{first[:-1]}{digit}") for digit in "01ef"] == [False, True, True, False]
    assert not retained.has_history(first)
    assert not retained.has_attempts(first)
    run_of_messages.status = "held"
    assert not retained.has_message(first)


def test_a_forgotten_delivery_is_a_new_message(shop):
    """Its repeat is recorded, decided as stale or unchanged, and owes nothing."""
    told(shop)
    body = shop.webhook("order-1", "confirmed")
    known, owed = len(messages(shop)), effects(shop)
    shop.deliver(body)
    assert len(messages(shop)) == known

    records = run(shop, RetentionRule.KNOWN, batch=2)
    assert (records[0].rows, records[0].status) == (known, "done")
    shop.deliver(body)
    assert len(messages(shop)) == known + 1
    assert effects(shop) == owed
    assert problems(shop) == []


def effects(shop):
    with shop.world.database.read() as unit:
        return len(outbox.find(unit))


def test_young_deliveries_stay_known(shop):
    """Nothing of the last thirty days is forgotten."""
    told(shop)
    assert run(shop, RetentionRule.KNOWN, later=timedelta(days=29))[0].rows == 0


def test_old_rejections_go(shop):
    """In batches, and those of the last days stay."""
    with shop.world.database.write() as unit:
        for number in range(5):
            rejected = RejectedDelivery(
                id="",
                account="genius",
                received_at=shop.clock(),
                reason="signature_wrong",
                client="192.0.2.1",
                headers=[],
                body=b"{}",
            )
            quarantine.keep(unit, rejected, at_most=10 + number)

    assert run(shop, RetentionRule.REJECTED, later=timedelta(days=29))[0].rows == 0
    assert run(shop, RetentionRule.REJECTED, batch=2)[-1].rows == 5


def test_on_a_file_no_history_goes(shop):
    """Its triggers refuse it: the rules that take partitions are left out, and the plan says so."""
    if shop.world.database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL has partitions")
    told(shop)
    days = dict.fromkeys((RetentionRule.INBOX, RetentionRule.HISTORY), 30)
    retention = Retention(shop.world.database, Rules(days), lambda: instant_of(new_id()) + LATER)

    assert [planned.is_possible for planned in retention.plan()] == [False, False]
    assert run(shop, RetentionRule.INBOX, RetentionRule.HISTORY) == []
