"""The dispatcher with real brokers: all that is owed is in the stream, in order per payment, whatever the line does."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from fulfilment.broker_sink import BrokerSink
from receipted.settings.load import parse
from receipted.wiring import Service
from storage.database import Database
from tests.support.databases import copy_of
from tests.support.live_brokers import LIVE, Live, Nats, Proxy, require
from tests.support.owing import EFFECTS, Owing


@pytest.fixture(params=sorted(LIVE))
def live(request: pytest.FixtureRequest) -> Live:
    require(request.param)
    return LIVE[request.param]()


def sink_of(live: Live, port: int) -> BrokerSink:
    kind = next(kind for kind, found in LIVE.items() if isinstance(live, found))
    url = live.url.replace(str(urlsplit(live.url).port), str(port))
    return BrokerSink("shop", kind, url, live.destination, timeout=5)


def test_all_in_order(live: Live, database: Database) -> None:
    """Every effect arrives once with its exact payload, and each payment's in the order in which they were owed."""
    owing = Owing(database)
    owing.owe(40)

    async def whole() -> None:
        sink = sink_of(live, urlsplit(live.url).port or 0)
        try:
            await live.open()
            await owing.deliver_all(sink)
            got = await live.received()
        finally:
            await sink.aclose()
            await live.aclose()
        ids = [one.headers["webhook-id"].removeprefix("msg_") for one in got]
        assert len(ids) == len(set(ids)) == 40 * len(EFFECTS)
        owing.require_in_order(ids)
        assert {found: one.body.decode() for found, one in zip(ids, got, strict=True)} == owing.payloads

    asyncio.run(whole())
    assert all(message.attempts == 1 for message in owing.messages())


def test_line_cut_again_and_again(live: Live, database: Database) -> None:
    """Cut where a confirmation was on its way: none is lost, order holds, and what came twice has the same id."""
    owing = Owing(database)
    owing.owe(60)

    async def whole() -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            proxy.cuts = [9, 14, 19, 24]
            sink = sink_of(live, proxy.port)
            try:
                await live.open()
                await owing.deliver_all(sink, concurrency=4)  # few at once: enough answers to cut
                got = await live.received()
            finally:
                await sink.aclose()
                await live.aclose()
            assert proxy.connections > 2
            assert not proxy.cuts
        ids = [one.headers["webhook-id"].removeprefix("msg_") for one in got]
        owing.require_in_order(ids)
        if isinstance(live, Nats):
            assert len(ids) == len(set(ids))
        assert all(one.body.decode() == owing.payloads[found] for found, one in zip(ids, got, strict=True))

    with capture_logs() as logs:
        asyncio.run(whole())
    assert not [log for log in logs if log["event"] in ("sink.broken", "effect.dead")]
    assert any(message.attempts > 1 for message in owing.messages())


def test_from_the_settings(live: Live, template: Path, tmp_path: Path) -> None:
    """What the settings say is what runs: URL from the environment, signed by the sink's keys, delivered."""
    kind = next(kind for kind, found in LIVE.items() if isinstance(live, found))
    copy_of(template, tmp_path / "receipted.db").close()
    key = "whsec_" + "QUJD" * 8
    settings = parse(
        {
            "service": {
                "database": f"sqlite:///{tmp_path / 'receipted.db'}",
                "public_url": "https://pay.example.com",
                "token_keys": [{"id": "t", "secret": "env:TOKEN"}],
            },
            "sinks": [
                {
                    "name": "shop",
                    "kind": kind,
                    "url": "env:URL",
                    "destination": live.destination,
                    "secrets": ["env:KEY"],
                }
            ],
            "accounts": {
                "acme": {
                    "provider": "stable_genius",
                    "secrets": {"api_key": "env:TOKEN"},
                    "webhook_keys": [{"id": "w", "secret": "env:HOOK"}],
                }
            },
        },
        environ={"URL": live.url, "KEY": key, "TOKEN": "t" * 32, "HOOK": "h" * 32},
    )
    service = Service(settings)
    owing = Owing(service.database)
    owing.owe(1, ("payment.paid",))

    async def whole() -> None:
        try:
            await live.open()
            async with service.dispatcher() as dispatcher:
                assert await dispatcher.step() == 1
            [got] = await live.received()
        finally:
            await live.aclose()
        assert Webhook(key).verify(got.body, dict(got.headers))["type"] == "payment.paid"

    try:
        asyncio.run(whole())
        assert owing.delivered() == 1
    finally:
        service.close()
