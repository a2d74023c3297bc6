"""Stripe's list of events, which begins with the newest one, read from the oldest on."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from providers.catalogue import Stripe
from providers.contract import Account, Capability, HttpAnswer
from providers.engine import client as engine_client
from providers.errors import ProviderError

BEGIN = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)


class Events:
    """GET /v1/events as Stripe documents it: newest first, with both cursors, and at most `most` of them."""

    def __init__(self, count, most=100):
        self.all = [{"id": f"evt_{number}", "created": int(BEGIN.timestamp()) + number} for number in range(count)]
        self.most, self.asked = most, 0

    async def turn(self):
        self.asked += 1

    async def pause(self, seconds):
        raise AssertionError("nobody asked to wait")

    async def send(self, method, url, *, headers, content=b""):
        query = dict(parse_qsl(urlsplit(url).query))
        assert (method, urlsplit(url).path) == ("GET", "/v1/events")
        found = [
            event
            for event in reversed(self.all)
            if int(query.get("created[gte]", 0)) <= event["created"] < int(query.get("created[lt]", 10**12))
        ]
        ids, size = [event["id"] for event in found], min(int(query["limit"]), self.most)
        if "starting_after" in query:
            found = found[ids.index(query["starting_after"]) + 1 :]
        if "ending_before" in query:
            newer = found[: ids.index(query["ending_before"])]
            data, has_more = newer[-size:], len(newer) > size
        else:
            data, has_more = found[:size], len(found) > size
        body = json.dumps({"object": "list", "data": data, "has_more": has_more}).encode()
        return HttpAnswer(200, {}, body, BEGIN)


def read(events, since, position=None):
    """Every event from there on, and how many pages it took."""
    account = Account("a", "https://api.stripe.com", {"api_key": "sk_test"})
    client = Stripe.with_options().client(account, events, lambda: BEGIN)
    found, pages = [], 0
    while True:
        page = asyncio.run(client.journal_page(since, position))
        found += [json.loads(event)["id"] for event in page.events]
        pages += 1
        if not page.has_more:
            return found, pages, page.position
        position = page.position


def test_stripe_has_a_journal():
    assert Stripe.with_options().can(Capability.JOURNAL)


@pytest.mark.parametrize("begin", [0, 1, 7, 24, 25])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_every_event_comes_once_and_the_oldest_first(begin, most):
    """From any beginning, by pages of any size, also where nothing was there before."""
    events = Events(25, most)
    found, _, position = read(events, BEGIN + timedelta(seconds=begin))
    assert found == [f"evt_{number}" for number in range(begin, 25)]
    assert position == ("evt_24" if begin < 25 else None)


def test_what_comes_later_follows_the_position():
    """A kept position is enough; an empty page says that there is nothing more."""
    events = Events(5)
    _, _, position = read(events, BEGIN)
    events.all += Events(8).all[5:]
    assert read(events, BEGIN, position)[0] == ["evt_5", "evt_6", "evt_7"]
    assert read(events, BEGIN, "evt_7") == ([], 1, None)


def test_an_event_before_the_beginning_saves_the_way_back():
    events = Events(500)
    read_first = asyncio.run(
        Stripe.with_options()
        .client(Account("a", "https://api.stripe.com", {"api_key": "k"}), events, lambda: BEGIN)
        .journal_page(BEGIN + timedelta(seconds=10), None)
    )
    assert (events.asked, len(read_first.events), read_first.position) == (2, 100, "evt_109")


def test_a_beginning_that_is_too_far_back_is_an_error(monkeypatch):
    monkeypatch.setattr(engine_client, "_MAX_PAGES_BACK", 3)
    with pytest.raises(ProviderError, match="too long ago"):
        read(Events(10, most=2), BEGIN)
