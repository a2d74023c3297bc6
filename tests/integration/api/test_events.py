"""The feed over HTTP: read on, waited for and streamed, while effects are committed; on both databases."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager, nullcontext

import httpx2
import pytest
import sqlalchemy as sa

from api.credentials import Environment
from api.feed import Feed
from storage import api_keys, outbox
from storage.ids import new_id
from tests.support.api import create, error
from tests.support.waiting import DEADLINE_S, until


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request):
    return request.getfixturevalue("api" if request.param == "sqlite" else "api_on_postgresql")


def number_of(cursor):
    """The place in the feed; what is behind it tells this feed from a restored one."""
    number, _, mark = cursor.partition("-")
    assert len(mark) == 12
    return int(number)


def owe(api, payment=None, effect="payment.paid", account="payfield"):
    """An effect is owed to two sinks, in one commit; the payment that it is about."""
    payment = payment or new_id()
    with api.service.database.write() as unit:
        for sink in ("shop", "ledger"):
            outbox.owe(
                unit,
                payment_id=payment,
                account=account,
                effect=effect,
                sink=sink,
                occurrence=0,
                cause=new_id(),
                payload=json.dumps({"type": effect, "data": {"payment": payment}}),
                now=api.service.clock(),
            )
    return payment


@contextmanager
def streaming(api, client=None, **options):
    """Server-sent events as they come: a list that grows, each an (id, type, data)."""
    found, lines, opened = [], [], threading.Event()
    stop = threading.Event()
    client = client or api.client()
    headers = {"accept": "text/event-stream", **options.pop("headers", {})}

    def read():
        with client.stream("GET", "/v1/events", headers=headers, timeout=DEADLINE_S, **options) as answer:
            found.append(answer.status_code)
            opened.set()
            entry = {}
            for line in answer.iter_lines():
                lines.append(line)
                if not line and "data" in entry:
                    found.append((number_of(entry["id"]), entry["event"], json.loads(entry["data"])))
                    entry = {}
                elif line:
                    name, _, value = line.partition(": ")
                    entry[name] = value
                if stop.is_set():
                    return

    thread = threading.Thread(target=read)
    thread.start()
    assert opened.wait(DEADLINE_S)
    assert found.pop(0) == 200
    try:
        yield found
    finally:
        stop.set()
        owe(api)  # wakes the reader
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_an_effect_is_told_as_its_sinks_are_told(api):
    client = api.client()
    made = create(client).json()
    client.post(f"/v1/payments/{made['id']}/resolve", json={"state": "success", "reason": "seen"})
    page = client.get("/v1/events").json()

    (event,) = page["data"]
    assert (number_of(event["id"]), event["type"], event["payment"]) == (1, "payment.paid", made["id"])
    assert event["data"]["amount_minor"] == 50_000
    assert page["next"] == event["id"]
    assert not page["has_more"]


def test_what_no_sink_of_the_settings_is_told_is_in_the_feed_all_the_same(narrowed):
    client = narrowed.client()
    told, untold = create(client).json(), create(client).json()
    client.post(f"/v1/payments/{told['id']}/resolve", json={"state": "success", "reason": "seen"})
    client.post(f"/v1/payments/{untold['id']}/resolve", json={"state": "failed", "reason": "seen"})
    page = client.get("/v1/events").json()

    found = [(event["type"], event["payment"]) for event in page["data"]]
    assert found == [("payment.paid", told["id"]), ("payment.failed", untold["id"])]
    assert page["data"][1]["data"]["state"] == "failed"

    async def dispatch():
        async with narrowed.service.dispatcher() as dispatcher:
            await dispatcher.step()

    asyncio.run(dispatch())
    owed = client.get("/v1/outbox").json()["data"]
    assert {(row["effect"], row["sink"], row["status"]) for row in owed} == {
        ("payment.paid", "shop", "pending"),  # nobody listens at the shop
        ("payment.failed", "api-feed", "delivered"),
    }


def test_a_reader_who_goes_on_from_next_gets_everything_once(either):
    payments, client = [], either.client()
    writers = 4
    lock, done = threading.Lock(), threading.Event()

    def write():
        for _ in range(15):
            payment = owe(either)
            with lock:
                payments.append(payment)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    seen, after = [], "0"
    while True:
        is_last = done.is_set()
        # It waits for what is written slowly, and does not use up its rate by asking in vain.
        page = client.get("/v1/events", params={"after": after, "limit": 7, "wait": 1}).json()
        seen += [event["payment"] for event in page["data"]]
        after = page["next"]
        if not page["data"] and is_last:
            break
        if not any(thread.is_alive() for thread in threads):
            done.set()

    assert sorted(seen) == sorted(payments)
    assert len(set(seen)) == len(seen) == writers * 15


def test_a_reader_who_waits_is_told_at_once(either):
    client, answers = either.client(timeout=90), []

    def read():
        answers.append(client.get("/v1/events", params={"wait": 60}).json())

    thread = threading.Thread(target=read)
    thread.start()
    payment = owe(either)
    thread.join(DEADLINE_S)

    (page,) = answers
    assert [event["payment"] for event in page["data"]] == [payment]


def test_a_wait_without_an_effect_ends(api):
    began = time.monotonic()
    page = api.client().get("/v1/events", params={"wait": 1}).json()

    assert (page["data"], page["next"]) == ([], "0")
    assert time.monotonic() - began > 0.9


def test_a_wait_is_not_ended_by_what_the_reader_did_not_ask_for(api):
    client, answers = api.client(), []
    thread = threading.Thread(
        target=lambda: answers.append(client.get("/v1/events", params={"wait": 20, "type": "payment.refunded"}).json())
    )
    thread.start()
    owe(api)
    wanted = owe(api, effect="payment.refunded")
    thread.join(DEADLINE_S)

    (page,) = answers
    assert [event["payment"] for event in page["data"]] == [wanted]


def test_a_page_that_has_nothing_for_the_reader_moves_it_on(api):
    owe(api, account="shop-live")
    client = api.client()
    page = client.get("/v1/events").json()

    assert (page["data"], number_of(page["next"])) == ([], 1)
    assert client.get("/v1/events", params={"after": page["next"]}).json()["next"] == page["next"]


def test_a_key_is_told_of_its_own_environment_only(api):
    test, live = owe(api), owe(api, account="shop-live")
    owe(api, account="not-configured-any-more")

    for environment, payment in ((Environment.TEST, test), (Environment.LIVE, live)):
        page = api.client(api.key(environment=environment)).get("/v1/events").json()
        assert [event["payment"] for event in page["data"]] == [payment]


@pytest.mark.parametrize("after", ["2-0123456789ab", "1-0123456789ab", "2", "1"], ids=lambda each: f"after {each}")
@pytest.mark.parametrize("way", ["page", "wait", "stream", "resumed stream"])
def test_a_cursor_that_the_feed_does_not_hold_is_refused_in_every_way_to_read(api, way, after):
    """Beyond the end, of another effect at that number, or a number alone, which cannot be checked."""
    owe(api)
    stream = {"accept": "text/event-stream"}
    params, headers = {
        "page": ({"after": after}, {}),
        "wait": ({"after": after, "wait": 30}, {}),
        "stream": ({"after": after}, stream),
        "resumed stream": ({}, {**stream, "last-event-id": after}),
    }[way]
    refused = error(api.client().get("/v1/events", params=params, headers=headers), 409)

    assert (refused["code"], refused["param"]) == ("cursor_ahead", "after")


def test_a_stream_ends_where_the_database_is_restored_under_it(api, monkeypatch):
    """Its reader comes again with the last id that it had, and is told."""
    monkeypatch.setattr("api.events._KEEPALIVE_INTERVAL_S", 0.1)
    owe(api)
    client, headers = api.client(), {"accept": "text/event-stream"}
    with client.stream("GET", "/v1/events", headers=headers, timeout=DEADLINE_S) as answer:
        lines = answer.iter_lines()
        last = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
        with api.service.database.write() as unit:
            unit.execute(sa.text("UPDATE event SET mark = 'ffffffffffff'"))
        owe(api)
        assert [line for line in lines if line.startswith("id: ")] == []

    assert error(client.get("/v1/events", headers={**headers, "last-event-id": last}), 409)["code"] == "cursor_ahead"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("after=-1", "after"),
        ("limit=1001", "limit"),
        ("wait=61", "wait"),
        ("type=payment", "type"),
        ("type=a.b", "type"),
    ],
)
def test_a_query_that_says_nothing_is_refused(shared, query, param):
    assert error(shared.client().get(f"/v1/events?{query}"), 400)["param"] == param


def test_the_headers_of_a_stream_are_had_without_its_events(api):
    owe(api)
    answer = api.client().head("/v1/events", headers={"accept": "text/event-stream"})

    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["content-type"], answer.headers["x-accel-buffering"]) == ("text/event-stream", "no")


def test_a_stream_tells_what_was_and_what_comes(either):
    before = owe(either)
    with streaming(either) as told:
        until(lambda: len(told) == 1, DEADLINE_S, lambda: str(told))
        after = [owe(either) for _ in range(3)]
        until(lambda: len(told) == 4, DEADLINE_S, lambda: str(told))

        assert [event[2]["payment"] for event in told] == [before, *after]
        assert [(number, number_of(data["id"]), kind) for number, kind, data in told] == [
            (nth, nth, "payment.paid") for nth in range(1, 5)
        ]


def test_a_reader_that_comes_again_goes_on_where_it_was(api):
    payments = [owe(api) for _ in range(4)]
    first, second, *_ = (event["id"] for event in api.client().get("/v1/events").json()["data"])
    with streaming(api, headers={"last-event-id": second}, params={"after": first}) as told:
        until(lambda: len(told) == 2, DEADLINE_S, lambda: str(told))
        assert [event[2]["payment"] for event in told] == payments[2:]


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 40, "²"])
def test_a_last_id_that_is_none_is_refused(shared, given):
    headers = {"accept": "text/event-stream", "last-event-id": given.encode()}

    assert error(shared.client().get("/v1/events", headers=headers), 400)["param"] == "Last-Event-ID"


#: Seconds within which a reader's key ends what it reads; a beat, which once looked at the key, is longer.
WITHIN_S = 10


def revoke(api):
    with api.service.database.write() as unit:
        (kept,) = api_keys.find(unit)
        api_keys.revoke(unit, kept.id, api.service.clock())


@contextmanager
def busy(api):
    """Something is owed all the time, so that no reader is ever silent."""
    stop = threading.Event()

    def work():
        while not stop.wait(0.02):
            owe(api)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_stream_ends_when_its_key_does(api, monkeypatch, is_busy):
    monkeypatch.setattr("api.events._KEEPALIVE_INTERVAL_S", 600)
    client = api.client(api.key())
    with (
        busy(api) if is_busy else nullcontext(),
        client.stream("GET", "/v1/events", headers={"accept": "text/event-stream"}, timeout=DEADLINE_S) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        if is_busy:
            assert next(line for line in lines if line).startswith("id: ")
        revoke(api)
        began = time.monotonic()
        for _ in lines:
            assert time.monotonic() - began < WITHIN_S
        assert time.monotonic() - began < WITHIN_S


def test_a_reader_who_takes_a_page_slowly_gets_nothing_after_the_key_ended(api, monkeypatch):
    monkeypatch.setattr("api.feed.KEY_CHECK_INTERVAL_S", 0)
    for _ in range(5):
        owe(api)
    ended = threading.Event()
    real = Feed.is_good

    async def is_good(self, key_id):
        if self.looks == 3 and not ended.is_set():
            await asyncio.to_thread(revoke, api)
            ended.set()
        self.looks += 1
        return await real(self, key_id)

    monkeypatch.setattr(Feed, "is_good", is_good)
    monkeypatch.setattr(Feed, "looks", 0, raising=False)
    client = api.client(api.key())
    with client.stream("GET", "/v1/events", headers={"accept": "text/event-stream"}, timeout=DEADLINE_S) as answer:
        ids = [line for line in answer.iter_lines() if line.startswith("id: ")]

    assert [number_of(line.removeprefix("id: ")) for line in ids] == [1, 2]


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_long_poll_ends_when_its_key_does(api, is_busy):
    client = api.client(api.key())
    of_nobody = {"wait": 60, "payment": new_id()}
    answers, began = [], []
    thread = threading.Thread(target=lambda: answers.append(client.get("/v1/events", params=of_nobody, timeout=70)))
    with busy(api) if is_busy else nullcontext():
        thread.start()
        until(lambda: last_used(api) is not None, DEADLINE_S, lambda: "the key is used")
        revoke(api)
        began.append(time.monotonic())
        thread.join(WITHIN_S + 5)

    assert time.monotonic() - began[0] < WITHIN_S
    assert error(answers[0], 401)["code"] == "api_key_invalid"


def last_used(api):
    with api.service.database.read() as unit:
        (kept,) = api_keys.find(unit)
    return kept.last_used_at


def test_the_readers_who_wait_are_bounded(narrow):
    client = narrow.client()
    with streaming(narrow, client), streaming(narrow, narrow.client()):
        waiting = client.get("/v1/events", params={"wait": 1})
        assert error(waiting, 429)["code"] == "too_many_waiting"
        assert int(waiting.headers["retry-after"]) > 0
        refused = client.get("/v1/events", headers={"accept": "text/event-stream"})
        assert error(refused, 429)["code"] == "too_many_waiting"
        assert client.get("/v1/events").status_code == 200
    until(
        lambda: client.get("/v1/events", params={"wait": 1}).status_code == 200, DEADLINE_S, lambda: "a place is free"
    )


def test_whoever_went_away_is_not_waited_for(narrow):
    """The place of a reader who gave up is another's long before the wait would have ended."""
    for _ in range(2):
        with pytest.raises(httpx2.ReadTimeout):
            narrow.client(timeout=httpx2.Timeout(30, read=0.3)).get("/v1/events", params={"wait": 60})

    client = narrow.client()
    until(
        lambda: client.get("/v1/events", params={"wait": 1}).status_code == 200, DEADLINE_S, lambda: "a place is free"
    )
