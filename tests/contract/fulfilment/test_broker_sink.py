"""What a shop that consumes from a broker can rely on, at real brokers."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks import Webhook

from fulfilment.broker_sink import BrokerSink
from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from tests.support.clock import START
from tests.support.live_brokers import LIVE, URLS, Live, Nats, Proxy, Rabbit, Redis, require
from tests.support.waiting import DEADLINE_S

NOW = START
KEY = "whsec_" + base64.b64encode(b"the current signing key 0001").decode()
OLD_KEY = "whsec_" + base64.b64encode(b"the former signing key  0002").decode()
ID = "0197c1f0-0000-7000-8000-{:012d}"


@pytest.fixture(params=sorted(LIVE))
def live(request: pytest.FixtureRequest) -> Live:
    require(request.param)
    return LIVE[request.param]()


@pytest.fixture
def nats() -> Nats:
    require("nats")
    return Nats()


@pytest.fixture
def rabbit() -> Rabbit:
    require("rabbitmq")
    return Rabbit()


@pytest.fixture
def redis() -> Redis:
    require("redis")
    return Redis()


def owed(number: int = 1, **changes: object) -> OwedEffect:
    known = {
        "id": ID.format(number),
        "effect": "payment.paid",
        "payment_id": ID.format(900),
        "attempt": 1,
        "payload": '{"type":"payment.paid", "reference":"Bestellung 7 – ü"}',
        "created_at": NOW,
    }
    return OwedEffect(**{**known, **changes})  # type: ignore[arg-type]


def kind_of(live: Live) -> str:
    return next(kind for kind, found in LIVE.items() if isinstance(live, found))


def sink_of(live: Live, *, port: int | None = None, **settings: Any) -> BrokerSink:
    url = live.url if port is None else live.url.replace(str(urlsplit(live.url).port), str(port))
    return BrokerSink("shop", kind_of(live), url, live.destination, **{"timeout": 5, **settings})


def run(live: Live, scenario: Callable[[BrokerSink], Awaitable[None]], *, opened: bool = True, **settings: Any) -> None:
    """The scenario with a sink at the broker, whose place is removed again."""

    async def whole() -> None:
        sink = sink_of(live, **settings)
        try:
            if opened:
                await live.open()
            await scenario(sink)
        finally:
            await sink.aclose()
            await live.aclose()

    asyncio.run(whole())


def failed(result: Result) -> Failed:
    assert isinstance(result, Failed)
    return result


def test_delivered_is_there(live: Live) -> None:
    """Delivered means that the broker has the payload byte by byte, with what a consumer needs to tell and check it."""

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(attempt=3), NOW) == Delivered()
        [got] = await live.received()
        assert got.body == owed().payload.encode()
        wanted = {
            "content-type": "application/json",
            "webhook-id": f"msg_{owed().id}",
            "webhook-timestamp": str(int(NOW.timestamp())),
            "receipted-effect": "payment.paid",
            "receipted-attempt": "3",
        }
        assert {name: got.headers.get(name) for name in wanted} == wanted
        assert "webhook-signature" not in got.headers

    run(live, scenario)


def test_signed(live: Live) -> None:
    """With keys, the outside library verifies what a consumer reads, by either key while they are rotated."""

    async def scenario(sink: BrokerSink) -> None:
        now = datetime.now(UTC)  # the outside library refuses a timestamp of five minutes ago
        assert await sink.deliver(owed(), now) == Delivered()
        [got] = await live.received()
        for key in (KEY, OLD_KEY):
            assert Webhook(key).verify(got.body, dict(got.headers))["reference"] == "Bestellung 7 – ü"

    run(live, scenario, keys=[KEY, OLD_KEY])


def test_trace_travels(live: Live) -> None:
    """What is traced says where, and what is not says nothing, so that the consumer samples as it likes."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(traceparent=parent), NOW) == Delivered()
        assert await sink.deliver(owed(id=ID.format(2)), NOW) == Delivered()
        assert sorted(got.headers.get("traceparent", "") for got in await live.received()) == ["", parent]

    run(live, scenario)


