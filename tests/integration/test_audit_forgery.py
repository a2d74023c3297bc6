"""Every column of every table changed, and every kind of row forged, by somebody who can write rows: what is found.

`NOT_COVERED` and `NOT_EVIDENCE` are the whole of what is not, each with its reason; what is found and listed fails too.
The forger seals anew as well as can be without the key of the seals, or with it and without the provider's.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Table, create_engine, insert, select, update

from providers.contract import Answer
from statemachine.observation import Observation
from statemachine.phases import Source
from storage import audits, event_feed, hashing, quarantine
from storage.database import Database, build_record
from storage.ids import new_id
from storage.schema import metadata
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OperatorAction,
    OutboxDeliveredTable,
    OutboxMessage,
    OutboxMessageTable,
    OutboxQueueTable,
    Payment,
    PaymentPoll,
    RejectedDelivery,
    Transition,
)
from storage.tables_inbox import RecordedDecision
from storage.tables_support import AuditRun, RetentionRun
from storage.types import RetentionRule
from tests.integration.test_retention import run
from tests.support import keeping
from tests.support.audit_case import GENIUS, Shop, is_postgresql
from tests.support.builders import a_message
from tests.support.made_up import OrderProvider, body_of
from tests.support.pipeline_world import World
from tests.support.rows import a_rejection

KEYED = hashing.Sealer([("a1", b"the key of the seals, elsewhere")])
PLAIN = hashing.Sealer()

#: Columns that may change without a trace, and why that harms nobody's money.
NOT_COVERED = {
    "inbox_queue": {
        "attempts": "how often it was tried; the outcome is sealed",
        "available_at": "a lease: at worst it is applied later or twice, which changes nothing",
        "claim_token": "a fencing number: at worst one worker's turn is repeated",
        "last_error": "a note for operators about a try that kept nothing",
    },
    "inbox_redelivery": {
        "account": "a statistic of the provider's zeal",
        "redeliveries": "a statistic of the provider's zeal",
        "last_redelivered_at": "a statistic of the provider's zeal",
    },
    "payment_poll": {
        "next_poll_at": "when to ask next: at worst the provider is asked later, or once more",
        "poll_priority": "whose question goes first: at worst the provider is asked later",
        "poll_failures": "how long to wait after a failed question: at worst it is asked later, or sooner",
        "asked_at": "a statistic of asking",
        "polls": "a statistic of asking",
        "poll_error": "a note for operators about a question without an answer",
    },
    "outbox_queue": {
        "next_attempt_at": "when it is due: at worst it is delivered later, or sooner",
        "is_first": "whether it was tried: at worst it is claimed with those that were not",
        "lease_ends_at": "a lease: at worst it is delivered later, or twice with the same id",
        "claim_token": "a fencing number: at worst one delivery is repeated with the same id",
    },
    "event": {"mark": "drawn at random with the number: at worst a reader of the feed begins anew"},
    "retention_run": {
        "resume_at": "when the next batch may begin",
        "position": "where the next batch begins: at worst rows are looked at again, or stay for another day",
        "held_back": "ids that are looked at first: at worst rows stay for another day",
        "seen": "a statistic of the work",
    },
}

#: Tables that prove nothing, and why.
NOT_EVIDENCE = {
    "journal": "how far a log of events was read: at worst it is read again, or a webhook is all there is",
    "hinted_id": "ids to be asked about: at worst the provider is asked in vain, or a hint is lost",
    "account_budget": "when requests may leave: at worst the provider is asked too often, or later",
    "poll_plan": "when to ask: at worst the provider is asked later",
    "hazard": "learnt figures of when to ask: at worst the provider is asked later",
    "push_watch": "how far push was measured: at worst an alarm of an account is late or said twice",
    "push_quality": "figures of push",
    "reconciliation": "a report of what was asked; each answer is a message of its own",
    "api_key": "who may call from now on; what was said with it is a message or an operator action",
    "api_rate": "how fast a key calls",
    "idempotency_key": "what was answered to a repeat, for a day",
    "console_person": "who may log in from now on; what they did is an operator action",
    "console_session": "who is logged in",
    "console_factor": "who has a second factor: without it the password still stands",
    "console_attempt": "how often a log-in failed",
}

#: Tables of which a row can be taken away by itself and nothing names it, and why.
REMOVABLE = {
    "inbox_redelivery": "a statistic of the provider's zeal",
    "rejected_delivery": "the quarantine is bounded: its rows go by themselves, and nothing rests on them",
    "audit_run": "that there was an audit proves nothing of what is there now",
    "retention_run": "a run that took nothing excuses nothing",
}

EVIDENCE = sorted(set(metadata.tables) - NOT_EVIDENCE.keys())
COLUMNS = [(name, column) for name in EVIDENCE for column in metadata.tables[name].c.keys()]  # noqa: SIM118

#: By message: its seal, and how many decisions its last reading came to; what the seals of these rest on.
rested_on: dict[str, tuple[str, int]] = {}


#: By table: the column of its seal, and the content that is sealed.
def status_content(row: Any, **others: Any) -> bytes:
    """What the seal of a row of the queue, or of one that was delivered, is over."""
    return hashing.outbox_status({**row.__dict__, "id": row.outbox_id, **others})


SEALED: dict[str, tuple[type[Any], str, Callable[[Any], bytes]]] = {
    "inbox_message": (InboxMessage, "envelope_digest", hashing.envelope),
    "decision": (RecordedDecision, "seal", lambda row: hashing.decision(row.__dict__, *rested_on[row.message_id])),
    "payment": (Payment, "seal", hashing.payment),
    "payment_poll": (PaymentPoll, "seal", hashing.payment_poll),
    "transition": (Transition, "hash", hashing.transition),
    "outbox_message": (OutboxMessageTable, "seal", lambda message: hashing.outbox_message(message.__dict__)),
    "outbox_queue": (OutboxQueueTable, "seal", lambda waiting: status_content(waiting, delivered_at=None)),
    "outbox_delivered": (
        OutboxDeliveredTable,
        "seal",
        lambda end: status_content(end, status="delivered", last_error=None),
    ),
    "delivery_attempt": (DeliveryAttempt, "seal", hashing.attempt),
    "rejected_delivery": (RejectedDelivery, "seal", hashing.rejected),
    "operator_action": (OperatorAction, "seal", lambda done: hashing.action(done, "")),
    "retention_run": (RetentionRun, "seal", hashing.retention_run),
    "audit_run": (AuditRun, "seal", hashing.audit_run),
}

#: Tables of which a fault is named by another's row.
NAMED_BY = {"outbox_queue": "outbox_message", "outbox_delivered": "outbox_message"}

#: Of each of these, a column that a forger would care about, and another value.
WANTED = {
    "inbox_message": ("received_at", datetime(2026, 1, 1, tzinfo=UTC)),
    "decision": ("reason", "another"),
    "payment": ("amount_minor", 1),
    "payment_poll": ("statements", 7),
    "transition": ("to_state", "settled"),
    "outbox_message": ("payload", "{}"),
    "outbox_queue": ("status", "dead"),
    "outbox_delivered": ("attempts", 7),
    "delivery_attempt": ("http_status", 418),
    "rejected_delivery": ("reason", "stale"),
    "operator_action": ("actor", "somebody else"),
    "retention_run": ("rows", 7),
    "audit_run": ("faults", 7),
}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def shop(request, template, tmp_path_factory):
    """A history of every kind of row, sealed with a key, on each database."""
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    world = World(template, tmp_path_factory.mktemp("forgery") / "shop.db", database=server and server.copy())
    world.database.sealer = KEYED
    found = Shop(world)
    found.happen()
    fill(found)
    yield found
    world.close()
    if server is not None:
        server.drop(world.database)


def fill(shop: Shop) -> None:
    """What happened beside: people act, effects are numbered, and the tables that nothing else fills."""
    database, now = shop.world.database, shop.clock
    with database.read() as unit:
        dead = next(row for row in audits.Reader(OutboxMessage).page(unit, b"", 1000).rows if row.status == "dead")
        poll = next(row for row in audits.Reader(InboxMessage).page(unit, b"", 1000).rows if row.source == "poll")
    with database.write() as unit:
        keeping.redrive(unit, dead.id, now())
        keeping.replay(unit, poll.id, now())
        quarantine.keep(unit, a_rejection(body=b"garbage"), at_most=10)
        audits.note(unit, AuditRun(id=new_id(), began_at=now(), ended_at=now(), messages=1, payments=1, faults=0))
    order = Observation(Source.POLL, status="created", amount_minor=450, reference="order-9", names=("ch_9",))
    shop.world.join("orders", OrderProvider())
    body = body_of("at_9", "order", order, new_id())
    shop.world.record(shop.world.answered("orders", Source.POLL, Answer(200, body, now(), "order", "at_9"), None))
    shop.work()
    page = {"data": [intent_of(shop, ref) for ref in ("order-1", "pi_elsewhere")], "has_more": False}
    shop.world.record(
        a_message(
            account="genius",
            source="list",
            delivery_key="list:1",
            body=json.dumps(page).encode(),
            kind="payment_intent",
            http_status=200,
            received_at=now(),
            provider_time=now(),
        )
    )
    shop.work()
    run(shop, RetentionRule.RECONCILIATIONS)
    event_feed.caught_up(database)
    assert shop.world.audit().faults == []


def intent_of(shop: Shop, ref: str) -> Any:
    """One thing of a page of the provider's list."""
    return json.loads(GENIUS.answer(shop.telling(ref, "confirmed")))


