"""The figures that people look at first, against a recount of everything by hand."""

import random
import re
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import event, insert, update

from statemachine.money import MAX_MINOR
from statemachine.phases import Phase
from storage import counts, totals
from storage.columns import table_of
from storage.counts import COUNT_LIMIT, Bounded
from storage.database import values
from storage.ids import new_id
from storage.tables import InboxMessage, Payment
from storage.tables_support import AccountBudget
from storage.totals import LAG_EDGES, Money, Sum, lag_quantile
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.rows import a_rejection, a_transition, add, add_owed, an_effect, id_at

ACCOUNTS = ("acme", "beta")
DAY = timedelta(days=1)


def a_history(chance, at):
    """Phases with their instants, as providers go through them and sometimes as they should not."""
    walks = (
        ("open",),
        ("open", "processing", "paid"),
        ("paid", "settled"),
        ("open", "settled"),
        ("settled",),
        ("open", "failed"),
        ("paid", "failed", "paid"),
        ("paid", "refunded"),
        ("settled", "refunded", "paid"),
        ("refunded",),
        ("open", "cancelled", "paid", "settled", "refunded"),
    )
    for phase in chance.choice(walks):
        yield phase, at
        at += timedelta(minutes=chance.choice((0, 1, 40, 700)), milliseconds=chance.randrange(1, 5000))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_money_is_that_of_each_payment_s_first_time(database, seed):
    """Whatever ranges are asked for: each payment counts once, when it first was paid, and ranges add up."""
    chance = random.Random(seed)
    told: list[tuple] = []
    with database.write() as unit:
        for _ in range(120):
            at = START + timedelta(minutes=chance.randrange(0, 4000))
            payment = a_payment(
                id=id_at(at),
                account=chance.choice(ACCOUNTS),
                kind=chance.choice(("payin", "payout")),
                currency=chance.choice(("USD", "JPY", None)),
                amount_minor=chance.choice((None, 1, 450, 999_999, 1_000_000, MAX_MINOR)),
                captured_minor=chance.choice((None, None, 400)),
                refunded_minor=chance.choice((None, 300)),
                review=chance.choice((None, None, "amount_mismatch", "conflict")),
            )
            add(unit, payment)
            had_money = False
            for number, (phase, when) in enumerate(a_history(chance, at), start=1):
                add(unit, a_transition(payment, number, phase, when))
                if phase == "refunded" or (phase in ("paid", "settled") and not had_money):
                    told.append((when, payment, phase))
                had_money = had_money or phase in ("paid", "settled", "refunded")

    def recount(since, until):
        found: dict[Money, Sum] = {}
        for when, payment, phase in told:
            if since <= when < until:
                amount = payment.captured_minor if payment.captured_minor is not None else payment.amount_minor
                if phase == "refunded" and payment.refunded_minor is not None:
                    amount = payment.refunded_minor
                place = Money(
                    payment.account,
                    payment.kind,
                    payment.currency,
                    Phase.REFUNDED if phase == "refunded" else Phase.PAID,
                )
                one = Sum(1, amount or 0, amount is None, payment.review == "amount_mismatch")
                found[place] = found.get(place, Sum()) + one
        return found

    with database.read() as unit:
        listed = totals.money(unit, START - DAY, START + 2 * DAY)
        for place, one in listed.items():
            rows, after = [], None
            while page := totals.entries(unit, START - DAY, START + 2 * DAY, [place], after=after, limit=3):
                rows += page
                after = page[-1].id
            assert (len(rows), sum(row.amount_minor or 0 for row in rows)) == (one.payments, one.amount_minor)
            assert [row.id for row in rows] == sorted({row.id for row in rows}, reverse=True)
        assert totals.entries(unit, START - DAY, START + DAY, [], after=None, limit=9) == []
        everything = totals.money(unit, START - DAY, START + 9 * DAY)
        assert everything == recount(START - DAY, START + 9 * DAY)
        assert sum(one.payments for one in everything.values()) == len(told) > 100
        added: dict[Money, Sum] = {}
        for day in range(-1, 9):
            for place, one in totals.money(unit, START + day * DAY, START + (day + 1) * DAY).items():
                added[place] = added.get(place, Sum()) + one
        assert added == everything


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_deliveries_are_counted_by_what_became_of_them(database, seed):
    """Webhooks and callbacks of the range, and no other message; what was rejected is there as well."""
    chance = random.Random(seed)
    outcomes: Counter[tuple[str, str]] = Counter()
    lags: list[timedelta] = []
    since, until = START + timedelta(minutes=10), START + timedelta(minutes=50)
    with database.write() as unit:
        for _ in range(400):
            at = START + timedelta(milliseconds=chance.randrange(0, 3_600_000))
            account, status = (
                chance.choice(ACCOUNTS),
                chance.choice(("pending", "decided", "parked", "dead")),
            )
            source = chance.choice(("webhook", "callback", "poll", "merchant"))
            lag = timedelta(milliseconds=chance.choice((0, 3, 60, 480, 40_000, 900_000)))
            decision = {"parked": "parked", "dead": "parked", "pending": None}.get(
                status, chance.choice(("advanced", "stale"))
            )
            message = a_message(message_id=id_at(at), account=account, source=source, received_at=at)
            message.status, message.decision = status, decision
            message.decided_at = at + lag if decision else None
            add(unit, message)
            if since <= at < until and source in ("webhook", "callback"):
                outcomes[account, status if status in ("pending", "dead") else decision] += 1
                lags += [lag] if decision else []
        for _ in range(30):
            at = START + timedelta(milliseconds=chance.randrange(0, 3_600_000))
            account = chance.choice(ACCOUNTS)
            add(unit, a_rejection(at=at, account=account))
            outcomes[account, totals.REJECTED] += since <= at < until

    with database.read() as unit:
        found = totals.deliveries(unit, since, until)
    assert found.outcomes == outcomes
    assert found.is_final == (not any(outcome == "pending" for _, outcome in outcomes))
    assert sum(found.lags.values()) == len(lags) > 50
    for edge in LAG_EDGES:
        expected = sum(lag <= timedelta(seconds=edge) for lag in lags)
        assert sum(count for name, count in found.lags.items() if name is not None and name <= edge) == expected