def test_effect_about_an_account(live: Live) -> None:
    """An effect without a payment travels as well."""

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(payment_id=None, effect="account.silent"), NOW) == Delivered()
        [got] = await live.received()
        assert got.headers["receipted-effect"] == "account.silent"

    run(live, scenario)


def test_many_at_once(live: Live) -> None:
    """A hundred deliveries at the same time, of which the first opens the connection, all arrive once."""

    async def scenario(sink: BrokerSink) -> None:
        results = await asyncio.gather(*(sink.deliver(owed(number), NOW) for number in range(100)))
        assert results == [Delivered()] * 100
        got = await live.received()
        assert sorted(one.headers["webhook-id"] for one in got) == [f"msg_{ID.format(n)}" for n in range(100)]

    run(live, scenario)


def test_one_connection(live: Live) -> None:
    """Deliveries one after the other use one connection."""

    async def scenario(_sink: BrokerSink) -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            sink = sink_of(live, port=proxy.port)
            for number in range(5):
                assert await sink.deliver(owed(number), NOW) == Delivered()
            assert proxy.connections == 1
            await sink.aclose()

    run(live, scenario)


def test_away_and_back(live: Live) -> None:
    """While the broker cannot be reached each attempt fails at once; when it is back the next one is delivered."""

    async def scenario(_sink: BrokerSink) -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            proxy.is_closed = True
            sink = sink_of(live, port=proxy.port)
            before = failed(await sink.deliver(owed(), NOW))
            assert before.error.startswith("cannot connect (")
            assert not before.is_final
            proxy.is_closed = False
            assert await sink.deliver(owed(), NOW) == Delivered()
            proxy.is_closed = True
            proxy.cut()
            results = await asyncio.gather(*(sink.deliver(owed(number), NOW) for number in range(2, 6)))
            assert all(not failed(result).is_final for result in results)
            proxy.is_closed = False
            assert await sink.deliver(owed(2), NOW) == Delivered()
            await sink.aclose()
        assert {one.headers["webhook-id"] for one in await live.received()} == {
            f"msg_{ID.format(number)}" for number in (1, 2)
        }

    run(live, scenario)


def test_cut_while_waiting(live: Live) -> None:
    """A line that is cut before the confirmation fails the attempt at once, not only at the timeout."""

    async def scenario(_sink: BrokerSink) -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            sink = sink_of(live, port=proxy.port, timeout=300)
            assert await sink.deliver(owed(), NOW) == Delivered()
            proxy.is_answer_held = True
            waiting = asyncio.create_task(sink.deliver(owed(2), NOW))
            async with asyncio.timeout(DEADLINE_S):
                while len(await live.received()) < 2:  # noqa: ASYNC110 - the broker sets no event here
                    await asyncio.sleep(0)
                assert not waiting.done()
                proxy.cut()
                assert not failed(await waiting).is_final
            proxy.is_answer_held = False
            assert await sink.deliver(owed(2), NOW) == Delivered()
            await sink.aclose()
        ids = [one.headers["webhook-id"] for one in await live.received()]
        # Taken, and taken again: a stream of NATS keeps one of them, elsewhere the consumer tells them by the id.
        assert ids.count(f"msg_{ID.format(2)}") == (1 if isinstance(live, Nats) else 2)
        assert len(set(ids)) == 2

    run(live, scenario)


def test_no_confirmation_is_no_delivery(live: Live) -> None:
    """A broker that took the message and whose word never came has not confirmed it: failed, within the timeout."""

    async def scenario(_sink: BrokerSink) -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            sink = sink_of(live, port=proxy.port, timeout=3)
            assert await sink.deliver(owed(), NOW) == Delivered()
            proxy.is_answer_held = True
            started = asyncio.get_running_loop().time()
            result = await sink.deliver(owed(2), NOW)
            assert asyncio.get_running_loop().time() - started < DEADLINE_S
            assert result == Failed("not confirmed within 3 s")
            proxy.is_answer_held = False
            assert await sink.deliver(owed(2), NOW) == Delivered()
            await sink.aclose()

    run(live, scenario)


