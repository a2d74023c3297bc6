"""What the worker reads and writes in sets, on every database: the same rows, and few statements whatever there is."""

import itertools
import re
from dataclasses import asdict
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from storage import advisory_locks, batches, hashing, inbox, outbox, payment_polls, payments, transitions
from storage.bulk import array
from storage.errors import LeaseLost, UnreadableRow
from storage.ids import new_id
from tests.support import keeping
from tests.support.builders import a_message, a_payment, a_poll
from tests.support.clock import START

#: Texts that an encoding of its own could spoil.
ODD = 'quote " backslash \\ brace {a,b} comma, tab\t line\n NULL null é 😀 %s ? \x7f'


def recorded(database, *messages):
    """The messages' ids, once they are in the inbox."""
    with database.write() as unit:
        return [found.id for found in inbox.record(unit, messages)]


def moved(payment, message, **changes):
    """The payment's next link."""
    told = {"to_state": "paid", "phase": "paid", "via": [ODD], "forced": False, "actor": ODD, "reason": ODD}
    return transitions.link(hashing.Sealer(), payment, message, *(told | changes).values(), START, START)


def test_what_is_written_in_a_set_is_what_is_read(database):
    """Every column of every table, odd texts and instants included, with and without a value."""
    one = a_payment(reference=ODD, alias=ODD, facts={ODD: ODD, "a": "b"}, expires_at=START + timedelta(microseconds=1))
    two = a_payment(provider_ref=None, amount_minor=-(10**15), return_url=ODD)
    message = a_message()
    recorded(database, message)
    link = moved(one, message)
    owed = outbox.new_message(
        payment_id=one.id,
        account="acme",
        effect=ODD[:30],
        sink="shop",
        occurrence=0,
        cause=message.id,
        payload=ODD,
        now=START,
        webhook_id=new_id(),
        number=1,
    )
    with database.write() as unit:
        batches.add(unit, [one, two])
        batches.append(unit, [link])
        outbox.owe_all(unit, [owed])

    with database.read() as unit:
        for payment in (one, two):
            assert asdict(payments.get(unit, payment.id)) == asdict(payment)
            assert unit.sealer.seal(hashing.payment(payments.get(unit, payment.id))) == payment.seal
        (kept,) = transitions.of_payment(unit, one.id)
        assert (asdict(kept), unit.sealer.seal(hashing.transition(kept))) == (asdict(link), link.hash)
        (found,) = outbox.of_payment(unit, one.id)
        assert (asdict(found), unit.sealer.seal(hashing.outbox_message(found.__dict__))) == (asdict(owed), owed.seal)
        assert batches.occurrences(unit, [one.id, two.id]) == {(one.id, owed.effect, "shop", 0): 1}
    with database.write() as unit:
        assert [asdict(p) for p in batches.by_id(unit, [two.id, one.id, new_id()])] == [
            asdict(p) for p in sorted((one, two), key=lambda payment: payment.id)
        ]
        assert [p.id for p in batches.by_ref(unit, [("acme", one.kind, one.provider_ref), ("acme", "x", "y")])] == [
            one.id
        ]


def test_a_payment_is_changed_as_it_was_read_or_not_at_all(database):
    """What seldom changes as well as what often does; a version that is not the one read keeps everything as it was."""
    payment = a_payment()
    with database.write() as unit:
        batches.add(unit, [payment])
    for changes in ({"facts": {"x": ODD}, "phase": "paid"}, {"reference": ODD, "review": "conflict", "reviews": 1}):
        with database.write() as unit:
            (read,) = batches.by_id(unit, [payment.id])
            before = batches.as_read(read)
            read.version += 1
            for name, value in changes.items():
                setattr(read, name, value)
            batches.change(unit, [(read, before)])
        with database.read() as unit:
            assert asdict(payments.get(unit, payment.id)) == asdict(read)

    def again(unit):
        batches.change(unit, [(read, before)])

    with pytest.raises(LeaseLost), database.write() as unit:
        again(unit)


