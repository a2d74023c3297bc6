import csv
import io
import re

import httpx2
import pytest
from sqlalchemy import text

from console.deps import ConsoleDeps
from console.tables.definitions import PaymentsTable
from storage import payments
from storage.database import values
from storage.ids import new_id
from tests.integration.console.table_rows import acted, owing, paying, rejecting, told

UNKNOWN = "01a1fe34-f8bd-72a2-8387-4e3add9e6ce5"
TABLES = ["payments", "inbox", "outbox", "quarantine", "reconciliations", "actions", "audit"]


@pytest.fixture
def browser(console):
    return console.client("operator")


@pytest.mark.parametrize("key", TABLES)
def test_a_table_without_rows_says_so(browser, key):
    answer = browser.get(f"/console/tables/{key}/list")

    assert answer.status_code == 200
    assert "There is nothing yet." in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]


def ids_on(page):
    return set(re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", page))


def shows(browser, query, one, other):
    page = browser.get(query).text
    assert one in page[page.index("<tbody") :], query  # the form above it repeats what was searched for
    assert other not in page, query


def test_payments_are_narrowed_and_searched(console, browser):
    one = paying(console, reference="order-1", provider_ref="p-1", phase="failed", review="conflict")
    other = paying(console, reference="order-2", provider_ref="p-2", phase="open", kind="payout")
    page = browser.get("/console/tables/payments/list").text
    assert one.id in page
    assert other.id in page
    assert "4.50" in page

    for query in ("phase=failed", "review=any", "review=conflict", "q=order-1", "q=p-1", f"q={one.id}", "kind=payin"):
        shows(browser, f"/console/tables/payments/list?{query}", one.id, other.id)
    for query in ("phase=open", "review=none", "q=order-2", "kind=payout&account=payfield"):
        shows(browser, f"/console/tables/payments/list?{query}", other.id, one.id)
    for query in ("q=order", "q=ORDER-", "q=4.50", f"q={one.id[:13]}"):
        assert one.id in browser.get(f"/console/tables/payments/list?{query}").text, query
    found_nothing = browser.get("/console/tables/payments/list?q=%3Cb%3Enone").text
    assert "Nothing here fits" in found_nothing
    assert "<strong>&lt;b&gt;none</strong> was looked for as a whole id" in found_nothing, "it says what was looked for"


def test_the_search_of_every_page_leads_to_what_it_finds(console, browser):
    """To the page of one payment, to the list of several, to the message or effect, else to what was looked for."""
    one = paying(console, reference="Order-77", provider_ref="p-77", amount_minor=7_750, currency="EUR")
    paying(console, reference="order-78", provider_ref="q-78")
    message = told(console, "parked", delivery_key="evt-77")
    effect = owing(console)

    def leads_to(words):
        answer = browser.get("/console/find", params={"q": words}, follow_redirects=False)
        assert answer.status_code == 303
        return answer.headers["location"]

    for words in ("order-77", "ORDER-77 ", one.id[-12:], one.id[-12:].upper(), "P-77", "77.50", "77.50 eur", one.id):
        assert leads_to(words) == f"/console/payments/{one.id}", words
    assert leads_to("order-7") == "/console/tables/payments/list?q=order-7"
    assert leads_to(message.id) == f"/console/tables/inbox/list?q={message.id}"
    assert leads_to(effect).startswith("/console/tables/outbox/list?q=")
    assert leads_to("nobody has this") == "/console/tables/payments/list?q=nobody+has+this"
    assert leads_to(" ") == "/console/tables/payments/list"
    assert 'action="/console/find"' in browser.get("/console/").text


def test_messages_are_narrowed_and_searched(console, browser):
    one = told(console, "parked", delivery_key="evt-1")
    other = told(console, "decided", delivery_key="evt-2", source="poll")

    for query in ("status=parked", "source=webhook", "q=evt-1", f"q={one.id}"):
        shows(browser, f"/console/tables/inbox/list?{query}", one.id, other.id)
    for query in ("status=decided", "source=poll", "q=evt-2"):
        shows(browser, f"/console/tables/inbox/list?{query}", other.id, one.id)


def test_effects_are_narrowed_and_searched(console, browser):
    one, other = owing(console), owing(console, "pending", "payment.failed", "books")

    for query in ("status=dead", "effect=payment.paid", "sink=shop", f"q={one}"):
        shows(browser, f"/console/tables/outbox/list?{query}", one, other)
    for query in ("status=pending", "effect=payment.failed", "sink=books"):
        shows(browser, f"/console/tables/outbox/list?{query}", other, one)


def test_rejected_deliveries_are_narrowed_and_searched(console, browser):
    one, other = rejecting(console), rejecting(console, reason="too_old", account="banked")

    for query in ("reason=signature_wrong", "account=payfield", f"q={one}"):
        shows(browser, f"/console/tables/quarantine/list?{query}", one, other)


def test_actions_are_narrowed_and_searched(console, browser):
    one, other = new_id(), new_id()
    for subject, actor, action in ((one, "ada", "replay"), (other, "grace", "resolve")):
        acted(console, subject, actor, action)

    for query in ("actor=ada", "action=replay", f"q={one}"):
        shows(browser, f"/console/tables/actions/list?{query}", one, other)


def test_a_range_of_time_narrows(console, browser):
    payment = paying(console)
    for query, is_there in (("since=2020-01-01", True), ("until=2020-01-01T00:00", False), ("since=2999-01-01", False)):
        page = browser.get(f"/console/tables/payments/list?{query}").text
        assert (payment.id in page) == is_there, query


def test_every_row_is_on_exactly_one_page(console, browser):
    made = {paying(console).id for _ in range(60)}
    path, seen = "/console/tables/payments/list?page_size=25", []
    while path:
        page = browser.get(path).text
        seen += sorted(ids_on(page) & made)
        onward = re.search(r'rel="next" href="([^"]+)"', page)
        path = onward[1].replace("&amp;", "&") if onward else None

    assert sorted(seen) == sorted(made)


@pytest.mark.parametrize(
    "query",
    [
        "phase=none-such",
        "since=yesterday",
        "since=0001-01-01",
        "until=9999-12-31",
        "after=x",
        "q=%00",
        "state=" + "x" * 300,
        "page_size=7",
        "page_size=x",
        "sort=account__asc",
        "filter=phase__eq=open",
        "status=dead",
    ],
)
def test_what_no_form_sends_is_refused_in_words(browser, query):
    answer = browser.get(f"/console/tables/payments/list?{query}")

    assert answer.status_code == 400
    assert "<h1>" in answer.text


@pytest.mark.parametrize("key", TABLES)
@pytest.mark.parametrize("path", ["detail?pk=", "detail?pk=x", f"detail?pk={UNKNOWN}", "detail"])
def test_an_unknown_row_is_not_found(browser, key, path):
    answer = browser.get(f"/console/tables/{key}/{path}")

    assert answer.status_code == 404
    assert "<h1>" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "none/list",
        "none/export",
        "payments/create",
        "payments/edit",
        "login",
        "static/js/list.js",
        "_api/payments/action",
        "_api/inbox/import",
        "_files/x/y",
    ],
)
def test_no_other_address_of_a_table_is_served(browser, path):
    assert browser.get(f"/console/tables/{path}").status_code == 404
    assert browser.post(f"/console/tables/{path}").status_code in (404, 405)


