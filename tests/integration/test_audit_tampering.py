"""Whatever is changed, taken away or added behind the program's back, the audit finds it and names the row."""

from datetime import UTC, datetime

import pytest

from storage import seals
from storage.columns import table_of
from tests.integration.audit_case import TABLES, Shop, Tampering, is_postgresql
from tests.property.pipeline_world import World

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

COLUMNS = [(table, column) for table, model in TABLES.items() for column in table_of(model).c.keys()]  # noqa: SIM118


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shop(request, template, tmp_path_factory):
    """The history, on each database."""
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    world = World(template, tmp_path_factory.mktemp("audit") / "shop.db", database=server and server.copy())
    found = Shop(world)
    found.happen()
    yield found
    world.close()
    if server is not None:
        server.drop(world.database)


@pytest.fixture(scope="module")
def hand(shop):
    """Somebody with the file, or the server, in hand."""
    found = Tampering(shop.world.database)
    yield found
    found.close()


@pytest.fixture
def tampering(hand):
    """The same, and whatever it changes is put back."""
    yield hand
    hand.undo()


def ids(tampering, table):
    return [row["id"] for row in tampering.rows(table)]


def other(value, column):
    """Another value that the column could hold."""
    kind = type(column.type).__name__
    if value is None:
        instant = datetime(2026, 1, 1, tzinfo=UTC)
        nothing = {"Integer": 7, "BigInteger": 7, "UtcDateTime": instant, "Uuid": dashed("0" * 31 + "7")}
        return nothing.get(kind, "tampered")
    if kind == "JSON":
        return {**value, "x": "y"} if isinstance(value, dict) else [*value, ["x", "y"]]
    if isinstance(value, bytes):
        return value + b" "
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 100
    if isinstance(value, datetime):
        return value.replace(year=2025)
    if kind == "Uuid":
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if column.name == "status":
        return {"pending": "dead", "delivered": "pending", "dead": "delivered"}.get(value, "pending")
    return value[:-1] + ("a" if not value.endswith("a") else "b") if value else "tampered"


def dashed(digits):
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def dependants(tampering, table, row_id):
    """The row's id and those of the rows that rest on it or that it rests on."""
    messages, transitions, owed = (tampering.rows(name) for name in ("inbox_message", "transition", "outbox_message"))
    told_of = {m["id"]: {entry["payment"] for entry in m["outcomes"] if "payment" in entry} for m in messages}
    if table == "payment":
        mine = {row_id}
        related = {message_id for message_id, named in told_of.items() if row_id in named}
    elif table == "inbox_message":  # and whose message caused a row that is about an account
        mine = told_of[row_id]
        related = {row["id"] for row in owed if row["cause"] == row_id}
    else:
        row = tampering.row(table, row_id)
        mine, related = {row["payment_id"]} - {None}, {row["cause"]}
    for row in (*transitions, *owed):
        if row["payment_id"] in mine:
            related |= {row["id"], row["cause"]}
    return {row_id, *mine, *related}


def test_the_history_is_clean(shop, tampering):
    """Every source, decision and status is there, and nothing is wrong with any."""
    report = shop.world.audit()

    assert report.faults == []
    assert (report.messages, report.payments, report.transitions) == (16, 5, 7)
    assert report.outbox > report.transitions
    assert report.unverifiable == 0
    sources = [row["source"] for row in tampering.rows("inbox_message")]
    assert report.signatures == sources.count("webhook") + sources.count("callback")
    assert {"webhook", "callback", "poll", "create", "operator", "merchant", "poller"} == set(sources)
    assert {"delivered", "dead", "pending"} == {row["status"] for row in tampering.rows("outbox_message")}