def test_one_failure_cuts_nobody_off(live: Live) -> None:
    """An attempt that failed takes the connection out of use, and those under way on it still get their word."""

    async def scenario(_sink: BrokerSink) -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            sink = sink_of(live, port=proxy.port, timeout=4)
            assert await sink.deliver(owed(), NOW) == Delivered()
            proxy.is_answer_held = True
            lost = asyncio.create_task(sink.deliver(owed(2), NOW))
            async with asyncio.timeout(DEADLINE_S):
                while len(await live.received()) < 2:  # noqa: ASYNC110 - the broker sets no event here
                    await asyncio.sleep(0)
            proxy.is_answer_held = False
            proxy.gate = asyncio.Event()
            await asyncio.sleep(2)  # so that its time is up later than the other's
            waiting = asyncio.create_task(sink.deliver(owed(3), NOW))
            assert not failed(await lost).is_final
            await asyncio.sleep(0.05)  # in which a connection could be closed
            proxy.gate.set()
            assert await waiting == Delivered()
            await sink.aclose()

    run(live, scenario)


def test_silent_server(live: Live) -> None:
    """A server that takes the connection and says nothing costs one timeout, however many deliveries wait for it."""

    async def scenario(_sink: BrokerSink) -> None:
        async with Proxy(urlsplit(live.url).port or 0) as proxy:
            proxy.is_answer_held = True
            sink = sink_of(live, port=proxy.port, timeout=2)
            started = asyncio.get_running_loop().time()
            results = await asyncio.gather(*(sink.deliver(owed(number), NOW) for number in range(8)))
            assert asyncio.get_running_loop().time() - started < 8 * 2 - 1, "each waited its own turn"
            assert all("connect" in failed(result).error for result in results)
            assert proxy.connections <= 2  # the client of NATS tries each server twice
            await sink.aclose()

    run(live, scenario)


def test_closed(live: Live) -> None:
    """After aclose nothing is sent any more, and a repeat does nothing."""

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(), NOW) == Delivered()
        await sink.aclose()
        await sink.aclose()
        assert await sink.deliver(owed(2), NOW) == Failed("the sink is closed")
        assert len(await live.received()) == 1

    run(live, scenario)


def test_nothing_secret_in_errors(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """What an attempt that was refused at the door says, and what is logged, holds no password and no payload."""
    kind = kind_of(live)
    at = URLS[kind].partition("://")[2].rpartition("@")[2]
    scheme = URLS[kind].partition("://")[0]

    async def scenario(_sink: BrokerSink) -> None:
        sink = BrokerSink("shop", kind, f"{scheme}://someone:pass-word-1@{at}", live.destination, timeout=5)
        assert "pass-word-1" not in repr(sink)
        result = await sink.deliver(owed(), NOW)
        if kind != "nats":  # a NATS server without users takes everybody
            assert "pass-word-1" not in failed(result).error
            assert "Bestellung" not in failed(result).error
        await sink.aclose()

    with caplog.at_level("DEBUG"):
        run(live, scenario)
    assert "pass-word-1" not in caplog.text


def test_nats_same_id_is_one_message(nats: Nats) -> None:
    """The same effect again, as after a crash before settling, is one message in the stream, and delivered."""

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(attempt=1), NOW) == Delivered()
        assert await sink.deliver(owed(attempt=2), NOW) == Delivered()
        [got] = await nats.received()
        assert (got.id, got.headers["receipted-attempt"]) == (owed().id, "1")
        assert got.subject == f"{nats.destination}.payment.paid"

    run(nats, scenario)


def test_nats_without_a_stream(nats: Nats) -> None:
    """A subject that no stream takes is a failure, even if somebody listens; with the stream it is delivered."""

    async def scenario(sink: BrokerSink) -> None:
        refused = failed(await sink.deliver(owed(), NOW))
        assert refused == Failed("no stream takes the subject, or JetStream is not there")
        await nats.open()
        assert await sink.deliver(owed(), NOW) == Delivered()
        assert len(await nats.received()) == 1

    run(nats, scenario, opened=False)


