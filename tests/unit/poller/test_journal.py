"""The journal on a real file: read from a kept position, counted exactly, and before any question about one payment."""

import json
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from poller.journal import JournaledAccount, JournalReader
from poller.polling import Poller
from poller.schedule import PollPolicy
from poller.webhook_health import PushMonitor, PushMonitorSettings
from providers.contract import JournalPage
from providers.errors import ProviderError
from storage import inbox, journals, payments, webhook_health
from tests.support.builders import a_message
from tests.support.pipeline_world import SimulatedCrash, World
from tests.support.worker_desk import Desk

INTERVAL = timedelta(seconds=15)
PAGE_SIZE = 100


class Log:
    """What the provider has logged, and the calls for it."""

    def __init__(self, clock):
        self.clock = clock
        self.events = []  #: ids and bodies, the oldest first
        self.calls = []  #: positions
        self.error = None

    def add(self, body):
        self.events.append((json.loads(body)["id"], body))
        return body

    async def page(self, _since, position):
        self.calls.append(position)
        if self.error is not None:
            raise self.error
        start = 0 if position is None else [event_id for event_id, _ in self.events].index(position) + 1
        rows = self.events[start : start + PAGE_SIZE]
        has_more = start + PAGE_SIZE < len(self.events)
        last = rows[-1][0] if rows else None
        return JournalPage(tuple(body for _, body in rows), last, has_more, self.clock())


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    found = Desk(world)
    found.log = Log(world.clock)
    found.member.client.journal_page = found.log.page
    yield found
    world.close()


def reader(desk):
    """A reader that remembers nothing, as after a restart."""
    accounts = {"acme": JournaledAccount(desk.member.client, desk.member.provider)}
    return JournalReader(
        desk.database, accounts, desk.clock, random.Random(0), interval=INTERVAL, policy=PollPolicy(min_price=2.0)
    )


def read(desk, by=None):
    with capture_logs():
        return desk.world.run((by or reader(desk)).step("acme"))


def read_all(desk):
    """Read to the end, and apply what was read."""
    while read(desk).has_more:
        pass
    while desk.work():
        pass


def state(desk):
    with desk.database.read() as unit:
        return journals.states(unit)["acme"]


def pushed(desk, body):
    """The event's webhook arrives."""
    (recorded,) = desk.world.record(a_message(body=body, delivery_key=json.loads(body)["id"], received_at=desk.clock()))
    return recorded


def test_an_event_whose_webhook_was_lost_is_applied_without_a_question(desk):
    """The log says what the webhook would have said, and no payment is asked about."""
    desk.log.add(desk.event("awaiting_payment"))
    desk.log.add(desk.event("confirmed"))
    read_all(desk)

    payment = desk.payment()
    assert (payment.state, [link.source for link in desk.chain(payment.id)]) == ("confirmed", ["journal"] * 2)
    assert desk.effects(payment.id) == ["payment.paid"]
    assert desk.member.client.asked == []
    assert desk.world.audit().faults == []


def test_one_call_answers_for_hundreds_of_payments(desk):
    """250 payments whose every webhook was lost cost three calls."""
    for number in range(250):
        desk.log.add(desk.event("confirmed", f"pi_{number}"))
    read_all(desk)

    with desk.database.read() as unit:
        states = [payment.state for payment in payments.find(unit, limit=1000)]
    assert states == ["confirmed"] * 250
    assert len(desk.log.calls) == 3
    assert desk.member.client.asked == []


def test_loss_is_measured_exactly(desk):
    """Of ten events seven came by webhook, three did not, and one of those came later."""
    bodies = [desk.log.add(desk.event("awaiting_payment", f"pi_{number}")) for number in range(10)]
    for body in bodies[:7]:
        assert not pushed(desk, body).is_duplicate
    read_all(desk)

    assert (state(desk).events, state(desk).unpushed) == (10, 3)
    late = pushed(desk, bodies[9])
    assert (late.is_duplicate, late.is_variant) == (True, False)
    with desk.database.read() as unit:
        assert journals.late(unit, "acme") == 1
    assert (state(desk).events, state(desk).unpushed) == (10, 3)


