"""What each kind of message does to a payment, on a real file."""

from datetime import timedelta

import pytest

from providers.catalogue import Payfield
from providers.contract import Reading
from statemachine import own_statements
from statemachine.lifecycle import NOT_CREATED
from statemachine.observation import Observation
from statemachine.phases import ConflictPolicy, Review, Source
from statemachine.sums import Sums
from storage import payment_polls
from storage.ids import new_id
from storage.types import PollPriority
from tests.support import keeping
from tests.support.builders import PROVIDERS, a_message
from tests.support.clock import START

TIMEOUT = own_statements.CallFailed("create", "timeout", "no answer", None, is_ambiguous=True)
REFUSED = own_statements.CallFailed("create", "amount_too_small", "no", 400, is_ambiguous=False)


# an unknown payment


def test_adopt_tracks_a_payment_first_heard_of_and_asks_at_once(desk):
    """A payment made elsewhere is tracked from its first webhook, and fetched from the provider."""
    message = desk.told("confirmed", metadata={"reference": "order-9"})

    payment = desk.payment()
    assert (
        payment.state,
        payment.phase,
        payment.reference,
        payment.amount_minor,
        payment.currency,
    ) == ("confirmed", "paid", "order-9", 450, "USD")
    assert desk.poll_of(payment.id).next_poll_at == desk.clock()
    assert (message.status, message.payment_id) == ("decided", payment.id)
    assert desk.effects(payment.id) == ["payment.paid"]


def test_adopt_asks_at_once_about_a_payment_that_has_ended_too(desk):
    """The provider's own answer is kept even where the first word was the last."""
    desk.told("settled")

    assert desk.poll().next_poll_at == desk.clock()


def test_park_waits_until_the_payment_is_known(desk):
    """In park mode a webhook waits, visibly, and is applied when the create call's answer names the payment."""
    desk.rule(adopts_unknown=False)
    payment_id = desk.wish()
    early = desk.told("confirmed")
    assert (early.status, early.awaits) == ("parked", "payment_intent:pi_1")
    assert desk.get(payment_id).provider_ref is None

    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()
    desk.work()

    assert (desk.get(payment_id).state, desk.get(payment_id).provider_ref) == ("confirmed", "pi_1")
    assert desk.message(early.id).status == "decided"
    assert len(desk.payments()) == 1


def test_park_lets_an_operator_s_question_track(desk):
    """The answer to a question about a ref that nobody knows makes the payment known, and frees what waited."""
    desk.rule(adopts_unknown=False)
    early = desk.told("confirmed")

    desk.answer(Source.POLL, "confirmed")
    desk.work()
    desk.work()

    assert desk.payment().state == "confirmed"
    assert desk.message(early.id).status == "decided"


def test_what_waits_under_a_guessed_kind_is_freed_too(desk):
    """A callback that does not say its kind is parked by the account's default, and freed by the payment's own."""
    desk.world.join("shop", Payfield.with_options(default_kind="payin"), adopts=False)
    body = b'{"id":1,"external_id":"OUT-1","status":"success","amount":"4.50","currency":"INR","updated_at":"%s"}'
    stamped = body % desk.clock().isoformat().encode()
    early = desk.keep(a_message(account="shop", body=stamped, received_at=desk.clock()))
    desk.work()
    assert desk.message(early).awaits == "payin:OUT-1"

    tracked = stamped.replace(b"success", b"pending")
    desk.keep(
        a_message(
            account="shop", source="poll", kind="payout", ref="OUT-1", body=tracked, http_status=200, received_at=START
        )
    )
    desk.work()
    desk.work()

    assert desk.message(early).status == "decided"
    assert (desk.payment("OUT-1").kind, desk.payment("OUT-1").state) == ("payout", "success")


def test_the_reference_binds_before_the_create_call_is_answered(desk):
    """A webhook that echoes the reference is about the payment whose create call is under way."""
    payment_id = desk.wish()
    desk.told("confirmed", metadata={"reference": "order-1"})

    assert (desk.get(payment_id).provider_ref, desk.get(payment_id).state) == ("pi_1", "confirmed")

    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()
    assert desk.get(payment_id).state == "confirmed"
    assert len(desk.payments()) == 1


