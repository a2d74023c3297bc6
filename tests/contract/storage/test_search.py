"""Lists for people: filters and searches find what they should on every database, and look at a bounded number."""

from datetime import timedelta

import pytest

from storage import inbox, outbox, search
from storage.ids import first_id, new_id
from storage.search import PageCursor, RowFilter
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START


def paying(unit, **columns):
    payment = a_payment(**columns)
    keeping.keep(unit, payment)
    return payment.id


def ids(page):
    return [line["id"] for line in page.rows]


def every_page(unit, shelf, wanted, limit, *, is_ascending=False):
    found, after = [], None
    while True:
        page = search.page(unit, shelf, wanted, PageCursor(limit, after, is_ascending=is_ascending))
        found += ids(page)
        if page.after is None:
            return found
        after = page.after


@pytest.fixture
def seven(database):
    """Payments of two accounts in several phases, the oldest first."""
    phases = ["open", "paid", "failed", "paid", "expired", "paid", "failed"]
    with database.write() as unit:
        return [
            paying(unit, phase=phase, account="acme" if number % 2 else "shop", reference=f"order-{number}")
            for number, phase in enumerate(phases)
        ]


@pytest.mark.parametrize("is_ascending", [False, True])
@pytest.mark.parametrize(
    ("wanted", "which"),
    [
        (RowFilter(), [0, 1, 2, 3, 4, 5, 6]),
        (RowFilter({"account": "acme"}), [1, 3, 5]),
        (RowFilter({"phase": "failed"}), [2, 6]),
        (RowFilter({"phase": "paid"}), [1, 3, 5]),
        (RowFilter({"phase": "paid", "account": "shop"}), []),
        (RowFilter({"phase": "failed", "account": "shop"}), [2, 6]),
        (RowFilter({"kind": "payment_intent", "phase": "expired"}), [4]),
        (RowFilter(present={"review": True}), []),
        (RowFilter({"phase": "open"}, present={"review": False}), [0]),
        (RowFilter(ids=[]), []),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 50])
def test_every_page_together_is_what_was_asked_for(database, seven, wanted, which, is_ascending, limit):
    """In order, each row once, whatever the length of a page, and as many as are counted."""
    expected = [seven[number] for number in which]
    with database.read() as unit:
        found = every_page(unit, search.PAYMENTS, wanted, limit, is_ascending=is_ascending)
        counted = search.count(unit, search.PAYMENTS, wanted)

    assert found == (expected if is_ascending else expected[::-1])
    assert (counted.number, counted.is_more, counted.scanned) == (len(which), False, None)


def test_what_is_rare_is_looked_for_in_steps(database, seven, monkeypatch):
    """A page looks at so many rows and no more; whoever goes on from there finds everything."""
    monkeypatch.setattr(search, "SCAN_LIMIT", 3)
    wanted = RowFilter({"account": "shop", "kind": "payment_intent", "phase": "paid"})
    with database.write() as unit:
        oldest = paying(unit, id=first_id(START), account="shop", phase="paid")
    with database.read() as unit:
        first = search.page(unit, search.PAYMENTS, wanted, PageCursor(10))
        counted = search.count(unit, search.PAYMENTS, wanted)
        found = every_page(unit, search.PAYMENTS, wanted, 10)

    assert (ids(first), first.is_broken_off, first.after) == ([], True, seven[2])
    assert (counted.number, counted.scanned) == (0, 3)
    assert found == [oldest]


def test_counting_ends(database, seven, monkeypatch):
    """Beyond so many it is said that there are more."""
    monkeypatch.setattr(search, "COUNT_LIMIT", 5)
    with database.read() as unit:
        every, some = (
            search.count(unit, search.PAYMENTS, each) for each in (RowFilter(), RowFilter({"phase": "paid"}))
        )

    assert (every.number, every.is_more) == (5, True)
    assert (some.number, some.is_more) == (3, False)


def test_a_range_of_time_is_one_of_receipt(database):
    """From the one instant on, and before the other."""
    with database.write() as unit:
        made = [paying(unit, id=first_id(START + timedelta(minutes=number))) for number in range(5)]
    wanted = RowFilter(since=START + timedelta(minutes=1), until=START + timedelta(minutes=3))
    with database.read() as unit:
        assert every_page(unit, search.PAYMENTS, wanted, 10) == [made[2], made[1]]


