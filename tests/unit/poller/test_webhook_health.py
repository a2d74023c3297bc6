"""What is measured of real rows: messages that were applied, read again, compared and added up once."""

import json
from datetime import timedelta

import pytest

from poller.alarms import LossThreshold
from poller.webhook_health import PushMonitor, PushMonitorSettings
from providers.contract import Answer
from statemachine.phases import Source
from storage import inbox, outbox, quarantine, webhook_health
from storage.ids import new_id
from storage.tables import RejectedDelivery
from storage.webhook_health import Pushing, figures
from tests.support.builders import PROVIDERS, a_message
from tests.support.pipeline_world import World
from tests.support.worker_desk import KIND, Desk

GRACE = timedelta(minutes=15)


class Meter:
    """The desk's account, measured."""

    def __init__(self, desk, **settings):
        self.desk, self.clock, self.database = desk, desk.clock, desk.database
        self.settings = PushMonitorSettings(**settings)

    def meter(self):
        """One that remembers nothing, as after a restart."""
        return PushMonitor(self.database, {"acme": PROVIDERS["stable_genius"]}, self.clock, self.settings)

    def measure(self, seconds=60.0):
        """Measure at the next minute until there is nothing left to do."""
        self.clock.advance(seconds)
        while self.meter().step():
            self.desk.work()

    def mature(self):
        """Every change's grace is over, and it is measured."""
        self.measure(17 * 60)
        self.measure()

    def rows(self):
        """The figures that are not 0, by event."""
        names = (*webhook_health.COUNTED,)
        with self.database.read() as unit:
            kept = webhook_health.between(unit, "acme", self.clock().date() - timedelta(days=5), self.clock().date())
        found: dict[str, dict[str, int]] = {}
        for row in kept:
            of = found.setdefault(row.event, {})
            for name in names:
                if getattr(row, name):
                    of[name] = of.get(name, 0) + getattr(row, name)
        return found

    def report(self):
        with self.database.read() as unit:
            (found,) = figures(unit, "acme", self.clock().date() - timedelta(days=5), self.clock().date())
        return found

    def watch(self):
        with self.database.read() as unit:
            return webhook_health.watches(unit)["acme"]

    def effects(self):
        with self.database.read() as unit:
            owed = [o for o in outbox.of_accounts(unit) if o.sink == "shop"]
        return [(o.effect, json.loads(o.payload)["data"]["is_over"]) for o in owed]


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


@pytest.fixture
def meter(desk):
    return Meter(desk)


def a_payment(desk, ref="pi_1"):
    """A payment whose first state a create call told."""
    desk.answer(Source.CREATE, "awaiting_payment", ref)
    desk.work()


def asked(desk, status, ref="pi_1"):
    desk.answer(Source.POLL, status, ref)
    desk.work()


def many(desk, refs, status, *, is_pushed):
    """Payments that a create call told of and that then changed, recorded and applied in batches."""
    desk.set(batch=200)
    at = desk.clock()
    bodies = [json.dumps({"id": ref, "status": "awaiting_payment"}).encode() for ref in refs]
    answers = [Answer(200, body, at, KIND, None) for body in bodies]
    desk.world.record(*(desk.world.answered("acme", Source.CREATE, answer, None) for answer in answers))
    if is_pushed:
        desk.world.record(*(a_message(body=desk.event(status, ref), received_at=at) for ref in refs))
    else:
        told = [Answer(200, json.dumps({"id": ref, "status": status}).encode(), at, KIND, ref) for ref in refs]
        desk.world.record(*(desk.world.answered("acme", Source.POLL, answer, None) for answer in told))
    while desk.work():
        pass


def test_a_change_that_a_webhook_told_of_is_pushed(desk, meter):
    a_payment(desk)
    desk.told("confirmed")
    meter.mature()

    assert meter.rows()["confirmed"] == {"pushed": 1, "deliveries": 1}


def test_nothing_is_judged_before_its_grace_is_over(desk, meter):
    a_payment(desk)
    asked(desk, "confirmed")
    meter.measure(14 * 60)
    assert meter.rows() == {}

    meter.measure(60)
    assert meter.rows()["confirmed"] == {"lost": 1}


def test_a_webhook_after_the_question_is_late(desk, meter):
    a_payment(desk)
    asked(desk, "confirmed")
    desk.clock.advance(600)
    desk.told("confirmed")
    meter.mature()

    assert meter.rows()["confirmed"] == {"late": 1, "deliveries": 1}


