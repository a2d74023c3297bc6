"""Open pages are told of changes: what is told, when it ends, and how many may wait."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from console import live_updates
from storage import console_sessions, console_users
from tests.integration.console.stories import Teller
from tests.support.console import Browser
from tests.support.waiting import DEADLINE_S


@pytest.fixture
def tell(console) -> Teller:
    return Teller(console)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(live_updates, "READ_INTERVAL_S", 0.05)
    monkeypatch.setattr(live_updates, "KEEPALIVE_INTERVAL_S", 0.2)


class Heard:
    """The lines of one stream, as they come."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer, self._lines = answer, answer.iter_lines()

    def next(self, prefix: str) -> str:
        """The rest of the next line that begins so; StopIteration where the stream ends before."""
        while not (line := next(self._lines)).startswith(prefix):
            pass
        return line.removeprefix(prefix)


@contextmanager
def listening(browser: Browser, payment_id: str) -> Iterator[Heard]:
    with browser.http.stream("GET", f"/console/payments/{payment_id}/live") as answer:
        yield Heard(answer)


def test_a_page_is_told_of_the_mark_that_it_shows_and_of_each_change(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    browser = console.client("viewer")
    page = browser.get(f"/console/payments/{payment.id}").text

    with listening(browser, payment.id) as heard:
        assert heard.answer.headers["content-type"].startswith("text/event-stream")
        shown = heard.next("data: ")
        tell.stable("confirmed")
        changed = heard.next("data: ")

    assert f'data-live-mark="{shown}"' in page
    assert changed != shown
    assert f'data-live-mark="{changed}"' in browser.get(f"/console/payments/{payment.id}").text


def revoked(unit, person, now):
    (session,) = console_sessions.of_person(unit, person.id)
    console_sessions.revoke(unit, session.id, now)


ENDS = {
    "revoked": revoked,
    "logged out by an admin": lambda unit, person, now: console_sessions.revoke_all(unit, person.id, now),
    "disabled": lambda unit, person, now: console_users.disable(unit, person.id, now),
}


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("how", ENDS)
def test_a_stream_ends_at_the_next_look_after_its_session_or_person_did(console, tell, monkeypatch, how, is_busy):
    monkeypatch.setattr(live_updates, "KEEPALIVE_INTERVAL_S", 600)
    real, numbers = live_updates.LiveUpdates.stream, itertools.count()

    def stream(self, request, key):
        if is_busy:
            self._read = lambda _unit, keys: {each: str(next(numbers)) for each in keys}
        return real(self, request, key)

    monkeypatch.setattr(live_updates.LiveUpdates, "stream", stream)
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    browser = console.client("viewer")

    with listening(browser, payment.id) as heard:
        heard.next("data: ")
        if is_busy:
            heard.next("data: ")
        with tell.database.write() as unit:
            ENDS[how](unit, browser.person, tell.now)
        assert heard.next("event: ") == "over"
        with pytest.raises(StopIteration):
            heard.next("never")


def test_a_stream_is_no_use_of_its_session(console, tell):
    """A page that is left open ends its session by idleness like any other."""
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    browser = console.client("viewer")

    with listening(browser, payment.id) as heard:
        with tell.database.read() as unit:
            (before,) = console_sessions.of_person(unit, browser.person.id)
        heard.next(": still here")
        heard.next(": still here")
    with tell.database.read() as unit:
        (after,) = console_sessions.of_person(unit, browser.person.id)

    assert after.last_seen_at == before.last_seen_at


def test_many_pages_are_one_query(console, tell, monkeypatch):
    """However many wait in a process, each look asks once for all of them."""
    for ref in ("pi_1", "pi_2", "pi_3"):
        tell.stable("awaiting_payment", ref=ref)
    ids = [tell.by_ref("stable", ref).id for ref in ("pi_1", "pi_2", "pi_3")]
    browsers = [console.client("viewer") for _ in ids]
    together, real = threading.Event(), live_updates.LiveUpdates.stream

    def stream(self, request, key):
        read = self._read

        def counted(unit, keys):
            if set(keys) == set(ids):
                together.set()
            return read(unit, keys)

        self._read = counted
        return real(self, request, key)

    monkeypatch.setattr(live_updates.LiveUpdates, "stream", stream)
    streams = [listening(browser, payment_id) for browser, payment_id in zip(browsers, ids, strict=True)]
    heard = [stream.__enter__() for stream in streams]
    try:
        assert len({each.next("data: ") for each in heard}) == len(ids)
        assert together.wait(DEADLINE_S)
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)


def test_who_is_one_too_many_is_refused_and_no_place_is_lost(console, tell, monkeypatch):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")
    real = live_updates.LiveUpdates.stream
    monkeypatch.setattr(
        live_updates.LiveUpdates, "stream", lambda self, request, key: real(bounded(self), request, key)
    )

    def bounded(watched):
        watched._most = 1
        return watched

    first, second = console.client("viewer"), console.client("viewer")
    with listening(first, payment.id) as heard:
        heard.next("data: ")
        refused = second.get(f"/console/payments/{payment.id}/live")
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    first.http.close()

    for _ in range(100):
        with listening(second, payment.id) as heard:
            if heard.answer.status_code == 200:
                assert heard.next("data: ")
                return
        threading.Event().wait(0.05)
    pytest.fail("the place of who has gone was not given back")


def test_a_look_at_the_head_does_not_wait(console, tell):
    tell.stable("awaiting_payment")
    payment = tell.by_ref("stable", "pi_1")

    answer = console.client("viewer").http.head(f"/console/payments/{payment.id}/live")

    assert (answer.status_code, answer.content) == (200, b"")