class Hand:
    """Changes rows behind the program's back, as whoever owns the file or the server can, and puts them back."""

    def __init__(self, database: Database) -> None:
        self.engine = database.engine if is_postgresql(database) else create_engine(database.url)
        if not is_postgresql(database):
            with self.engine.begin() as raw:
                found = raw.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
                for name in found:
                    raw.exec_driver_sql(f"DROP TRIGGER {name}")
        self._as_written = {name: self.rows(name) for name in EVIDENCE}
        for message in self.rows("inbox_message"):
            found = self.decisions_of(message)
            last = [row for row in found if row["reading"] == found[-1]["reading"]]
            rested_on[message["id"]] = message["envelope_digest"], len(last)

    @contextmanager
    def editing(self) -> Iterator[Connection]:
        """Nothing of the database's own guards what is written."""
        with self.engine.begin() as raw:
            if raw.dialect.name == "postgresql":
                raw.exec_driver_sql("SET LOCAL session_replication_role = replica")
            yield raw

    def rows(self, name: str) -> list[dict[str, Any]]:
        table = metadata.tables[name]
        with self.engine.connect() as raw:
            return [dict(row) for row in raw.execute(select(table).order_by(*table.primary_key)).mappings()]

    def change(self, name: str, row: dict[str, Any], /, **values: Any) -> dict[str, Any]:
        table = metadata.tables[name]
        with self.editing() as raw:
            assert raw.execute(update(table).where(*is_row(table, row)).values(**values)).rowcount == 1
        return row | values

    def take_away(self, name: str, row: dict[str, Any]) -> None:
        table = metadata.tables[name]
        with self.editing() as raw:
            raw.execute(table.delete().where(*is_row(table, row)))

    def add(self, name: str, row: dict[str, Any]) -> None:
        with self.editing() as raw:
            raw.execute(insert(metadata.tables[name]), row)

    def seal(self, name: str, row: dict[str, Any], sealer: hashing.Sealer = PLAIN) -> dict[str, Any]:
        """The row's own seal is as right as it can be made with these keys."""
        model, column, content = SEALED[name]
        return self.change(name, row, **{column: sealer.seal(content(build_record(model, row)))})

    def decisions_of(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        return [row for row in self.rows("decision") if row["message_id"] == message["id"]]

    def undo(self) -> None:
        """Every row is as it was written."""
        with self.editing() as raw:
            for name, rows in self._as_written.items():
                raw.execute(metadata.tables[name].delete())
                if rows:
                    raw.execute(insert(metadata.tables[name]), rows)

    def close(self) -> None:
        self.engine.dispose()


def is_row(table: Table, row: dict[str, Any]) -> list[Any]:
    return [column == row[column.name] for column in table.primary_key]


@pytest.fixture(scope="module")
def of_module(shop):
    found = Hand(shop.world.database)
    yield found
    if not is_postgresql(shop.world.database):
        found.close()


@pytest.fixture
def hand(of_module):
    """Somebody with the file, or the server, in hand; whatever they change is put back."""
    yield of_module
    of_module.undo()


def faults(shop: Shop) -> list[Any]:
    return shop.world.audit().faults


def other(value: Any, column: Any) -> Any:
    """Another value that the column could hold."""
    kind = type(column.type).__name__
    if value is None:
        instant = datetime(2026, 1, 1, tzinfo=UTC)
        nothing = {"Integer": 7, "BigInteger": 7, "Counted": 7, "UtcDateTime": instant, "Uuid": new_id()}
        return nothing.get(kind, ["x"] if kind == "JSON" else "tampered")
    if kind == "JSON":
        return {**value, "x": "y"} if isinstance(value, dict) else [*value, ["x", "y"]]
    if isinstance(value, bytes):
        return value + b" "
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 100
    if isinstance(value, datetime):
        return value - timedelta(days=100)
    if kind == "Uuid":
        return new_id()
    if column.name == "status":
        return {"pending": "dead", "delivered": "pending", "dead": "delivered"}.get(value, "pending")
    if column.name == "source":
        return "list" if value == "poll" else "poll"
    if column.name == "phase":
        return "settled" if value != "settled" else "paid"
    return value[:-1] + ("a" if not value.endswith("a") else "b") if value else "tampered"


def test_every_table_is_evidence_or_has_a_reason_not_to_be():
    assert set(NOT_EVIDENCE) <= set(metadata.tables)
    assert set(NOT_COVERED) | set(REMOVABLE) | set(SEALED) <= set(EVIDENCE)
    for table, excused in NOT_COVERED.items():
        assert set(excused) <= set(metadata.tables[table].c.keys())
    for reasons in (NOT_EVIDENCE, REMOVABLE, *NOT_COVERED.values()):
        assert all(reasons.values())


def test_the_history_holds_and_has_every_kind_of_row(shop, hand):
    report = shop.world.audit()

    assert report.faults == []
    assert set(report.seals) == {"a1"}
    assert report.read_again > 0
    assert [name for name in EVIDENCE if not hand.rows(name)] == []


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda part: part)
def test_a_changed_column_is_found_or_listed(shop, hand, table, column):
    """Another value in any column of any row is found, or the column is listed; never both."""
    rows = hand.rows(table)
    described = metadata.tables[table].c[column]
    places = {0, len(rows) // 2, len(rows) - 1} if not is_postgresql(shop.world.database) else {len(rows) // 2}
    for place in places:
        row = rows[place]
        value = other(row[column], described)
        hand.change(table, row, **{column: value})
        found = faults(shop)
        is_listed = column in NOT_COVERED.get(table, ())
        assert bool(found) != is_listed, f"{table}.{column}: {row[column]!r} became {value!r}: {found[:2]}"
        hand.change(table, row | {column: value}, **{column: row[column]})


@pytest.mark.parametrize("table", EVIDENCE)
def test_a_row_that_is_taken_away_is_missed_or_listed(shop, hand, table):
    rows = hand.rows(table)
    for row in rows if not is_postgresql(shop.world.database) else rows[:2]:
        hand.take_away(table, row)
        found = faults(shop)
        assert bool(found) != (table in REMOVABLE), f"{table} {row}: {found[:2]}"
        hand.add(table, row)


@pytest.mark.parametrize("table", SEALED)
def test_a_row_that_is_changed_and_sealed_anew_without_the_key_is_found(shop, hand, table):
    """Every digest is right again, as by somebody who knows the program, and has not the key of the seals."""
    column, value = WANTED[table]
    (row, *_) = [row for row in hand.rows(table) if row[column] != value]
    hand.seal(table, hand.change(table, row, **{column: value}))

    named = NAMED_BY.get(table, table)
    assert any("sealed without a key" in fault.problem for fault in faults(shop) if fault.table == named)


def test_a_statement_that_is_taken_away_with_the_count_put_back_needs_the_key(shop, hand):
    """What says how often a payment was named is sealed by itself; as it was before, it lacks the newest outcome."""
    row = max(hand.rows("payment_poll"), key=lambda row: row["statements"])
    hand.seal("payment_poll", hand.change("payment_poll", row, statements=row["statements"] - 1), KEYED)
    assert ("payment", row["payment_id"]) in {(fault.table, fault.row) for fault in faults(shop)}

    hand.take_away("payment_poll", row)
    assert ("payment_poll", row["payment_id"]) in {(fault.table, fault.row) for fault in faults(shop)}
    forged = row | {"payment_id": new_id()}
    hand.add("payment_poll", forged)
    hand.seal("payment_poll", forged, KEYED)
    assert ("payment_poll", forged["payment_id"]) in {(fault.table, fault.row) for fault in faults(shop)}


@pytest.mark.parametrize("table", sorted(SEALED.keys() - NAMED_BY.keys() - {"payment_poll"}))
def test_a_row_that_is_added_and_sealed_without_the_key_is_found(shop, hand, table, monkeypatch):
    """A copy under another id, as right as it can be made; of a decision as if the message had been read once more."""
    row = hand.rows(table)[-1]
    forged = row | ({"id": new_id()} if "id" in row else {})
    if "number" in row and row["number"] is not None:
        forged["number"] = row["number"] + 1
    if table == "decision":
        forged |= {"reading": row["reading"] + 1, "number": 1}
        monkeypatch.setitem(rested_on, row["message_id"], (rested_on[row["message_id"]][0], 1))
    if table == "inbox_message":
        forged["delivery_key"] = "forged"
    if table == "outbox_message":
        forged["sink"] = "elsewhere"
    if table == "payment":
        forged["provider_ref"] = "forged"
    hand.add(table, forged)
    if table == "outbox_message":
        waiting = hand.rows("outbox_queue")[-1]
        hand.add(
            "outbox_queue",
            waiting
            | {name: forged[name] for name in waiting if name in forged and name != "seal"}
            | {"outbox_id": forged["id"]},
        )
    if table == "operator_action":
        content = hashing.action(build_record(OperatorAction, forged), row["seal"])
        hand.change(table, forged, seal=PLAIN.seal(content))
    else:
        hand.seal(table, forged)

    assert any("sealed without a key" in fault.problem for fault in faults(shop) if fault.table == table)


@pytest.mark.parametrize("with_key", [False, True])
def test_an_effect_that_is_said_to_be_delivered_is_found(shop, hand, with_key):
    """Its row of the queue is gone, and an end is there; even with the key, no try says so."""
    waiting = next(row for row in hand.rows("outbox_queue") if row["status"] == "pending")
    end = hand.rows("outbox_delivered")[0] | {"outbox_id": waiting["outbox_id"], "attempts": waiting["attempts"]}
    hand.add("outbox_delivered", end)
    hand.seal("outbox_delivered", end, KEYED if with_key else PLAIN)
    assert ("outbox_queue", waiting["outbox_id"], "it waits, and is delivered") in {
        (fault.table, fault.row, fault.problem) for fault in faults(shop)
    }

    hand.take_away("outbox_queue", waiting)
    found = [fault.problem for fault in faults(shop) if fault.row == waiting["outbox_id"]]
    assert "its status delivered is not what its tries say" in found
    assert with_key or any("sealed without a key" in problem for problem in found)


def test_an_effect_that_neither_waits_nor_was_delivered_is_found(shop, hand):
    for name in ("outbox_queue", "outbox_delivered"):
        row = hand.rows(name)[0]
        hand.take_away(name, row)
        assert ("outbox_message", row["outbox_id"]) in {(fault.table, fault.row) for fault in faults(shop)}


@pytest.mark.parametrize("table", ["decision", "transition", "outbox_message"])
def test_a_row_that_is_moved_to_another_payment_is_found(shop, hand, table):
    """Sealed anew even with the key: the other payment's messages say nothing of it."""
    row = next(row for row in hand.rows(table) if row["payment_id"] is not None)
    elsewhere = next(each["id"] for each in hand.rows("payment") if each["id"] != row["payment_id"])
    moved: dict[str, Any] = {"payment_id": elsewhere}
    if table == "transition":
        moved["number"] = 99
    if table == "outbox_message":
        moved["sink"] = "elsewhere"
    row = hand.change(table, row, **moved)
    hand.seal(table, row, KEYED)

    assert faults(shop) != []


def test_a_signed_pending_that_is_decided_to_be_paid_is_found(shop, hand):
    """Everything is sealed anew with the key; only the provider's signature stands in the way, and it says pending."""
    webhooks = {row["id"]: row for row in hand.rows("inbox_message") if row["source"] == "webhook"}
    said = next(
        row
        for row in hand.rows("decision")
        if row["message_id"] in webhooks and (row["details"] or {}).get("transition") == 1
        if row["details"]["state"] == "cancelled"
    )
    message = webhooks[said["message_id"]]
    payment = next(row for row in hand.rows("payment") if row["id"] == said["payment_id"])
    links = [row for row in hand.rows("transition") if row["payment_id"] == payment["id"]]
    hand.seal("decision", hand.change("decision", said, details=said["details"] | {"state": "confirmed"}), KEYED)
    before = ""
    for link in sorted(links, key=lambda each: each["number"]):
        values = {"prev_hash": before}
        if link["number"] == 1:
            values |= {"to_state": "confirmed", "phase": "paid"}
        else:
            values |= {"from_state": "confirmed"}
        link = hand.seal("transition", hand.change("transition", link, **values), KEYED)
        before = link["hash"]
    hand.seal("payment", hand.change("payment", payment, head_hash=before), KEYED)

    problems = [fault.problem for fault in faults(shop) if fault.row == message["id"]]
    assert "read again, its state is cancelled, and confirmed is kept" in problems


def test_another_amount_is_found_where_everything_is_sealed_with_the_key(shop, hand):
    """Of the payment and of what the shop is told; its messages say the right one."""
    effect = next(row for row in hand.rows("outbox_message") if row["effect"] == "payment.paid")
    payment = next(row for row in hand.rows("payment") if row["id"] == effect["payment_id"])
    payload = json.loads(effect["payload"])
    payload["data"]["amount_minor"] = 45_000
    hand.seal("outbox_message", hand.change("outbox_message", effect, payload=json.dumps(payload)), KEYED)
    hand.seal("payment", hand.change("payment", payment, amount_minor=45_000), KEYED)

    found = {(fault.table, fault.row) for fault in faults(shop)}
    assert found >= {("outbox_message", effect["id"]), ("payment", payment["id"])}


@pytest.mark.parametrize("name", [None, new_id()], ids=["none", "nobody's"])
def test_a_decision_about_what_is_no_payment_is_found_and_ends_nothing(shop, hand, name):
    """Whatever stands in the place of the payment's id, every other row is proved all the same."""
    before = shop.world.audit()
    said = next(row for row in hand.rows("decision") if row["payment_id"] is not None)
    hand.seal("decision", hand.change("decision", said, payment_id=name), KEYED)

    report = shop.world.audit()

    assert said["payment_id"] in [fault.row for fault in report.faults if fault.table == "payment"]
    assert report.payments == before.payments


def test_a_webhook_under_a_key_that_nobody_has_is_a_fault_of_its_own(shop, hand):
    """Whatever its seals are: its key must be configured, or allowed by name."""
    message = next(row for row in hand.rows("inbox_message") if row["source"] == "webhook")
    for key_id in ("k0", None):
        hand.seal("inbox_message", hand.change("inbox_message", message, key_id=key_id), KEYED)
        words = f"its webhook key {key_id or '-'} is neither configured nor allowed as a retired key"
        assert words in [fault.problem for fault in faults(shop) if fault.row == message["id"]]


def test_a_removed_tail_is_missed_by_what_still_names_it(shop, hand):
    """The newest message with its transition, effects and tries, and the payment put back with the key."""
    link = max(hand.rows("transition"), key=lambda row: (row["number"], row["id"]))
    payment = next(row for row in hand.rows("payment") if row["id"] == link["payment_id"])
    message = next(row for row in hand.rows("inbox_message") if row["id"] == link["cause"])
    hand.take_away("transition", link)
    hand.take_away("inbox_message", message)
    owed = [row for row in hand.rows("outbox_message") if row["cause"] == message["id"]]
    for effect in owed:
        hand.take_away("outbox_message", effect)
        for name in ("delivery_attempt", "outbox_queue", "outbox_delivered"):
            for row in hand.rows(name):
                if row["outbox_id"] == effect["id"]:
                    hand.take_away(name, row)
    put_back = {"version": link["number"] - 1, "state": link["from_state"], "head_hash": link["prev_hash"]}
    hand.seal("payment", hand.change("payment", payment, **put_back), KEYED)

    found = {fault.table for fault in faults(shop)}
    assert "known_delivery" in found
    assert not owed or "event" in found


def test_a_payment_that_is_taken_away_with_all_that_names_it_was_counted_before(shop, hand):
    """And the feed is numbered anew; only an earlier audit's own seal stands in the way."""
    payment = next(row for row in hand.rows("payment") if row["provider_ref"] == "order-2")
    hand.add(
        "audit_run", counted := hand.rows("audit_run")[0] | {"id": new_id(), "payments": len(hand.rows("payment"))}
    )
    hand.seal("audit_run", counted, KEYED)
    assert faults(shop) == []

    about = {row["message_id"] for row in hand.rows("decision") if row["payment_id"] == payment["id"]}
    for name in ("transition", "outbox_message", "event", "decision"):
        for row in hand.rows(name):
            if row["payment_id"] == payment["id"]:
                hand.take_away(name, row)
    for row in hand.rows("inbox_message"):
        if row["id"] in about:
            hand.take_away("inbox_message", row)
    hand.take_away("payment", payment)
    hand.take_away("payment_poll", next(row for row in hand.rows("payment_poll") if row["payment_id"] == payment["id"]))
    messages, owed = ({row["id"] for row in hand.rows(name)} for name in ("inbox_message", "outbox_message"))
    for row in hand.rows("known_delivery"):
        if row["message_id"] not in messages:
            hand.take_away("known_delivery", row)
    for name in ("delivery_attempt", "outbox_queue", "outbox_delivered"):
        for row in hand.rows(name):
            if row["outbox_id"] not in owed:
                hand.take_away(name, row)
    kept = sorted(hand.rows("event"), key=lambda row: row["number"])
    for number, row in enumerate(kept, start=1):
        hand.change("event", row, number=number)
    hand.change("event_feed", hand.rows("event_feed")[0], last_number=len(kept))

    assert [(fault.table, fault.row) for fault in faults(shop)] == [("audit_run", counted["id"])]


def test_an_effect_that_is_made_due_again_is_found(shop, hand):
    """Even sealed with the key: a person's action would stand beside it."""
    tried = hand.rows("outbox_delivered")[0]
    message = next(row for row in hand.rows("outbox_message") if row["id"] == tried["outbox_id"])
    attempts = [row for row in hand.rows("delivery_attempt") if row["outbox_id"] == tried["outbox_id"]]
    last = max(attempts, key=lambda row: row["number"])
    hand.seal("delivery_attempt", hand.change("delivery_attempt", last, outcome="dead"), KEYED)
    hand.take_away("outbox_delivered", tried)
    waiting = hand.rows("outbox_queue")[0] | {name: message[name] for name in ("account", "effect", "sink", "number")}
    waiting |= {"outbox_id": message["id"], "payment_id": message["payment_id"], "attempts": tried["attempts"]}
    waiting |= {"status": "pending", "last_error": last["error"]}
    hand.add("outbox_queue", waiting)
    hand.seal("outbox_queue", waiting, KEYED)

    assert "it was given up and made due again 1 times, and people did that 0 times" in [
        fault.problem for fault in faults(shop) if fault.row == message["id"]
    ]


def test_a_made_up_run_of_retention_is_no_alibi(shop, hand):
    """A body that is emptied with a run that says so, both sealed without the key."""
    message = next(row for row in hand.rows("inbox_message") if row["source"] == "webhook")
    run_of = hand.rows("retention_run")[0]
    at = run_of["changed_at"]
    hand.change("inbox_message", message, body=b"", scrubbed_at=at)
    forged = run_of | {"id": new_id(), "rule": "bodies", "rows": 1, "began_at": at, "until_id": "f" * 8 + new_id()[8:]}
    hand.add("retention_run", forged)
    hand.seal("retention_run", forged)

    assert ("retention_run", forged["id"]) in {(fault.table, fault.row) for fault in faults(shop)}


def test_an_unreadable_row_takes_no_other_with_it(shop, hand):
    """It is named by its id, and a fault of another payment is found beside it."""
    first, last = hand.rows("payment")[0], hand.rows("payment")[-1]
    with hand.editing() as raw:
        column = "facts = '7'" if is_postgresql(shop.world.database) else "created_at = 'never'"
        an_id = first["id"] if is_postgresql(shop.world.database) else first["id"].replace("-", "")
        raw.exec_driver_sql(f"UPDATE payment SET {column} WHERE id = '{an_id}'")  # noqa: S608 - our own words
    hand.change("payment", last, amount_minor=1)

    found = {(fault.table, fault.row) for fault in faults(shop)}
    assert found >= {("payment", first["id"]), ("payment", last["id"])}
