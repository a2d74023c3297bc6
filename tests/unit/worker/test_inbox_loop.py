"""The inbox's loop: one bad message fails nobody else, and no lease is used after it was lost."""

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from storage import batches, inbox
from storage.errors import StorageUnavailable
from tests.support.builders import PROVIDERS, a_message
from tests.support.pipeline_world import SimulatedCrash
from worker.inbox_loop import InboxWorker
from worker.process import MessageProcessor


def poison(desk, *refs):
    """Statements that contain one of these refs break the parser."""

    def parse(statement, real):
        if any(ref.encode() in statement.body for ref in refs):
            raise KeyError("a bug of ours")
        return real(statement)

    desk.read_as(parse)


def test_a_poison_message_does_not_fail_its_neighbours(desk):
    """Everything else in the batch is applied; the bad one stays pending with its error."""
    poison(desk, "pi_bad")
    ids = [desk.webhook("confirmed", ref) for ref in ("pi_1", "pi_bad", "pi_2")]
    with capture_logs() as logs:
        desk.work()

    assert [desk.message(i).status for i in ids] == ["decided", "pending", "decided"]
    bad = desk.message(ids[1])
    assert (bad.attempts, bad.last_error) == (1, "KeyError: 'a bug of ours'")
    assert bad.available_at > desk.clock()
    assert "message.failed" in {entry["event"] for entry in logs}


def test_a_poison_message_ends_dead_and_visible_and_a_replay_revives_it(desk):
    """After its attempts it is dead, with the reason, and found by status; replayed after the fix, it is applied."""
    desk.set(max_attempts=3)
    poison(desk, "pi_bad")
    message_id = desk.webhook("confirmed", "pi_bad")
    with capture_logs():
        for _ in range(3):
            desk.clock.advance(4000)
            desk.work()
    dead = desk.message(message_id)
    assert (dead.status, dead.attempts, dead.reason) == ("dead", 3, "attempts exhausted: KeyError: 'a bug of ours'")
    with desk.database.read() as unit:
        assert [message_id] == [m.id for m in inbox.find(unit, status="dead")]
    assert desk.world.audit().first is None

    desk.clock.advance(4000)
    assert desk.work() == 0
    desk.rule(provider=PROVIDERS["stable_genius"])
    with desk.database.write() as unit:
        inbox.replay(unit, message_id, desk.clock())
    desk.work()
    assert desk.payment("pi_bad").state == "confirmed"


def test_waits_grow_between_attempts(desk):
    """Each failure doubles the wait, up to the longest."""
    desk.set(max_attempts=20)
    poison(desk, "pi_bad")
    message_id = desk.webhook("confirmed", "pi_bad")
    waits = []
    with capture_logs():
        for _ in range(14):
            desk.work()
            waits.append((desk.message(message_id).available_at - desk.clock()).total_seconds())
            desk.clock.advance(waits[-1])

    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == 3600


def test_a_lost_lease_costs_its_neighbours_nothing(desk, monkeypatch):
    """A message that was claimed anew while a batch was applied is left to the other; the rest is applied now."""
    ids = [desk.webhook("confirmed", ref) for ref in ("pi_1", "pi_2")]

    def lost(real):
        def claim(unit, *args, **kw):
            found = real(unit, *args, **kw)
            inbox.replay(unit, ids[0], desk.clock())  # an operator, or a worker after our lease
            return found

        return claim

    monkeypatch.setattr(batches, "due", lost(batches.due))
    monkeypatch.setattr(inbox, "claim", lost(inbox.claim))
    with capture_logs():
        desk.work()

    assert [desk.message(i).status for i in ids] == ["pending", "decided"]
    assert desk.message(ids[0]).attempts == 0


def test_a_failure_after_the_lease_was_lost_is_not_counted(desk):
    """A slow worker's error does not touch a message that another has claimed."""
    message_id = desk.webhook("confirmed", "pi_bad")

    poison(desk, "pi_bad")
    worker = desk.world.worker()
    with desk.database.write() as unit:
        mine = inbox.claim(unit, desk.clock(), desk.world.settings.lease, 1)[0]
    desk.clock.advance(61)
    with desk.database.write() as unit:
        inbox.claim(unit, desk.clock(), desk.world.settings.lease, 1)
    with capture_logs():
        worker._apply_alone(mine.id, mine.claim_token)
        worker._postpone(mine.id, mine.claim_token, "too late")

    assert (
        desk.message(message_id).attempts,
        desk.message(message_id).last_error,
        desk.message(message_id).claim_token,
    ) == (0, None, 2)