def test_a_quantile_is_the_end_of_its_bin():
    """Half of what took up to a second is within a second; nothing has no quantile, nor has what took too long."""
    assert lag_quantile({1.0: 1, 5.0: 1}, 0.5) == 1.0
    assert lag_quantile({1.0: 1, 5.0: 1}, 0.95) == 5.0
    assert lag_quantile({}, 0.5) is None
    assert lag_quantile({1.0: 1, None: 99}, 0.5) is None


def test_what_waits_and_since_when(database):
    """The oldest of each, whatever the order in which they came; final rows do not count."""
    later = START + timedelta(minutes=5)
    with database.write() as unit:
        for status in ("pending", "decided", "parked", "dead"):
            for at in (later, START):
                message = a_message(message_id=id_at(at), received_at=at)
                message.status = status
                add(unit, message)
        for status in ("pending", "delivered", "dead"):
            for at in (later, START):
                add(unit, an_effect(status=status, at=at, next_attempt_at=later - (at - START)))
        reviewed = [
            a_payment(review="conflict", review_opened_at=later),
            a_payment(review="gave_up", review_opened_at=START, phase="processing"),
        ]
        for payment in (*reviewed, a_payment(), a_payment(phase="paid"), a_payment(phase="failed")):
            add(unit, payment)

    with database.read() as unit:
        found = counts.system_counts(unit, (), START)
    for waiting in (found.dead_effects, found.dead_messages, found.pending_messages, found.pending_effects):
        assert (waiting.count, waiting.since) == (Bounded(2, is_more=False), START)
    assert found.parked_messages == Bounded(2, is_more=False)
    assert (found.reviews.count.number, found.reviews.oldest_id) == (2, reviewed[1].id)
    assert found.reviews.since == START
    numbers = {phase: count.number for phase, count in found.open.items()}
    assert numbers == {Phase.OPEN: 2, Phase.PROCESSING: 1, Phase.AUTHORISED: 0}
    assert found.has_payments


