"""`kill -9` of the broker itself under load: what was delivered is in the stream, and all is delivered in the end."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from fulfilment.broker_sink import BrokerSink
from storage.database import Database
from tests.support.broker_servers import NatsServer, RabbitServer, RedisServer, Server
from tests.support.live_brokers import Got, Live, Nats, Rabbit, Redis
from tests.support.owing import EFFECTS, Owing

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

PAYMENTS = 400
#: How often each is killed; a node of RabbitMQ takes seconds to start.
KILLS = {"nats": 6, "redis": 6, "rabbitmq": 2}
SERVERS: dict[str, type[Server]] = {"nats": NatsServer, "redis": RedisServer, "rabbitmq": RabbitServer}
PLACES: dict[str, type[Live]] = {"nats": Nats, "redis": Redis, "rabbitmq": Rabbit}
SCHEMES = {"rabbitmq": "amqp"}


@pytest.mark.parametrize("kind", sorted(KILLS))
def test_killed_under_load(kind: str, database: Database, tmp_path: Path) -> None:
    """Killed and started again on its own store, time and again: none is lost, and repeats have the same id."""
    server = SERVERS[kind](tmp_path / "broker")
    live = PLACES[kind](f"{SCHEMES.get(kind, kind)}://127.0.0.1:{server.port}")
    kills = KILLS[kind]
    owing = Owing(database)
    owing.owe(PAYMENTS)
    seen: list[int] = []  # delivered at each kill, as our database had it a moment before

    async def kill() -> None:
        total = len(owing.payloads)
        for number in range(1, kills + 1):
            due = number * total // (kills + 2)
            while (now := await asyncio.to_thread(owing.delivered)) < due:  # noqa: ASYNC110 - a database sets no event
                await asyncio.sleep(0.002)
            await asyncio.to_thread(server.kill)
            seen.append(now)
            await asyncio.to_thread(server.start)

    async def whole() -> list[Got]:
        sink = BrokerSink("shop", kind, live.url, live.destination, timeout=5)
        killing = asyncio.create_task(kill())
        try:
            await live.open()
            await owing.deliver_all(sink, seconds=200)
            await killing
            return await live.received()
        finally:
            killing.cancel()
            await sink.aclose()

    server.start()
    try:
        got = asyncio.run(whole())
    finally:
        server.stop()
    ids = [one.headers["webhook-id"].removeprefix("msg_") for one in got]
    owing.require_in_order(ids)
    assert all(one.body.decode() == owing.payloads[found] for found, one in zip(ids, got, strict=True))
    assert len(seen) == kills
    again = sum(count - 1 for count in Counter(ids).values())
    tried = sum(message.attempts for message in owing.messages()) - len(owing.payloads)
    assert tried > 0, "no kill met a delivery"
    if kind == "nats":
        assert again == 0
    print(f"\n{kind}: {PAYMENTS * len(EFFECTS)} effects, {kills} kills, {tried} attempts failed, {again} came twice")
