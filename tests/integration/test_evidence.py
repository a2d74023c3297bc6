"""Evidence on both databases: what was received and decided is never changed, and a replay only adds."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from service import timeline
from storage import inbox, payment_history
from tests.support import keeping
from tests.support.audit_case import Shop, Tampering
from tests.support.pipeline_world import World


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, template, tmp_path):
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    world = World(template, tmp_path / "shop.db", database=server and server.copy())
    yield Shop(world)
    world.close()
    if server is not None:
        server.drop(world.database)


def decided(shop):
    """The newest message, and the payment that it was decided about."""
    with shop.world.database.read() as unit:
        message = inbox.find(unit)[-1]
    assert message.payment_id is not None
    return message, message.payment_id


def replayed(shop, message_id):
    with shop.world.database.write() as unit:
        keeping.replay(unit, message_id, shop.clock())
    shop.work()


def test_a_replayed_message_shows_both_decisions_in_timeline_and_audit(shop):
    """The second says that nothing changed; the first stands as it was, and either is missed when it is changed."""
    shop.webhook("order-1", "confirmed")
    message, payment_id = decided(shop)
    replayed(shop, message.id)

    with shop.world.database.read() as unit:
        rows = inbox.decisions(unit, [message.id])
        history = payment_history.read(unit, payment_id)
    assert [(row.reading, row.outcome) for row in rows] == [(1, "advanced"), (2, "unchanged")]
    assert inbox.entry(rows[0]) == message.outcomes[0]
    (told,) = (entry for entry in timeline.entries(history) if entry.row.id == message.id)
    lines = [line for line in timeline.details(told) if line.startswith(("advanced", "unchanged"))]
    assert [line.partition(":")[0] for line in lines] == ["advanced", "unchanged"]
    assert shop.world.audit().faults == []

    hand = Tampering(shop.world.database)
    for row in rows:
        with hand.editing() as raw:
            changed = text("UPDATE decision SET reason = 'another' WHERE reading = :reading")
            assert raw.execute(changed, {"reading": row.reading}).rowcount == 1
        assert {(fault.table, fault.row) for fault in shop.world.audit().faults} == {("decision", message.id)}
        hand.undo()
    hand.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE inbox_message SET body = :none",
        "UPDATE inbox_message SET scrubbed_at = received_at",
        "UPDATE inbox_message SET body = :none, scrubbed_at = received_at, delivery_key = 'another'",
        "UPDATE inbox_message SET received_at = received_at",
        "DELETE FROM inbox_message",
        "UPDATE decision SET reason = 'another'",
        "DELETE FROM decision",
    ],
)
def test_what_was_received_and_decided_is_never_changed(shop, statement):
    shop.webhook("order-1", "confirmed")
    given = {"none": b""} if ":none" in statement else {}
    with pytest.raises(IntegrityError, match="is never changed"), shop.world.database.write() as unit:
        unit.execute(text(statement), given)


def test_retention_s_door_lets_a_body_go_once(shop):
    """Emptied and marked, with nothing else of it changed; what is empty is changed no more."""
    shop.webhook("order-1", "confirmed")
    scrub = text("UPDATE inbox_message SET body = :none, scrubbed_at = received_at")
    with shop.world.database.write() as unit:
        assert unit.execute(scrub, {"none": b""}).rowcount == 1
    with pytest.raises(IntegrityError), shop.world.database.write() as unit:
        unit.execute(scrub, {"none": b""})


def test_a_message_waits_until_it_is_decided_and_again_when_it_is_replayed(shop):
    """Its row of the queue goes in the commit that decides; a replay brings another, which no earlier claim holds."""
    shop.webhook("order-1", "confirmed")
    message, _ = decided(shop)
    with shop.world.database.read() as unit:
        assert unit.rows("SELECT count(*) FROM inbox_queue") == [(0,)]
    with shop.world.database.write() as unit:
        keeping.replay(unit, message.id, shop.clock())
    with shop.world.database.read() as unit:
        again = inbox.get(unit, message.id)
    assert (again.status, again.decision, again.readings) == ("pending", None, 1)
    assert again.claim_token > 0
    assert again.outcomes == message.outcomes