def test_a_webhook_after_the_grace_is_lost_all_the_same(desk, meter):
    a_payment(desk)
    asked(desk, "confirmed")
    desk.clock.advance(GRACE.total_seconds() + 1)
    desk.told("confirmed")
    meter.mature()

    assert meter.rows()["confirmed"] == {"lost": 1, "deliveries": 1}


def test_a_webhook_that_waited_in_the_inbox_had_told_of_it(desk, meter):
    """It came before the answer did, and was applied after it."""
    a_payment(desk)
    desk.webhook("confirmed")
    desk.clock.advance(1)
    answer = desk.answer(Source.POLL, "confirmed")
    desk.world.worker().step([answer])
    desk.work()
    meter.mature()

    assert meter.rows()["confirmed"] == {"pushed": 1, "deliveries": 1}


def test_a_hint_that_made_us_ask_has_pushed_the_change(desk, meter):
    a_payment(desk)
    desk.clock.advance(1)
    body = {"id": "evt_1", "type": "transaction.created", "data": {"payment_intent": "pi_1"}}
    desk.keep(a_message(body=json.dumps(body).encode(), received_at=desk.clock()))
    desk.work()
    desk.clock.advance(1)
    asked(desk, "confirmed")
    meter.mature()

    assert meter.rows() == {"": {"deliveries": 1}, "confirmed": {"pushed": 1}}


def test_what_no_push_can_be_missed_of_is_not_judged(desk, meter):
    """First states, our own calls' answers, and what a person says."""
    a_payment(desk)
    desk.answer(Source.CANCEL, "cancelled")
    desk.work()
    asked(desk, "confirmed", "pi_adopted")
    meter.mature()

    assert meter.rows() == {}


def test_a_state_that_was_passed_unseen_and_must_have_been_is_judged(desk, meter):
    """From awaiting payment to settled there is no way but through confirmed."""
    a_payment(desk)
    asked(desk, "settled")
    desk.clock.advance(60)
    desk.told("settled")
    meter.mature()

    assert meter.rows() == {"confirmed": {"lost": 1}, "settled": {"late": 1, "deliveries": 1}}


def test_duplicates_are_redeliveries_and_what_is_told_again(desk, meter):
    a_payment(desk)
    body = desk.event("confirmed")
    for _ in range(3):
        desk.keep(a_message(body=body, delivery_key="evt_1", received_at=desk.clock()))
        desk.work()
    desk.told("confirmed")
    meter.mature()

    assert meter.rows()["confirmed"] == {"pushed": 1, "deliveries": 4, "duplicates": 3}


def test_a_redelivery_after_it_was_measured_counts_once(desk, meter):
    a_payment(desk)
    body = desk.event("confirmed")
    for _ in range(2):
        desk.keep(a_message(body=body, delivery_key="evt_1", received_at=desk.clock()))
        desk.work()
        meter.mature()

    assert meter.rows()["confirmed"] == {"pushed": 1, "deliveries": 2, "duplicates": 1}


def test_a_push_that_a_later_one_had_overtaken_is_reordered(desk, meter):
    a_payment(desk)
    desk.told("settled")
    desk.clock.advance(5)
    desk.told("confirmed")
    meter.mature()

    assert meter.rows()["confirmed"] == {"late": 1, "deliveries": 1, "reordered": 1}


def test_a_push_that_a_question_had_overtaken_is_not(desk, meter):
    a_payment(desk)
    asked(desk, "settled")
    desk.clock.advance(5)
    desk.told("confirmed")
    meter.mature()

    assert meter.rows()["confirmed"] == {"late": 1, "deliveries": 1}


def test_a_variant_tells_nothing(desk, meter):
    a_payment(desk)
    for amount in (4.5, 9.0):
        desk.keep(
            a_message(body=desk.event("confirmed", amount=amount), delivery_key="evt_1", received_at=desk.clock())
        )
        desk.work()
    meter.mature()

    assert meter.rows()["confirmed"] == {"pushed": 1, "deliveries": 2, "duplicates": 1}


@pytest.mark.parametrize(("behind", "lag"), [(3.0, 3.0), (-2.0, -2.0), (0.0, 0.0)])
def test_the_lag_is_receipt_less_the_provider_s_time_and_may_be_negative(desk, meter, behind, lag):
    a_payment(desk)
    told = json.loads(desk.event("confirmed"))
    told["created_at"] = (desk.clock() - timedelta(seconds=behind)).isoformat()
    desk.keep(a_message(body=json.dumps(told).encode(), received_at=desk.clock()))
    desk.work()
    meter.mature()

    (event,) = [e for e in meter.report().events if e.event == "confirmed"]
    assert event.lag_p50.total_seconds() == pytest.approx(lag, rel=0.051)