@pytest.mark.parametrize("path", ["payments/list", "payments/export", f"inbox/detail?pk={UNKNOWN}"])
def test_nobody_reads_without_a_session(console, path):
    answer = console.client(None).get(f"/console/tables/{path}")

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/login")


def exported(browser, path):
    answer = browser.get(path)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_an_export_has_the_rows_that_were_asked_for(console, browser, monkeypatch):
    monkeypatch.setattr("console.tables.export._BATCH_SIZE", 2)
    wanted = [paying(console, phase="failed", reference=f"=cmd|{number}").id for number in range(5)]
    paying(console, phase="open")

    rows = exported(browser, "/console/tables/payments/export?phase=failed")

    assert [row["id"] for row in rows] == wanted[::-1]
    assert rows[0]["reference"] == "'=cmd|4"
    assert (rows[0]["amount_minor"], rows[0]["currency"]) == ("450", "BDT")
    assert rows[0]["created_at"].endswith("Z")


def test_an_export_is_bounded(console, browser, monkeypatch):
    monkeypatch.setattr("console.tables.export._BATCH_SIZE", 2)
    monkeypatch.setattr("console.tables.export.MAX_ROWS", 3)
    newest = [paying(console).id for _ in range(5)][:1:-1]

    assert [row["id"] for row in exported(browser, "/console/tables/payments/export")] == newest


@pytest.mark.parametrize("key", ["inbox", "outbox", "quarantine", "reconciliations", "actions", "audit"])
def test_every_table_is_exported(console, browser, key):
    told(console), owing(console), rejecting(console), paying(console)

    for row in exported(browser, f"/console/tables/{key}/export"):
        assert row["id"] if "id" in row else row["at"]
        assert not {"body", "headers", "payload"} & row.keys()


@pytest.mark.parametrize("role", ["operator", "admin"])
@pytest.mark.parametrize("key", TABLES)
def test_no_address_of_a_table_changes_a_row(console, key, role):
    payment = paying(console, reference="order-1")
    anybody = console.client(role)
    for path in (f"{key}/create", f"{key}/edit?pk={payment.id}", f"{key}/edit/{payment.id}", f"{key}/delete"):
        answer = anybody.post(f"/console/tables/{path}", {"phase": "paid", "pks": payment.id})
        assert answer.status_code in (403, 404, 405), path
    with console.service.database.read() as unit:
        assert values(payments.get(unit, payment.id)) == values(payment)


@pytest.mark.parametrize("how", ["session", "stopping"])
def test_an_export_that_may_not_be_read_to_the_end_does_not_pass_for_the_whole(console, monkeypatch, how):
    monkeypatch.setattr("console.tables.export._BATCH_SIZE", 2)
    for _ in range(6):
        paying(console)
    operator = console.client("operator")
    real = PaymentsTable.lines

    def lines(self, unit, query, place):
        if place.after is not None:
            if how == "stopping":
                self.deps.stopping.set()
            else:
                unit.execute(text("UPDATE console_session SET revoked_at = last_seen_at"))
        return real(self, unit, query, place)

    monkeypatch.setattr(PaymentsTable, "lines", lines)
    monkeypatch.setattr(ConsoleDeps, "read", ConsoleDeps.write)
    with pytest.raises(httpx2.RemoteProtocolError):
        operator.get("/console/tables/payments/export")
