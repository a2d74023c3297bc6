"""The overview over real HTTP: its figures, where they lead, how it stays up to date, and what it never shows."""

import re
from datetime import timedelta
from html import unescape

import pytest
from sqlalchemy import insert, update

from receipted.settings import load
from service import overview
from storage import counts as storage_counts
from storage import inbox, webhook_health
from storage.columns import table_of
from storage.database import values
from storage.tables import Payment
from storage.tables_support import AccountBudget, PushQuality, PushWatch
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.console import on_sqlite, serving
from tests.support.rows import a_rejection, a_transition, add, an_effect, id_at
from tests.support.settings_file import write_settings

HOSTILE = "<script>alert(1)</script>"
HOUR = timedelta(hours=1)


@pytest.fixture
def console(tmp_path, template, clock, monkeypatch):
    """The console at an instant that stands still, 10:00 UTC; whoever looks sees what is so then."""
    monkeypatch.setattr(overview, "CACHE_TTL_S", 0.0)
    with on_sqlite(tmp_path, template, clock=clock) as served:
        yield served


def paid(unit, amount, currency, *, at, account="payfield", kind="payin", phase="paid", **changes):
    payment = a_payment(
        id=id_at(at), account=account, kind=kind, amount_minor=amount, currency=currency, phase=phase, **changes
    )
    add(unit, payment)
    add(unit, a_transition(payment, 1, phase, at))
    return payment