def test_when_a_payment_was_heard_of_is_changed_as_it_was_read_or_not_at_all(database):
    """With and without another time of the next question; a statement that came since keeps everything as it was."""
    payment = a_payment()
    with database.write() as unit:
        keeping.keep(unit, payment, asked_at=START, poll_error=ODD, poll_failures=2)
    for changes in ({}, {"next_poll_at": START, "poll_priority": 1, "polls": 3}):
        with database.write() as unit:
            (read,) = batches.polls(unit, [payment.id])
            before = batches.poll_as_read(read)
            read.statements, read.heard_at = read.statements + 1, START + timedelta(seconds=1)
            for name, value in changes.items():
                setattr(read, name, value)
            batches.change_polls(unit, [(read, before)])
        with database.read() as unit:
            kept = payment_polls.get(unit, payment.id)
        assert asdict(kept) == asdict(read)
        assert unit.sealer.seal(hashing.payment_poll(kept)) == read.seal

    def again(unit):
        batches.change_polls(unit, [(read, before)])

    with pytest.raises(LeaseLost), database.write() as unit:
        again(unit)


def test_a_payment_of_which_nothing_says_when_it_was_heard_of_is_not_decided_about(database):
    """Its count of statements would begin anew; people are told what is missing."""
    payment = a_payment()
    with database.write() as unit:
        batches.add(unit, [payment])

    def read(unit):
        batches.polls(unit, [payment.id])

    with pytest.raises(UnreadableRow, match="its row of payment_poll is gone"), database.write() as unit:
        read(unit)
    with database.read() as unit:
        assert payment_polls.of(unit, [payment])[payment.id].poll_error == "its row of payment_poll is gone"


def test_a_number_that_is_taken_is_refused(database):
    """A chain never forks, and nothing of the set is kept."""
    payment, message = a_payment(), a_message()
    recorded(database, message)
    first, other = moved(payment, message), moved(payment, message)
    fork = moved(a_payment(id=payment.id), message)
    with database.write() as unit:
        batches.append(unit, [first])
    with pytest.raises(IntegrityError), database.write() as unit:
        batches.append(unit, [other, fork])
    with database.read() as unit:
        assert [t.number for t in transitions.of_payment(unit, payment.id)] == [1]


def test_messages_are_claimed_in_order_and_locked(database, again):
    """By id, as many as wanted; what another works on is skipped on PostgreSQL, and comes back when that has failed."""
    ids = recorded(database, *(a_message(body=ODD.encode(), headers=(("x", "y"),)) for _ in range(5)))
    with database.write() as unit:
        found = batches.due(unit, START, 2)
        assert [m.id for m in found] == ids[:2]
        assert (found[0].body, found[0].headers, found[0].outcomes) == (ODD.encode(), None, [])
        if unit.dialect == "postgresql":
            with again.write() as other:
                assert [m.id for m in batches.due(other, START, 2)] == ids[2:4]
        assert [m.id for m in batches.due(unit, START, 9, since=ids[3])] == ids[3:]
        assert [m.id for m in batches.due(unit, START, 9, only=[ids[4], new_id()])] == [ids[4]]
    with again.write() as unit:
        assert [m.id for m in batches.due(unit, START, 9)] == ids


def test_decisions_are_written_over_what_was_read_alone(database):
    """All of them, or none where one was claimed anew or is decided."""
    ids = recorded(database, *(a_message() for _ in range(3)))
    with database.write() as unit:
        found = batches.due(unit, START, 9)
        for message in found:
            message.status, message.decision, message.reason, message.decided_at = "decided", "noted", ODD, START
        keeping.decide(unit, found[:2])
    with database.read() as unit:
        kept = inbox.get(unit, ids[0])
        assert (kept.reason, kept.outcomes) == (ODD, [{"outcome": "noted", "reason": ODD, "at": START.isoformat()}])
        (row,) = inbox.decisions(unit, [ids[0]])
        assert row.seal == unit.sealer.seal(hashing.decision(row.__dict__, kept.envelope_digest, 1))
    with pytest.raises(LeaseLost), database.write() as unit:
        keeping.decide(unit, [found[2], found[1]])
    with database.read() as unit:
        assert inbox.get(unit, ids[2]).status == "pending"


