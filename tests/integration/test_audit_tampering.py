# ruff: noqa: S608, SIM118 - names of tables and columns are our own; a table's columns are no dict
"""Whatever is changed, taken away or added behind the program's back, the audit finds it and names the row."""

import json
import shutil
import sqlite3
from contextlib import contextmanager

import pytest

from storage import seals
from storage.engine import Database, load
from storage.tables import InboxMessage, OutboxMessage, Payment, Transition
from tests.integration.audit_case import Shop, ids
from tests.property.pipeline_world import World

TABLES = {model.__tablename__: model for model in (InboxMessage, Payment, Transition, OutboxMessage)}

#: Columns that may change without a trace, and why that harms nobody's money.
OPERATIONAL = {
    "inbox_message": {
        "attempts": "how often it was tried; the outcome is sealed",
        "available_at": "a lease: at worst it is applied later or twice, which changes nothing",
        "claim_token": "a fencing number: at worst one worker's turn is repeated",
        "last_error": "a note for operators about a try that kept nothing",
        "redeliveries": "a statistic of the provider's zeal",
        "last_redelivered_at": "a statistic of the provider's zeal",
    },
    "payment": {
        "heard_at": "a statistic of silence",
        "next_poll_at": "when to ask next: at worst the provider is asked later, or once more",
        "poll_priority": "whose question goes first: at worst the provider is asked later",
        "poll_failures": "how long to wait after a failed question: at worst it is asked later, or sooner",
        "asked_at": "a statistic of asking",
        "polls": "a statistic of asking",
        "poll_error": "a note for operators about a question without an answer",
    },
    "transition": {},
    "outbox_message": {
        "next_attempt_at": "a lease: at worst it is delivered later, or twice with the same id",
        "claim_token": "a fencing number: at worst one delivery is repeated with the same id",
    },
}

COLUMNS = [(table, column) for table, model in TABLES.items() for column in model.__table__.c.keys()]


@pytest.fixture(scope="module")
def shop(template, tmp_path_factory):
    world = World(template, tmp_path_factory.mktemp("audit") / "shop.db")
    found = Shop(world)
    found.happen()
    with world.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    yield found
    world.close()


@pytest.fixture(scope="module")
def original(shop, tmp_path_factory):
    """The file as it was written."""
    path = tmp_path_factory.mktemp("audit") / "original.db"
    shutil.copyfile(shop.world.database.engine.url.database, path)
    return path


@pytest.fixture
def copied(shop, original, tmp_path):
    """A copy whose triggers are gone, as somebody with the file in hand would begin."""
    path = tmp_path / "tampered.db"
    shutil.copyfile(original, path)
    with edited(path) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
    return path


@contextmanager
def edited(path):
    raw = sqlite3.connect(path)
    with raw:
        yield raw
    raw.close()


def audited(shop, path):
    """The audit's report on another file."""
    kept, shop.world.database = shop.world.database, Database(f"sqlite:///{path}")
    try:
        return shop.world.audit()
    finally:
        shop.world.database.close()
        shop.world.database = kept


def plain(row_id):
    return str(row_id).replace("-", "")


def dashed(row_id):
    return "-".join((row_id[:8], row_id[8:12], row_id[12:16], row_id[16:20], row_id[20:]))


def other(value, column):
    """Another value that the column could hold."""
    kind = type(column.type).__name__
    if kind == "JSON":
        content = json.loads(value)
        return json.dumps({**content, "x": "y"} if isinstance(content, dict) else [*content, ["x", "y"]])
    if isinstance(value, bytes):
        return value + b" "
    if isinstance(value, int):
        return 1 - value if kind == "Boolean" else value + 100
    if value is None:
        return {
            "Integer": 7,
            "BigInteger": 7,
            "UtcDateTime": "2026-01-01 00:00:00.000000",
            "Uuid": "0" * 31 + "7",
        }.get(kind, "tampered")
    if kind == "UtcDateTime":
        return value.replace("2026", "2025")
    if kind == "Uuid":
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if column.name == "status":
        return {"pending": "dead", "delivered": "pending", "dead": "delivered"}.get(value, "pending")
    return value[:-1] + ("a" if not value.endswith("a") else "b") if value else "tampered"