def text_of(page):
    """What a reader sees."""
    bare = re.sub(r"<(script|style|title|desc)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split()).replace(" :", ":")


def overview_of(console, role="viewer"):
    """The page, once everything was counted: a look of a new process does not take as long as it needs."""
    browser = console.client(role)
    for _ in range(50):
        page = browser.get("/console/").text
        if "still counting" not in page:
            return page
    raise AssertionError("it counts for ever")


def rows_of(page, section):
    found = re.search(rf'<section[^>]* id="{section}".*?</section>', page, flags=re.DOTALL)
    return [text_of(row) for row in re.findall(r"<tr.*?</tr>", found[0], flags=re.DOTALL)]


def tiles_of(page):
    found = re.findall(r'tile-label">(.*?)</span> <span class="tile-value">(.*?)</span>', page)
    return dict(found)


def test_a_new_installation_is_told_what_to_do_next(console):
    page = console.client("viewer").get("/console/")

    assert page.status_code == 200
    told = text_of(page.text)
    assert "receipted webhooks register <account>" in told
    assert "Nothing was paid today" in told
    assert "No alarm stands" in told
    assert tiles_of(page.text)["Needs review"] == "0"


def test_without_an_account_it_says_how_to_have_one(tmp_path, template, clock):
    path = write_settings(tmp_path)
    head = path.read_text().partition("[accounts.")[0]
    found = load.load(path, {})
    path.write_text(head)
    (tmp_path / "receipted.db").write_bytes(template.read_bytes())
    with serving(found.model_copy(update={"accounts": {}}), clock=clock) as served:
        page = served.client("viewer").get("/console/")

    assert page.status_code == 200
    assert "No account is configured yet" in text_of(page.text)


def test_money_is_that_of_today_and_of_yesterday_by_the_same_time(console):
    """By account and currency in the currency's own form; what is paid out and given back stands apart."""
    with console.service.database.write() as unit:
        paid(unit, 123_456, "USD", at=START - HOUR)
        paid(unit, 44, "USD", at=START.replace(hour=0, minute=0))
        paid(unit, 500, "JPY", at=START - 2 * HOUR, account="banked")
        paid(unit, 1_000, "USD", at=START - HOUR, account="banked")
        paid(unit, 7_500, "USD", at=START - HOUR, kind="payout")
        paid(unit, 200, "USD", at=START - HOUR, phase="refunded")
        paid(unit, 100_000, "USD", at=START - 25 * HOUR)
        paid(unit, 990_000, "USD", at=START - 23 * HOUR)  # yesterday, later than now
        paid(unit, 880_000, "USD", at=START - 40 * HOUR)  # the day before

    page = overview_of(console)

    assert rows_of(page, "money")[1:] == [
        "banked paid 500 JPY 1 –",
        "banked paid 10.00 USD 1 –",
        "payfield paid 1,235.00 USD 2 1,000.00 USD +24 %",
        "payfield refunded 2.00 USD 1 –",
        "payfield paid out 75.00 USD 1 –",
        "All accounts paid 1,245.00 USD 3 1,000.00 USD +24 %",
    ]
    assert "UTC, since 2026-04-01 00:00; yesterday up to 10:00" in text_of(page)


def test_a_sum_leads_to_the_payments_that_it_counts(console):
    """Each sum, of today and of yesterday, by as many pages as it takes."""
    with console.service.database.write() as unit:
        mine = [paid(unit, 100 + n, "USD", at=START - HOUR, reference=f"order-{n}") for n in range(120)]
        early = paid(unit, 777, "USD", at=START - 25 * HOUR)
        for at, currency, kind in ((-23, "USD", "payin"), (-1, "EUR", "payin"), (-1, "USD", "payout")):
            paid(unit, 1, currency, at=START + at * HOUR, kind=kind)
    page = overview_of(console)
    today, yesterday = [
        unescape(link)
        for link in re.findall(r'href="(/console/money[^"]*)"', page)
        if "currency=USD" in link and "way=in" in link
    ]
    browser = console.client("viewer")

    seen, at = [], today
    while at:
        listed = browser.get(at).text
        seen += re.findall(r'href="/console/payments/([^"]*)"', listed)
        older = re.search(r'class="button" href="([^"]*)">Older', listed)
        at = unescape(older[1]) if older else None

    assert sorted(seen) == sorted(payment.id for payment in mine)
    assert re.findall(r'href="/console/payments/([^"]*)"', browser.get(yesterday).text) == [early.id]


@pytest.mark.parametrize(
    "query",
    ["", "day=x", "day=2026-04-01&until=x", "day=9999-12-31", "day=2026-04-01&way=up", "day=2026-04-01&after=1"],
)
def test_what_no_link_of_ours_asks_for_is_refused_in_words(console, query):
    assert 400 <= console.client("viewer").get(f"/console/money?{query}").status_code < 500


def test_what_needs_somebody_is_counted_and_led_to(console):
    with console.service.database.write() as unit:
        reviewed = paid(
            unit, 450, "USD", at=START - HOUR, review="amount_mismatch", review_opened_at=START - timedelta(minutes=30)
        )
        add(unit, a_payment(account="banked", kind="payment_session"))
        for status in ("pending", "dead"):
            add(unit, an_effect(status=status, account="payfield", at=START - 2 * HOUR))
            message = a_message(account="payfield", message_id=id_at(START - 3 * HOUR), received_at=START - 3 * HOUR)
            message.status = status
            add(unit, message)
        add(unit, a_rejection(account="payfield", at=START - timedelta(minutes=5)))

    page = overview_of(console)

    tiles = tiles_of(page)
    assert {name: tiles[name] for name in ("Needs review", "Dead effects", "Dead messages", "Inbox waiting")} == {
        "Needs review": "1",
        "Dead effects": "1",
        "Dead messages": "1",
        "Inbox waiting": "1",
    }
    assert (tiles["Payments open"], tiles["Effects waiting"]) == ("1", "1")
    assert f"/console/payments/{reviewed.id}" in page
    assert "1 in doubt" in rows_of(page, "money")[1]
    assert "oldest 30 min ago" in text_of(page)
    assert "oldest 3 h ago" in text_of(page)
    assert 'href="/console/tables/payments/list?review=any"' in page


def test_every_figure_leads_to_a_page(console):
    with console.service.database.write() as unit:
        paid(unit, 450, "USD", at=START - HOUR, review="conflict", review_opened_at=START)
        paid(unit, 450, "USD", at=START - HOUR, phase="refunded")
        add(unit, a_payment(account="payfield"), next_poll_at=START - HOUR)
        add(unit, a_rejection(account="payfield", at=START - timedelta(minutes=5)))
    browser = console.client("viewer")
    page = browser.get("/console/").text

    links = {unescape(link) for link in re.findall(r'href="(/console/[^"]*)"', page.partition("<main")[2])}
    answers = {link: browser.get(link).status_code for link in sorted(links) if "/static/" not in link}

    assert len(answers) > 15
    assert set(answers.values()) == {200}, answers


def test_an_open_breaker_and_a_standing_alarm_are_loud(console):
    alarm = {"since": (START - 2 * HOUR).isoformat(), "noticed": "", "reason": f"nothing came {HOSTILE}", "details": {}}
    with console.service.database.write() as unit:
        add(
            unit,
            AccountBudget(account="banked", next_free_at=START, failures=6, broken_at=START - HOUR, probe_at=START),
        )
        add(unit, PushWatch(account="payfield", due_at=START, alarms={"silent": alarm}, heard_at=START - 2 * HOUR))

    page = overview_of(console)

    loud = text_of(re.search(r'<section class="alarms".*?</section>', page, flags=re.DOTALL)[0])
    assert "banked not asked: breaker open" in loud
    assert "away since 2026-04-01 09:00:00 UTC (6 outages in a row)" in loud
    assert "payfield silent Since 2026-04-01 08:00:00 UTC: nothing came" in loud
    assert "No alarm stands" not in page
    assert any("breaker open" in row for row in rows_of(page, "accounts"))


def test_the_last_delivery_is_the_newest_that_is_known(console):
    """What push delivers is looked at seldom; a delivery that has come since is told, a rejected one is none."""
    late = START - timedelta(minutes=5)
    with console.service.database.write() as unit:
        for account in ("banked", "payfield"):
            add(unit, PushWatch(account=account, due_at=START, measured_at=START, heard_at=START - 2 * HOUR))
            add(unit, a_rejection(account=account, at=START - timedelta(minutes=2)))
        message = a_message(account="payfield", received_at=late, key_id="k1")
        message.id = id_at(late)
        inbox.record(unit, [message])
    rows = rows_of(overview_of(console), "accounts")
    page = console.client("viewer").get("/console/accounts/payfield").text

    assert [("2 h ago" in row, "5 min ago" in row) for row in rows if row.startswith("banked ")] == [(True, False)]
    assert [("2 h ago" in row, "5 min ago" in row) for row in rows if row.startswith("payfield ")] == [(False, True)]
    assert "5 min ago" in text_of(page.partition("Last verified delivery")[2][:200])


def test_an_account_shows_its_push_its_lateness_and_what_came(console):
    day = START.date()
    with console.service.database.write() as unit:
        for event, counts in {"success": (90, 6, 4), "never pushed": (0, 0, 50)}.items():
            pushed, late, lost = counts
            add(
                unit,
                PushQuality(
                    account="payfield", kind="payin", event=event, day=day, pushed=pushed, late=late, lost=lost
                ),
            )
        add(unit, a_payment(account="payfield", kind="payin"), next_poll_at=START - timedelta(minutes=7))
        for minutes in (1, 2):
            at = START - timedelta(minutes=minutes)
            add(unit, a_message(account="payfield", message_id=id_at(at), received_at=at))
        add(unit, a_rejection(account="payfield", at=START - timedelta(minutes=3)))

    page = overview_of(console)

    row = next(row for row in rows_of(page, "accounts") if row.startswith("payfield payfield"))
    assert row == "payfield payfield, test 2 1 60 s ago asks 7 min 1 due 90 % pushed, 6 late, 4 lost"


def test_names_that_others_chose_are_text(console):
    with console.service.database.write() as unit:
        add(
            unit,
            PushWatch(account=HOSTILE, due_at=START, alarms={HOSTILE: {"since": START.isoformat(), "reason": HOSTILE}}),
        )
        paid(unit, 450, "<b>", at=START - HOUR, account=HOSTILE, kind=HOSTILE)
        add(unit, a_rejection(account=HOSTILE, at=START - timedelta(minutes=1)))

    page = overview_of(console, "admin")

    assert HOSTILE not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_keeps_the_strict_policy_and_has_numbers_beside_its_charts(console):
    with console.service.database.write() as unit:
        paid(unit, 450, "USD", at=START - HOUR)
        message = a_message(account="payfield", message_id=id_at(START - timedelta(minutes=5)))
        message.status, message.decision, message.decided_at = "decided", "advanced", START
        message.received_at = START - timedelta(milliseconds=40)
        add(unit, message)

    overview_of(console)
    answer = console.client("viewer").get("/console/")

    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    page = answer.text
    assert not re.search(r"<style|style=|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]* src=)", page)
    assert page.count('role="img"') == 3
    for chart, row in {"paid": "09:00 1", "ingest": "09:55 1 0 0 0 0", "lag": "09:55 0.05 s 0.05 s"}.items():
        numbers = re.search(rf'<details id="chart-{chart}-numbers">.*?</details>', page, flags=re.DOTALL)[0]
        assert row in [text_of(each) for each in re.findall(r"<tr.*?</tr>", numbers, flags=re.DOTALL)]


def test_everybody_who_looks_within_two_seconds_costs_one_look(console, monkeypatch):
    monkeypatch.setattr(overview, "CACHE_TTL_S", 60.0)
    looks, standing = [], storage_counts.system_counts
    monkeypatch.setattr(storage_counts, "system_counts", lambda *given: looks.append(given) or standing(*given))
    browsers = [console.client("viewer") for _ in range(3)]

    pages = [browser.get(path).text for browser in browsers for path in ("/console/", "/console/accounts")]

    assert len(pages) == 6
    assert len(looks) == 1
    monkeypatch.setattr(overview, "CACHE_TTL_S", 0.0)
    browsers[0].get("/console/")
    assert len(looks) == 2


def test_push_is_not_looked_at_again_each_time(console, monkeypatch):
    looks, between = [], webhook_health.between
    monkeypatch.setattr(webhook_health, "between", lambda *given: looks.append(given) or between(*given))
    for _ in range(3):
        console.client("viewer").get("/console/")

    assert len(looks) == 1


def test_an_open_page_is_told_of_a_change(console):
    mark = re.search(r'data-live-mark="(\w+)"', overview_of(console))[1]
    browser = console.client("viewer")

    with browser.http.stream("GET", "/console/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        marks = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
        assert next(marks) == mark
        with console.service.database.write() as unit:
            payment = a_payment(account="payfield", kind="payin")
            add(unit, payment)
        assert next(marks) != mark
        with console.service.database.write() as unit:
            unit.execute(update(table_of(Payment)).values(phase="expired"))
            unit.execute(insert(table_of(type(payment))), values(a_payment(phase="failed")))
        assert next(marks) != mark  # there is a payment now, though none is open


def test_nobody_sees_it_without_a_log_in(console):
    for path in ("/console/", "/console/live", "/console/accounts", "/console/accounts/payfield"):
        assert console.client(None).get(path).status_code in (303, 401)