def test_messages_are_listed_without_their_bytes(database):
    """Their size is said; everything is there on the row's own page."""
    message = a_message(body=b"12345", account="shop")
    with database.write() as unit:
        inbox.record(unit, [message])
    with database.read() as unit:
        (line,) = search.page(unit, search.MESSAGES, RowFilter({"status": "pending"}), PageCursor(9)).rows
        whole = search.one(unit, search.MESSAGES, message.id)
        nothing = search.one(unit, search.MESSAGES, new_id())

    assert line["size_bytes"] == 5
    assert not {"body", "headers"} & line.keys()
    assert (bytes(whole["body"]), whole["digest"]) == (b"12345", message.digest)
    assert nothing is None


def test_a_search_finds_whole_names(database):
    """A payment by id, the provider's name, its alias and the merchant's reference; messages and effects by those."""
    with database.write() as unit:
        payment_id = paying(unit, provider_ref="pi_1", reference="order-1", alias="0xabc", account="shop")
        paying(unit, provider_ref="pi_2", reference="order-12", account="shop", kind="refund")
        message = a_message(account="elsewhere", delivery_key="evt_1")
        inbox.record(unit, [message])
        owed = outbox.owe(
            unit,
            payment_id=payment_id,
            account="shop",
            effect="payment.paid",
            sink="shop",
            occurrence=0,
            cause=message.id,
            payload="{}",
            now=START,
        )
    with database.read() as unit:
        for words in (payment_id, payment_id.upper(), "pi_1", "order-1", "0xabc"):
            assert search.payment_ids(unit, words) == [payment_id], words
            assert set(search.outbox_message_ids(unit, words)) - {payment_id} == {owed}, words
        for words in ("order", "ORDER-1", "order-1%", "", "\x00", "x" * 300, "'; --", new_id(), "\ud800"):
            assert set(search.payment_ids(unit, words)) <= {words}, words
            search.message_ids(unit, words)
        assert search.message_ids(unit, "evt_1") == [message.id]
        assert search.message_ids(unit, message.id) == [message.id]
        assert search.places(unit) == [("shop", "payment_intent"), ("shop", "refund")]


def test_a_part_of_a_name_is_found_in_any_case(database):
    """The beginning of a reference or of the provider's name, and either end of an id, with or without dashes."""
    with database.write() as unit:
        one = paying(unit, id="019d487c-5100-7000-8000-00c0ffee0001", provider_ref="PI_abc", reference="Order-1_%")
        two = paying(unit, id=first_id(START + timedelta(days=400)), provider_ref="pi_other", reference="another")
    with database.read() as unit:
        for words in ("order", "ORDER-1_%", "or", " pi_A ", one[:8], one[:13].upper(), one[-12:], f"…{one[-12:]}"):
            assert search.payment_ids_by_part(unit, words) == [one], words
        assert search.payment_ids_by_part(unit, "pi_") == [two, one]
        for words in ("rder", "o", "", "order-1__", "%", one[:5], "ffffffffffff", "\x00", "x" * 300, "'; --", "\ud800"):
            assert search.payment_ids_by_part(unit, words) == [], words


def test_an_amount_is_one_of_its_currency(database):
    """Major units by the decimal places of each currency; with a currency, of that alone."""
    with database.write() as unit:
        euros, yen, dinars = (
            paying(unit, id=first_id(START + timedelta(days=at)), amount_minor=minor, currency=currency)
            for at, (minor, currency) in enumerate(((1_250, "EUR"), (1_250, "JPY"), (1_250, "KWD")))
        )
    with database.read() as unit:
        for words, wanted in (
            ("12.50", [euros]),
            ("12.5", [euros]),
            ("12.50 eur", [euros]),
            ("12.50USD", []),
            ("1,250", [yen]),
            ("1.25", [dinars]),
            ("1.250 KWD", [dinars]),
            ("12", []),
            ("9" * 40, []),
        ):
            assert search.payment_ids_by_part(unit, words) == wanted, words


def test_parts_are_looked_for_among_the_newest(database, monkeypatch):
    """However many payments there are, a search takes a bounded time."""
    with database.write() as unit:
        made = [paying(unit, id=first_id(START + timedelta(days=at)), reference=f"order-{at}") for at in range(4)]
    monkeypatch.setattr(search, "SCAN_LIMIT", 3)
    with database.read() as unit:
        assert search.payment_ids_by_part(unit, "order") == made[:0:-1]