def test_a_webhook_waits_while_a_create_call_is_under_way(desk):
    """A nameless webhook may be about the payment being created: it is put off, not adopted, and costs no attempt."""
    payment_id = desk.wish()
    early = desk.told("confirmed")
    assert (early.status, early.attempts, early.last_error) == ("pending", 0, "a create call is under way")

    desk.clock.advance(2)
    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()

    desk.clock.advance(2)
    desk.work()
    assert desk.get(payment_id).state == "confirmed"
    assert len(desk.payments()) == 1


def test_a_webhook_is_adopted_when_the_create_call_was_never_answered(desk):
    """Waiting ends: after the grace the payment is tracked, and a late answer is shown to a person."""
    payment_id = desk.wish()
    early = desk.webhook("confirmed")
    desk.work()
    desk.clock.advance(desk.world.settings.create_grace.total_seconds() + 2)
    desk.work()
    assert desk.message(early).status == "decided"
    assert desk.payment().id != payment_id

    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    desk.work()

    assert (desk.get(payment_id).provider_ref, desk.get(payment_id).review) == (None, Review.CREATE_UNKNOWN)
    assert desk.payment().state == "confirmed"


def test_all_of_a_message_is_put_off_or_nothing(desk):
    """A message of several statements is not applied in part while one of them has to wait."""
    desk.told("awaiting_payment", ref="pi_known")
    desk.wish()
    told = (
        Observation(Source.WEBHOOK, kind="payment_intent", provider_ref="pi_known", status="confirmed"),
        Observation(Source.WEBHOOK, kind="payment_intent", provider_ref="pi_new", status="confirmed"),
    )
    page = b'{"of": "several"}'
    desk.read_as(lambda statement, parse: Reading(observations=told) if statement.body == page else parse(statement))
    message_id = desk.keep(a_message(body=page, received_at=desk.clock()))
    desk.work()
    assert desk.message(message_id).status == "pending"
    assert desk.payment("pi_known").state == "awaiting_payment"

    desk.clock.advance(200)
    desk.work()
    assert [(desk.payment(ref).state, desk.payment(ref).version) for ref in ("pi_known", "pi_new")] == [
        ("confirmed", 2),
        ("confirmed", 1),
    ]
    assert desk.world.audit().first is None


# create calls without a good answer


def test_a_refused_create_fails_the_payment(desk):
    """The provider's refusal is its word: nothing exists there."""
    payment_id = desk.wish()
    desk.say(REFUSED, payment_id)
    desk.work()

    assert (
        desk.get(payment_id).state,
        desk.get(payment_id).phase,
        desk.get(payment_id).failure_reason,
    ) == (NOT_CREATED, "failed", "amount_too_small")
    assert desk.effects(payment_id) == ["payment.failed"]


def test_an_ambiguous_create_needs_review_and_is_not_failed(desk):
    """No answer decides nothing (rule R6): a person looks, and a late webhook still counts."""
    payment_id = desk.wish()
    desk.say(TIMEOUT, payment_id)
    desk.work()
    assert (desk.get(payment_id).state, desk.get(payment_id).review) == (None, Review.CREATE_UNKNOWN)

    desk.told("confirmed", metadata={"reference": "order-1"})
    assert desk.get(payment_id).state == "confirmed"
    assert desk.effects(payment_id) == ["payment.review_required", "payment.paid", "payment.review_closed"]


@pytest.mark.parametrize("policy", list(ConflictPolicy))
@pytest.mark.parametrize("failed", [REFUSED, TIMEOUT], ids=["refused", "timeout"])
def test_a_failed_repeat_says_nothing_about_a_payment_that_exists(desk, policy, failed):
    """A create call that fails after a webhook named the payment asks the provider, and moves nothing by force."""
    desk.rule(policy=policy)
    payment_id = desk.wish()
    desk.told("confirmed", metadata={"reference": "order-1"})
    desk.say(failed, payment_id)
    desk.work()

    payment = desk.get(payment_id)
    assert ("confirmed", None, desk.clock()) == (payment.state, payment.review, desk.poll_of(payment.id).next_poll_at)
    assert desk.effects(payment_id) == ["payment.paid"]


def test_a_replayed_wish_makes_no_second_payment(desk):
    """Replaying what the merchant wanted changes nothing, and does not die of it."""
    payment_id = new_id()
    wanted = desk.say(own_statements.CreateWanted("payment_intent", "order-1", 450, "USD"), payment_id)
    desk.work()
    with desk.database.write() as unit:
        keeping.replay(unit, wanted, desk.clock())
    desk.work()

    assert [payment_id] == [payment.id for payment in desk.payments()]
    assert (desk.message(wanted).status, len(desk.message(wanted).outcomes)) == ("decided", 2)
    assert desk.world.audit().first is None