def test_a_webhook_that_comes_after_its_event_is_late_and_not_lost(desk):
    """What push is worth is measured from when webhooks came, although their events were read before."""
    providers = {"acme": desk.member.provider}
    monitor = PushMonitor(desk.database, providers, desk.clock, PushMonitorSettings(grace=timedelta(minutes=15)))
    desk.log.add(desk.event("awaiting_payment", "pi_1"))
    desk.log.add(desk.event("awaiting_payment", "pi_2"))
    read_all(desk)
    desk.clock.advance(60)
    lost, late = (desk.log.add(desk.event("confirmed", ref)) for ref in ("pi_1", "pi_2"))
    read_all(desk)
    desk.clock.advance(5)
    assert pushed(desk, late).is_duplicate
    for _ in range(3):
        desk.clock.advance(1200)
        while monitor.step():
            pass

    with desk.database.read() as unit:
        rows = webhook_health.between(unit, "acme", desk.clock().date(), desk.clock().date())
        heard_at = webhook_health.last_redelivered_at(unit, "acme")
    counted = [(row.pushed, row.late, row.lost) for row in rows if row.event == "confirmed"]
    assert (counted, lost in [body for _, body in desk.log.events]) == ([(0, 1, 1)], True)
    assert heard_at is not None


def test_the_same_event_in_other_bytes_is_the_same_event(desk):
    """A provider may write its log with other white space than its webhooks: neither is a variant of the other."""
    first, second = (desk.event("awaiting_payment", ref) for ref in ("pi_1", "pi_2"))
    for body in (first, second):
        desk.log.add(body.replace(b": ", b":"))
    pushed(desk, first)
    read_all(desk)
    found = pushed(desk, second)
    desk.work()

    assert (found.is_duplicate, found.is_variant) == (True, False)
    assert state(desk).unpushed == 1
    with desk.database.read() as unit:
        assert [message.variant_of for message in inbox.find(unit)] == [None, None]
    assert {payment.ref for payment in map(_Named, desk.payments())} == {"pi_1", "pi_2"}


class _Named:
    def __init__(self, payment):
        self.ref = payment.provider_ref


@pytest.mark.parametrize("at", range(1, 9))
def test_a_crash_leaves_events_and_position_as_they_belong_together(desk, at):
    """Whichever write is the last: read on, every event is recorded once, and counted once."""
    for number in range(3):
        desk.log.add(desk.event("confirmed", f"pi_{number}"))
    desk.world.crashes.arm(at)
    try:
        read(desk)
    except SimulatedCrash:
        desk.clock.advance(121)  # its lease
    desk.world.crashes.disarm()
    desk.clock.advance(INTERVAL.total_seconds())
    read_all(desk)

    with desk.database.read() as unit:
        assert len(inbox.find(unit)) == 3
    assert (state(desk).events, state(desk).unpushed) == (3, 3)


def test_two_processes_read_each_event_once(desk):
    """Who claims the journal has it until its lease ends, and each look waits for its time."""
    desk.log.add(desk.event("confirmed"))
    one, other = reader(desk), reader(desk)
    assert read(desk, one).events == 1
    assert read(desk, other).events == read(desk, one).events == 0
    desk.clock.advance(INTERVAL.total_seconds())
    desk.log.add(desk.event("settled"))

    assert [read(desk, other).events, read(desk, one).events] == [1, 0]


def test_a_log_that_cannot_be_read_is_tried_again_from_the_same_place(desk):
    """Failures are counted and wait; the position stays."""
    desk.log.add(desk.event("awaiting_payment"))
    read_all(desk)
    before = state(desk).position
    desk.log.error = ProviderError("later", http_status=503, may_retry=True)
    desk.clock.advance(INTERVAL.total_seconds())
    read(desk)
    assert (state(desk).failures, state(desk).position) == (1, before)
    assert "later" in state(desk).last_error
    desk.log.error = None
    desk.log.add(desk.event("confirmed"))
    desk.clock.advance(60)
    read_all(desk)

    assert (state(desk).failures, desk.payment().state) == (0, "confirmed")
    assert desk.log.calls[-1] == before


def test_after_an_outage_the_journal_goes_before_any_scheduled_question(desk):
    """What was missed is in the log: due payments wait for it, and then need no question."""
    for number in range(20):
        desk.log.add(desk.event("awaiting_payment", f"pi_{number}"))
    read_all(desk)
    for number in range(20):
        desk.log.add(desk.event("confirmed", f"pi_{number}"))
    desk.clock.advance(13 * 3600)  # every payment is due by now
    poller = Poller(
        desk.database,
        {"acme": desk.member.client},
        desk.world.book("acme"),
        desk.clock,
        random.Random(0),
        journal=reader(desk),
    )
    with capture_logs():
        assert desk.world.run(poller.step()) == 0
        while desk.work():
            pass
        desk.world.run(poller.step())

    assert {payment.state for payment in desk.payments()} == {"confirmed"}
    assert desk.member.client.asked == []


def test_where_answers_are_believed_the_log_is_one(desk):
    """It is read by our own authenticated call: what it says is decided, and the webhook before it only asked."""
    desk.rule(believes_push=False)
    desk.log.add(desk.event("confirmed"))
    read_all(desk)

    assert desk.payment().state == "confirmed"
    assert replace(state(desk), read_at=None).events == 1
