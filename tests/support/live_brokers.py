"""Real brokers as an operator and a shop see them, through their plain drivers: one fresh place for each test."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import nats
import pytest
import redis.asyncio
from nats.js.errors import NotFoundError

#: Where each runs on a developer's machine and in CI, on its usual port.
URLS = {
    "nats": "nats://127.0.0.1:4222",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:5672/",
    "redis": "redis://127.0.0.1:6379/0",
    "kafka": "kafka://127.0.0.1:9092",
}


@dataclass(frozen=True)
class Got:
    """One message as a shop's consumer sees it."""

    id: str | None  #: what the broker itself knows as the message's id
    subject: str  #: subject, routing key or stream
    body: bytes
    headers: Mapping[str, str]


class Nats:
    """A JetStream stream of the test's own."""

    def __init__(self, url: str = URLS["nats"]) -> None:
        self.url = url
        self.destination = f"test-{uuid4().hex[:12]}"

    async def _do(self, work: Any) -> Any:
        client = await nats.connect(self.url, allow_reconnect=False)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    async def open(self, **limits: Any) -> None:
        """The stream that takes the effects, as an operator makes it."""
        await self._do(lambda js: js.add_stream(name=self.destination, subjects=[f"{self.destination}.>"], **limits))

    async def received(self) -> list[Got]:
        async def read(js: Any) -> list[Got]:
            last = (await js.stream_info(self.destination)).state.last_seq
            found = []
            for number in range(1, last + 1):
                message = await js.get_msg(self.destination, number)
                headers = message.headers or {}
                found.append(Got(headers.get("Nats-Msg-Id"), message.subject, message.data or b"", headers))
            return found

        return list(await self._do(read))

    async def aclose(self) -> None:
        with suppress(NotFoundError):
            await self._do(lambda js: js.delete_stream(self.destination))


class Rabbit:
    """A durable topic exchange and a queue of the test's own."""

    def __init__(self, url: str = URLS["rabbitmq"]) -> None:
        self.url = url
        self.destination = f"test-{uuid4().hex[:12]}"

    async def _do(self, work: Any) -> Any:
        async with await aio_pika.connect(self.url) as connection:
            return await work(await connection.channel())

    async def open(self, **limits: Any) -> None:
        """Exchange and bound queue, as an operator makes them."""
        await self.declare_exchange()
        await self.bind(**limits)

    async def declare_exchange(self) -> None:
        await self._do(lambda channel: channel.declare_exchange(self.destination, "topic", durable=True))

    async def bind(self, **limits: Any) -> None:
        async def work(channel: Any) -> None:
            arguments = {name.replace("_", "-"): value for name, value in limits.items()} or None
            queue = await channel.declare_queue(self.destination, durable=True, arguments=arguments)
            await queue.bind(self.destination, routing_key="#")

        await self._do(work)

    async def raw(self) -> list[Any]:
        """Every message of the queue, which stays as it is."""

        async def work(channel: Any) -> list[Any]:
            queue = await channel.get_queue(self.destination)
            found = []
            while (message := await queue.get(fail=False)) is not None:
                found.append(message)
            for message in found:
                await message.nack(requeue=True)
            return found

        return list(await self._do(work))

    async def received(self) -> list[Got]:
        return [
            Got(
                message.message_id,
                message.routing_key,
                message.body,
                {"content-type": message.content_type, **{name: str(value) for name, value in message.headers.items()}},
            )
            for message in await self.raw()
        ]

    async def aclose(self) -> None:
        await self._do(lambda channel: channel.queue_delete(self.destination))
        await self._do(lambda channel: channel.exchange_delete(self.destination))


class Redis:
    """A stream of the test's own."""

    def __init__(self, url: str = URLS["redis"], **options: Any) -> None:
        self.url = url
        self.options = options
        self.destination = f"test-{uuid4().hex[:12]}"

    async def open(self, **_limits: Any) -> None:
        """Nothing: XADD makes the stream."""

    async def received(self) -> list[Got]:
        async with redis.asyncio.from_url(self.url, **self.options) as client:
            entries = await client.xrange(self.destination)
        return [
            Got(None, self.destination, fields.pop(b"payload"), {k.decode(): v.decode() for k, v in fields.items()})
            for _, fields in entries
        ]

    async def aclose(self) -> None:
        async with redis.asyncio.from_url(self.url, **self.options) as client:
            await client.delete(self.destination)


LIVE = {"nats": Nats, "rabbitmq": Rabbit, "redis": Redis}
Live = Nats | Rabbit | Redis


def is_there(kind: str) -> bool:
    """Whether anything listens where this broker usually does."""
    parts = urlsplit(URLS[kind])
    with suppress(OSError), socket.create_connection((parts.hostname, parts.port), 1):
        return True
    return False


def require(kind: str) -> None:
    """Skip the test, with the reason, where the broker does not run."""
    if not is_there(kind):
        pytest.skip(f"no {kind} at {urlsplit(URLS[kind]).hostname}:{urlsplit(URLS[kind]).port}")


class Proxy:
    """Stands between a sink and a broker, and can cut the line or hold the broker's words back."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_answer_held = False
        self.is_closed = False
        self.gate: asyncio.Event | None = None  #: answers wait for it
        self.connections = 0
        self.cuts: list[int] = []  #: numbers of answers that are lost together with every connection
        self._answers = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_given: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End every connection now, as a network does: what was on its way is gone."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.is_closed:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, back]
        for task in (
            asyncio.create_task(self._pipe(reader, back, is_answer=False)),
            asyncio.create_task(self._pipe(there, writer, is_answer=True)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self._answers += is_answer
                if is_answer and self.cuts and self._answers >= self.cuts[0]:
                    del self.cuts[0]
                    self.cut()
                    return
                is_held = is_answer and self.is_answer_held
                if is_answer and self.gate is not None:
                    await self.gate.wait()
                if not is_held:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