# what the poller gives up


def test_giving_up_opens_a_review_and_moves_nothing(desk):
    """Silence is shown to a person and is never a failure (rule R6)."""
    payment_id = desk.wish()
    desk.clock.advance(1)
    desk.say(own_statements.GaveUp(Review.CREATE_UNKNOWN, "no answer"), payment_id)
    desk.work()

    assert (
        desk.get(payment_id).state,
        desk.get(payment_id).phase,
        desk.get(payment_id).review,
    ) == (None, "open", Review.CREATE_UNKNOWN)
    assert desk.effects(payment_id) == ["payment.review_required"]


def test_giving_up_on_a_create_that_was_answered_meanwhile_opens_nothing(desk):
    """The answer waited in the inbox, where the poller could not see it."""
    payment_id = desk.wish()
    desk.answer(Source.CREATE, "awaiting_payment", about=payment_id)
    given_up = desk.say(own_statements.GaveUp(Review.CREATE_UNKNOWN, "no answer"), payment_id)
    desk.work()

    payment = desk.get(payment_id)
    assert (payment.review, payment.state) == (None, "awaiting_payment")
    assert desk.poll_of(payment.id).next_poll_at is not None
    assert desk.message(given_up).decision == "noted"


def test_giving_up_on_a_payment_that_moved_meanwhile_opens_nothing(desk):
    """A payment that has just been paid is still asked about."""
    desk.told("awaiting_payment")
    desk.webhook("confirmed")
    given_up = desk.say(own_statements.GaveUp(Review.GAVE_UP, "silence"), desk.payment().id)
    desk.clock.advance(1)
    desk.work()

    assert (desk.payment().review, desk.payment().state) == (None, "confirmed")
    assert desk.poll().next_poll_at is not None
    assert desk.message(given_up).decision == "noted"


# conflicts


def test_late_money_needs_review_and_is_asked_about_at_once(desk):
    """Paid after cancelled: nothing is handed over, a person is told, the provider is asked."""
    desk.told("cancelled")
    desk.told("confirmed")

    payment = desk.payment()
    assert ("cancelled", Review.CONFLICT, desk.clock()) == (
        payment.state,
        payment.review,
        desk.poll_of(payment.id).next_poll_at,
    )
    assert desk.effects(payment.id) == ["payment.cancelled", "payment.review_required"]


def test_a_confirmed_conflict_waits_for_a_person_who_resolves_it(desk):
    """Under review the confirmed conflict stays; a resolution moves it, names who and why, and closes the review."""
    desk.told("cancelled")
    desk.told("confirmed")
    desk.answer(Source.POLL, "confirmed")
    desk.work()
    assert (desk.payment().state, desk.payment().review) == ("cancelled", Review.CONFLICT)

    desk.say(own_statements.Resolution("confirmed", "the money is there", "ada"), desk.payment().id)
    desk.work()

    payment, link = desk.payment(), desk.chain(desk.payment().id)[-1]
    assert (
        payment.state,
        payment.review,
        payment.review_note,
        payment.review_opened_at,
    ) == ("confirmed", None, None, None)
    assert (link.forced, link.actor, link.source) == (True, "ada", "operator")
    review = ["payment.review_required", "payment.paid", "payment.review_closed"]
    assert desk.effects(payment.id) == ["payment.cancelled", *review]
    assert desk.world.audit().first is None


def test_a_confirmed_conflict_moves_where_the_provider_is_trusted(desk):
    """Under trust_provider the provider's own answer moves it, marked forced."""
    desk.rule(policy=ConflictPolicy.TRUST_PROVIDER)
    desk.told("cancelled")
    desk.told("confirmed")
    assert desk.payment().state == "cancelled"

    desk.answer(Source.POLL, "confirmed")
    desk.work()
    assert (desk.payment().state, desk.payment().review) == ("confirmed", None)
    assert desk.chain(desk.payment().id)[-1].forced
    assert desk.world.audit().first is None