def test_the_skew_of_the_provider_s_clock_withstands_lag(desk, meter):
    """Half of the deliveries take minutes; the clock is 20 seconds ahead."""
    a_payment(desk)
    for number in range(40):
        desk.clock.advance(10)
        signed = desk.clock() + timedelta(seconds=20) - timedelta(seconds=200 * (number % 2))
        desk.keep(
            a_message(
                body=desk.event("confirmed"), delivery_key=new_id(), received_at=desk.clock(), provider_time=signed
            )
        )
    desk.work()
    desk.work()
    meter.mature()

    assert meter.report().skew.total_seconds() == pytest.approx(20, rel=0.051)


def test_what_is_never_pushed_is_not_lost(desk, meter):
    for number in range(webhook_health.ENOUGH):
        a_payment(desk, f"pi_{number}")
        desk.told("confirmed", f"pi_{number}")
        asked(desk, "settled", f"pi_{number}")
    meter.mature()

    by_event = {event.event: event for event in meter.report().events}
    assert (by_event["settled"].pushing, by_event["settled"].loss) == (Pushing.NO, None)
    assert (by_event["confirmed"].pushing, by_event["confirmed"].loss) == (Pushing.YES, 0.0)
    with desk.database.read() as unit:
        assert webhook_health.worth(unit, "acme", KIND, desk.clock()).samples == webhook_health.ENOUGH


def test_worth_begins_with_doubt_and_comes_to_the_truth(desk, meter):
    with desk.database.read() as unit:
        assert webhook_health.worth(unit, "acme", KIND, desk.clock()) == webhook_health.PushWorth(None, None, 0)
    many(desk, ["pi_first"], "confirmed", is_pushed=True)
    meter.mature()
    with desk.database.read() as unit:
        assert webhook_health.worth(unit, "acme", KIND, desk.clock()).loss == pytest.approx(5 / 6)
    many(desk, [f"pi_{number}" for number in range(89)], "confirmed", is_pushed=True)
    many(desk, [f"pi_lost_{number}" for number in range(10)], "confirmed", is_pushed=False)
    meter.mature()

    with desk.database.read() as unit:
        found = webhook_health.worth(unit, "acme", KIND, desk.clock())
    assert (found.loss, found.samples) == (pytest.approx(15 / 105), 100)


def reject(desk, body, reason="signature_wrong"):
    rejected = RejectedDelivery(
        id="", account="acme", received_at=desk.clock(), reason=reason, client="192.0.2.7", headers=[], body=body
    )
    with desk.database.write() as unit:
        quarantine.keep(unit, rejected, at_most=3)


def test_rejected_deliveries_are_counted_although_the_quarantine_forgets_them(desk, meter):
    for _ in range(4):
        for _ in range(3):
            reject(desk, b"{}")
        meter.measure()

    assert meter.report().rejected == 12


def test_loss_is_told_once_and_once_when_it_is_over(desk):
    meter = Meter(desk, loss=LossThreshold(0.2, 20))
    for is_pushed, count in ((True, 10), (False, 25), (True, 150)):
        many(desk, [f"pi_{is_pushed}_{count}_{number}" for number in range(count)], "confirmed", is_pushed=is_pushed)
        meter.mature()
        meter.mature()
        desk.work()

    assert [e for e in meter.effects() if e[0] == "account.push_loss"] == [
        ("account.push_loss", False),
        ("account.push_loss", True),
    ]
    assert "push_loss" not in meter.watch().alarms
    assert desk.world.audit().faults == []


def test_every_signature_failing_is_told_once_and_once_when_it_is_over(desk, meter):
    for number in range(6):
        a_payment(desk, f"pi_{number}")
        desk.told("confirmed", f"pi_{number}")
    meter.mature()
    for number in range(6):
        reject(desk, desk.event("settled", f"pi_{number}"))
        meter.measure()
    desk.work()
    assert meter.effects() == [("account.unverified", False)]
    assert "redeem" in meter.watch().alarms["unverified"]["reason"]

    meter.measure()
    desk.told("settled", "pi_0")
    meter.measure()
    desk.work()
    assert meter.effects() == [("account.unverified", False), ("account.unverified", True)]
    assert meter.watch().alarms == {}


