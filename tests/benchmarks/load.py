"""Delivers unique, signed events as fast as they are answered: `python -m tests.benchmarks.load PORT CONNECTIONS
SECONDS NUMBER`. Everything is signed before the clock starts, so that signing is no part of what is measured.
"""

import asyncio
import json
import statistics
import sys
import time
import uuid
from collections import Counter, deque

import uvloop

from tests.integration.receiver.deliveries import sign


def request() -> bytes:
    """One delivery of Stable Genius of about 800 bytes of body, under a random id as providers give them."""
    number = uuid.uuid4().hex
    told = {
        "id": f"evt_{number}",
        "object": "event",
        "type": "payment_intent.confirmed",
        "created_at": "2026-04-01T10:00:00Z",
        "data": {
            "id": f"pi_{number}",
            "status": "confirmed",
            "amount": 4.5,
            "currency": "usd",
            "metadata": {"reference": number, "note": "x" * 500},
        },
    }
    body = json.dumps(told).encode()
    signed = sign("sg", body)
    lines = ["POST /webhooks/sg HTTP/1.1", "Host: pay.shop.example", "Accept: */*", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in signed.headers]
    lines += ["X-Request-Id: " + number, "Accept-Encoding: gzip"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client(asyncio.Protocol):
    """One connection in a closed loop: the next request leaves when the answer before it has come."""

    def __init__(self, requests: deque[bytes], until: float, taken: list[float], statuses: Counter[bytes]) -> None:
        self._requests = requests
        self._until = until
        self._taken = taken
        self._statuses = statuses
        self._received = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._since = time.perf_counter()
        if not self._requests or self._since >= self._until:
            self._transport.close()
            return
        self._transport.write(self._requests.popleft())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self._taken.append(time.perf_counter() - self._since)
        self._statuses[head[9:12]] += 1
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


async def run(port: int, connections: int, seconds: float, number: int) -> dict[str, object]:
    """What was measured."""
    requests = deque(request() for _ in range(number))
    taken: list[float] = []
    statuses: Counter[bytes] = Counter()
    loop, started = asyncio.get_running_loop(), time.perf_counter()

    def client() -> Client:
        return Client(requests, started + seconds, taken, statuses)

    clients = [(await loop.create_connection(client, "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.gather(*(client.done for client in clients))
    lasted = time.perf_counter() - started
    cuts = statistics.quantiles(taken, n=100)
    return {
        "answers": {status.decode(): count for status, count in statuses.items()},
        "per_second": len(taken) / lasted,
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
    }


if __name__ == "__main__":
    port, connections, seconds, number = sys.argv[1:]
    print(json.dumps(uvloop.run(run(int(port), int(connections), float(seconds), int(number)))))
