"""The sink that calls a merchant's Python."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from fulfilment.contract import Delivered, Failed, OwedEffect
from fulfilment.errors import InvalidHandler, InvalidSink, RetryLater
from fulfilment.handler_sink import GROUP, Fulfilment, HandlerSink
from tests.unit.fulfilment import merchant

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE = "tests.unit.fulfilment.merchant"


@pytest.fixture(autouse=True)
def _fresh():
    merchant.calls.clear()
    merchant.gate.clear()
    yield
    merchant.gate.set()


def owed(payload='{"amount_minor": 4200}'):
    return OwedEffect("0197c1f0-1", "payment.paid", "0197c1f0-2", 3, payload, NOW)


def deliver(handler, *effects, **settings):
    async def run():
        sink = HandlerSink("shop", handler, **settings)
        results = [await sink.deliver(effect, NOW) for effect in effects or (owed(),)]
        await sink.aclose()
        await sink.aclose()
        return results

    return asyncio.run(run())


@pytest.mark.parametrize("name", ["fulfil", "fulfil_async", "shop", "lazily"])
def test_done(name):
    assert deliver(f"{HERE}:{name}") == [Delivered()]
    [(given, thread)] = merchant.calls
    assert (given.id, given.effect, given.attempt) == ("0197c1f0-1", "payment.paid", 3)
    assert given.payload["amount_minor"] == 4200
    assert (thread is threading.main_thread()) == (name != "fulfil")


def test_frozen_and_decoded_anew():
    deliver(f"{HERE}:fulfil", owed(), owed())
    first, second = (given for given, _ in merchant.calls)
    assert first.payload is not second.payload
    with pytest.raises(AttributeError):
        first.id = "other"


@pytest.mark.parametrize(
    ("name", "error"),
    [("fails", "KeyError"), ("fails_async", "KeyError"), ("times_out", "TimeoutError")],
)
def test_raising_is_a_failure_named_by_its_type(name, error):
    with capture_logs() as logs:
        assert deliver(f"{HERE}:{name}") == [Failed(error)]
    [log] = logs
    assert (log["event"], log["exc_type"]) == ("handler.failed", error)
    assert log["raised_in"].startswith(name)
    assert "4111" not in str(log)


def test_stop_iteration_does_not_hang():
    # A future refuses StopIteration, and a coroutine turns it into RuntimeError.
    assert deliver(f"{HERE}:stops") == [Failed("RuntimeError")]


def test_retry_later():
    assert deliver(f"{HERE}:later") == [Failed("RetryLater", retry_after=120)]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_retry_later_needs_seconds(seconds):
    with pytest.raises(ValueError, match="RetryLater needs"):
        RetryLater(seconds)


def test_an_answer_that_nobody_knows():
    assert deliver(f"{HERE}:answers") == [Failed("the handler returned bool instead of None")]


def test_a_handler_that_hangs_keeps_no_more_than_its_own_threads():
    found = deliver(f"{HERE}:hangs", owed(), owed(), owed(), timeout=0.05, threads=1)
    assert found == [Failed("the handler took longer than 0.05 s")] * 3
    [(_, thread)] = merchant.calls
    assert thread.name.startswith("handler-shop")


def test_only_the_end_of_the_process_escapes():
    with pytest.raises(SystemExit):
        deliver(f"{HERE}:exits")


@pytest.mark.parametrize("payload", ["[1]", "not json", "null"])
def test_payload_that_is_no_object(payload):
    assert deliver(f"{HERE}:fulfil", owed(payload)) == [Failed("the payload is not a JSON object", is_final=True)]
    assert not merchant.calls


@pytest.mark.parametrize(
    "handler",
    [
        "",
        ":",
        "nowhere:fulfil",
        f"{HERE}:",
        f"{HERE}:missing",
        f"{HERE}:not_callable",
        f"{HERE}:Shop.call",
        ":fulfil",
        "unnamed",
    ],
)
def test_missing_handler(handler):
    with pytest.raises(InvalidHandler):
        HandlerSink("shop", handler)


def test_refused_settings():
    with pytest.raises(InvalidSink):
        HandlerSink("shop", f"{HERE}:fulfil", timeout=0)
    with pytest.raises(InvalidSink):
        HandlerSink("shop", f"{HERE}:fulfil", threads=0)


def test_entry_point(tmp_path, monkeypatch):
    """A handler is found by the name under which an installed distribution gives it."""
    for number, names in enumerate(["mine", "twice", "twice"]):
        folder = tmp_path / f"merchant{number}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: merchant{number}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{names} = {HERE}:fulfil\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert deliver("mine") == [Delivered()]
    assert isinstance(merchant.calls[0][0], Fulfilment)
    with pytest.raises(InvalidHandler, match="more than one"):
        HandlerSink("shop", "twice")