def test_nats_limits(nats: Nats) -> None:
    """A full stream is tried again; a message that is too large for it, or for the server, never is."""

    async def scenario(sink: BrokerSink) -> None:
        await nats.open(max_msgs=1, max_msg_size=1000, discard="new")
        assert await sink.deliver(owed(), NOW) == Delivered()
        assert await sink.deliver(owed(2), NOW) == Failed("the stream is full")
        for size in (1000, 2_000_000):
            large = failed(await sink.deliver(owed(3, payload=f'"{"x" * size}"'), NOW))
            assert large == Failed("the message is larger than the broker takes", is_final=True)
        assert len(await nats.received()) == 1

    run(nats, scenario, opened=False)


def test_rabbit_properties(rabbit: Rabbit) -> None:
    """A message is persistent, and says what it is in the properties that are made for it."""

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(), NOW) == Delivered()
        [got] = await rabbit.raw()
        assert (got.message_id, got.delivery_mode, got.type) == (owed().id, 2, "payment.paid")
        assert (got.routing_key, got.content_type, got.app_id) == ("payment.paid", "application/json", "receipted")
        assert got.timestamp == NOW.replace(microsecond=0)

    run(rabbit, scenario)


def test_rabbit_unroutable(rabbit: Rabbit) -> None:
    """A message that no queue takes is a failure; once a queue is bound, the same effect is delivered."""

    async def scenario(sink: BrokerSink) -> None:
        await rabbit.declare_exchange()
        results = await asyncio.gather(*(sink.deliver(owed(number), NOW) for number in range(5)))
        assert results == [Failed("no queue is bound for the effect")] * 5
        await rabbit.bind()
        assert await sink.deliver(owed(), NOW) == Delivered()
        assert [got.id for got in await rabbit.received()] == [owed().id]

    run(rabbit, scenario, opened=False)


def test_rabbit_without_an_exchange(rabbit: Rabbit) -> None:
    """A missing exchange is a failure and is not made; one that vanishes in between is noticed, too."""

    async def scenario(sink: BrokerSink) -> None:
        assert await sink.deliver(owed(), NOW) == Failed("the exchange does not exist")
        assert await sink.deliver(owed(), NOW) == Failed("the exchange does not exist")
        await rabbit.open()
        assert await sink.deliver(owed(), NOW) == Delivered()
        await rabbit.aclose()
        assert not failed(await sink.deliver(owed(2), NOW)).is_final
        assert await sink.deliver(owed(2), NOW) == Failed("the exchange does not exist")
        await rabbit.open()
        assert await sink.deliver(owed(2), NOW) == Delivered()
        assert [got.id for got in await rabbit.received()] == [ID.format(2)]

    run(rabbit, scenario, opened=False)


def test_rabbit_full(rabbit: Rabbit) -> None:
    """A queue that refuses what is beyond its length says so by a nack, which is tried again."""

    async def scenario(sink: BrokerSink) -> None:
        await rabbit.open(x_max_length=1, x_overflow="reject-publish")
        assert await sink.deliver(owed(), NOW) == Delivered()
        assert await sink.deliver(owed(2), NOW) == Failed("the broker did not take the message (nack)")
        assert await sink.deliver(owed(2), NOW) == Failed("the broker did not take the message (nack)")
        assert len(await rabbit.received()) == 1

    run(rabbit, scenario, opened=False)


def test_redis_no_stream(redis: Redis) -> None:
    """A key that holds something else is a failure that an operator can mend."""

    async def scenario(sink: BrokerSink) -> None:
        from redis.asyncio import from_url

        async with from_url(redis.url) as client:
            await client.set(redis.destination, "taken")
            assert await sink.deliver(owed(), NOW) == Failed("the destination is no stream")
            await client.delete(redis.destination)
        assert await sink.deliver(owed(), NOW) == Delivered()

    run(redis, scenario)
