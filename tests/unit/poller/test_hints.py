"""What a delivery that is only a reason to ask does: to known payments, to unknown ones, and how often."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from providers.contract import SAME_BYTES_WINDOW_S, Answer, Delivery
from providers.errors import ProviderError
from providers.signing import KeyRing, Window
from receiver.intake import ReceivingAccount, verified_message
from statemachine.phases import Source
from storage import hints, inbox
from tests.support.builders import PROVIDERS, a_message
from tests.support.pipeline_world import KEY, World
from tests.support.worker_desk import KIND, Desk

HOUR = timedelta(hours=1)
AP_KIND = "payment_request"
REQUEST = b'{"id":"pr_1","status":"%s","amount":"450","currency":"USD","reference_id":"order-1"}'
INTENT = b'{"id":"%s","status":"%s","amount":4.5,"currency":"usd"}'


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


def round_of(desk, account="acme"):
    """One round of the poller to its end, and what the worker makes of the answers; how many were asked."""
    with capture_logs():
        asked = desk.world.run(desk.world.poller(account).step())
        while desk.work():
            pass
    return asked


def has(desk, ref, status, account="acme"):
    """The provider has this intent, and no other."""

    def present(kind, asked):
        if asked != ref:
            raise ProviderError("no such intent", http_status=404)
        return Answer(200, INTENT % (ref.encode(), status.encode()), desk.clock(), kind, ref)

    desk.world.members[account].client.present = present


def transfer(desk, ref, event):
    """A transfer to an intent is announced: a hint that says no state."""
    body = f'{{"id":"{event}","type":"transaction.created","data":{{"payment_intent":"{ref}"}}}}'.encode()
    message_id = desk.keep(a_message(body=body, received_at=desk.clock()))
    desk.work()
    return desk.message(message_id)


def waiting(desk, account="acme"):
    with desk.database.read() as unit:
        return hints.waiting(unit, account)


# the same bytes


@pytest.fixture
def thin(desk):
    """An account whose webhooks have no id, no signature and the same bytes each time."""
    member = desk.world.join("thin", PROVIDERS["alternative_payments"])
    receiving = ReceivingAccount("thin", member.provider, KeyRing((KEY,)), Window())
    delivery = Delivery(b'{"payment_request_id":"pr_1"}', (("authorization", f"Bearer {KEY.secret.decode()}"),))

    def deliver():
        (recorded,) = desk.world.record(verified_message(receiving, None, None, delivery, desk.clock()))
        desk.work()
        return recorded

    def says(status):
        answer = REQUEST % status.encode()
        member.client.present = lambda kind, ref: Answer(200, answer, desk.clock(), kind, ref)

    deliver.says = says
    deliver.member = member
    return deliver


def known(desk, thin, status):
    answer = Answer(200, REQUEST % status.encode(), desk.clock(), AP_KIND, "pr_1")
    desk.keep(desk.world.answered("thin", Source.POLL, answer, None))
    desk.work()
    thin.says(status)


def test_a_second_webhook_with_the_same_bytes_is_news_and_asks_again(desk, thin):
    """The webhook of the end says what the one of the beginning said: it is heard, and the provider is asked."""
    known(desk, thin, "pending")
    assert not thin().is_duplicate
    assert round_of(desk, "thin") == 1
    desk.clock.advance(60)
    thin.says("paid")

    assert not thin().is_duplicate
    assert round_of(desk, "thin") == 1
    assert desk.payment("pr_1").state == "paid"


def test_the_same_bytes_are_one_delivery_for_some_seconds_only(desk, thin):
    """A repeat within the window is a redelivery; any number of hints until the answer cost one question."""
    known(desk, thin, "pending")
    assert [thin().is_duplicate for _ in range(3)] == [False, True, True]
    for _ in range(4):
        desk.clock.advance(SAME_BYTES_WINDOW_S)
        assert not thin().is_duplicate
    assert round_of(desk, "thin") == 1
    assert len(thin.member.client.asked) == 1
    assert desk.world.audit().faults == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_has_no_id_of_its_own_is_known_by_bytes_url_and_time(name, desk):
    """Other bytes, another payment's URL or a later window is another delivery, at every provider."""
    provider, now = PROVIDERS[name], desk.clock()
    delivery = Delivery(b"{}", ())
    again = provider.identity(delivery, now + timedelta(seconds=SAME_BYTES_WINDOW_S - 1))
    others = {
        provider.identity(Delivery(b"[]", ()), now),
        provider.identity(delivery, now, "01a22e56-d84f-7130-8d06-cdc7b2a2e249"),
        provider.identity(delivery, now + timedelta(seconds=SAME_BYTES_WINDOW_S)),
    }

    assert provider.delivery_key(delivery) is None
    assert provider.identity(delivery, now) == again
    assert len({again, *others}) == 4
    assert all(len(each) <= 200 for each in others)


# unknown ids


def test_an_unknown_id_is_asked_about_and_adopted_by_the_answer(desk):
    """A hint makes no payment; the provider's answer does, with all that it says."""
    has(desk, "pi_9", "confirmed")
    message = transfer(desk, "pi_9", "evt_1")
    assert (message.decision, desk.payments()) == ("noted", [])
    assert "the provider is asked" in message.reason

    assert round_of(desk) == 1
    payment = desk.payment("pi_9")
    assert (payment.state, payment.amount_minor, payment.currency) == ("confirmed", 450, "USD")
    assert desk.effects(payment.id) == ["payment.paid"]
    assert waiting(desk) == 0
    assert desk.world.audit().faults == []


