"""When a request leaves, over a real socket: the account's turn is looked at last, after connecting."""

import asyncio
from datetime import UTC, datetime

import httpx2
import pytest

from providers.http import HttpTransport
from storage.errors import StorageUnavailable


class Watched:
    """A pace that keeps what the server had seen by the time it was asked."""

    def __init__(self, server):
        self.server, self.seen, self.fault = server, [], None

    async def turn(self):
        """At once."""

    async def leave(self):
        await asyncio.sleep(0)  # the server may run meanwhile
        self.seen.append((self.server.connections, self.server.requests))
        if self.fault is not None:
            raise self.fault

    async def pause(self, seconds):
        raise AssertionError("nothing to pause for")


class Server:
    """Answers 204 to everything, and counts."""

    def __init__(self):
        self.connections = self.requests = 0
        self.serving = []

    async def serve(self, reader, writer):
        self.connections += 1
        self.serving.append(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()


async def talk(script):
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    pace = Watched(server)
    async with httpx2.AsyncClient() as http:
        transport = HttpTransport(http, pace, lambda: datetime.now(UTC), allow_loopback_http=True)
        await script(transport, pace, f"http://127.0.0.1:{port}/")
    await asyncio.gather(*server.serving)
    listening.close()
    await listening.wait_closed()
    return server, pace


def test_a_request_leaves_after_the_last_look_and_one_look_is_one_request():
    async def three(transport, _pace, url):
        for _ in range(3):
            assert (await transport.send("GET", url, headers={})).status == 204

    server, pace = asyncio.run(talk(three))

    assert pace.seen == [(1, 0), (1, 1), (1, 2)]
    assert server.requests == 3


def test_nothing_is_sent_where_the_turn_cannot_be_had():
    async def fail_once(transport, pace, url):
        pace.fault = StorageUnavailable("away")
        with pytest.raises(StorageUnavailable):
            await transport.send("POST", url, headers={}, content=b"{}")
        pace.fault = None
        assert (await transport.send("GET", url, headers={})).status == 204

    server, _ = asyncio.run(talk(fail_once))

    assert server.requests == 1