def test_of_a_new_installation_everything_is_nothing(database):
    """Nothing waits, nothing is overdue, and it is said that there is no payment at all."""
    with database.read() as unit:
        found = counts.system_counts(unit, ACCOUNTS, START)
        assert totals.money(unit, START - DAY, START) == {}
        assert not totals.deliveries(unit, START - DAY, START).outcomes
    assert not found.has_payments
    assert found.pending_messages == found.reviews == counts.Waiting(Bounded(0, is_more=False))
    assert found.overdue == dict.fromkeys(ACCOUNTS, counts.Overdue(Bounded(0, is_more=False), None))
    assert found.budgets == found.asked == {}


def test_questions_are_late_by_the_one_that_was_due_first(database):
    """Of one account alone, whoever wants to know."""
    due = START - timedelta(minutes=3)
    with database.write() as unit:
        for changes in (
            {"next_poll_at": START - timedelta(minutes=1), "poll_priority": 0},
            {"next_poll_at": due, "poll_priority": 4},
            {"next_poll_at": START + timedelta(minutes=1), "poll_priority": 2},
            {"next_poll_at": None},
        ):
            add(unit, a_payment(), **changes)
        add(unit, a_payment(account="beta"), next_poll_at=due - DAY)

    with database.read() as unit:
        found = counts.system_counts(unit, ("acme", "calm"), START).overdue
    assert found == {
        "acme": counts.Overdue(Bounded(2, is_more=False), due),
        "calm": counts.Overdue(Bounded(0, is_more=False), None),
    }


def test_a_count_ends_at_its_bound(database):
    """More than MOST are not counted, and that is said."""
    with database.write() as unit:
        unit.execute(insert(table_of(Payment)), [values(a_payment()) for _ in range(COUNT_LIMIT + 2)])
        unit.execute(update(table_of(Payment)).values(review="conflict", review_opened_at=START))

    with database.read() as unit:
        found = counts.system_counts(unit, (), START)
    assert found.open[Phase.OPEN] == found.reviews.count == Bounded(COUNT_LIMIT, is_more=True)
    assert found.open[Phase.PROCESSING] == Bounded(0, is_more=False)


def test_what_was_asked_lately_is_what_was_answered(database):
    """Our own questions of the last minute, by account; what providers sent is none."""
    with database.write() as unit:
        for source, seconds in (("poll", 10), ("list", 59), ("create", 1), ("poll", 61), ("webhook", 1)):
            add(unit, a_message(message_id=id_at(START - timedelta(seconds=seconds)), source=source))
        add(unit, AccountBudget(account="acme", next_free_at=START, failures=5, broken_at=START, probe_at=START + DAY))

    with database.read() as unit:
        found = counts.system_counts(unit, ("acme",), START)
    assert found.asked == {"acme": 3}
    assert found.budgets["acme"] == counts.Breaking(5, START, START + DAY, None, START)


def test_no_look_goes_through_a_whole_table(database):
    """Every statement of a look is served by an index, with as many rows behind it as there may be."""
    with database.write() as unit:
        for table, made_row in ((Payment, lambda: a_payment(phase="paid")), (InboxMessage, decided_message)):
            unit.execute(insert(table_of(table)), [values(made_row()) for _ in range(3000)])
        add_owed(unit, [an_effect(status="delivered", id=new_id()) for _ in range(3000)])
        unit.run("ANALYZE")
    asked: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as unit:
        counts.system_counts(unit, ("acme",), START + 3650 * DAY)
    event.remove(database.engine, "before_cursor_execute", note)

    with database.engine.connect() as connection:
        word = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        plans = [
            "\n".join(str(row) for row in connection.exec_driver_sql(f"{word} {statement}", parameters))
            for statement, parameters in asked
            if statement.startswith(("SELECT", "WITH")) and "account_budget" not in statement
        ]
    assert len(plans) > 8
    for plan in plans:
        for table in ("payment", "inbox_message", "outbox_message"):
            whole = rf"Seq Scan on {table}|SCAN {table}(?! USING)"
            assert not re.search(whole, plan), plan


def decided_message():
    message = a_message()
    message.status = "decided"
    return message
