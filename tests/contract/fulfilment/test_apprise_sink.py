"""What people who are told by chat or pager can rely on, seen from a server that takes Apprise's json://."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fulfilment.apprise_sink import AppriseSink, require_service, secrets_in
from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.email_message import Letterhead
from fulfilment.errors import InsecureSinkUrl, InvalidSink
from tests.support.answering import Answering, Reply, answering
from tests.support.waiting import DEADLINE_S

AT = datetime(2026, 4, 1, 12, 30, tzinfo=UTC)
HEAD = Letterhead("", (), "https://pay.example.com", frozenset({"shop"}))
TOKEN = "T0PSECRETTOKEN"
SILENT = {
    "account": "shop",
    "alarm": "silent",
    "since": "2026-04-01T09:10:00+00:00",
    "is_over": False,
    "reason": "no verified delivery for 3 h 20 min",
    "details": {"silent_seconds": 12000},
}
REVIEW = {
    "payment": "0197c1f0-0000-7000-8000-000000000002",
    "account": "acme",
    "reference": "<!channel> @everyone [win](https://evil.example)",
    "amount_minor": 1250,
    "currency": "EUR",
    "reason": "the amount is 12.00 EUR, 12.50 EUR was asked for",
    "raw": "what else a payload may hold",
}


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as made:
        made.answers = lambda _call: Reply(200)
        yield made


def owed(data: dict[str, object] | None = None, effect: str = "account.silent") -> OwedEffect:
    content = json.dumps({"type": effect, "data": SILENT if data is None else data})
    return OwedEffect("0197c1f0-0000-7000-8000-000000000001", effect, None, 1, content, AT)


def url_of(server: Answering) -> str:
    return server.url.replace("http://", "json://") + f"/hook/{TOKEN}"


def deliver(server: Answering, effect: OwedEffect | None = None, **options: float) -> Result:
    async def whole() -> Result:
        sink = AppriseSink("chat", url_of(server), HEAD, allow_loopback=True, **options)  # type: ignore[arg-type]
        try:
            return await sink.deliver(effect or owed(), AT)
        finally:
            await sink.aclose()

    return asyncio.run(whole())


def sent(server: Answering) -> dict[str, str]:
    return json.loads(server.calls[-1].body)


def test_an_alarm_is_a_message_that_says_what_it_means(server):
    """An alarm says what it is, what it means and what to do, with a link; its end has the same first line."""
    assert deliver(server) == Delivered()
    begun = sent(server)
    assert begun["title"] == "Receipted test, shop: silent"
    assert begun["type"] == "warning"
    assert begun["message"].startswith("shop is silent: no verified delivery for 3 h 20 min.")
    assert "What to do" in begun["message"]
    assert "https://pay.example.com/console/accounts/shop" in begun["message"]

    assert deliver(server, owed({**SILENT, "is_over": True})) == Delivered()
    over = sent(server)
    assert (over["title"], over["type"]) == (begun["title"], "success")
    assert over["message"].startswith("shop is silent no more:")


def test_what_others_wrote_neither_calls_nor_links(server):
    """A payer's reference cannot call a whole channel or put a link, and no payload is sent."""
    assert deliver(server, owed(REVIEW, "payment.review_required")) == Delivered()
    told = sent(server)["title"] + sent(server)["message"]
    assert not set("<>@[]`") & set(told)
    assert "12.50 EUR" in told
    assert "what else" not in told


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_a_refusal_is_a_failure_to_try_again(server, status):
    """Any refusal is tried again by schedule, and says the status alone."""
    server.answers = lambda _call: Reply(status, f"no {TOKEN}".encode())
    result = deliver(server)
    assert isinstance(result, Failed)
    assert (result.http_status, result.is_final) == (status, False)
    assert TOKEN not in repr(result) + result.error


def test_a_redirect_is_not_followed(server):
    """What is sent goes nowhere but to the configured URL."""
    server.answers = lambda _call: Reply(307, b"", {"location": f"{server.url}/elsewhere"})
    assert isinstance(deliver(server), Failed)
    assert [call.path for call in server.calls] == [f"/hook/{TOKEN}"]


def test_no_answer_in_time_is_a_failure(server):
    """A service that hangs is a failure when the time is up."""
    held = threading.Event()

    def hang(_call: object) -> Reply:
        held.wait(DEADLINE_S)
        return Reply(200)

    server.answers = hang
    waiting = threading.Timer(0.5, held.set)
    waiting.start()
    try:
        assert deliver(server, timeout=0.1) == Failed("no answer within 0.1 s")
    finally:
        waiting.join()


def test_nobody_there_is_a_failure_without_the_url(caplog):
    """A host that does not answer is a failure, and neither error nor log lines tell the URL."""
    caplog.set_level(logging.WARNING)
    with answering() as gone:
        url = url_of(gone)
    sink = AppriseSink("chat", url, HEAD, allow_loopback=True)

    async def whole() -> Result:
        try:
            return await sink.deliver(owed(), AT)
        finally:
            await sink.aclose()

    result = asyncio.run(whole())
    assert isinstance(result, Failed)
    assert not result.is_final
    assert TOKEN not in result.error + repr(sink) + caplog.text
    assert "json" in repr(sink)


def test_a_payload_that_is_none_is_never_tried_again(server):
    """What is no effect is dead at once."""
    broken = OwedEffect("0197c1f0-0000-7000-8000-000000000001", "account.silent", None, 1, "[]", AT)
    assert deliver(server, broken) == Failed("the payload is none of an effect", is_final=True)
    assert server.calls == []


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"nonsense://{TOKEN}", InvalidSink),
        (f"slack://{TOKEN}", InvalidSink),
        (TOKEN, InvalidSink),
        ("", InvalidSink),
        (f"json://hooks.example.com/{TOKEN}", InsecureSinkUrl),
        (f"jsons://hooks.example.com/{TOKEN}?verify=no", InsecureSinkUrl),
        (f"jsons://hooks.example.com/{TOKEN}?redirect=yes", InsecureSinkUrl),
        (f"ntfy://hooks.example.com/{TOKEN}", InsecureSinkUrl),
    ],
)
def test_a_url_that_cannot_be_trusted_is_refused_without_being_told(url, error):
    """No service, no TLS, no check of the certificate: refused at the start, and the URL stays secret."""
    with pytest.raises(error) as caught:
        require_service(url, allow_loopback=True)
    assert TOKEN not in str(caught.value)


def test_plain_text_to_this_machine_is_for_development_alone(server):
    """Without development nothing goes out in the clear, not even to this machine."""
    with pytest.raises(InsecureSinkUrl):
        require_service(url_of(server))
    require_service("jsons://hooks.example.com/a")


def test_every_part_of_the_url_is_masked():
    """Tokens of a path, a user and a query are secrets, encoded or not."""
    found = secrets_in("slack://botname@T1JJ3T3L2/A1BRTD4JD/TIiajkdnla%2Fz/?key=abcdefgh")
    assert {"T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnla%2Fz", "TIiajkdnla/z", "abcdefgh", "botname"} <= found