def test_an_id_that_the_provider_does_not_know_is_forgotten(desk):
    """A stranger's invention costs one question, and leaves no payment."""
    has(desk, "pi_9", "confirmed")
    transfer(desk, "pi_0", "evt_1")

    assert round_of(desk) == 1
    assert (desk.payments(), waiting(desk)) == ([], 0)
    desk.clock.advance(HOUR.total_seconds())
    assert round_of(desk) == 0


def test_an_unknown_id_is_asked_about_until_there_is_an_answer(desk):
    """A provider that is away has not said that it knows no such payment."""

    def away(_kind, _ref):
        raise ProviderError("later", http_status=503, may_retry=True)

    desk.member.client.present = away
    transfer(desk, "pi_9", "evt_1")
    assert round_of(desk) == 1
    assert (desk.payments(), waiting(desk)) == ([], 1)
    has(desk, "pi_9", "awaiting_payment")
    desk.clock.advance(60)

    assert round_of(desk) == 1
    assert desk.payment("pi_9").state == "awaiting_payment"


def test_a_delivery_without_a_state_adopts_nothing(desk):
    """An event that names a payment and says no state makes none: that is for the answer."""
    message = desk.told(None, "pi_9")
    assert (message.decision, desk.payments(), waiting(desk)) == ("noted", [], 1)

    has(desk, "pi_9", "awaiting_payment")
    assert round_of(desk) == 1
    assert desk.payment("pi_9").state == "awaiting_payment"
    assert desk.world.audit().faults == []


def test_unknown_ids_are_bounded_and_asked_about_one_after_the_other(desk):
    """Whoever invents ids gets so many of them asked about, one a second, and known payments go first."""
    for number in range(hints.MAX_WAITING_IDS + 5):
        message = transfer(desk, f"pi_x{number}", f"evt_{number}")
    assert message.reason.endswith("too many such ids wait to be asked about")
    assert waiting(desk) == hints.MAX_WAITING_IDS
    has(desk, "pi_9", "confirmed")

    for left in range(3):
        assert round_of(desk) == 1
        assert round_of(desk) == 0
        assert waiting(desk) == hints.MAX_WAITING_IDS - left - 1
        desk.clock.advance(1)


def test_an_id_that_is_named_again_meanwhile_is_asked_about_again(desk):
    """The question may have been sent before the change: deliveries that wait cost one, a later one another."""
    transfer(desk, "pi_9", "evt_1")
    transfer(desk, "pi_9", "evt_2")
    assert waiting(desk) == 1

    def present(kind, ref):
        desk.clock.advance(0.5)
        transfer(desk, "pi_9", "evt_3")
        sent_at = desk.clock() - timedelta(seconds=0.5)
        return Answer(200, INTENT % (b"pi_9", b"awaiting_payment"), sent_at, kind, ref)

    desk.member.client.present = present
    assert round_of(desk) == 1
    assert waiting(desk) == 1
    has(desk, "pi_9", "confirmed")
    desk.clock.advance(1)
    round_of(desk)
    assert (desk.payment("pi_9").state, waiting(desk)) == ("confirmed", 0)


def test_where_unknown_payments_are_parked_no_hint_is_asked_about(desk):
    """An account that adopts nothing asks about nothing that it does not know."""
    desk.rule(adopts_unknown=False)
    transfer(desk, "pi_9", "evt_1")
    assert desk.told(None, "pi_8").status == "parked"
    assert (waiting(desk), round_of(desk)) == (0, 0)


# whose word counts


def test_where_answers_are_believed_a_delivery_only_asks(desk):
    """What a signed event says moves nothing and adopts nothing; the answer moves, and the audit agrees."""
    desk.rule(believes_push=False)
    desk.told("confirmed", "pi_1", amount=999)
    assert desk.payments() == []
    has(desk, "pi_1", "awaiting_payment")
    assert round_of(desk) == 1
    assert (desk.payment().state, desk.payment().amount_minor) == ("awaiting_payment", 450)

    desk.clock.advance(60)
    message = desk.told("confirmed", "pi_1", amount=999)
    assert (message.decision, desk.payment().state, desk.payment().review) == ("unchanged", "awaiting_payment", None)
    has(desk, "pi_1", "confirmed")
    assert round_of(desk) == 1
    assert desk.payment().state == "confirmed"
    assert [link.source for link in desk.chain(desk.payment().id)] == ["poll", "poll"]
    assert desk.effects(desk.payment().id) == ["payment.paid"]
    assert desk.world.audit().faults == []


def test_an_account_may_change_whom_it_believes_without_a_fault_in_its_history(desk):
    """Deliveries decided under one rule and the other are decided again as they were."""
    desk.told("awaiting_payment")
    desk.rule(believes_push=False)
    desk.clock.advance(60)
    desk.told("confirmed")
    assert desk.payment().state == "awaiting_payment"
    desk.rule(believes_push=True)
    desk.clock.advance(60)
    desk.told("confirmed")

    assert desk.payment().state == "confirmed"
    assert desk.world.audit().faults == []


def test_no_goods_are_handed_out_while_amount_or_currency_is_unsaid(desk):
    """An event that states neither moves the state and no effect; the answer that states them releases it."""
    desk.told("confirmed", "pi_1", amount=None, currency=None)
    payment = desk.payment()
    assert (payment.state, payment.review) == ("confirmed", "amount_unknown")
    assert desk.effects(payment.id) == ["payment.review_required"]
    has(desk, "pi_1", "confirmed")

    assert round_of(desk) == 1
    assert desk.payment().review is None
    assert "payment.paid" in desk.effects(payment.id)


def test_hints_are_kept_as_evidence(desk):
    """However often a hint came, each is a message of its own with its decision."""
    for number in range(3):
        transfer(desk, "pi_9", f"evt_{number}")
    with desk.database.read() as unit:
        found = inbox.find(unit)
    assert [(message.decision, message.kind in (None, KIND)) for message in found] == [("noted", True)] * 3