def test_what_is_put_off_is_not_due_before_its_time(database):
    """Though nobody has claimed it under a lease; and whoever claimed it before has lost it."""
    (message_id,) = recorded(database, a_message())
    with database.write() as unit:
        (message,) = batches.due(unit, START, 9)
        batches.postpone(unit, [(message, START + timedelta(seconds=1), "later")])
    with database.write() as unit:
        assert batches.due(unit, START, 9) == []
        assert [m.id for m in batches.due(unit, START + timedelta(seconds=1), 9)] == [message_id]
    with pytest.raises(LeaseLost), database.write() as unit:
        batches.postpone(unit, [(message, START, "again")])


def test_parked_messages_are_reopened_by_account_and_name(database):
    """And no other is."""
    ids = recorded(database, *(a_message(account=account) for account in ("acme", "acme", "other")))
    with database.write() as unit:
        assert batches.reopen_awaiting(unit, [("acme", "payin:1")], START) == 0
        found = batches.due(unit, START, 9)
        for message, name in zip(found, ("payin:1", "payin:2", "payin:1"), strict=True):
            message.status, message.awaits, message.decision = "parked", name, "parked"
            message.reason, message.decided_at = "waits", START
        keeping.decide(unit, found)
    with database.write() as unit:
        assert batches.reopen_awaiting(unit, [("acme", "payin:1"), ("acme", "payout:1")], START) == 1
    with database.read() as unit:
        assert [inbox.get(unit, i).status for i in ids] == ["pending", "parked", "parked"]


def test_the_newest_of_a_name_is_found_by_the_name_s_own_index(database):
    """Many payments of the account that have another name are not gone through."""
    old, new = (a_payment(reference="order-1", alias="0x1", provider_ref=None) for _ in range(2))
    bound = a_payment(reference="order-1", alias="0x2")
    with database.write() as unit:
        batches.add(unit, [old, new, bound, *(a_payment(reference=f"other-{n}") for n in range(2000))])
        if unit.dialect == "postgresql":
            unit.run("ANALYZE payment")
    key, none = ("acme", "payment_intent", "order-1"), ("acme", "payment_intent", "nobody's")
    plans = []
    with database.write() as unit:
        assert batches.newest(unit, [key, none], batches.UNBOUND) == {key: new.id, none: None}
        assert batches.newest(unit, [key], batches.REFERENCE) == {key: bound.id}
        assert batches.newest(unit, [(*key[:2], "0x1")], batches.ALIAS) == {(*key[:2], "0x1"): new.id}
        assert sorted(batches.unbound_ids(unit, "acme", ["payment_intent"], START, 9)) == sorted([old.id, new.id])
        real = unit.rows
        explain = "EXPLAIN QUERY PLAN " if unit.dialect == "sqlite" else "EXPLAIN "
        unit.rows = lambda query, given: plans.append(str(real(explain + query, given))) or []
        batches.newest(unit, [key, none], batches.UNBOUND)
    assert "ix_payment_reference" in plans[0], plans[0]


@pytest.mark.parametrize("known_as", ["empty", "decided"])
def test_rows_that_are_known_are_looked_up_however_little_is_known_of_the_table(postgresql, known_as):
    """A plan is kept while a table grows, and what waits is much after an outage: neither makes a batch any dearer."""
    database = postgresql.cleaned()
    texts = []
    with database.write() as unit:
        if known_as == "decided":
            inbox.record(unit, [a_message() for _ in range(300)])
            done = batches.due(unit, START, 300)
            for message in done:
                message.status, message.decision, message.decided_at = "decided", "noted", START
            keeping.decide(unit, done)
            for payment in [a_payment() for _ in range(300)]:
                keeping.keep(unit, payment)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
    with database.write() as unit:
        inbox.record(unit, [a_message() for _ in range(2000)])
        run = unit.run
        unit.run = lambda statement, given: texts.append(statement) or run(statement, given)
        messages = batches.due(unit, START, 2)
        for message in messages:
            message.status = "decided"
        keeping.decide(unit, messages)
        payment = a_payment()
        poll = a_poll(payment)
        keeping.keep(unit, payment)
        read, poll_read = batches.as_read(payment), batches.poll_as_read(poll)
        payment.version, poll.statements = 1, 1
        batches.change(unit, [(payment, read)])
        batches.change_polls(unit, [(poll, poll_read)])
        updates = [text for text in texts if text.startswith(("UPDATE", "DELETE"))]
        plans = ["\n".join(row[0] for row in unit.rows(f"EXPLAIN (GENERIC_PLAN) {numbered(text)}")) for text in updates]
    database.close()

    assert len(plans) == 3
    for plan in plans:
        assert "Seq Scan" not in plan, plan
        looked_up = len(re.findall(r"Index Cond: \((payment_|message_)?id = ANY", plan))
        assert looked_up == plan.count("Scan using") + plan.count("Bitmap Index Scan"), plan


