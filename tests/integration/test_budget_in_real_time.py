"""Processes' worth of senders, real HTTP and a limit that is really enforced: not one refusal."""

import asyncio
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from poller.rate_limiter import DatabaseRateLimiter, low_priority
from providers.contract import Budget
from providers.http import HttpTransport
from sandbox.limits import SlidingWindow
from storage.database import Database
from tests.support.databases import copy_of

SENDERS, SECONDS = 3, 3.0
BUDGET = Budget(20, 2.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, template, tmp_path):
    if request.param == "sqlite":
        database, server = copy_of(template, tmp_path / "real.db"), None
    else:
        server = request.getfixturevalue("postgresql")
        database = server.copy()
    yield database.url
    database.close()
    if server is not None:
        server.drop(database)


@contextmanager
def provider(window):
    """A provider with a limit; gives its URL and the statuses that it answered."""
    answered, one_at_a_time = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with one_at_a_time:
                answered.append(200 if window.admit("key") else 429)
                status = answered[-1]
            self.send_response(status)
            self.send_header("content-length", "0")
            if self.headers.get("x-last"):
                self.send_header("connection", "close")  # so that connecting is part of what takes time
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", answered
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


async def keep_asking(database, url, is_patient, until):
    pace = DatabaseRateLimiter(database, "acme", BUDGET, lambda: datetime.now(UTC))
    async with httpx2.AsyncClient() as http:
        transport = HttpTransport(http, pace, lambda: datetime.now(UTC), allow_loopback_http=True)

        async def ask():
            number = 0
            while time.monotonic() < until:
                number += 1
                await transport.turn()
                await transport.send("GET", url, headers={"x-last": "1"} if number % 3 == 0 else {})

        async def ask_patiently():
            with low_priority():
                await ask()

        await asyncio.gather(*(ask_patiently() if is_patient else ask() for _ in range(2)))


def test_a_limit_that_is_enforced_never_refuses(url):
    window = SlidingWindow(BUDGET.requests, BUDGET.seconds)
    with provider(window) as (at, answered):
        until = time.monotonic() + SECONDS

        def send(number):
            database = Database(url)
            asyncio.run(keep_asking(database, at, number == 0, until))
            database.close()

        senders = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    assert set(answered) == {200}
    assert len(answered) >= 0.6 * SECONDS * BUDGET.requests / BUDGET.seconds