def test_a_stranger_s_garbage_is_no_alarm(desk, meter):
    """Whoever knows one payment, or invents a hundred, raises nothing; nor does a verified delivery in between."""
    for number in range(4):
        a_payment(desk, f"pi_{number}")
    desk.told("confirmed", "pi_0")
    for number in range(100):
        reject(desk, desk.event("confirmed", f"pi_of_mine_{number}"))
        reject(desk, desk.event("confirmed", "pi_0"))
        meter.measure(1)
    for number in range(1, 4):
        reject(desk, desk.event("confirmed", f"pi_{number}"))
    meter.measure()

    assert meter.effects() == []


def test_a_wrong_key_from_the_start_is_told(desk, meter):
    for number in range(5):
        a_payment(desk, f"pi_{number}")
        reject(desk, desk.event("confirmed", f"pi_{number}"))
        meter.measure()
    desk.work()

    assert meter.effects() == [("account.unverified", False)]


def test_a_claim_lets_one_measure_at_a_time(desk, meter):
    a_payment(desk)
    desk.told("confirmed")
    meter.mature()
    before = meter.rows()
    with desk.database.write() as unit:
        desk.clock.advance(60)
        assert webhook_health.claim(unit, "acme", desk.clock(), timedelta(minutes=5)) is not None
    assert not meter.meter().step()
    desk.clock.advance(301)
    meter.measure()

    assert meter.rows() == before


def a_history(desk):
    """A bit of everything that is measured."""
    for number in range(8):
        ref = f"pi_{number}"
        a_payment(desk, ref)
        body = desk.event("confirmed", ref)
        if number % 3:
            for _ in range(1 + number % 2):
                desk.keep(a_message(body=body, delivery_key=f"evt_{ref}", received_at=desk.clock()))
                desk.work()
        else:
            asked(desk, "confirmed", ref)
        desk.clock.advance(1)
        if number % 2:
            asked(desk, "settled", ref)
            desk.told("settled", ref)
        reject(desk, b"{}")


def test_killed_between_any_two_writes_the_figures_are_the_same(template, tmp_path):
    """Whatever was begun is begun anew, and nothing is counted twice or left out; alarms are told once."""
    prepared = World(template, tmp_path / "prepared.db")
    a_history(Desk(prepared))
    now = prepared.clock.advance(16 * 60)
    prepared.close()
    results = []
    at = 0
    while not results or results[-1][0]:
        world = World(tmp_path / "prepared.db", tmp_path / f"{at}.db")
        world.clock.now = now
        desk = Desk(world)
        meter = Meter(desk, loss=LossThreshold(0.01, 5))
        with world.crashing(at + 1) as crashed:
            meter.meter().step()
        desk.clock.advance(400)
        meter.measure()
        meter.measure()
        desk.work()
        results.append((bool(crashed), meter.rows(), meter.effects()))
        world.close()
        at += 1

    assert at > 10
    assert results[-1][2] == [("account.push_loss", False)]
    assert {json.dumps(found[1:], sort_keys=True) for found in results} == {json.dumps(results[-1][1:], sort_keys=True)}


def test_a_backlog_is_worked_off_in_steps(desk, meter, monkeypatch):
    monkeypatch.setattr("poller.webhook_health._BATCH_SIZE", 3)
    a_history(desk)
    meter.mature()
    whole = meter.rows()

    assert sum(row.get("pushed", 0) + row.get("late", 0) + row.get("lost", 0) for row in whole.values()) == 12
    assert whole["confirmed"]["deliveries"] == 8
    with desk.database.read() as unit:
        assert meter.watch().message_id == inbox.find(unit, limit=1000)[-1].id


def test_an_account_that_cannot_be_measured_holds_up_no_other(desk, monkeypatch):
    """Every account has its turn at each step, and what one of them met is raised after that."""
    providers = dict.fromkeys(("acme", "other", "third"), PROVIDERS["stable_genius"])
    meter, measured = PushMonitor(desk.database, providers, desk.clock), []
    real = meter.measure

    def measure(account):
        measured.append(account)
        if account == "acme":
            raise OverflowError("a bug")
        return real(account)

    monkeypatch.setattr(meter, "measure", measure)
    with pytest.raises(OverflowError):
        meter.step()

    assert measured == ["acme", "other", "third"]