def numbered(statement):
    """The parameters as a server knows them."""
    numbers = itertools.count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", statement)


def test_a_name_is_busy_while_another_unit_of_work_has_it(database, again):
    """Nobody waits; on SQLite there is no other."""
    with database.write() as unit:
        assert advisory_locks.busy(unit, [("acme", "pi_1"), ("acme", "pi_2")]) == set()
        assert advisory_locks.busy(unit, [("acme", "pi_1")]) == set()  # ours already
        if unit.dialect == "postgresql":
            with again.write() as other:
                wanted = [("acme", "pi_2"), ("acme", "pi_3"), ("other", "pi_1")]
                assert advisory_locks.busy(other, wanted) == {("acme", "pi_2")}
    with again.write() as unit:
        assert advisory_locks.busy(unit, [("acme", "pi_1")]) == set()


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_a_text_that_postgresql_cannot_keep_fails_its_own_statement(text):
    """And moves no other value to another row."""
    with pytest.raises(ValueError, match="NUL"):
        array("text", ["a", text])


def test_the_oldest_payment_of_a_reference_is_found(database):
    """And the oldest that has not ended unpaid, of this account and kind alone; nothing where there is none."""
    made = [
        a_payment(reference="order-1", phase=phase, **other)
        for phase, other in (
            ("paid", {"account": "other"}),
            ("paid", {"kind": "payout"}),
            ("expired", {}),
            ("failed", {}),
            ("open", {}),
            ("paid", {}),
        )
    ]
    with database.write() as unit:
        batches.add(unit, made[::-1])
        ended = a_payment(reference=ODD, phase="cancelled")
        batches.add(unit, [ended])
    key, odd, none = (("acme", "payment_intent", name) for name in ("order-1", ODD, "order-2"))
    with database.read() as unit:
        found = batches.namesakes(unit, [key, odd, none])

    assert found == {key: (made[2].id, made[4].id), odd: (ended.id,), none: ()}


def test_a_message_is_found_by_every_payment_that_it_was_decided_about(database):
    """By the first that it names and the further ones."""
    message, other = a_message(), a_message()
    first, *further = (a_payment() for _ in range(3))
    recorded(database, message, other)
    with database.write() as unit:
        (due, _) = batches.due(unit, START, 9)
        due.status, due.decided_at = "decided", START
        due.outcomes = [
            {"outcome": "noted", "reason": "a test", "payment": each.id, "number": 1} for each in (first, *further)
        ]
        batches.finish(unit, [due])
    with database.read() as unit:
        for payment in (first, *further):
            assert [found.id for found in inbox.of_payment(unit, payment.id)] == [message.id]
            assert [found.id for found in inbox.concerning(unit, payment.id)] == [message.id]
        assert inbox.of_payment(unit, a_payment().id) == []


def test_further_names_are_found_by_account_and_kind_and_belong_to_one_payment(database):
    """Odd texts included; a name that is another's is refused."""
    one, two = a_payment(), a_payment(provider_ref="pi_2")
    with database.write() as unit:
        batches.add(unit, [one, two])
        batches.add_names(unit, [(one.account, one.kind, name, one.id) for name in (ODD, "ch_1")])
    keys = [(one.account, one.kind, ODD), (one.account, one.kind, "ch_1"), (one.account, "payin", "ch_1")]
    with database.read() as unit:
        assert batches.by_name(unit, keys) == dict.fromkeys(keys[:2], one.id)
        assert payments.known_names(unit, [one.id, two.id]) == {one.id: set(keys[:2])}
        found = payments.by_name(unit, one.account, [one.kind], "ch_1")
        assert found is not None
        assert found.id == one.id
    with pytest.raises(IntegrityError), database.write() as unit:
        batches.add_names(unit, [(two.account, two.kind, "ch_1", two.id)])
