"""A shop that takes effects: `python -m tests.benchmarks.shop LATENCY_MS FAILING` prints its URL, ends at SIGTERM.

Of the requests the share FAILING fails: half are answered 500, and half never. Others are answered after LATENCY_MS.
"""

import asyncio
import random
import signal
import sys
from typing import Final

_TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


class Shop(asyncio.Protocol):
    """One connection. Its requests come one after the other, each with a content-length."""

    def __init__(self, latency_s: float, failing: float, rng: random.Random) -> None:
        self._latency_s, self._failing, self._rng = latency_s, failing, rng
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request when its time has come."""
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            _, _, length = head.lower().partition(b"content-length: ")
            size = int(length.partition(b"\r\n")[0])
            if len(rest) < size:
                return
            self._buffer = rest[size:]
            drawn = self._rng.random()
            if drawn >= self._failing / 2:
                answer = _FAILED if drawn < self._failing else _TAKEN
                asyncio.get_running_loop().call_later(self._latency_s, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(latency_s: float, failing: float) -> None:
    rng = random.Random(1)
    server = await asyncio.get_running_loop().create_server(
        lambda: Shop(latency_s, failing, rng), "127.0.0.1", 0, backlog=1024
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) / 1000, float(sys.argv[2])))
