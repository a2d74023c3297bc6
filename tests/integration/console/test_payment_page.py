"""One payment's page over real HTTP: each of its parts, for payments of every provider, and whatever they may hold."""

import asyncio
import json
import re

import pytest
from sqlalchemy import update

from audit.export import export
from statemachine import own_statements
from storage import inbox, payment_polls
from storage.columns import table_of
from storage.ids import new_id
from storage.tables import InboxMessage, Payment
from tests.integration.console.stories import KINDS, Teller
from tests.support.builders import our_message
from tests.support.console import Served
from tests.support.databases import unguarded

EXTRA = {"payfield": {"merchant_user_id": "17", "merchant_user_ip": "192.0.2.1"}}
CURRENCIES = {"payfield": "BDT", "banked": "GBP"}


@pytest.fixture
def tell(console: Served) -> Teller:
    return Teller(console)


def create(served: Served, account: str) -> str:
    """A payment at the sandbox; its id."""

    async def work() -> str:
        async with served.service.clients() as clients:
            payment = await served.service.commands(clients).create(
                account,
                amount_minor=45_000,
                currency=CURRENCIES.get(account, "USD"),
                reference=f"order{new_id()[-12:]}",
                extra=EXTRA.get(account),
            )
            return payment.id

    return asyncio.run(work())


def page_of(served: Served, payment_id: str, role: str = "operator") -> str:
    answer = served.client(role).get(f"/console/payments/{payment_id}")
    assert answer.status_code == 200, answer.text
    return answer.text


def plain(page: str) -> str:
    """What is read on the page: without marks, and each white space once."""
    text = re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<head>.*?</head>", "", page))
    return " ".join(text.replace("&#39;", "'").replace("&#34;", '"').replace("&gt;", ">").split())


@pytest.mark.parametrize("account", list(KINDS))
def test_each_part_is_there_for_each_provider(at_sandbox, account):
    payment_id = create(at_sandbox, account)
    teller = Teller(at_sandbox)
    payment = teller.payment(payment_id)

    page = page_of(at_sandbox, payment_id)

    read = plain(page)
    assert "450.00 " + CURRENCIES.get(account, "USD") in read
    for words in (
        payment.reference,
        payment.provider_ref,
        payment.id,
        payment.kind,
        f"{payment.state} , said by the provider, in answer to our create call",
    ):
        assert words in read
    assert at_sandbox.service.accounts[account].provider.name in read
    lifecycle = at_sandbox.service.accounts[account].provider.lifecycles[payment.kind]
    drawn = re.findall(r'<text class="line-1"[^>]*>([^<]*)</text>', page)
    assert sorted(drawn) == sorted(state.name for state in lifecycle.states)
    assert page.count('class="state current') == 1
    assert f"1: new to {payment.state}" in read
    assert page.count('class="entry"') == len(teller.messages(payment_id)) >= 2
    assert "The merchant wants this payment" in read
    assert "The provider answered our create call: 20" in read
    assert f"new -> {payment.state}" in read
    assert "Asked next" in read
    with at_sandbox.service.database.read() as unit:
        poll = payment_polls.get(unit, payment_id)
    assert poll.next_poll_at is not None
    assert f"{poll.next_poll_at:%Y-%m-%d %H:%M:%S}" in read
    if checkout := payment.facts.get("payment_link") or payment.facts.get("url"):
        assert checkout in read
    assert ("/cancel" in page) is (account in ("stable", "banked"))


@pytest.mark.parametrize("account", list(KINDS))
def test_the_provider_is_asked_from_the_page(at_sandbox, account):
    payment_id = create(at_sandbox, account)
    browser = at_sandbox.client("operator")

    answer = browser.post(f"/console/payments/{payment_id}/refresh", {"back": f"/console/payments/{payment_id}"})

    read = plain(browser.follow(answer).text)
    assert "The provider was asked" in read
    assert "We asked, and the provider answered: 200" in read
    assert "unchanged already" in read


