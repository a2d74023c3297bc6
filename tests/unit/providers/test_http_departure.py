"""When a request leaves, over a real socket: the account's turn is looked at last, after connecting; or never."""

import asyncio
from datetime import UTC, datetime

import httpx2
import pytest

from providers import decoding
from providers.decoding import Unreadable
from providers.errors import ProviderError
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


#: Requests that our own library refuses: nothing of them ever leaves.
UNSENDABLE = {
    "a line break in a key": {"x-api-key": "key\n"},
    "a carriage return in a key": {"x-api-key": "key\r"},
    "a NUL in a key": {"x-api-key": "a\0b"},
    "letters that no header holds": {"authorization": "Bearer ключ"},
    "a BOM": {"authorization": "Bearer \ufeffkey"},
    "a lone surrogate": {"authorization": "Bearer \ud800"},
}


@pytest.mark.parametrize("kind", UNSENDABLE)
def test_a_request_that_cannot_be_sent_was_not_sent_and_is_not_tried_again(kind):
    async def send(transport, _pace, url):
        with pytest.raises(ProviderError) as refused:
            await transport.send("POST", url, headers=UNSENDABLE[kind], content=b"{}")
        assert (refused.value.may_retry, refused.value.is_ambiguous, refused.value.is_unsent) == (False, False, True)
        assert "key" not in refused.value.message
        await transport.send("POST", url, headers={}, content=b"")  # the account goes on

    server, _ = asyncio.run(talk(send))

    assert server.requests == 1


@pytest.mark.parametrize(
    "head",
    [
        b"Retry-After: Wed, 99 Foo 99999 25:61:61 +9999",
        b"Retry-After: \xff",
        b"Retry-After: " + b"9" * 5000,
        b"Location: http://[",
        b"Location: https://\xe2\x84\x80/",
        b"Location: //" + b"a" * 300 + b".example",
        b"Content-Type: text/html; charset=\xff",
        b"Content-Encoding: gzip",
        b"Set-Cookie: a=\xff; expires=Wed, 99 Foo 99999 25:61:61 +9999",
        b"X-RateLimit-Reset: " + b"9" * 400,
    ],
)
@pytest.mark.parametrize("status", [b"200", b"302", b"429", b"599"])
def test_whatever_a_provider_answers_is_an_answer_or_a_named_error(head, status):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 2\r\n" + head + b"\r\n\r\n\xff\xfe")
        await writer.drain()
        writer.close()

    async def ask():
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        async with listening, httpx2.AsyncClient() as http:
            transport = HttpTransport(http, Watched(Server()), lambda: datetime.now(UTC), allow_loopback_http=True)
            try:
                answer = await transport.send("GET", url, headers={})
            except ProviderError:
                return
            decoding.retry_after(answer.headers, answer.sent_at)
            with pytest.raises(Unreadable):
                decoding.json_object(answer.body)

    asyncio.run(ask())
