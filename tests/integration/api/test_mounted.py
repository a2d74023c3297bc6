"""The API within the whole application: beside the way in, switched off, and let go when the server ends."""

import asyncio
import random
import re
import threading
from datetime import timedelta

import httpx2
import pytest

from api.credentials import Environment, new_key
from fulfilment.backoff import Backoff
from fulfilment.handler_sink import HandlerSink
from storage import api_keys, outbox
from storage.ids import new_id
from tests.support.api import EVERYTHING
from tests.support.serving import serving, settings
from tests.support.waiting import DEADLINE_S, until
from worker.dispatch import Dispatcher


def key_of(served, environment=Environment.LIVE):
    """A key of the running application."""
    record, text = new_key("tests", environment, EVERYTHING, served.service.clock())
    with served.database.write() as unit:
        api_keys.add(unit, record)
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
def served(tmp_path):
    with serving(settings(tmp_path)) as running:
        yield running


def test_the_api_answers_beside_the_way_in(served):
    url = f"http://127.0.0.1:{served.port}"

    assert httpx2.get(f"{url}/v1/accounts", headers=key_of(served)).json()["data"]
    assert httpx2.get(f"{url}/v1/accounts").status_code == 401
    assert httpx2.get(f"{url}/openapi.json").json()["servers"] == [{"url": "https://pay.shop.example"}]
    assert httpx2.get(f"{url}/docs").headers["x-request-id"] != httpx2.get(f"{url}/docs").headers["x-request-id"]
    assert httpx2.get(f"{url}/webhooks/sg").status_code == 200
    assert httpx2.get(f"{url}/elsewhere").status_code == 404


def test_an_account_is_live_where_nothing_is_said(served):
    url = f"http://127.0.0.1:{served.port}/v1/accounts"

    assert {account["environment"] for account in httpx2.get(url, headers=key_of(served)).json()["data"]} == {"live"}
    assert httpx2.get(url, headers=key_of(served, Environment.TEST)).json()["data"] == []


def test_the_api_can_be_switched_off(tmp_path):
    found = settings(tmp_path)
    off = found.model_copy(update={"api": found.api.model_copy(update={"enabled": False})})
    with serving(off) as served:
        for path in ("/v1/accounts", "/openapi.json", "/docs"):
            assert httpx2.get(f"http://127.0.0.1:{served.port}{path}", headers=key_of(served)).status_code == 404


def test_whoever_waits_for_events_is_let_go_when_the_server_ends(served):
    url, headers, ended = f"http://127.0.0.1:{served.port}/v1/events", key_of(served), []
    opened = threading.Event()

    def stream():
        with httpx2.stream(
            "GET", url, headers={**headers, "accept": "text/event-stream"}, timeout=DEADLINE_S
        ) as answer:
            opened.set()
            ended.append(list(answer.iter_lines()))

    def wait():
        ended.append(httpx2.get(f"{url}?wait=60", headers=headers, timeout=60).json()["data"])

    threads = [threading.Thread(target=target) for target in (stream, wait)]
    for thread in threads:
        thread.start()
    assert opened.wait(DEADLINE_S)
    served.app.stop()
    until(lambda: len(ended) == 2, DEADLINE_S, lambda: str(ended))
    for thread in threads:
        thread.join(DEADLINE_S)


def test_a_feed_needs_no_sink_that_does_anything(database, clock):
    """The handler of the documents takes an effect, and says so."""
    sink = HandlerSink("feed", "api.feed_only:keep", timeout=5)
    with database.write() as unit:
        owed = outbox.owe(
            unit,
            payment_id=new_id(),
            account="acme",
            effect="payment.paid",
            sink="feed",
            occurrence=0,
            cause=new_id(),
            payload='{"type":"payment.paid","timestamp":"","data":{}}',
            now=clock(),
        )
    backoff = Backoff((1,), max_attempts=2)
    dispatcher = Dispatcher(
        database, {"feed": sink}, clock, random.Random(1), lease=timedelta(seconds=9), backoff=backoff, concurrency=1
    )
    assert asyncio.run(dispatcher.step()) == 1
    with database.read() as unit:
        assert outbox.get(unit, owed).status == "delivered"


PEOPLE = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def test_people_at_the_front_are_led_to_the_console_and_programs_are_told_where_things_are(served):
    url = f"http://127.0.0.1:{served.port}/"
    led, told = httpx2.get(url, headers=PEOPLE), httpx2.get(url)

    assert (led.status_code, led.headers["location"]) == (303, "/console/")
    assert told.json() == {
        "object": "service",
        "name": "receipted",
        "api": "/v1",
        "description": "/openapi.json",
        "docs": "/docs",
        "console": "/console/",
    }
    assert led.headers["vary"] == told.headers["vary"] == "accept"
    assert httpx2.head(url).status_code == 200


@pytest.mark.parametrize(
    ("off", "status", "names"),
    [
        (("console",), 303, {"object", "name", "api", "description", "docs"}),
        (("api",), 303, {"object", "name", "console"}),
        (("api", "console"), 200, {"object", "name"}),
    ],
)
def test_the_front_leads_to_nothing_that_is_switched_off(tmp_path, off, status, names):
    found = settings(tmp_path)
    changed = {name: getattr(found, name).model_copy(update={"enabled": False}) for name in off}
    with serving(found.model_copy(update=changed)) as served:
        url = f"http://127.0.0.1:{served.port}/"
        led, told = httpx2.get(url, headers=PEOPLE), httpx2.get(url)
        followed = [httpx2.get(f"{url[:-1]}{path}").status_code for path in told.json().values() if path[0] == "/"]

    assert (led.status_code, set(told.json())) == (status, names)
    assert "location" not in led.headers or led.headers["location"] in told.json().values()
    assert {*followed} <= {200, 303, 404}  # nothing is at /v1 itself


def test_the_front_tells_a_stranger_nothing_of_a_version_nor_anything_without_encryption(tmp_path, served):
    answer = httpx2.get(f"http://127.0.0.1:{served.port}/")
    assert not re.search(r"\d+\.\d+", answer.text)
    assert answer.headers.get("server", "uvicorn") == "uvicorn"

    with serving(settings(tmp_path / "other", development=False)) as plain:
        for headers in ({}, PEOPLE):
            refused = httpx2.get(f"http://127.0.0.1:{plain.port}/", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "https_required")
            assert "location" not in refused.headers