def test_another_amount_moves_the_state_and_a_person_releases_the_goods(desk):
    """Paid too little: the state is paid, nothing is handed over until an operator says so."""
    payment_id = desk.wish()
    desk.told("confirmed", amount=4.49, metadata={"reference": "order-1"})
    assert (desk.get(payment_id).state, desk.get(payment_id).review) == ("confirmed", Review.AMOUNT_MISMATCH)
    assert desk.effects(payment_id) == ["payment.review_required"]
    assert desk.get(payment_id).amount_minor == 450

    desk.say(own_statements.Resolution("confirmed", "a cent is fine", "ada"), payment_id)
    desk.work()
    assert desk.effects(payment_id) == ["payment.review_required", "payment.paid", "payment.review_closed"]
    assert desk.get(payment_id).review is None


def test_each_review_is_told_once(desk):
    """A second review of the same payment is told again; repeats within one are not."""
    desk.told("cancelled")
    desk.told("confirmed")
    desk.told("settled")
    assert desk.effects(desk.payment().id).count("payment.review_required") == 1

    desk.say(own_statements.Resolution("cancelled", "a test", "ada"), desk.payment().id)
    desk.work()
    desk.told("blessed")

    assert desk.effects(desk.payment().id).count("payment.review_required") == 2
    assert desk.payment().reviews == 2


# authentic, not applicable


def test_an_unknown_status_is_parked_and_needs_review(desk):
    """A provider's new word waits for a release that knows it."""
    desk.told("awaiting_payment")
    message = desk.told("blessed")

    assert (message.status, message.decision) == ("parked", "parked")
    assert (desk.payment().state, desk.payment().review) == ("awaiting_payment", Review.UNKNOWN_STATUS)


def test_unreadable_bytes_are_parked_and_a_replay_reads_them_again(desk):
    """A parser's fault is mended by fix and replay, without the provider."""
    desk.read_as(lambda statement, _parse: Reading(unreadable="a bug of ours"))
    message = desk.told("confirmed")
    assert message.status == "parked"
    assert message.reason.startswith("unreadable: a bug of ours; the provider is asked about")

    desk.rule(provider=PROVIDERS["stable_genius"])
    with desk.database.write() as unit:
        keeping.replay(unit, message.id, desk.clock())
    desk.work()

    assert desk.payment().state == "confirmed"
    assert [entry["outcome"] for entry in desk.message(message.id).outcomes] == ["parked", "advanced"]
    assert desk.world.audit().first is None


def test_a_replay_of_what_was_applied_changes_nothing(desk):
    """History is only added to: the same statement is unchanged now."""
    message = desk.told("confirmed")
    with desk.database.write() as unit:
        keeping.replay(unit, message.id, desk.clock())
    desk.work()

    assert (desk.payment().version, desk.message(message.id).decision) == (1, "unchanged")
    assert desk.effects(desk.payment().id) == ["payment.paid"]
    assert desk.world.audit().first is None


def test_a_variant_is_parked_and_the_provider_is_asked(desk):
    """Two contents under one identity: neither is believed over the other."""
    desk.told("awaiting_payment")
    key = new_id()
    desk.keep(a_message(delivery_key=key, body=desk.event("awaiting_payment"), received_at=desk.clock()))
    variant = desk.keep(a_message(delivery_key=key, body=desk.event("confirmed"), received_at=desk.clock()))
    desk.work()

    assert desk.message(variant).status == "parked"
    assert desk.message(variant).variant_of is not None
    assert ("awaiting_payment", desk.clock()) == (desk.payment().state, desk.poll().next_poll_at)


def test_an_account_that_is_not_configured_parks(desk):
    """What came for an account that was removed since is kept for when it is back."""
    message_id = desk.keep(a_message(account="gone"))
    desk.work()

    assert (
        desk.message(message_id).status,
        desk.message(message_id).reason,
    ) == ("parked", "account gone is not configured")


@pytest.mark.parametrize("source", ["webhook", "callback", "return", "poll"])
def test_nobody_outside_speaks_in_our_name(desk, source):
    """A delivery with our own content type and a resolution for a body resolves nothing."""
    desk.told("awaiting_payment")
    forged = own_statements.Resolution("settled", "trust me", "mallory")
    message_id = desk.say(forged, desk.payment().id, source=source)
    desk.work()

    assert (desk.payment().state, desk.payment().version) == ("awaiting_payment", 1)
    assert desk.message(message_id).status in ("parked", "decided")
    assert desk.message(message_id).decision in ("parked", "noted")


# questions


