"""One delivery through two processes: one trace, told over the wire, and carried on to the shop."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receipted.settings.models import RetentionSettings
from storage import partitions
from storage.ids import new_id
from tests.integration.tracing.rig import Rig, running
from tests.support.databases import PostgreSQL
from tests.support.deliveries import KEYS, event
from tests.support.serving import eventually

#: W3C Trace Context, "traceparent Header Field Values", for version 00.
GRAMMAR = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
INTERNAL, SERVER, CLIENT = 1, 2, 3


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'receipted.db'}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    database = server.copy()
    partitions.keep_ahead(database, datetime.now(UTC), RetentionSettings().period())  # as receipted migrate does
    yield database.url
    server.drop(database)


def deliver(rig: Rig, *headers: tuple[str, str]) -> str:
    """A payment is paid; the message's id, once the shop has heard of it."""
    before = len(rig.shop.received)
    answer = rig.web.post(event("sg"), headers=headers)
    assert answer.status == 200
    eventually(lambda: len(rig.shop.received) > before)
    return str(answer.json()["id"])


def test_one_delivery_is_one_trace_through_both_processes(tmp_path: Path, url: str) -> None:
    with running(tmp_path, url) as rig:
        message_id = deliver(rig)
        eventually(lambda: len(rig.collector.spans) >= 3)
    sent = rig.shop.received[0].headers["traceparent"]

    (receive,), (decide,), (given,) = (rig.collector.named(name) for name in ("receive", "decide", "deliver"))
    assert {span.trace for span in (receive, decide, given)} == {message_id.replace("-", "")}
    assert (receive.parent, decide.parent, given.parent) == ("", receive.id, decide.id)
    assert (receive.kind, decide.kind, given.kind) == (SERVER, INTERNAL, CLIENT)
    assert len({receive.id, decide.id, given.id}) == 3
    assert GRAMMAR.fullmatch(sent)
    assert sent == f"00-{given.trace}-{given.id}-01"
    assert receive.began <= decide.began <= given.began
    assert all(span.began <= span.ended for span in (receive, decide, given))

    assert receive.said["http.route"] == "/webhooks/{account}"
    assert receive.said["http.response.status_code"] == 200
    assert receive.said["receipted.outcome"] == "recorded"
    assert decide.said["receipted.outcome"] == "advanced"
    assert decide.said["receipted.transition.number"] == 1
    assert decide.said["receipted.payment.id"] == given.said["receipted.payment.id"]
    assert given.said["http.response.status_code"] == 204
    assert (given.said["receipted.sink"], given.said["receipted.effect"]) == ("shop", "payment.paid")
    assert {span.service for span in rig.collector.spans} == {"receipted"}
    assert rig.collector.headers[0]["api-key"] == "a secret-for-the-collector"


def test_nothing_of_a_payload_a_secret_or_a_person_is_told(tmp_path: Path, url: str) -> None:
    with running(tmp_path, url) as rig:
        signed = event("sg", payer={"name": "somebody-who-paid", "iban": "GB29NWBK60161331926819"})
        assert rig.web.post(signed, headers=[("X-Forwarded-For", "203.0.113.77")]).status == 200
        eventually(lambda: len(rig.collector.spans) >= 3)
        secrets = list(rig.web.service.settings.secret_values())
    told = b"".join(rig.collector.bodies)

    assert b"receipted.account" in told
    kept = ("somebody-who-paid", "GB29NWBK60161331926819", "203.0.113.77", signed.payment, *KEYS.values(), *secrets)
    assert [text for text in kept if text.encode() in told] == []


def test_a_failed_attempt_and_the_next_are_in_the_trace(tmp_path: Path, url: str) -> None:
    from starlette.responses import Response

    with running(tmp_path, url) as rig:
        fast = rig.web.service.settings.fulfilment.schedule_seconds
        assert fast[0] == 5  # the second attempt comes after about so long
        rig.shop.answers.append(Response(status_code=500))
        deliver(rig)
        eventually(lambda: len(rig.shop.received) == 2)
        eventually(lambda: len(rig.collector.named("deliver")) == 2)
    first, second = rig.collector.named("deliver")

    assert (first.is_error, first.said["error.type"], first.said["http.response.status_code"]) == (True, "failed", 500)
    assert (second.is_error, second.said["http.request.resend_count"]) == (False, 1)
    assert (first.trace, first.parent) == (second.trace, second.parent)
    assert first.id != second.id
    assert [got.headers["traceparent"].split("-")[2] for got in rig.shop.received] == [first.id, second.id]


