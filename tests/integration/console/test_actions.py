"""What an operator does: asked, cancelled, resolved, replayed, redriven, redeemed; by whom and why is kept."""

import asyncio
import json
from hashlib import sha256

import pytest

from service.permissions import Role
from statemachine.phases import Source
from storage import inbox, operator_actions, outbox, payment_polls, payments, quarantine, transitions
from storage.ids import new_id
from storage.tables import Payment, RejectedDelivery
from storage.types import InboxStatus, OutboxStatus
from tests.integration.api.test_queues import dead, overtaken, reject
from tests.support import keeping
from tests.support.at_the_sandbox import act

REASON = {"reason": "the customer called"}


def created(served, reference="order-1"):
    """A payment that was created at the sandbox's Payfield."""

    async def do():
        async with served.service.clients() as clients:
            return await served.service.commands(clients).create(
                "payfield",
                amount_minor=50_000,
                currency="BDT",
                reference=reference,
                extra={"merchant_user_id": "17", "merchant_user_ip": "192.0.2.1"},
            )

    return asyncio.run(do())


def paid_at_banked(served, sandbox_url):
    """A payment of 10.00 GBP that its provider says is paid, with own words that look like markup."""

    async def do():
        async with served.service.clients() as clients:
            commands = served.service.commands(clients)
            made = await commands.create(
                "banked",
                amount_minor=1_000,
                currency="GBP",
                reference="order 7",
                description="<b>2 tickets</b>",
                metadata={"<i>cart</i>": "c-88"},
            )
            act(sandbox_url, "banked", made.kind, made.provider_ref, "pay")
            return await commands.refresh(made.id)

    return asyncio.run(do())


def in_review(served, **columns):
    """A payment that exists here alone, and needs review."""
    now = served.service.clock()
    made = Payment(
        id=new_id(),
        account="payfield",
        kind="payin",
        phase="open",
        amount_minor=450,
        currency="BDT",
        review="create_unknown",
        review_opened_at=now,
        created_at=now,
        changed_at=now,
        **columns,
    )
    with served.service.database.write() as unit:
        keeping.keep(unit, made)
    return made


def message(served, source=Source.WEBHOOK):
    """A message of the provider's that says nothing that is known."""
    now, body = served.service.clock(), json.dumps({"what": "nothing known"}).encode()
    made = inbox.new_message(
        account="payfield",
        source=source,
        delivery_key=new_id(),
        body=body,
        headers=[],
        key_id=None,
        received_at=now,
    )
    with served.service.database.write() as unit:
        inbox.record(unit, [made])
    return made


def read(served, do):
    with served.service.database.read() as unit:
        return do(unit)


def done_to(served, subject):
    return [
        (done.actor, done.action, done.reason)
        for done in read(served, lambda unit: operator_actions.of_subjects(unit, [subject]))
    ]


def test_the_provider_is_asked_now_and_it_is_kept_who_wanted_it(at_sandbox):
    payment, operator = created(at_sandbox), at_sandbox.client("operator")

    answer = operator.post(f"/console/payments/{payment.id}/refresh")

    assert answer.headers["location"] == f"/console/payments/{payment.id}"
    assert done_to(at_sandbox, payment.id) == [
        (operator.person.name, "refresh", "asked for in the console"),
    ]
    asked = read(at_sandbox, lambda unit: payment_polls.get(unit, payment.id)).asked_at
    assert asked is not None


def test_what_is_said_afterwards_is_said_once(at_sandbox):
    payment, operator = created(at_sandbox), at_sandbox.client("operator")
    operator.post(f"/console/payments/{payment.id}/refresh")

    assert "The provider was asked" in operator.get("/console/me").text
    assert "The provider was asked" not in operator.get("/console/me").text


def test_a_payment_is_resolved_by_a_person_with_a_reason(console):
    payment, operator = in_review(console), console.client("operator")

    answer = operator.post(f"/console/payments/{payment.id}/resolve", {"state": "success", **REASON})

    assert answer.status_code == 303, answer.text
    found = read(console, lambda unit: payments.get(unit, payment.id))
    assert (found.state, found.review) == ("success", None)
    assert done_to(console, payment.id) == [(operator.person.name, "resolve", REASON["reason"])]
    (step,) = read(console, lambda unit: transitions.of_payment(unit, payment.id))
    assert (step.actor, step.source) == (operator.person.name, "operator")


