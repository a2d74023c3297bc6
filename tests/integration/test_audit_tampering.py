"""What is changed, taken away or added without a key of seals is found and named; see also test_audit_forgery.py."""

import pytest

from storage import hashing, outbox
from storage.columns import table_of
from storage.tables import OutboxQueueTable
from tests.support.audit_case import Shop, Tampering, is_postgresql, key_of
from tests.support.pipeline_world import World


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


def dashed(digits):
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


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
    with shop.world.database.read() as unit:
        assert outbox.depth(unit).keys() == {"delivered", "dead", "pending"}


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
    parked = {row["message_id"] for row in tampering.rows("decision") if row["outcome"] == "parked"}
    row = next(row for row in tampering.rows("inbox_message") if row["source"] == "webhook" and row["id"] in parked)
    body = row["body"].replace(b"450", b"451").replace(b"4.5", b"9.5")
    tampering.change("inbox_message", row["id"], body=body, digest=hashing.body_digest(body))
    tampering.reseal("inbox_message", row["id"])

    problems = [fault.problem for fault in shop.world.audit().faults if fault.row == row["id"]]
    assert any("signature" in problem for problem in problems)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("inbox_message", "body, digest"),
        ("decision", "outcome, reason"),
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
        tampering.change(table, target[key_of(table)], **{name: content[name] for name in names})

    assert {one[key_of(table)], two[key_of(table)]} <= {fault.row for fault in shop.world.audit().faults}


def test_unreadable_rows_do_not_end_the_audit(shop, tampering):
    """What the database cannot give back as values of ours is a fault, not a crash."""
    with tampering.editing() as raw:  # PostgreSQL keeps no text for JSON that is none
        text = "7" if is_postgresql(shop.world.database) else "no JSON"
        raw.exec_driver_sql(f"UPDATE decision SET details = '{text}'")  # noqa: S608

    assert shop.world.audit().first is not None


def enqueue(tampering, message):
    """It waits for its first try, as the program would have it."""
    status = {"id": message["id"], "status": "pending", "attempts": 0, "delivered_at": None, "last_error": None}
    copied = {name: message[name] for name in ("payment_id", "account", "effect", "sink", "number")}
    times = {"next_attempt_at": message["created_at"], "is_first": True, "claim_token": 0}
    seal = hashing.Sealer().seal(hashing.outbox_status(status))
    waiting = {**copied, **times, "outbox_id": message["id"], "status": "pending", "attempts": 0, "seal": seal}
    with tampering.editing() as raw:
        raw.execute(table_of(OutboxQueueTable).insert(), waiting)


def test_an_effect_about_an_account_that_no_message_caused_is_found(shop, tampering):
    """A row about no payment, sealed as ours are, is no decision's: of no message, another's, or another account's."""
    owed = next(row for row in tampering.rows("outbox_message") if row["payment_id"] is None)
    other_cause = next(row["id"] for row in tampering.rows("inbox_message") if row["source"] == "webhook")
    for number, forged in enumerate(({"cause": other_cause}, {"sink": "elsewhere"}, {"effect": "account.drift"})):
        row_id = dashed(f"{number:x}" * 32)
        tampering.add("outbox_message", owed | {"id": row_id} | forged)
        tampering.reseal("outbox_message", row_id)
        enqueue(tampering, tampering.row("outbox_message", row_id))
        found = {(fault.table, fault.row, fault.problem) for fault in shop.world.audit().faults}
        assert ("outbox_message", row_id, "no decision made it owed") in found
        assert {(table, row) for table, row, _ in found} == {("outbox_message", row_id)}
        tampering.take_away("outbox_message", row_id)
        queue = table_of(OutboxQueueTable)
        with tampering.editing() as raw:
            raw.execute(queue.delete().where(queue.c.outbox_id == row_id))

    tampering.change("outbox_message", owed["id"], account="payfield")
    tampering.reseal("outbox_message", owed["id"])
    faults = [fault for fault in shop.world.audit().faults if fault.row == owed["id"]]
    assert any("of another account" in fault.problem for fault in faults)