def test_a_redelivery_joins_the_trace_of_the_first(tmp_path: Path, url: str) -> None:
    with running(tmp_path, url) as rig:
        signed = event("sg")
        assert [rig.web.post(signed).status for _ in range(2)] == [200, 200]
        eventually(lambda: len(rig.collector.named("receive")) == 2)
    first, again = sorted(rig.collector.named("receive"), key=lambda span: span.began)

    assert (again.trace, again.parent) == (first.trace, first.id)
    assert again.said["receipted.outcome"] == "duplicate"


def test_what_is_not_sampled_is_not_told_and_sends_no_header(tmp_path: Path, url: str) -> None:
    """The shop then decides by itself whether it samples; a flag of 00 would tell it not to."""
    with running(tmp_path, url, share=0.0) as rig:
        deliver(rig)
    assert rig.collector.headers == []
    assert "traceparent" not in rig.shop.received[0].headers


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_trace_of_somebody_elses_is_linked_only_where_it_is_trusted(tmp_path: Path, is_trusted: bool) -> None:
    theirs = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    database = f"sqlite:///{tmp_path / 'receipted.db'}"
    with running(tmp_path, database, trust_incoming=is_trusted) as rig:
        message_id = deliver(rig, ("Traceparent", f"00-{theirs[0]}-{theirs[1]}-01"))
        eventually(lambda: rig.collector.named("receive"))
    (receive,) = rig.collector.named("receive")

    assert receive.links == ([theirs] if is_trusted else [])
    assert receive.trace == message_id.replace("-", "")


def test_a_collector_that_is_away_fails_nothing_and_is_told_once(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'receipted.db'}"
    with capture_logs() as lines, running(tmp_path, database, endpoint="http://127.0.0.1:9/v1/traces") as rig:
        for _ in range(5):
            deliver(rig)
        eventually(lambda: any(line["event"] == "trace.lost" for line in lines))
        deliver(rig)
    assert 1 <= sum(line["event"] == "trace.lost" for line in lines) <= 2  # once by each process
    assert not [line for line in lines if line["event"] == "trace.failed"]
    assert len(rig.shop.received) == 6


def test_a_collector_that_refuses_is_told_of_and_so_is_its_return(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'receipted.db'}"
    with capture_logs() as lines, running(tmp_path, database) as rig:
        rig.collector.status = 400
        deliver(rig)
        eventually(lambda: [line["event"] for line in lines].count("trace.lost") == 2)
        rig.collector.status = 200
        deliver(rig)
        eventually(lambda: [line["event"] for line in lines].count("trace.resumed") == 2)
    assert all(line["lost"] >= 1 for line in lines if line["event"] == "trace.resumed")


def test_a_bug_in_telling_costs_no_delivery(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'receipted.db'}"
    with capture_logs() as lines, running(tmp_path, database) as rig:

        def broken(_span: object) -> None:
            raise RuntimeError("a bug")

        rig.web.service.traces._emit = broken
        for _ in range(3):
            deliver(rig)
    assert [line["event"] for line in lines].count("trace.failed") == 1
    assert len(rig.shop.received) == 3


def test_ids_are_sampled_by_the_share() -> None:
    from receipted.tracing import traces

    made = [new_id() for _ in range(20_000)]
    for share in (0.01, 0.25, 0.9):
        assert (
            abs(sum(traces.is_sampled(each, traces.sampling_limit(share)) for each in made) / len(made) - share) < 0.02
        )
    assert all(traces.is_sampled(each, traces.sampling_limit(1.0)) for each in made)
    assert not any(traces.is_sampled(each, traces.sampling_limit(0.0)) for each in made)
    assert not any(traces.is_sampled(each, traces.sampling_limit(1e-12)) for each in made)
