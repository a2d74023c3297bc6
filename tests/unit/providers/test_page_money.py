"""Money that a page reads beside the state: sums that events state, and captures, refunds and disputes."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from providers.contract import Statement
from providers.decoding import Unreadable
from providers.engine import page
from providers.engine.client import amount_out, page_extent
from providers.engine.money import amounts
from providers.engine.page import ListSection, MoneySection
from providers.engine.pointers import InvalidPage, pointer
from providers.engine.proof import prove
from providers.engine.provider import declared
from statemachine.errors import InvalidAmount
from statemachine.lifecycle import LateMove, LatePolicy
from statemachine.phases import Source
from statemachine.sums import UNSAID, Part, PartKind, PartStatus, Sums

NOW = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
STATES = '{ waits = "pending", paid_out = "done", bounced = "undone" }'
PAGE = f"""
[provider]
name = "acme"
title = "Acme"
source = "a test"
base_url = "https://api.example.com"
default_kind = "charge"
[money]
unit = "minor"
currency_case = "lower"
places = {{ ISK = 2 }}
[signature]
mode = "none"
[[events.rule]]
as = "totals"
when = {{ "/charge" = "exists" }}
object = "/charge"
id = "/payment"
kind = "charge"
at = "/sent"
currency = "/currency"
totals = {{ captured = "/captured", refunded = "/refunded" }}
[[events.rule]]
as = "part"
when = {{ "/refund" = "exists" }}
object = "/refund"
id = ["/payment/id", "/payment"]
kind = "charge"
at = "/sent"
part = {{ kind = "refund", amount = "/amount", currency = "/currency", status = "/status", states = {STATES} }}
[kind.charge]
id = "/id"
status = "/status"
amount = "/amount"
currency = "/currency"
initial = ["paid"]
states = {{ paid = "paid!" }}
[[kind.charge.part]]
kind = "refund"
each = "/refunds"
amount = "/amount"
currency = "/currency"
status = "/status"
states = {STATES}
"""


def acme(text=PAGE):
    return declared(page.parse(text, "acme.toml", Path())).with_options()


def read(body, source=Source.WEBHOOK, text=PAGE):
    status = None if source is Source.WEBHOOK else 200
    return acme(text).parse(Statement(source, json.dumps(body).encode(), NOW, http_status=status))


def refund(status="paid_out", amount=300, **changes):
    return {"id": "re_1", "payment": "pay_1", "amount": amount, "currency": "eur", "status": status} | changes


def test_an_event_of_a_charge_states_the_sums_of_its_payment():
    charge = {"payment": "pay_1", "captured": 1000, "refunded": 0, "currency": "eur"}
    (seen,) = read({"charge": charge, "sent": 1775037600, "livemode": True}).observations
    assert (seen.kind, seen.provider_ref, seen.status, seen.amount_minor) == ("charge", "pay_1", None, None)
    assert seen.sums == Sums(captured_minor=1000, refunded_minor=0)
    assert (seen.currency, seen.is_live, seen.as_of) == ("EUR", True, datetime.fromtimestamp(1775037600, UTC))


def test_a_sum_that_is_not_there_is_unsaid():
    (seen,) = read({"charge": {"payment": "pay_1"}}).observations
    assert seen.sums is UNSAID


@pytest.mark.parametrize(
    ("word", "status"),
    [("waits", PartStatus.PENDING), ("paid_out", PartStatus.DONE), ("bounced", PartStatus.UNDONE)],
)
def test_an_event_of_a_refund_is_a_part_of_its_payment(word, status):
    (seen,) = read({"refund": refund(word, payment={"id": "pay_1"}), "sent": 1775037600}).observations
    assert (seen.provider_ref, seen.status, seen.parts) == (
        "pay_1",
        None,
        (Part(PartKind.REFUND, "re_1", status, 300),),
    )


def test_an_answer_lists_the_refunds_each_once():
    thing = {"id": "pay_1", "status": "paid", "amount": 1000, "currency": "eur"}
    refunds = [refund(), refund(), refund("waits", id="re_2", amount=None)]
    (seen,) = read(thing | {"refunds": refunds}, Source.POLL).observations
    assert seen.parts == (
        Part(PartKind.REFUND, "re_1", PartStatus.DONE, 300),
        Part(PartKind.REFUND, "re_2", PartStatus.PENDING, None),
    )
    (seen,) = read(thing, Source.POLL).observations
    assert seen.parts == ()


def test_the_unit_is_the_currencys_also_of_parts_and_sums():
    (seen,) = read({"refund": refund(amount=50000, currency="isk")}).observations
    assert seen.parts[0].amount_minor == 500
    charge = {"payment": "pay_1", "captured": 50000, "currency": "isk"}
    (seen,) = read({"charge": charge}).observations
    assert seen.sums.captured_minor == 500


@pytest.mark.parametrize(
    "wrong", [{"id": None}, {"status": "lost"}, {"status": 7}, {"currency": 7}, {"currency": None}, {"payment": None}]
)
def test_a_refund_that_says_too_little_is_unreadable(wrong):
    """An unknown word is not guessed at: the message waits for a person."""
    assert read({"refund": refund(**wrong)}).unreadable
    thing = {"id": "pay_1", "status": "paid", "refunds": [refund(**wrong)]}
    if "payment" not in wrong:
        assert read(thing, Source.POLL).unreadable


def test_a_list_that_is_none_is_unreadable():
    thing = {"id": "pay_1", "status": "paid"}
    assert read(thing | {"refunds": {"id": "re_1"}}, Source.POLL).unreadable
    assert read(thing | {"refunds": [refund()] * 501}, Source.POLL).unreadable


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ('"/refunded" }', '"/refunded", stolen = "/x" }', "no total is called stolen"),
        ('each = "/refunds"\n', "", "where the list"),
        ("part = {", "reason = {", "unknown key 'reason'"),
        ('paid_out = "done"', 'paid_out = "gone"', "Invalid enum value"),
        ('totals = { captured = "/captured", refunded = "/refunded" }', "", "totals need pointers"),
    ],
)
def test_a_page_that_cannot_tell_money_is_refused(was, now, words):
    assert was in PAGE
    with pytest.raises(InvalidPage, match=words):
        acme(PAGE.replace(was, now, 1))


def test_a_rule_of_a_part_says_which_part():
    line = next(line for line in PAGE.splitlines(keepends=True) if line.startswith("part = "))
    text = PAGE.replace(line, "", 1)
    with pytest.raises(InvalidPage, match="what part"):
        acme(text)


def test_a_sample_says_which_parts_it_shows(tmp_path):
    """A part that is read otherwise is a fault, and what no sample shows is unproved."""
    (tmp_path / "refund.json").write_text(json.dumps({"refund": refund()}))
    sample = '[[sample]]\nsource = "x"\nfile = "refund.json"\nby = "webhook"\nreads = { id = "pay_1", parts = [%s] }'

    def proof(told):
        return prove(declared(page.parse(PAGE + sample % told, "acme.toml", tmp_path)).with_options())

    right = proof('"refund re_1 done 300"')
    assert right.faults == ()
    assert "no sample shows a refund that is undone" in right.unproved
    assert "no sample shows a refund that is done" not in right.unproved
    assert proof('"refund re_1 done 3"').faults
    assert proof("").faults


def test_a_late_move_is_believed_and_not_waited_for():
    """What has ended may be refunded all the same, also for a person to see; a late move must be between states."""
    text = PAGE.replace('states = { paid = "paid!" }', 'states = { paid = "paid!", back = "refunded!" }')
    text = text.replace("[[kind.charge.part]]", '[kind.charge.late]\npaid = ["back"]\n[[kind.charge.part]]', 1)
    lifecycle = acme(text).lifecycles["charge"]
    assert lifecycle.is_terminal("paid")
    assert lifecycle.late_moves["paid"] == (LateMove("back", LatePolicy.ACCEPT),)
    seen = acme(text.replace('paid = ["back"]', 'paid = ["back?"]')).lifecycles["charge"]
    assert seen.late_moves["paid"] == (LateMove("back", LatePolicy.REVIEW),)
    with pytest.raises(InvalidPage, match="'gone' is no state"):
        acme(text.replace('paid = ["back"]', 'paid = ["gone"]'))


def test_a_step_chooses_from_a_list():
    """The first item with that member counts, and nothing else is an item."""
    get = pointer("/links/[rel=approve]/href")
    links = [7, {"rel": "self", "href": "a"}, {"rel": "approve", "href": "b"}, {"rel": "approve", "href": "c"}]
    assert get({"links": links}) == "b"
    for value in ({"links": links[:2]}, {"links": {"rel": "approve"}}, {"links": None}, {}, [], None):
        assert get(value) is None
    assert pointer("/[rel=approve]")([{"rel": "approve"}]) == {"rel": "approve"}


@pytest.mark.parametrize(
    ("unit", "minor", "currency", "written"),
    [
        ("major", 100000, "HUF", "1000"),
        ("major", 100050, "HUF", None),
        ("major", 1050, "EUR", "10.50"),
        ("minor", 500, "ISK", 50000),
        ("minor", 50000, "MGA", 500),
        ("minor", 50050, "MGA", None),
    ],
)
def test_amounts_are_written_in_the_providers_places(unit, minor, currency, written):
    """A fraction that the provider does not take is refused and never rounded."""
    sends = "text" if unit == "major" else "number"
    money = MoneySection(unit=unit, sends=sends, places={"HUF": 0, "ISK": 2, "MGA": 0})
    if written is None:
        with pytest.raises(InvalidAmount):
            amount_out(money, minor, currency, "Acme")
        return
    assert amount_out(money, minor, currency, "Acme") == written
    assert amounts(money)(written, currency) == minor


@pytest.mark.parametrize(
    ("body", "count", "onward"),
    [
        (b"{}", 0, None),
        (b'{"payments":[{"id":"a"}]}', 1, None),
        (b'{"payments":[{"id":"a"},{"id":"b"}]}', 2, None),
        (b'{"payments":[{"id":"a"}],"cursor":"c"}', 1, "c"),
    ],
)
def test_a_list_may_end_by_what_is_absent(body, count, onward):
    """No cursor is the end, also after a full page; without that key a full page must say where it goes on."""
    section = ListSection(items="/payments", next="/cursor", cursor="cursor", absent_ends=True)
    found = page_extent(section, body, 2)
    assert (found.count, found.next, found.fault) == (count, onward, "")
    strict = ListSection(items="/payments", next="/cursor", cursor="cursor")
    if count == 2:
        assert page_extent(strict, body, 2).fault
    if not count:
        with pytest.raises(Unreadable):
            page_extent(strict, body, 2)


@pytest.mark.parametrize(
    ("body", "position", "count", "onward"),
    [
        (b"[]", None, 0, None),
        (b"[]", "4", 0, None),
        (b'[{"id":"a"}]', None, 1, "1"),
        (b'[{"id":"a"},{"id":"b"}]', "4", 2, "6"),
    ],
)
def test_a_list_may_go_on_by_how_many_there_were(body, position, count, onward):
    """Until a page is empty, since a server may give fewer than were asked for; a list has nothing around it."""
    found = page_extent(ListSection(items="", next="offset", cursor="skip"), body, 2, position)
    assert (found.count, found.next, found.fault) == (count, onward, "")
    with pytest.raises(Unreadable):
        page_extent(ListSection(items="", next="offset", cursor="skip"), b"{}", 2, position)