def dependants(path, table, row_id):
    """The row's id and those of the rows that rest on it or that it rests on, without dashes."""
    with edited(path) as raw:
        if table == "payment":
            mine = {row_id}
            named = f"%{dashed(row_id)}%"
            query = "SELECT id FROM inbox_message WHERE outcomes LIKE ?"
            about = {row[0] for row in raw.execute(query, (named,))}
        elif table == "inbox_message":
            found = raw.execute("SELECT outcomes FROM inbox_message WHERE id = ?", (row_id,)).fetchone()
            mine = {plain(entry["payment"]) for entry in json.loads(found[0]) if "payment" in entry}
        else:
            mine = {raw.execute(f"SELECT payment_id FROM {table} WHERE id = ?", (row_id,)).fetchone()[0]} - {None}
        related = {row_id, *mine, *(about if table == "payment" else ())}
        if table == "inbox_message":  # what it caused, and whose message caused a row that is about an account
            related |= {r[0] for r in raw.execute("SELECT id FROM outbox_message WHERE cause = ?", (row_id,))}
        if table == "outbox_message":
            related |= {r[0] for r in raw.execute("SELECT cause FROM outbox_message WHERE id = ?", (row_id,))}
        for payment in mine:
            for query in (
                "SELECT id FROM transition WHERE payment_id = ?",
                "SELECT id FROM outbox_message WHERE payment_id = ?",
                "SELECT cause FROM transition WHERE payment_id = ?",
                "SELECT cause FROM outbox_message WHERE payment_id = ?",
            ):
                related |= {row[0] for row in raw.execute(query, (payment,))}
    return related


def test_the_history_is_clean(shop, original):
    """Every source, decision and status is there, and nothing is wrong with any."""
    report = audited(shop, original)

    assert report.faults == []
    assert (report.messages, report.payments, report.transitions) == (16, 5, 7)
    assert report.outbox > report.transitions
    assert report.unverifiable == 0
    with edited(original) as raw:
        rows = [row[0] for row in raw.execute("SELECT source FROM inbox_message")]
        sources = set(rows)
        assert report.signatures == rows.count("webhook") + rows.count("callback")
        assert {"webhook", "callback", "poll", "create", "operator", "merchant", "poller"} == sources
        assert {"delivered", "dead", "pending"} == {r[0] for r in raw.execute("SELECT status FROM outbox_message")}


def test_every_column_is_classified():
    """A column is sealed or has a reason not to be; a name that is gone is not excused."""
    for table, excused in OPERATIONAL.items():
        assert set(excused) <= set(TABLES[table].__table__.columns.keys())
        assert set(excused).isdisjoint(TABLES[table].SEALED)
        assert all(excused.values())


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda part: part)
def test_a_changed_column_is_found(shop, copied, table, column):
    """Another value in any column is found, in whatever row, and the fault names that row or one that rests on it."""
    described = TABLES[table].__table__.columns[column]
    every = ids(copied, table)
    for row_id in {every[0], every[len(every) // 2], every[-1]}:
        near = dependants(copied, table, row_id)
        with edited(copied) as raw:
            (value,) = raw.execute(f"SELECT {column} FROM {table} WHERE id = ?", (row_id,)).fetchone()
            changed = other(value, described)
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (changed, row_id))
        found = audited(shop, copied)
        if column in OPERATIONAL[table]:
            assert found.first is None, f"{column} is called operational, and {found.first}"
        else:
            assert found.first is not None, f"{table}.{column} {value!r} became {changed!r}"
            here = near | {plain(changed)} if column == "id" else near
            named = {plain(fault.row) for fault in found.faults}
            assert plain(found.first.row) in here | {"-"}, f"{found.first} for {column} of {row_id}"
            assert not named.isdisjoint(here)
        with edited(copied) as raw:
            key = changed if column == "id" else row_id
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (value, key))


@pytest.mark.parametrize("table", TABLES)
def test_a_deleted_row_is_found(shop, original, copied, table):
    """Any row that was decided about a payment, or made by that, is missed."""
    for row_id in ids(original, table):
        shutil.copyfile(original, copied)
        with edited(copied) as raw:
            for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                raw.execute(f"DROP TRIGGER {name}")
            raw.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))
        assert audited(shop, copied).first is not None, f"{table} {row_id} was taken away unseen"


def last_transition(raw):
    raw.row_factory = sqlite3.Row
    return dict(raw.execute("SELECT * FROM transition ORDER BY payment_id, number DESC").fetchone())


def resealed(path, model, row_id):
    """The row with its own seal recomputed, as by somebody who knows the program."""
    names = {Transition: ("hash", seals.transition_hash), Payment: ("seal", seals.payment_seal)}
    names |= {InboxMessage: ("envelope_digest", seals.envelope_digest), OutboxMessage: ("seal", seals.outbox_seal)}
    column, compute = names[model]
    database = Database(f"sqlite:///{path}")
    with database.read() as unit:
        row = unit.execute(model.__table__.select().where(model.__table__.c.id == row_id)).first()
        digest = compute(load(model, row))
    database.close()
    with edited(path) as raw:
        raw.execute(f"UPDATE {model.__tablename__} SET {column} = ? WHERE id = ?", (digest, plain(row_id)))