def test_a_message_is_replayed(console):
    found, operator = message(console), console.client("operator")

    answer = operator.post(f"/console/inbox/{found.id}/replay", {"back": f"/console/x/{found.id}", **REASON})

    assert answer.headers["location"] == f"/console/x/{found.id}"
    assert read(console, lambda unit: inbox.get(unit, found.id)).status != InboxStatus.PENDING
    assert done_to(console, found.id) == [(operator.person.name, "replay", REASON["reason"])]


def test_a_dead_effect_is_due_again(console):
    (effect,), operator = dead(console), console.client("operator")

    assert operator.post(f"/console/outbox/{effect}/redrive", REASON).status_code == 303
    assert read(console, lambda unit: outbox.get(unit, effect)).status == OutboxStatus.PENDING
    assert done_to(console, effect) == [(operator.person.name, "redrive", REASON["reason"])]
    again = operator.post(f"/console/outbox/{effect}/redrive", REASON)
    assert again.status_code == 404
    assert "No dead outbox message" in again.text


def test_an_effect_that_a_later_one_has_overtaken_is_due_again_only_when_that_is_meant(console):
    """On its own page, and among those that are chosen in the table."""
    effect, other, operator = overtaken(console), overtaken(console), console.client("operator")
    meant = {**REASON, "overtaken": "1"}

    refused = operator.post(f"/console/outbox/{effect}/redrive", REASON)
    assert refused.status_code == 409
    assert "ayment.paid is older than payment.refunded" in refused.text
    assert 'name="overtaken"' in operator.get(f"/console/tables/outbox/detail?pk={effect}").text
    assert operator.post(f"/console/outbox/{effect}/redrive", meant).status_code == 303

    many = {"all": "1", "sink": "shop"}
    assert "ayment.paid is older" in operator.post("/console/tables/outbox/redrive", {**REASON, **many}).text
    assert read(console, lambda unit: outbox.get(unit, other)).status == OutboxStatus.DEAD
    operator.post("/console/tables/outbox/redrive", {**meant, **many})
    assert {read(console, lambda unit, one=one: outbox.get(unit, one)).status for one in (effect, other)} == {"pending"}


def test_a_delivery_that_is_still_not_authentic_stays_in_quarantine(console):
    rejected, operator = reject(console), console.client("operator")

    answer = operator.post(f"/console/quarantine/{rejected}/redeem", REASON)

    assert answer.status_code == 409
    assert "still not authentic" in answer.text
    assert read(console, lambda unit: quarantine.get(unit, rejected)).id == rejected


def test_a_delivery_that_is_authentic_with_the_mended_key_is_in_the_inbox(console):
    """Alternative Payments shows a shared secret; in quarantine its digest is kept."""
    secret = console.service.settings.accounts["alternative"].webhook_keys[0].secret.reveal()
    digest = sha256(f"Bearer {secret}".encode()).hexdigest()
    kept = RejectedDelivery(
        id="",
        account="alternative",
        received_at=console.service.clock(),
        reason="signature_wrong",
        client="192.0.2.1",
        headers=[["authorization", f"sha256={digest}"]],
        body=json.dumps({"id": "evt_1", "type": "payment_request.paid"}).encode(),
    )
    with console.service.database.write() as unit:
        quarantine.keep(unit, kept, at_most=10)
    operator = console.client("operator")

    answer = operator.post(f"/console/quarantine/{kept.id}/redeem", REASON)

    assert answer.status_code == 303, answer.text
    (found,) = read(console, lambda unit: inbox.find(unit, account="alternative"))
    assert found.body == kept.body
    assert done_to(console, found.id) == [(operator.person.name, "redeem", REASON["reason"])]
    assert read(console, lambda unit: quarantine.find(unit, "alternative")) == []
    assert operator.post(f"/console/quarantine/{kept.id}/redeem", REASON).status_code == 404


ACTS = (
    "payments/{payment}/refresh",
    "payments/{payment}/cancel",
    "payments/{payment}/resolve",
    "inbox/{message}/replay",
    "outbox/{effect}/redrive",
    "quarantine/{rejected}/redeem",
)


