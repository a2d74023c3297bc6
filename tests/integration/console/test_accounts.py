"""The accounts' pages: what each shows of an account, to whom, and that no secret is ever among it."""

import base64
import re
from datetime import timedelta
from html import unescape
from urllib.parse import quote

import pytest

from storage.ids import new_id
from storage.tables_support import AccountBudget, PollPlan, PushQuality, PushWatch, Reconciliation
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.console import on_sqlite
from tests.support.rows import a_rejection, add, id_at

HOUR = timedelta(hours=1)
HOSTILE = "<script>alert(1)</script>"

#: Two keys while one is rotated, one that has ended and one that is to come; a budget of its own.
ROTATING = """
[accounts.rotating]
provider = "payfield"
environment = "test"
base_url = "http://127.0.0.1:9/payfield"
secrets = { api_key = "plain:rotating-api-key-000001", api_secret = "plain:rotating-api-secret-001" }
options = { allow_loopback_http = true }
budget = { requests = 5, seconds = 1.0 }

[[accounts.rotating.webhook_keys]]
id = "ended-key"
secret = "plain:rotating-ended-secret-01"
not_after = 2026-03-01T00:00:00Z

[[accounts.rotating.webhook_keys]]
id = "old-key"
secret = "plain:rotating-old-secret-0001"
not_after = 2026-04-08T00:00:00Z

[[accounts.rotating.webhook_keys]]
id = "new-key"
secret = "plain:rotating-new-secret-0001"

[[accounts.rotating.webhook_keys]]
id = "next-key"
secret = "plain:rotating-next-secret-001"
not_before = 2026-05-01T00:00:00Z
"""


@pytest.fixture
def console(tmp_path, template, clock):
    with on_sqlite(tmp_path, template, clock=clock, more=ROTATING) as served:
        yield served