def test_a_forged_transition_is_found(shop, copied):
    """A link with a right hash of its own, appended to a chain, is no decision's."""
    with edited(copied) as raw:
        link = last_transition(raw)
        forged = link | {"id": "f" * 32, "number": link["number"] + 1, "prev_hash": link["hash"]}
        names = ", ".join(forged)
        raw.execute(f"INSERT INTO transition ({names}) VALUES ({', '.join('?' * len(forged))})", tuple(forged.values()))
    resealed(copied, Transition, "f" * 8 + "-ffff-ffff-ffff-" + "f" * 12)

    first = audited(shop, copied).first
    assert (first.table, plain(first.row)) == ("transition", "f" * 32)


def test_a_cut_tail_is_found(shop, copied):
    """The last transition deleted, and the payment put back with a right seal, is missed by its own evidence."""
    with edited(copied) as raw:
        link = last_transition(raw)
        number, payment = link["number"], link["payment_id"]
        raw.execute("DELETE FROM transition WHERE id = ?", (link["id"],))
        raw.execute(
            "UPDATE payment SET version = ?, state = ?, head_hash = ? WHERE id = ?",
            (number - 1, link["from_state"], link["prev_hash"], payment),
        )
    assert "payment" in {fault.table for fault in audited(shop, copied).faults}

    resealed(copied, Payment, dashed(payment))
    first = audited(shop, copied).first
    assert (first.table, plain(first.row)) == ("inbox_message", link["cause"])


def test_a_changed_body_with_right_digests_fails_its_signature(shop, copied):
    """Who rewrites a webhook and every digest over it still has not the provider's key."""
    with edited(copied) as raw:
        query = "SELECT id, body FROM inbox_message WHERE source = 'webhook' AND decision = 'parked' AND awaits IS NULL"
        row_id, body = raw.execute(query).fetchone()
        body = body.replace(b"450", b"451").replace(b"4.5", b"9.5")
        raw.execute(
            "UPDATE inbox_message SET body = ?, digest = ? WHERE id = ?", (body, seals.body_digest(body), row_id)
        )
    resealed(copied, InboxMessage, dashed(row_id))

    problems = [fault.problem for fault in audited(shop, copied).faults if plain(fault.row) == row_id]
    assert any("signature" in problem for problem in problems)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("inbox_message", "body, digest"),
        ("inbox_message", "outcomes"),
        ("transition", "to_state, phase, reason"),
        ("outbox_message", "payload"),
        ("payment", "state, phase"),
        ("payment", "seal"),
    ],
)
def test_swapped_rows_are_found(shop, copied, table, columns):
    """Two rows that exchange their contents are both wrong."""
    names = columns.split(", ")
    with edited(copied) as raw:
        rows = raw.execute(f"SELECT id, {columns} FROM {table} ORDER BY id").fetchall()
        one = rows[0]
        two = next(row for row in rows if all(a != b for a, b in zip(row, one, strict=True)))
        for target, content in ((one, two), (two, one)):
            assigned = ", ".join(f"{name} = ?" for name in names)
            raw.execute(f"UPDATE {table} SET {assigned} WHERE id = ?", (*content[1:], target[0]))

    assert {plain(one[0]), plain(two[0])} <= {plain(fault.row) for fault in audited(shop, copied).faults}


def test_unreadable_rows_do_not_end_the_audit(shop, copied):
    """Bytes that the database cannot give back as values are a fault, not a crash."""
    with edited(copied) as raw:
        raw.execute("UPDATE inbox_message SET outcomes = 'no JSON'")

    assert audited(shop, copied).first is not None


def test_an_effect_about_an_account_that_no_message_caused_is_found(shop, copied):
    """A row about no payment, sealed as ours are, is no decision's: of no message, another's, or another account's."""
    with edited(copied) as raw:
        raw.row_factory = sqlite3.Row
        query = "SELECT * FROM outbox_message WHERE payment_id IS NULL ORDER BY id"
        owed = dict(raw.execute(query).fetchone())
        other_cause = raw.execute("SELECT id FROM inbox_message WHERE source = 'webhook'").fetchone()[0]
    for number, forged in enumerate(({"cause": other_cause}, {"sink": "elsewhere"}, {"effect": "account.drift"})):
        row_id = f"{number:x}" * 32
        row = owed | {"id": row_id} | forged
        with edited(copied) as raw:
            names = ", ".join(row)
            raw.execute(
                f"INSERT INTO outbox_message ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
            )
        resealed(copied, OutboxMessage, dashed(row_id))
        found = {(fault.table, plain(fault.row)): fault.problem for fault in audited(shop, copied).faults}
        assert found == {("outbox_message", row_id): "no decision made it owed"}
        with edited(copied) as raw:
            raw.execute("DELETE FROM outbox_message WHERE id = ?", (row_id,))

    with edited(copied) as raw:
        raw.execute("UPDATE outbox_message SET account = 'payfield' WHERE id = ?", (owed["id"],))
    resealed(copied, OutboxMessage, dashed(owed["id"]))
    (fault,) = audited(shop, copied).faults
    assert (plain(fault.row), "of another account" in fault.problem) == (owed["id"], True)