def test_every_column_is_classified():
    """A column is sealed or has a reason not to be; a name that is gone is not excused."""
    for table, excused in OPERATIONAL.items():
        assert set(excused) <= set(table_of(TABLES[table]).columns.keys())
        assert set(excused).isdisjoint(TABLES[table].SEALED)
        assert all(excused.values())


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda part: part)
def test_a_changed_column_is_found(shop, tampering, table, column):
    """Another value in any column is found, in whatever row, and the fault names that row or one that rests on it."""
    described, every = table_of(TABLES[table]).columns[column], ids(tampering, table)
    number = COLUMNS.index((table, column))
    # another row for each column on PostgreSQL, where an audit takes several times as long
    chosen = {number} if is_postgresql(shop.world.database) else {0, len(every) // 2, len(every) - 1}
    for row_id in (every[place % len(every)] for place in chosen):
        near = dependants(tampering, table, row_id)
        value = tampering.row(table, row_id)[column]
        changed = other(value, described)
        tampering.change(table, row_id, **{column: changed})
        found = shop.world.audit()
        if column in OPERATIONAL[table]:
            assert found.first is None, f"{column} is called operational, and {found.first}"
        else:
            assert found.first is not None, f"{table}.{column} {value!r} became {changed!r}"
            here = near | {changed} if column == "id" else near
            assert found.first.row in here | {"-"}, f"{found.first} for {column} of {row_id}"
            assert not here.isdisjoint(fault.row for fault in found.faults)
        tampering.change(table, changed if column == "id" else row_id, **{column: value})


@pytest.mark.parametrize("table", TABLES)
def test_a_deleted_row_is_found(shop, tampering, table):
    """Any row that was decided about a payment, or made by that, is missed."""
    for row in tampering.rows(table):
        tampering.take_away(table, row["id"])
        assert shop.world.audit().first is not None, f"{table} {row['id']} was taken away unseen"
        tampering.add(table, row)


def last_transition(tampering):
    """The end of a chain."""
    return max(tampering.rows("transition"), key=lambda row: (row["number"], row["id"]))


def test_a_forged_transition_is_found(shop, tampering):
    """A link with a right hash of its own, appended to a chain, is no decision's."""
    link, forged = last_transition(tampering), dashed("f" * 32)
    tampering.add("transition", link | {"id": forged, "number": link["number"] + 1, "prev_hash": link["hash"]})
    tampering.reseal("transition", forged)

    first = shop.world.audit().first
    assert (first.table, first.row) == ("transition", forged)


def test_a_cut_tail_is_found(shop, tampering):
    """The last transition deleted, and the payment put back with a right seal, is missed by its own evidence."""
    link = last_transition(tampering)
    payment = link["payment_id"]
    tampering.take_away("transition", link["id"])
    put_back = {"version": link["number"] - 1, "state": link["from_state"], "head_hash": link["prev_hash"]}
    tampering.change("payment", payment, **put_back)
    assert "payment" in {fault.table for fault in shop.world.audit().faults}

    tampering.reseal("payment", payment)
    first = shop.world.audit().first
    assert (first.table, first.row) == ("inbox_message", link["cause"])


def test_a_changed_body_with_right_digests_fails_its_signature(shop, tampering):
    """Who rewrites a webhook and every digest over it still has not the provider's key."""
    row = next(
        row
        for row in tampering.rows("inbox_message")
        if (row["source"], row["decision"], row["awaits"]) == ("webhook", "parked", None)
    )
    body = row["body"].replace(b"450", b"451").replace(b"4.5", b"9.5")
    tampering.change("inbox_message", row["id"], body=body, digest=seals.body_digest(body))
    tampering.reseal("inbox_message", row["id"])

    problems = [fault.problem for fault in shop.world.audit().faults if fault.row == row["id"]]
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
def test_swapped_rows_are_found(shop, tampering, table, columns):
    """Two rows that exchange their contents are both wrong."""
    names, rows = columns.split(", "), tampering.rows(table)
    one = rows[0]
    two = next(row for row in rows if all(row[name] != one[name] for name in names))
    for target, content in ((one, two), (two, one)):
        tampering.change(table, target["id"], **{name: content[name] for name in names})

    assert {one["id"], two["id"]} <= {fault.row for fault in shop.world.audit().faults}


def test_unreadable_rows_do_not_end_the_audit(shop, tampering):
    """What the database cannot give back as values of ours is a fault, not a crash."""
    with tampering.editing() as raw:  # PostgreSQL keeps no text for JSON that is none
        text = "7" if is_postgresql(shop.world.database) else "no JSON"
        raw.exec_driver_sql(f"UPDATE inbox_message SET outcomes = '{text}'")  # noqa: S608

    assert shop.world.audit().first is not None


def test_an_effect_about_an_account_that_no_message_caused_is_found(shop, tampering):
    """A row about no payment, sealed as ours are, is no decision's: of no message, another's, or another account's."""
    owed = next(row for row in tampering.rows("outbox_message") if row["payment_id"] is None)
    other_cause = next(row["id"] for row in tampering.rows("inbox_message") if row["source"] == "webhook")
    for number, forged in enumerate(({"cause": other_cause}, {"sink": "elsewhere"}, {"effect": "account.drift"})):
        row_id = dashed(f"{number:x}" * 32)
        tampering.add("outbox_message", owed | {"id": row_id} | forged)
        tampering.reseal("outbox_message", row_id)
        found = {(fault.table, fault.row, fault.problem) for fault in shop.world.audit().faults}
        assert ("outbox_message", row_id, "no decision made it owed") in found
        assert {(table, row) for table, row, _ in found} == {("outbox_message", row_id)}
        tampering.take_away("outbox_message", row_id)

    tampering.change("outbox_message", owed["id"], account="payfield")
    tampering.reseal("outbox_message", owed["id"])
    faults = [fault for fault in shop.world.audit().faults if fault.row == owed["id"]]
    assert any("of another account" in fault.problem for fault in faults)
