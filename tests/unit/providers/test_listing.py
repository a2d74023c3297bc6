"""Walking through a list that answers whatever it likes: pages, cursors and sizes, without a network."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.catalogue import AlternativePayments, StableGenius
from providers.contract import Account, HttpAnswer, Statement
from providers.errors import AnswerTooLarge, ProviderError
from providers.listing import MAX_THINGS
from statemachine.phases import Source

AT = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)
SINCE, UNTIL = AT - timedelta(days=1), AT
FILTERS = {"list_after": "from", "list_before": "to"}
SESSIONS = BankedOptions(list_path="/v2/payment_sessions", **FILTERS)
PROVIDERS = {
    "stable_genius": StableGenius.with_options(merchant_id="mer_1"),
    "alternative_payments": AlternativePayments.with_options(),
    "banked": Banked(SESSIONS),
}
SECRETS = {"api_key": "k", "api_secret": "s", "client_id": "c", "client_secret": "s"}


class Scripted:
    """A transport that answers `script(query)`; an exception is raised."""

    def __init__(self, script):
        self.script, self.asked = script, []

    async def turn(self):
        pass

    async def pause(self, seconds):
        pass

    async def send(self, method, url, *, headers, content=b""):
        if url.endswith("/oauth/token"):
            return HttpAnswer(200, {}, b'{"access_token":"t","expires_in":3600}', AT)
        self.asked.append({name: values[0] for name, values in parse_qs(urlsplit(url).query).items()})
        body = self.script(self.asked[-1])
        if isinstance(body, Exception):
            raise body
        return HttpAnswer(200, {}, body, AT)


def client(name, script, provider=None):
    transport = Scripted(script)
    account = Account("a", "https://api.example", SECRETS)
    return (provider or PROVIDERS[name]).client(account, transport, lambda: AT), transport


def one_page(name, script, position=None, provider=None):
    asked, _ = client(name, script, provider)
    return asyncio.run(asked.list_page(SINCE, UNTIL, position))


def body_of(name, ids, cursor=None, **more):
    things = [{"id": ref, "created_at": f"2026-04-01 09:00:{n % 60:02} UTC"} for n, ref in enumerate(ids)]
    if name == "stable_genius":
        return json.dumps({"object": "list", "data": things, "has_more": cursor is not None, **more}).encode()
    if name == "alternative_payments":
        envelope = {"data": things, "end_cursor": cursor, "has_next_page": cursor is not None, **more}
        return json.dumps(envelope).encode()
    return json.dumps(things).encode()


async def walk(asked, most=5000):
    position, pages = None, 0
    while pages < most:
        page = await asked.list_page(SINCE, UNTIL, position)
        pages, position = pages + 1, page.next
        if position is None:
            return pages
    raise AssertionError("a walk without an end")


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 40), st.integers(1, 60))
def test_a_circle_of_any_length_ends_in_an_error(before, circle):
    def following(at):
        return at + 1 if at + 1 < before + circle else before

    def script(query):
        return body_of("alternative_payments", ["e"], cursor=f"c{following(int(query.get('after', 'c-1')[1:]))}")

    asked, transport = client("alternative_payments", script)
    with pytest.raises(ProviderError, match="circle") as caught:
        asyncio.run(walk(asked))
    assert not caught.value.may_retry
    assert len(transport.asked) <= 3 * (before + circle) + 3


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.integers(1, 50), st.data())
def test_repeats_and_other_walks_are_no_circle(length, data):
    def script(query):
        at = int(query.get("after", "0")) + 1
        return body_of("alternative_payments", ["e"], cursor=str(at) if at < length else None)

    asked, _ = client("alternative_payments", script)

    async def conversation():
        position = None
        while True:
            for _ in range(data.draw(st.integers(0, 2))):
                await asked.list_page(SINCE, UNTIL, position)
            other = data.draw(st.integers(0, length - 1))
            await asked.list_page(SINCE, UNTIL + timedelta(hours=other % 20), str(other) if other else None)
            page = await asked.list_page(SINCE, UNTIL, position)
            if page.next is None:
                return
            position = page.next

    asyncio.run(conversation())


def test_a_provider_that_ignores_the_cursor_is_an_error():
    for name in ("stable_genius", "alternative_payments"):
        asked, transport = client(name, lambda _query, name=name: body_of(name, ["x1", "x2"], cursor="x2"))
        with pytest.raises(ProviderError, match="circle"):
            asyncio.run(walk(asked))
        assert len(transport.asked) == 2
    asked, transport = client("banked", lambda _query: body_of("banked", [f"s{n}" for n in range(100)]))
    with pytest.raises(ProviderError, match="circle"):
        asyncio.run(walk(asked))
    assert len(transport.asked) == 2


@pytest.mark.parametrize("name", ["stable_genius", "alternative_payments"])
def test_a_page_that_is_too_large_is_halved_until_it_fits_and_grows_again(name):
    bound = [12]

    def script(query):
        if int(query["limit"]) > bound[0]:
            return AnswerTooLarge("too large", is_ambiguous=True)
        return body_of(name, ["x"], filler="x" * 400_000 if bound[0] < 100 else "")

    asked, transport = client(name, script)
    assert asyncio.run(walk(asked)) == 1
    assert [int(query["limit"]) for query in transport.asked] == [100, 50, 25, 12]
    asyncio.run(walk(asked))
    bound[0] = 100
    for _ in range(5):
        asyncio.run(walk(asked))
    assert [int(query["limit"]) for query in transport.asked[4:]] == [12, 12, 24, 48, 96, 100]


def test_a_single_thing_that_is_too_large_is_an_error():
    asked, transport = client("stable_genius", lambda _query: AnswerTooLarge("too large"))
    with pytest.raises(AnswerTooLarge):
        asyncio.run(asked.list_page(SINCE, UNTIL, None))
    assert [int(query["limit"]) for query in transport.asked] == [100, 50, 25, 12, 6, 3, 1]


def test_what_is_asked_for_is_the_half_open_window():
    asked, transport = client("stable_genius", lambda _query: body_of("stable_genius", []))
    asyncio.run(asked.list_page(SINCE, UNTIL, "pi_7&status=x"))
    assert transport.asked == [
        {
            "created_after": "2026-03-31T09:59:59.999999Z",
            "created_before": "2026-04-01T10:00:00.000000Z",
            "merchant_id": "mer_1",
            "starting_after": "pi_7&status=x",
            "limit": "100",
        }
    ]
    asyncio.run(asked.list_page(datetime.min.replace(tzinfo=UTC), UNTIL, None))
    assert transport.asked[-1]["created_after"] == "0001-01-01T00:00:00.000000Z"


def test_the_queries_names_are_the_accounts():
    options = {"events_path": "/log", "events_created_after": "created[gt]", "events_created_before": "x-b"}
    asked, transport = client("", lambda _query: b'{"data":[]}', AlternativePayments.with_options(**options))
    asyncio.run(asked.list_page(SINCE, UNTIL, "a+/="))
    assert transport.asked == [
        {
            "created[gt]": "2026-03-31T09:59:59.999999Z",
            "x-b": "2026-04-01T10:00:00.000000Z",
            "after": "a+/=",
            "limit": "100",
        }
    ]


# What a page says of its own end: body, then (count, next, whether there is a fault).
ENDS = [
    ("stable_genius", b'{"data":[{"id":"a"},{"id":"b"}],"has_more":true}', (2, "b", False)),
    ("stable_genius", b'{"data":[{"id":"a"},{"id":"b"}],"has_more":false}', (2, None, False)),
    ("stable_genius", b'{"data":[{"id":"a"},{"id":7},null],"has_more":true}', (3, "a", False)),
    ("stable_genius", b'{"data":[{"id":"a"}]}', (1, "a", False)),
    ("stable_genius", b'{"data":[],"has_more":"yes"}', (0, None, False)),
    ("stable_genius", b'{"data":[],"has_more":true}', (0, None, True)),
    ("stable_genius", b'{"data":[{}],"has_more":true}', (1, None, True)),
    ("stable_genius", b'{"object":"list","has_more":true}', (0, None, True)),
    ("alternative_payments", b'{"data":[{}],"end_cursor":"c","has_next_page":true}', (1, "c", False)),
    ("alternative_payments", b'{"data":[{}],"end_cursor":"c","has_next_page":false}', (1, None, False)),
    ("alternative_payments", b'{"data":[{}],"pagination":{"end_cursor":"c","has_next_page":true}}', (1, "c", False)),
    ("alternative_payments", b'{"data":[{}],"pagination":{"end_cursor":"c","has_next_page":false}}', (1, None, False)),
    ("alternative_payments", b'{"data":[],"end_cursor":"c","has_next_page":true}', (0, "c", False)),
    ("alternative_payments", b'{"data":[{}],"end_cursor":"c"}', (1, "c", False)),
    ("alternative_payments", b'{"data":[{}]}', (1, None, False)),
    ("alternative_payments", b'{"data":[' + b",".join([b"{}"] * 100) + b"]}", (100, None, True)),
    ("alternative_payments", b'{"data":[{}],"has_next_page":true,"end_cursor":7}', (1, None, True)),
    ("alternative_payments", b"[]", (0, None, True)),
    ("banked", b"[]", (0, None, False)),
    ("banked", b'{"data":[{"id":"a"}]}', (1, None, False)),
    ("banked", b'{"sessions":[]}', (0, None, True)),
    *((name, b"<html>", (0, None, True)) for name in PROVIDERS),
]


@pytest.mark.parametrize(("name", "body", "expected"), ENDS)
def test_a_page_that_cannot_be_gone_on_from_says_so_and_is_kept(name, body, expected):
    page = one_page(name, lambda _query: body)
    assert (page.count, page.next, bool(page.fault)) == expected
    assert page.answer.body == body


def sessions(*times):
    return json.dumps([{"id": f"s{n}", "created_at": at} for n, at in enumerate(times)]).encode()


# Banked's pages have no cursor but the time: 100 times of creation, then the next page's position, or the fault's word.
TIMES = [
    (["2026-04-01 09:59:58 UTC"] * 99 + ["2026-04-01 09:59:50 UTC"], "2026-04-01T09:59:51.000000Z", ""),
    (["2026-04-01T09:59:58.250999Z"] * 99 + ["2026-04-01T09:59:50.250999Z"], "2026-04-01T09:59:50.251000Z", ""),
    (["2026-04-01 09:59:58 UTC"] * 100, None, "one time"),
    (["2026-04-01T09:59:58.250100Z", *["2026-04-01T09:59:58.250900Z"] * 99], None, "one time"),
    (["2026-04-01 09:59:58 UTC"] * 99 + ["2026-03-31 09:59:59 UTC"], None, ""),
    (["2026-04-01 09:59:58 UTC"] * 98 + ["2026-03-31 09:59:59 UTC", "?"], "2026-03-31T10:00:00.000000Z", ""),
    (["yesterday"] * 100, None, "created"),
    (["9999-12-31 23:59:59 UTC"] * 99 + ["0001-01-01 00:00:00 UTC"], None, "one time"),
    (["9999-12-31 23:59:59 UTC"] * 99 + ["2026-04-01 09:00:00 UTC"], None, "one time"),
]


@pytest.mark.parametrize(("times", "onward", "fault"), TIMES)
def test_a_list_without_a_cursor_goes_on_from_its_oldest(times, onward, fault):
    page = one_page("banked", lambda _query: sessions(*times))
    assert page.next == onward
    assert (fault in page.fault) if fault else page.fault == ""


def test_a_position_in_time_is_asked_for_instead_of_the_end():
    asked, transport = client("banked", lambda _query: b"[]")
    asyncio.run(asked.list_page(SINCE, UNTIL, None))
    asyncio.run(asked.list_page(SINCE, UNTIL, "2026-04-01T09:59:51.000000Z"))
    since = "2026-03-31T09:59:59.999999Z"
    assert transport.asked == [
        {"from": since, "to": "2026-04-01T10:00:00.000000Z", "limit": "100"},
        {"from": since, "to": "2026-04-01T09:59:51.000000Z", "limit": "100"},
    ]


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(sorted(PROVIDERS)), st.binary(max_size=200) | st.deferred(lambda: bodies))
def test_whatever_is_answered_is_a_page(name, body):
    page = one_page(name, lambda _query: body)
    reading = PROVIDERS[name].parse(Statement(Source.LIST, body, AT, page.answer.kind, None, 200))
    assert page.answer.body == body
    assert page.next is None or (page.next and not page.fault)
    assert bool(reading.unreadable) <= bool(page.fault)
    if reading.observations:
        assert len(reading.observations) == page.count


names = st.sampled_from(["id", "data", "has_more", "pagination", "end_cursor", "has_next_page", "created_at", "status"])
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
dated = leaves | st.sampled_from(["2026-04-01 09:00:00 UTC", "0001-01-01T00:00:00Z", "9999-12-31 23:59:59 UTC"])
things = st.lists(dated | st.dictionaries(names, dated, max_size=4), max_size=4)
envelopes = st.dictionaries(names, leaves | things | st.dictionaries(names, leaves, max_size=3), max_size=5)
bodies = (things | things.map(lambda data: data * 40) | envelopes).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_page_of_far_too_many_things_is_parked_and_not_walked_through(name):
    body = body_of(name, ["x"] * (MAX_THINGS + 1))
    page = one_page(name, lambda _query: body)
    assert str(MAX_THINGS) in page.fault
    assert PROVIDERS[name].parse(Statement(Source.LIST, body, AT, page.answer.kind)).unreadable


def test_a_page_that_names_far_too_much_is_parked():
    events = [{f"{letter}_id": f"{letter}{n}" for letter in "abcdefghi"} for n in range(300)]
    reading = PROVIDERS["alternative_payments"].parse(Statement(Source.LIST, json.dumps({"data": events}).encode(), AT))
    assert reading.unreadable


def test_each_session_of_a_page_says_its_environment():
    one, other = {"id": "a", "state": "sent", "live": True}, {"id": "b", "state": "sent", "live": False}
    page = Statement(Source.LIST, json.dumps([one, other]).encode(), AT, "payment_session")
    both = Banked(BankedOptions()).parse(page)
    assert [(seen.provider_ref, seen.is_live) for seen in both.observations] == [("a", True), ("b", False)]