def test_a_hint_asks_at_once(desk):
    """An event that names a payment without its state makes the provider be asked."""
    desk.a_quiet_payment()
    desk.read_as(lambda statement, _parse: Reading(hints=("pi_1",)))
    desk.told("whatever")

    assert ("awaiting_payment", desk.clock()) == (desk.payment().state, desk.poll().next_poll_at)


def test_a_payer_s_return_asks_at_once(desk):
    """The payer says nothing but that now is a good time to ask."""
    desk.a_quiet_payment()
    desk.keep(a_message(source="return", body=b"", about=desk.payment().id, received_at=desk.clock()))
    desk.work()

    assert ("awaiting_payment", desk.clock()) == (desk.payment().state, desk.poll().next_poll_at)


def test_a_failed_cancel_asks_at_once(desk):
    """A cancel call that failed may have met a payment that is paid."""
    desk.a_quiet_payment()
    failed = own_statements.CallFailed("cancel", "intent_not_cancellable", "no", 409, is_ambiguous=False)
    desk.say(failed, desk.payment().id)
    desk.work()

    assert ("awaiting_payment", desk.clock()) == (desk.payment().state, desk.poll().next_poll_at)


def test_a_slow_answer_is_as_old_as_its_question(desk):
    """In a loop of states an answer that came late does not beat a later question's answer."""
    banked = desk.world.join("bank", PROVIDERS["banked"])
    early, late = desk.clock(), desk.clock() + timedelta(seconds=10)

    def answered(state, asked_at):
        body = f'{{"id":"ps_1","state":"{state}","amount":450,"currency":"GBP"}}'.encode()
        return a_message(
            account=banked.name,
            source="poll",
            body=body,
            kind="payment_session",
            ref="ps_1",
            http_status=200,
            provider_time=asked_at,
            received_at=desk.clock(),
        )

    desk.keep(answered("awaiting_payment_consent", early - timedelta(seconds=5)))
    desk.work()
    desk.clock.advance(20)
    desk.keep(answered("awaiting_provider", late))
    desk.clock.advance(20)
    slow = desk.keep(answered("awaiting_payment_consent", early))
    desk.work()

    assert desk.payment("ps_1").state == "awaiting_provider"
    assert desk.message(slow).decision == "stale"


def test_facts_come_and_go_with_the_provider_s_word(desk):
    """A fact of None removes the one before; a stale statement teaches nothing."""
    told = {"status": "confirmed", "facts": {"latest_error": "insufficient funds"}}
    desk.read_as(
        lambda statement, _parse: Reading(
            observations=(Observation(Source.WEBHOOK, kind="payment_intent", provider_ref="pi_1", **told),)
        )
    )
    desk.told("x")
    assert desk.payment().facts == {"latest_error": "insufficient funds"}

    told["facts"] = {"latest_error": None}
    desk.told("x")
    assert desk.payment().facts == {}
    told |= {"status": "awaiting_payment", "facts": {"late": "yes"}, "sums": Sums(captured_minor=3)}
    desk.told("x")
    assert (desk.payment().facts, desk.payment().captured_minor) == ({}, None)


def test_the_currency_is_learnt_where_the_amount_came_first(desk):
    """An adopted payment takes over each part of its money when it is told."""
    told = {"amount_minor": 450}
    desk.read_as(
        lambda statement, _parse: Reading(
            observations=(
                Observation(
                    Source.WEBHOOK, kind="payment_intent", provider_ref="pi_1", status="awaiting_payment", **told
                ),
            )
        )
    )
    desk.told("x")
    told["currency"] = "EUR"
    desk.told("x")

    assert (desk.payment().amount_minor, desk.payment().currency) == (450, "EUR")


def test_ask_at_keeps_an_earlier_question(desk):
    """Asking later never puts off a question that is due; asking more urgently is remembered."""
    desk.a_quiet_payment()
    soon = desk.clock() + timedelta(seconds=1)
    with desk.database.write() as unit:
        assert payment_polls.ask_at(unit, [desk.payment().id], soon, PollPriority.HINT) == 1
        assert payment_polls.ask_at(unit, [desk.payment().id], soon + timedelta(hours=1), PollPriority.SCHEDULE) == 0
        assert payment_polls.ask_at(unit, [desk.payment().id], soon + timedelta(hours=1), PollPriority.PAYER) == 1

    assert desk.poll().poll_priority == PollPriority.PAYER
    assert desk.poll().next_poll_at == soon