def text_of(page):
    bare = re.sub(r"<(script|style|title|desc)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split()).replace(" ,", ",")


def rows_of(page, titled):
    found = re.search(rf'<section[^>]*aria-labelledby="{titled}".*?</section>', page, flags=re.DOTALL)
    return [text_of(row) for row in re.findall(r"<tr.*?</tr>", found[0], flags=re.DOTALL)][1:]


def written(secret):
    """The forms in which a secret might slip out."""
    raw = secret.encode()
    yield from (secret, quote(secret, safe=""), raw.hex(), base64.b64encode(raw).decode(), secret[::-1])


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_no_secret_is_on_any_page_for_anybody(console, role):
    browser = console.client(role)
    settings = console.service.settings
    pages = ["/console/", "/console/accounts", *(f"/console/accounts/{name}" for name in settings.accounts)]
    seen = "".join(browser.get(page).text for page in pages)

    secrets = set(settings.secret_values())
    assert len(secrets) > 15
    assert "rotating-old-secret-0001" in secrets
    leaked = [secret for secret in secrets for form in written(secret) if form in seen or form in unescape(seen)]
    assert not leaked


def test_the_settings_are_shown_to_admins_with_their_secrets_masked(console):
    page = console.client("admin").get("/console/accounts/rotating").text

    shown = dict(re.findall(r"<dt><code>([^<]*)</code></dt><dd><code>([^<]*)</code>", page))
    assert shown["secrets.api_key"] == shown["webhook_keys.0.secret"] == "plain:***"
    assert (shown["budget.requests"], shown["webhook_keys.1.id"]) == ("5", "old-key")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_whoever_is_no_admin_sees_no_settings_and_is_told_so(console, role):
    page = console.client(role).get("/console/accounts/rotating")

    assert page.status_code == 200
    assert "webhook_keys.0" not in page.text
    assert "plain:" not in page.text
    assert "Ask an admin" in page.text


def test_each_webhook_url_is_there_to_be_copied_and_to_be_selected(console):
    browser = console.client("viewer")
    every, one = browser.get("/console/accounts").text, browser.get("/console/accounts/rotating").text

    for name in console.service.accounts:
        assert f">http://127.0.0.1:8000/webhooks/{name}</code>" in every
    assert 'id="webhook-url" class="copied-text">http://127.0.0.1:8000/webhooks/rotating</code>' in one
    assert 'data-copy="webhook-url"' in one


def test_keys_say_whether_they_verify_and_what_they_did(console):
    with console.service.database.write() as unit:
        for key_id, minutes in (("old-key", 50), ("new-key", 5), ("new-key", 3), ("lost-key", 70)):
            at = START - timedelta(minutes=minutes)
            add(unit, a_message(account="rotating", key_id=key_id, message_id=id_at(at), received_at=at))
        add(unit, a_message(account="payfield", key_id="new-key"))

    page = console.client("viewer").get("/console/accounts/rotating").text

    assert rows_of(page, "keys-title") == [
        "ended-key ended – 2026-03-01 00:00:00 UTC 0 –",
        "old-key ends soon – 2026-04-08 00:00:00 UTC 1 50 min ago",
        "new-key verifies – – 2 3 min ago",
        "next-key not yet valid 2026-05-01 00:00:00 UTC – 0 –",
        "lost-key not in the settings – – 1 70 min ago",
    ]


def test_how_it_is_asked_and_why(console):
    with console.service.database.write() as unit:
        until = START + timedelta(seconds=30)
        add(
            unit,
            AccountBudget(
                account="rotating",
                next_free_at=START + timedelta(seconds=2),
                failures=6,
                broken_at=START - HOUR,
                probe_at=until,
                paused_until=until,
            ),
        )
        plan = {"planned_at": START, "price_seconds": 12.5, "watched": 4000, "wanted_per_second": 4.5, "stretch": 3.0}
        add(unit, PollPlan(account="rotating", floor_per_second=9.0, allowed_per_second=5.0, **plan))
        add(unit, a_payment(account="rotating"), next_poll_at=START - 3 * HOUR)
        for _ in range(7):
            add(unit, a_message(account="rotating", source="poll", message_id=id_at(START - timedelta(seconds=5))))

    told = text_of(console.client("viewer").get("/console/accounts/rotating").text)

    assert "Breaker open since 2026-04-01 09:00:00 UTC, tried again in 30 s" in told
    assert "Budget 5 requests in 1 s" in told
    assert "7 of 300 in the last minute, 293 left" in told
    assert "Next request from 2026-04-01 10:00:02 UTC" in told
    assert "Questions late by 3 h, 1 due" in told
    assert "The breaker is open: 6 questions in a row met an outage." in told
    assert "wants no request for a while" in told
    assert "4,000 payments are asked about, 270.0 times a minute in all." in told
    assert "must save 12.5 expected seconds" in told
    assert "each waits up to 3.0 times as long" in told


def test_what_its_push_was_worth_by_day_and_by_event(console):
    with console.service.database.write() as unit:
        add(unit, PushWatch(account="payfield", due_at=START, measured_at=START, heard_at=START - HOUR))
        for days, counts in {0: (8, 1, 1), 2: (20, 0, 0), 45: (500, 500, 500)}.items():
            pushed, late, lost = counts
            day = (START - timedelta(days=days)).date()
            event = {"account": "payfield", "kind": "payin", "event": "success", "day": day}
            add(unit, PushQuality(**event, pushed=pushed, late=late, lost=lost, deliveries=pushed))

    page = console.client("viewer").get("/console/accounts/payfield").text

    numbers = re.search(r'<details id="chart-push-numbers">.*?</details>', page, flags=re.DOTALL)[0]
    days = [text_of(row) for row in re.findall(r"<tr.*?</tr>", numbers, flags=re.DOTALL)][1:]
    assert (len(days), days[:3]) == (30, ["04-01 8 1 1", "03-31 0 0 0", "03-30 20 0 0"])
    assert any(row.startswith("success payin 30 28 1 1") for row in rows_of(page, "push"))
    assert "Last verified delivery 60 min ago" in text_of(page)


def test_what_was_caught_up_on_and_what_was_rejected(console):
    found = {"drift": 3, "alarming": 1, "fresh": 2}
    with console.service.database.write() as unit:
        for status, counts, asked_by in (("done", {}, "schedule"), ("done", found, f"ada {HOSTILE}")):
            add(
                unit,
                Reconciliation(
                    id=new_id(),
                    account="payfield",
                    since=START - 72 * HOUR,
                    until=START,
                    asked_by=asked_by,
                    began_at=START - HOUR,
                    status=status,
                    held_by="x",
                    held_at=START,
                    lease_ends_at=START,
                    resume_at=START,
                    counts=counts,
                    listed=41,
                ),
            )
        for reason in ("signature_wrong", "signature_wrong", "timestamp_old"):
            add(unit, a_rejection(account="payfield", reason=reason))
        add(unit, a_rejection(account="banked", reason="signature_missing"))

    page = console.client("viewer").get("/console/accounts/payfield").text

    runs = rows_of(page, "reconciliations-title")
    assert runs[0].endswith("41 0 3 drift 1 alarming 2 fresh")
    assert runs[1].endswith("schedule 41 0 no drift")
    assert HOSTILE not in page
    told = text_of(page)
    assert "2 signature wrong 1 timestamp old" in told
    assert "signature missing" not in told
    assert "/console/tables/quarantine/list?account=payfield&amp;reason=signature_wrong" in page


def test_every_figure_of_an_account_leads_to_a_page(console):
    browser = console.client("viewer")
    with console.service.database.write() as unit:
        add(unit, a_rejection(account="rotating", at=START - timedelta(minutes=5)))
    page = browser.get("/console/accounts/rotating").text

    links = {unescape(link) for link in re.findall(r'href="(/console/[^"]*)"', page.partition("<main")[2])}
    answers = {link: browser.get(link).status_code for link in sorted(links)}

    assert len(answers) > 7
    assert set(answers.values()) == {200}, answers


def test_an_account_that_is_none_is_not_there(console):
    browser = console.client("viewer")

    for name in ("nobody", quote(HOSTILE, safe=""), "..%2f..%2fetc"):
        answer = browser.get(f"/console/accounts/{name}")
        assert answer.status_code == 404
        assert HOSTILE not in answer.text
