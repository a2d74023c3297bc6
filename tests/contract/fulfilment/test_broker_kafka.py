"""The sink at Kafka: over the real protocol with a server of ours, and at a real broker where one runs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from fulfilment.broker_sink import BrokerSink
from fulfilment.contract import Delivered, Failed
from tests.contract.fulfilment.test_broker_sink import ID, failed, owed
from tests.support.clock import START
from tests.support.kafka import Kafka
from tests.support.live_brokers import URLS, require
from tests.support.waiting import DEADLINE_S

NOW = START
#: Kafka's own codes. Source: Kafka protocol guide, "Error codes".
TOO_LARGE, NOT_ENOUGH_REPLICAS, NOT_AUTHORIZED = 10, 19, 29


def run(scenario: Callable[[BrokerSink, Kafka], Awaitable[None]], *, timeout: float = 5, **known: Any) -> None:
    """The scenario with a sink to the topic "payments"."""

    async def whole() -> None:
        async with Kafka(**known) as kafka:
            sink = BrokerSink("shop", "kafka", f"kafka://127.0.0.1:{kafka.port}", "payments", timeout=timeout)
            try:
                await scenario(sink, kafka)
            finally:
                await sink.aclose()

    asyncio.run(whole())


def test_delivered() -> None:
    """The record holds payload and headers, has the payment as its key, and was to be kept by all, once."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        assert await sink.deliver(owed(attempt=2), NOW) == Delivered()
        [record] = kafka.records
        assert record.value == owed().payload.encode()
        assert record.key == ID.format(900).encode()
        assert record.acks == -1  # all replicas in sync
        assert record.producer_id == 4711  # idempotent: numbered by the id that the server gave
        wanted = {
            "content-type": "application/json",
            "webhook-id": f"msg_{owed().id}",
            "webhook-timestamp": str(int(NOW.timestamp())),
            "receipted-effect": "payment.paid",
            "receipted-attempt": "2",
        }
        assert {name: record.headers.get(name) for name in wanted} == wanted

    run(scenario, topics={"payments": 3})


def test_one_partition_for_a_payment() -> None:
    """All effects of a payment are in one partition, in order; payments share out over all of them."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        for step in range(5):
            effects = [owed(step * 100 + number, payment_id=ID.format(number)) for number in range(30)]
            assert await asyncio.gather(*(sink.deliver(effect, NOW) for effect in effects)) == [Delivered()] * 30
        for number in range(30):
            own = [record for record in kafka.records if record.key == ID.format(number).encode()]
            assert len({record.partition for record in own}) == 1
            ids = [record.headers["webhook-id"] for record in own]
            assert ids == [f"msg_{ID.format(step * 100 + number)}" for step in range(5)]
        assert {record.partition for record in kafka.records} == {0, 1, 2}

    run(scenario, topics={"payments": 3})


def test_effect_about_an_account() -> None:
    """An effect without a payment has no key."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        assert await sink.deliver(owed(payment_id=None, effect="account.silent"), NOW) == Delivered()
        assert [record.key for record in kafka.records] == [None]

    run(scenario, topics={"payments": 3})


def test_missing_topic() -> None:
    """A missing topic is a failure, and is never asked for by name, which could make it; later it is delivered."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        assert await sink.deliver(owed(), NOW) == Failed("the topic does not exist")
        assert kafka.asked_by_name == []
        kafka.topics["payments"] = 1
        assert await sink.deliver(owed(), NOW) == Delivered()

    run(scenario, topics={"other": 1})


def test_too_large() -> None:
    """A record that the client or the broker finds too large is never tried again."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        final = Failed("the message is larger than the broker takes", is_final=True)
        assert await sink.deliver(owed(payload=f'"{"x" * 2_000_000}"'), NOW) == final
        kafka.errors.append(TOO_LARGE)
        assert await sink.deliver(owed(2), NOW) == final
        assert await sink.deliver(owed(3), NOW) == Delivered()
        assert len(kafka.records) == 1

    run(scenario, topics={"payments": 1})


@pytest.mark.parametrize("error", [NOT_ENOUGH_REPLICAS, NOT_AUTHORIZED])
def test_refused_for_now(error: int) -> None:
    """What a broker refuses, and an operator can mend, fails the attempt and is not final."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        kafka.errors.extend([error] * 100)
        assert not failed(await sink.deliver(owed(), NOW)).is_final
        kafka.errors.clear()
        assert await sink.deliver(owed(), NOW) == Delivered()
        assert {record.headers["webhook-id"] for record in kafka.records} == {f"msg_{owed().id}"}

    run(scenario, timeout=4, topics={"payments": 1})


def test_no_answer() -> None:
    """A record without the broker's answer is not confirmed, even though it was taken."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        assert await sink.deliver(owed(), NOW) == Delivered()
        kafka.is_silent = True
        result = failed(await sink.deliver(owed(2), NOW))
        assert (result.error, result.is_final) == ("not confirmed in time", False)
        kafka.is_silent = False
        assert await sink.deliver(owed(2), NOW) == Delivered()

    run(scenario, timeout=4, topics={"payments": 1})


def test_away_and_back() -> None:
    """Away at the start or in between, each attempt fails within the timeout; back again, the next is delivered."""

    async def scenario(sink: BrokerSink, kafka: Kafka) -> None:
        kafka.stop()
        before = failed(await sink.deliver(owed(), NOW))
        assert before.error.startswith("cannot connect (")
        await kafka.restart()
        assert await sink.deliver(owed(), NOW) == Delivered()
        kafka.stop()
        assert not failed(await sink.deliver(owed(2), NOW)).is_final
        await kafka.restart()
        results = [await sink.deliver(owed(2), NOW) for _ in range(3)]
        assert Delivered() in results
        assert {record.headers["webhook-id"] for record in kafka.records} == {
            f"msg_{ID.format(number)}" for number in (1, 2)
        }

    run(scenario, timeout=4, topics={"payments": 1})


def test_at_a_real_broker() -> None:
    """At a real Kafka, whose topic the test makes: delivered is what a consumer reads."""
    require("kafka")

    async def whole() -> None:
        from aiokafka import AIOKafkaConsumer
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        topic, at = f"test-{uuid4().hex[:12]}", URLS["kafka"].partition("://")[2]
        admin = AIOKafkaAdminClient(bootstrap_servers=at)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 3, 1)])
        sink = BrokerSink("shop", "kafka", URLS["kafka"], topic)
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=at, auto_offset_reset="earliest")
        try:
            assert await sink.deliver(owed(), NOW) == Delivered()
            await consumer.start()
            async with asyncio.timeout(DEADLINE_S):
                found = await consumer.getone()
            assert (found.value, found.key) == (owed().payload.encode(), ID.format(900).encode())
            assert dict(found.headers)["webhook-id"] == f"msg_{owed().id}".encode()
        finally:
            await consumer.stop()
            await sink.aclose()
            await admin.delete_topics([topic])
            await admin.close()

    asyncio.run(whole())