def test_storage_that_is_away_is_not_the_message_s_fault(desk, monkeypatch):
    """StorageUnavailable goes to the loop, and no attempt is counted."""
    message_id = desk.webhook("confirmed")

    def away(_self):
        raise StorageUnavailable

    monkeypatch.setattr(MessageProcessor, "run", away)
    with pytest.raises(StorageUnavailable):
        desk.work()

    assert (desk.message(message_id).status, desk.message(message_id).attempts) == ("pending", 0)


def test_what_was_claimed_and_not_tried_is_due_at_once(desk, monkeypatch):
    """Beside poison each is claimed and tried alone; one that storage refuses leaves the rest to the next step."""
    ids = [desk.webhook("confirmed", ref) for ref in ("pi_1", "pi_2", "pi_bad", "pi_3")]
    poison(desk, "pi_bad")
    real, refused = InboxWorker._apply_alone, [ids[1]]

    def refuse(worker, message_id, token):
        if message_id in refused:
            refused.remove(message_id)
            raise StorageUnavailable("a row was on its way to another partition")
        real(worker, message_id, token)

    monkeypatch.setattr(InboxWorker, "_apply_alone", refuse)
    with capture_logs():
        with pytest.raises(StorageUnavailable, match="partition"):
            desk.work()
        desk.work()

    assert [desk.message(i).status for i in ids] == ["decided", "decided", "pending", "decided"]
    assert [desk.message(i).attempts for i in ids] == [0, 0, 1, 0]


def test_a_crash_at_any_write_leaves_applied_or_to_be_applied(desk):
    """Between any two writes: after a restart the payment is paid once and the message is decided."""
    for at in range(1, 40):
        ref = f"pi_{at}"
        message_id = desk.webhook("settled", ref)
        with desk.world.crashing(at) as crashed:
            desk.work()
        desk.clock.advance(61)
        desk.work()

        assert desk.message(message_id).status == "decided"
        payment = desk.payment(ref)
        assert (
            payment.state,
            payment.version,
            desk.effects(payment.id),
        ) == ("settled", 1, ["payment.paid", "payment.settled"])
        if not crashed:
            break
    else:
        pytest.fail("the crashes never came to an end")

    assert at > 6, "too few writes were crashed at to mean anything"
    assert desk.world.audit().first is None


def test_only_the_messages_that_are_wanted_are_claimed(desk):
    """A command applies its own message without waiting for the queue."""
    ids = [desk.webhook("confirmed", ref) for ref in ("pi_1", "pi_2")]
    desk.world.worker().step(only=[ids[1]])

    assert [desk.message(i).status for i in ids] == ["pending", "decided"]


def test_a_return_without_a_payment_is_parked(desk):
    """A hint about nobody stays visible."""
    message_id = desk.keep(a_message(source="return", body=b"", received_at=desk.clock()))
    desk.work()

    assert desk.message(message_id).status == "parked"


def test_a_simulated_crash_is_swallowed_by_nobody(desk, monkeypatch):
    """The injected crash reaches the test, as the end of a process would."""

    def crash(_self):
        raise SimulatedCrash

    desk.webhook("confirmed")
    monkeypatch.setattr(MessageProcessor, "run", crash)
    with pytest.raises(SimulatedCrash):
        desk.work()


def test_the_wait_of_a_message_is_doubled_and_never_overflows(desk):
    """However many attempts are allowed: at the 46th a doubled second is more than a timedelta holds."""
    settings = desk.world.settings
    first, longest = settings.retry_first.total_seconds(), settings.retry_longest.total_seconds()
    desk.set(max_attempts=2_000)
    poison(desk, "pi_bad")
    message_id = desk.webhook("confirmed", "pi_bad")
    waits = []
    with capture_logs():
        for attempts in (0, 1, 2, 11, 12, 45, 46, 47, 1_023, 1_024, 1_998):
            with desk.database.write() as unit:
                unit.execute(text("UPDATE inbox_queue SET attempts = :number"), {"number": attempts})
            desk.clock.advance(2 * longest)
            desk.work()
            waits.append((desk.message(message_id).available_at - desk.clock()).total_seconds())
            assert (desk.message(message_id).status, desk.message(message_id).attempts) == ("pending", attempts + 1)

    assert waits == [first, 2 * first, 4 * first, 2_048 * first, *[longest] * 7]