@pytest.fixture
def subjects(console):
    """One of each, and what they look like before anybody does anything."""
    ids = {
        "payment": in_review(console).id,
        "message": message(console).id,
        "effect": dead(console)[0],
        "rejected": reject(console),
    }

    def look():
        with console.service.database.read() as unit:
            return (
                payments.get(unit, ids["payment"]),
                inbox.get(unit, ids["message"]).status,
                outbox.get(unit, ids["effect"]).status,
                quarantine.get(unit, ids["rejected"]).id,
                operator_actions.of_subjects(unit, list(ids.values())),
            )

    return ids, look


@pytest.mark.parametrize("act", ACTS)
def test_a_viewer_does_nothing(console, subjects, act):
    ids, look = subjects
    before = look()

    answer = console.client(Role.VIEWER).post(f"/console/{act.format(**ids)}", {"state": "success", **REASON})

    assert answer.status_code == 403
    assert "your role is viewer" in answer.text.lower()
    assert look() == before


@pytest.mark.parametrize("act", [act for act in ACTS if "refresh" not in act])
@pytest.mark.parametrize("reason", ["", "   ", "x" * 2001, "a\0b"], ids=["none", "blank", "long", "nul"])
def test_without_a_reason_nothing_is_done(console, subjects, act, reason):
    ids, look = subjects
    before = look()

    answer = console.client(Role.ADMIN).post(f"/console/{act.format(**ids)}", {"state": "success", "reason": reason})

    assert answer.status_code == 400
    assert "reason" in answer.text
    assert look() == before


@pytest.mark.parametrize("act", ACTS)
def test_what_is_not_there_is_not_found(console, act):
    ids = dict.fromkeys(("payment", "message", "effect", "rejected"), new_id())
    for path in (act.format(**ids), act.format(**dict.fromkeys(ids, "no-id"))):
        answer = console.client("operator").post(f"/console/{path}", {"state": "success", **REASON})
        assert answer.status_code == 404, answer.text


def test_a_state_that_the_payment_cannot_have_is_refused_in_words(console):
    payment = in_review(console)
    answer = console.client("operator").post(f"/console/payments/{payment.id}/resolve", {"state": "paidd", **REASON})

    assert answer.status_code == 400
    assert "is not a state of" in answer.text
    assert read(console, lambda unit: payments.get(unit, payment.id)).review == "create_unknown"


def test_nobody_is_led_elsewhere_by_a_form(console):
    found = message(console)
    for back in ("https://evil.example/", "//evil.example/console/", "/v1/payments"):
        answer = console.client("operator").post(f"/console/inbox/{found.id}/replay", {"back": back, **REASON})
        assert answer.headers["location"] == "/console/"


def test_a_provider_that_cannot_be_asked_is_told_in_words(console):
    """Nothing listens where the providers of these settings are."""
    payment = in_review(console, provider_ref="pay_1", state="pending")

    answer = console.client("operator").post(f"/console/payments/{payment.id}/refresh")

    assert answer.status_code >= 500
    assert "internal error" not in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_a_part_is_refunded_from_the_page_once_for_each_form(at_sandbox, sandbox_url):
    """The form says at most what remains; what the provider has taken is on the page, and a repeat sends no more."""
    payment, operator = paid_at_banked(at_sandbox, sandbox_url), at_sandbox.client("operator")
    page = operator.get(f"/console/payments/{payment.id}").text
    assert "at most 10.00 GBP" in page
    assert "/capture" not in page

    form = {**REASON, "key": new_id(), "amount": "2.34"}
    shown = [operator.follow(operator.post(f"/console/payments/{payment.id}/refund", form)).text for _ in range(2)]

    assert all("The provider has taken the refund." in text for text in shown)
    assert all(text.count("2.34 GBP, pending") == 1 for text in shown)
    assert "at most 7.66 GBP" in shown[-1]
    too_much = {**REASON, "key": new_id(), "amount": "7.67"}
    refused = operator.post(f"/console/payments/{payment.id}/refund", too_much)
    assert refused.status_code == 409
    assert "No more than 7.66 GBP can be refunded; the payment is paid." in refused.text


def test_the_merchants_own_words_are_on_the_page_as_text(at_sandbox, sandbox_url):
    """Description and metadata are shown, and none of them is markup."""
    payment = paid_at_banked(at_sandbox, sandbox_url)

    page = at_sandbox.client("viewer").get(f"/console/payments/{payment.id}").text

    assert "&lt;b&gt;2 tickets&lt;/b&gt;" in page
    assert "&lt;i&gt;cart&lt;/i&gt;" in page
    assert "<b>2 tickets" not in page
    assert "<i>cart" not in page