def test_hostile_bytes_are_shown_and_do_nothing(console, tell):
    """A provider, or who forges one, can write nothing but text into the page."""
    attack = "</pre><script>alert(1)</script>\" onload='x' {{ 1234*4321 }}"
    tell.push("stable", json.dumps({"id": "evt_1", "type": attack, "data": {"id": "pi_1", "status": attack}}).encode())
    tell.stable("awaiting_payment", customer={"name": attack, "rtl": "\u202e"})
    payment = tell.by_ref("stable", "pi_1")
    tell.refuse(payment, body=f"{attack}\x00\xff".encode("latin-1"))

    page = page_of(console, payment.id)

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "onload='x'" not in page
    assert "1234*4321" in page
    assert str(1234 * 4321) not in page
    assert "\u202e" not in page
    assert "\\u202e" in page
    assert not re.search(r"<[^>]+\sstyle=", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_a_viewer_sees_everything_but_forms_bytes_and_exports(console, tell):
    tell.stable("awaiting_payment", customer="secret of a person")
    payment = tell.by_ref("stable", "pi_1")
    (message,) = tell.messages(payment.id)
    viewer = console.client("viewer")

    page = viewer.get(f"/console/payments/{payment.id}").text

    assert re.findall(r'<form method="post" action="([^"]*)"', page) == ["/console/logout"]
    assert "secret of a person" not in page
    assert message.digest in page
    assert "operators and admins see them" in page
    assert viewer.get(f"/console/payments/{payment.id}/export").status_code == 403
    assert viewer.get(f"/console/inbox/{message.id}/body").status_code == 403
    assert viewer.get(f"/console/payments/{payment.id}/proof").status_code == 200


def test_how_a_delivery_was_verified_is_told(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    tell.refuse(payment)

    read = plain(page_of(console, payment.id))

    assert "HMAC-SHA256 over the signed time, a full stop and the exact body" in read
    assert "x-stablegenius-signature: sha256=" in read
    assert re.search(r"signed 20\S+ \S+Z, received 0\.\d{3} s later", read)
    assert "sandbox matched, when it was received" in read
    assert "signature wrong: its signature is of no key here" in read
    assert "x-stablegenius-timestamp: not there" in read


def test_the_bytes_are_beside_their_json_and_can_be_had_exactly(console, tell):
    body = b'{"id":"evt_9",  "type":"payment_intent.confirmed","data":{"id":"pi_1","status":"confirmed","amount":4.50}}'
    message_id = tell.push("stable", body)
    payment = tell.by_ref("stable", "pi_1")
    browser = console.client("operator")

    page = browser.get(f"/console/payments/{payment.id}").text
    answer = browser.get(f"/console/inbox/{message_id}/body")

    assert body.decode().replace('"', "&#34;") in page
    assert "&#34;amount&#34;: 4.50" in page
    assert answer.content == body
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_scrubbed_bytes_are_said_to_be_gone_and_their_digest_is_kept(console, tell):
    message_id = tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    table = table_of(InboxMessage)
    with tell.database.write() as unit:
        unit.execute(update(table).where(table.c.id == message_id).values(body=b"", scrubbed_at=tell.now))
    with tell.database.read() as unit:
        digest = inbox.get(unit, message_id).digest

    page = page_of(console, payment.id)

    assert "bytes scrubbed" in page
    assert "0 B" not in plain(page)
    assert digest in page
    assert f"/console/inbox/{message_id}/replay" not in page


def test_a_conflict_is_told_with_what_to_do(console, tell):
    for state in ("awaiting_provider", "failed", "sent"):
        tell.banked(state)
    payment = tell.by_ref("banked", "ps_1")

    read = plain(page_of(console, payment.id))

    assert "A person must look: conflict" in read
    assert "sent cannot follow failed; the provider is asked" in read
    assert "What to do. Find out whether the money is there, and resolve with the true state." in read
    assert "sent (paid): against the lifecycle, recorded as forced" in read
    assert "failed (failed): as it is, and the review is closed" in read


def test_what_a_person_resolved_is_drawn_as_forced(console, tell):
    for state in ("awaiting_provider", "failed", "sent"):
        tell.banked(state)
    payment = tell.by_ref("banked", "ps_1")
    browser = console.client("operator")

    form = {"state": "sent", "reason": "seen on the statement"}
    page = browser.follow(browser.post(f"/console/payments/{payment.id}/resolve", form)).text

    assert page.count('class="move passed forced"') == 1
    assert "seen on the statement" in page
    assert f"{browser.person.name} said that it is sent" in plain(page)
    assert f"sent , said by {browser.person.name}, an operator" in plain(page), "the head says who said the state"
    assert "said by the provider" not in plain(page)
    assert tell.payment(payment.id).state == "sent"


def test_why_nothing_was_handed_over_is_told_with_both_amounts(console, tell):
    payment_id = tell.wish("stable", minor=50_000)
    tell.answer(
        "stable",
        {"id": "pi_1", "status": "awaiting_payment", "amount": 500, "currency": "usd"},
        "pi_1",
        source="create",
        about=payment_id,
    )
    tell.stable("confirmed", amount=450)

    read = plain(page_of(console, payment_id))

    assert "no fulfilment: the amount is 450.00 USD, 500.00 USD was asked for" in read
    assert "no payment.review_required at shop yet: the first attempt is due" in read


def test_why_an_effect_was_not_sent_is_told(console, tell):
    tell.stable("confirmed")
    payment = tell.by_ref("stable", "pi_1")
    tell.deliver(payment.id, 500, 500, 500, 500)

    page = page_of(console, payment.id)

    read = plain(page)
    assert "no payment.paid at shop yet: sink shop has answered 500 four times, next attempt at 20" in read
    assert read.count("shop did not take payment.paid") == 4
    assert "the shop is <b>closed</b>" not in page
    assert "the shop is &lt;b&gt;closed&lt;/b&gt;" in page


def test_a_dead_effect_is_redriven_from_the_page(console, tell):
    tell.stable("confirmed")
    payment = tell.by_ref("stable", "pi_1")
    owed = tell.deliver(payment.id, 410, final="dead")
    browser = console.client("operator")

    page = browser.get(f"/console/payments/{payment.id}").text
    assert "sink shop has answered 410 once, and was given up; redrive it when the sink is mended" in plain(page)
    assert f'action="/console/outbox/{owed.id}/redrive"' in page
    form = {"reason": "the shop is back", "back": f"/console/payments/{payment.id}"}
    after = browser.follow(browser.post(f"/console/outbox/{owed.id}/redrive", form)).text

    assert f"{browser.person.name}: redrive of …{owed.id[-12:]}" in plain(after)
    assert "the shop is back" in after
    assert f'action="/console/outbox/{owed.id}/redrive"' not in after


def test_a_parked_message_is_told_and_replayed_from_the_page(console, tell):
    tell.stable("awaiting_payment")
    message_id = tell.stable("a_word_of_tomorrow")
    payment = tell.by_ref("stable", "pi_1")
    browser = console.client("operator")

    page = browser.get(f"/console/payments/{payment.id}").text
    assert "is parked: 'a_word_of_tomorrow' is not a state that" in plain(page)
    form = {"reason": "upgraded", "back": f"/console/payments/{payment.id}"}
    after = browser.follow(browser.post(f"/console/inbox/{message_id}/replay", form)).text

    assert f"{browser.person.name}: replay of …{message_id[-12:]}" in plain(after)


def test_the_way_is_drawn_with_what_was_skipped(console, tell):
    tell.stable("awaiting_payment")
    tell.stable("settled")
    payment = tell.by_ref("stable", "pi_1")

    page = page_of(console, payment.id)

    assert len(re.findall(r'class="move passed"', page)) == 2
    assert len(re.findall(r'class="move skipped"', page)) == 1
    assert re.search(r'class="state skipped [^"]*phase-paid"', page)
    assert re.search(r'class="state current ends phase-settled"', page)
    assert "2: awaiting_payment to settled, skipping confirmed." in plain(page)
    assert '<title id="sheet-title">Lifecycle stable_genius.payment_intent</title>' in page


def test_a_payment_that_is_not_there_is_no_page(console):
    browser = console.client("operator")

    for path in (new_id(), "nonsense", f"{new_id()}/proof", f"{new_id()}/export", f"{new_id()}/live"):
        assert browser.get(f"/console/payments/{path}").status_code == 404, path
    assert browser.get(f"/console/inbox/{new_id()}/body").status_code == 404


def test_nobody_sees_a_payment_without_a_session(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    nobody = console.client(None)

    for path in ("", "/proof", "/export", "/live"):
        answer = nobody.get(f"/console/payments/{payment.id}{path}")
        assert (answer.status_code, answer.headers["location"][:14]) == (303, "/console/login")


def test_the_payment_is_proved_and_what_was_changed_is_found(console, tell):
    tell.stable("awaiting_payment")
    tell.stable("confirmed")
    payment = tell.by_ref("stable", "pi_1")
    browser = console.client("viewer")

    holds = plain(browser.get(f"/console/payments/{payment.id}/proof").text)
    table = table_of(InboxMessage)
    with tell.database.write() as unit:
        unguarded(unit)
        about = inbox.decided_about([payment.id])
        unit.execute(update(table).where(table.c.id.in_(about)).values(body=b'{"forged": 1}'))
    broken = plain(browser.get(f"/console/payments/{payment.id}/proof").text)

    assert "The history of this payment holds proved" in holds
    assert "2 verified again" in holds
    assert "The history of this payment does not hold broken" in broken
    assert "the body is not the one that was received" in broken


def test_the_export_is_the_audits_line_by_line(console, tell):
    tell.stable("awaiting_payment")
    tell.stable("confirmed")
    payment = tell.by_ref("stable", "pi_1")

    answer = console.client("operator").get(f"/console/payments/{payment.id}/export")

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == f'attachment; filename="payment-{payment.id}.ndjson"'
    assert answer.text.splitlines() == list(export(tell.database, payment.id))


def test_a_long_story_has_pages_that_leave_nothing_out(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    for _ in range(9):
        tell.keep(
            *(
                our_message(own_statements.GaveUp("gave_up", "tired"), about=payment.id, account="stable", at=tell.now)
                for _ in range(50)
            )
        )
    browser, path, seen = console.client("operator"), f"/console/payments/{payment.id}", []
    pages = 0

    while path:
        page = browser.get(path).text
        seen += re.findall(r'<li class="entry" id="e-([^"]*)"', page)
        pages += 1
        older = re.search(r'href="([^"]*\?before=[^"#]*)', page)
        path = older.group(1) if older else ""

    assert pages == 3
    assert seen == sorted((message.id for message in tell.messages(payment.id)), reverse=True)
    assert len(seen) == 451
    assert browser.get(f"/console/payments/{payment.id}?before=1'or'1").status_code == 200


def test_a_payment_of_an_account_that_is_gone_is_still_told(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    with tell.database.write() as unit:
        kept = table_of(Payment)
        unit.execute(update(kept).where(kept.c.id == payment.id).values(account="gone"))

    read = plain(page_of(console, payment.id))

    assert "not configured any more" in read
    assert "its lifecycle is not known here" in read
    assert "The provider sent a webhook" in read


def test_a_state_that_the_program_does_not_know_is_drawn_apart(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    kept = table_of(Payment)
    with tell.database.write() as unit:
        unit.execute(update(kept).where(kept.c.id == payment.id).values(state="of_yesterday"))

    page = page_of(console, payment.id)

    assert 'class="state current unknown' in page
