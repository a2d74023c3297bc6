"""What a Redis server of a test's own refuses, and that it is delivered once the operator has mended it."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import from_url

from fulfilment.broker_sink import BrokerSink
from fulfilment.contract import Delivered, Failed
from tests.contract.fulfilment.test_broker_sink import owed
from tests.support.broker_servers import RedisServer
from tests.support.clock import START

NOW = START


@pytest.mark.parametrize(
    ("setting", "refusing", "mended", "error"),
    [
        ("min-replicas-to-write", "1", "0", "the broker has too few replicas"),
        ("maxmemory", "1", "0", "the broker is full"),
    ],
)
def test_refused_and_mended(tmp_path: Path, setting: str, refusing: str, mended: str, error: str) -> None:
    """Too few replicas, or a full memory, fail the attempt and are not final."""
    server = RedisServer(tmp_path / "broker")
    server.options = (f"--{setting}", refusing)
    server.start()

    async def whole() -> None:
        url = f"redis://127.0.0.1:{server.port}"
        sink = BrokerSink("shop", "redis", url, "payments", timeout=5)
        try:
            assert await sink.deliver(owed(), NOW) == Failed(error)
            async with from_url(url) as client:
                await client.config_set(setting, mended)
                assert await sink.deliver(owed(), NOW) == Delivered()
                assert await client.xlen("payments") == 1
        finally:
            await sink.aclose()

    try:
        asyncio.run(whole())
    finally:
        server.stop()
