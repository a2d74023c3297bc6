"""One server that speaks as much of Kafka's protocol as a producer needs: no broker, but its answers over real TCP.

It stands in where no Kafka runs: what a producer sends, and what it makes of each answer, is real; durability is not.
"""

import asyncio
import struct
from collections import deque
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Self

from aiokafka.protocol.admin import ApiVersionRequest_v0, ApiVersionResponse_v0
from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.metadata import MetadataRequest_v5, MetadataResponse_v5
from aiokafka.protocol.produce import ProduceRequest_v5, ProduceResponse_v5
from aiokafka.protocol.transaction import InitProducerIdRequest_v0, InitProducerIdResponse_v0
from aiokafka.record import MemoryRecords

REQUESTS = {
    request.API_KEY: request
    for request in (ApiVersionRequest_v0, MetadataRequest_v5, ProduceRequest_v5, InitProducerIdRequest_v0)
}


@dataclass(frozen=True)
class Record:
    """One record as it came, with what its batch said."""

    partition: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]
    acks: int
    producer_id: int


@dataclass
class Kafka:
    """Knows `topics` by name and number of partitions; answers each produce with the next of `errors`, else well."""

    topics: dict[str, int] = field(default_factory=dict)
    errors: deque[int] = field(default_factory=deque)
    records: list[Record] = field(default_factory=list)
    asked_by_name: list[str] = field(default_factory=list)
    is_silent: bool = False  #: takes what is produced and does not answer

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_given: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def restart(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                data = BytesIO(await reader.readexactly(size))
                header = RequestHeader_v1.SCHEMA.decode(data)
                key, number = header[0], header[2]
                answer = self._answer(REQUESTS[key].decode(data))
                if answer is not None:
                    body = struct.pack(">i", number) + answer.encode()
                    writer.write(struct.pack(">i", len(body)) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    def _answer(self, request: Any) -> Any:
        if isinstance(request, ApiVersionRequest_v0):
            return ApiVersionResponse_v0(
                0, [(key, each.API_VERSION, each.API_VERSION) for key, each in REQUESTS.items()]
            )
        if isinstance(request, MetadataRequest_v5):
            self.asked_by_name += request.topics or []
            names = list(self.topics) if request.topics is None else request.topics
            return MetadataResponse_v5(0, [(0, "127.0.0.1", self.port, None)], "one", 0, [*map(self._topic, names)])
        if isinstance(request, InitProducerIdRequest_v0):
            return InitProducerIdResponse_v0(0, 0, 4711, 0)
        return self._produced(request)

    def _topic(self, name: str) -> tuple[Any, ...]:
        partitions = [(0, number, 0, [0], [0], []) for number in range(self.topics.get(name, 0))]
        return (0 if name in self.topics else 3, name, False, partitions)

    def _produced(self, request: Any) -> Any:
        error = self.errors.popleft() if self.errors else 0
        answers = []
        for topic, partitions in request.topics:
            for partition, data in partitions:
                if not error:
                    self._keep(partition, bytes(data), request.required_acks)
            answers.append((topic, [(partition, error, len(self.records), -1, 0) for partition, _ in partitions]))
        return None if self.is_silent else ProduceResponse_v5(answers, 0)

    def _keep(self, partition: int, data: bytes, acks: int) -> None:
        batches = MemoryRecords(data)
        while (batch := batches.next_batch()) is not None:
            assert batch.validate_crc()
            for record in batch:
                headers = {name: value.decode() for name, value in record.headers}
                self.records.append(Record(partition, record.key, record.value, headers, acks, batch.producer_id))
