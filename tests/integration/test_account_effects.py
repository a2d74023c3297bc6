"""An alarm's whole way: from the inbox over the outbox to a signed request, a handler and the sandbox's shop."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from starlette.responses import Response

from fulfilment.backoff import Backoff
from fulfilment.handler_sink import HandlerSink
from fulfilment.http_sink import HttpSink
from fulfilment.signing import Signer
from poller.alarms import alarm_message
from sandbox.shop import Shop
from statemachine.phases import Alarm
from storage import inbox, outbox
from tests.support import keeping
from tests.support.builders import PROVIDERS
from tests.support.effect_receiver import KEY, Receiver
from tests.support.pipeline_world import World
from worker.dispatch import Dispatcher

HANDLED: list[tuple[str, str, str]] = []


def handle(fulfilment):
    HANDLED.append((fulfilment.effect, fulfilment.payload["data"]["account"], fulfilment.payload["data"]["alarm"]))


@pytest.fixture
def world(template, tmp_path):
    made = World(template, tmp_path / "world.db")
    made.clock.now = datetime.now(UTC)
    made.join("acme", PROVIDERS["stable_genius"])
    yield made
    made.close()


@pytest.fixture
def receiver():
    made = Receiver()
    made.start()
    yield made
    made.stop()


def tell(world, alarm=Alarm.SILENT, *, is_over=False):
    world.record(
        alarm_message(
            "acme",
            alarm,
            since=datetime(2026, 4, 1, tzinfo=UTC),
            is_over=is_over,
            reason="a test",
            details={"silent_seconds": 60},
            now=world.clock(),
        )
    )
    world.settle()


def dispatch(world, sinks, steps=1):
    """Step the dispatcher so often, and close the sinks."""

    async def whole():
        dispatcher = Dispatcher(
            world.database, sinks, world.clock, random.Random(7), backoff=Backoff((5.0,), max_attempts=2, jitter=0.0)
        )
        for _ in range(steps):
            await dispatcher.step()
        for sink in sinks.values():
            await sink.aclose()

    asyncio.run(whole())


def http_sink(receiver):
    return HttpSink("shop", receiver.url, [KEY], allow_loopback=True, timeout=10)


def test_every_sink_gets_it_signed_and_whole(world, receiver):
    HANDLED.clear()
    tell(world)
    dispatch(world, {"shop": http_sink(receiver), "ledger": HandlerSink("ledger", f"{__name__}:handle")})

    (got,) = receiver.received
    payload = json.loads(got.body)
    assert got.is_signed()
    assert payload["type"] == "account.silent"
    assert "payment" not in payload["data"]
    assert (payload["data"]["is_over"], payload["data"]["details"]) == (False, {"silent_seconds": 60})
    assert HANDLED == [("account.silent", "acme", "silent")]
    assert world.audit().faults == []


def test_its_beginning_comes_before_its_end_whatever_fails(world, receiver):
    """The end waits while the beginning is tried again, and an alarm of another name does not."""
    tell(world)
    tell(world, is_over=True)
    receiver.answers.append(Response(status_code=503))
    dispatch(world, {"shop": http_sink(receiver)}, steps=2)
    tell(world, Alarm.PUSH_LOSS)
    dispatch(world, {"shop": http_sink(receiver)}, steps=2)
    world.clock.advance(6)
    dispatch(world, {"shop": http_sink(receiver)}, steps=2)

    told = [
        (json.loads(got.body)["data"]["alarm"], json.loads(got.body)["data"]["is_over"]) for got in receiver.received
    ]
    assert [entry for entry in told if entry[0] == "silent"] == [("silent", False), ("silent", False), ("silent", True)]
    assert told[1] == ("push_loss", False)
    assert receiver.received[0].id in {got.id for got in receiver.received[1:]}
    assert world.audit().faults == []


def test_dead_it_is_redriven_and_the_audit_holds(world, receiver):
    tell(world)
    receiver.answers.append(Response(status_code=410))
    dispatch(world, {"shop": http_sink(receiver)})
    with world.database.read() as unit:
        (dead,) = outbox.find(unit, status="dead")
    assert world.audit().faults == []

    with world.database.write() as unit:
        keeping.redrive(unit, dead.id, world.clock())
    dispatch(world, {"shop": http_sink(receiver)})

    assert [got.id for got in receiver.received] == [f"msg_{dead.travels_as}"] * 2
    with world.database.read() as unit:
        assert outbox.get(unit, dead.id).status == "delivered"
    assert world.audit().faults == []


def test_the_shop_of_the_sandbox_takes_it(world):
    """It counts the effect and ships nothing."""
    tell(world)
    with world.database.write() as unit:
        (owed,) = outbox.claim(unit, world.clock(), timedelta(seconds=60), "shop", outbox.ClaimLimits(9, 9, 9))

    async def whole():
        shop = Shop(KEY)
        transport = httpx2.ASGITransport(app=shop.app())
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            body, at = owed.payload.encode(), int(datetime.now(UTC).timestamp())
            signature = Signer([KEY]).sign("msg_1", at, body)
            headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}
            answer = await client.post("/fulfilment", content=body, headers=headers)
            return shop, answer.json()

    shop, answer = asyncio.run(whole())
    assert answer == {"taken": "now"}
    assert (shop.effects, shop.fulfilled) == ({"account.silent": 1}, {})


def test_the_message_of_an_alarm_is_kept_and_about_no_payment(world):
    tell(world)

    with world.database.read() as unit:
        (message,) = inbox.find(unit, source="poller")
    assert (message.status, message.decision, message.about, message.payment_id) == ("decided", "noted", None, None)
