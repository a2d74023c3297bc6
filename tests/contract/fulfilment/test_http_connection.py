"""How the HTTP sink uses connections, against a server that says exactly what the test wants, byte by byte."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from fulfilment.contract import Delivered, Failed
from tests.contract.fulfilment.test_http_sink import NOW, owed, sink_of

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


class Server:
    """Answers the requests of each connection with what stands for it; counts connections and requests."""

    def __init__(self, *connections):
        self.said, self.connections, self.requests = list(connections), 0, 0
        self._serving = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._serving)

    async def _serve(self, reader, writer):
        self._serving.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the sink has closed it
            await self._answer(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, reader, writer):
        answers = self.said[min(self.connections, len(self.said) - 1)]
        self.connections += 1
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            self.requests += 1
            writer.write(answer)
            await writer.drain()


def delivered(count, *connections, at_once=False, **settings):
    """The results of so many deliveries, and the server."""

    async def run():
        async with Server(*connections) as server:
            sink = sink_of(server.url, **settings)
            if at_once:
                results = await asyncio.gather(*(sink.deliver(owed(), NOW) for _ in range(count)))
            else:
                results = [await sink.deliver(owed(), NOW) for _ in range(count)]
            await sink.aclose()
            return results, server

    return asyncio.run(run())


def test_a_connection_is_used_again():
    """Twenty deliveries one after the other are twenty requests on one connection."""
    results, server = delivered(20, [TAKEN] * 20)
    assert (results, server.connections) == ([Delivered(204)] * 20, 1)


def test_deliveries_at_once_have_a_connection_each():
    """None waits for the answer to another."""
    results, server = delivered(8, [TAKEN] * 8, at_once=True)
    assert (results, server.connections) == ([Delivered(204)] * 8, 8)


def test_one_that_was_closed_while_it_was_idle_costs_no_attempt():
    """The request is sent on another, once: a server that closes each without an answer gets two."""
    results, server = delivered(3, [TAKEN], [TAKEN, TAKEN])
    assert (results, server.connections) == ([Delivered(204)] * 3, 2)


def test_a_connection_that_is_too_old_is_not_used_again(monkeypatch):
    """A host that has moved is looked up again."""
    monkeypatch.setattr("fulfilment.http_sink._MAX_AGE_S", 0)
    results, server = delivered(3, [TAKEN] * 3)
    assert (results, server.connections) == ([Delivered(204)] * 3, 3)


@pytest.mark.parametrize(
    ("said", "expected", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Delivered(200), 1),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Delivered(200), 1),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + TAKEN, Delivered(204), 1),
        (b"HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n" + TAKEN, Delivered(204), 1),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Delivered(200), 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Delivered(200), 2),
        # what comes unasked is no answer to the next request
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n" + TAKEN, Failed("answered 500", 500), 2),
        (TAKEN + b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", Delivered(204), 2),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            Failed("answered 101", 101),
            2,
        ),
        (b"220 mail.example ESMTP\r\n", Failed("no answer (NoAnswer)"), 2),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, Failed("no answer (NoAnswer)"), 2),
    ],
    ids=lambda each: str(each)[:40] if isinstance(each, bytes) else None,
)
def test_an_answer_is_read_to_its_end_and_no_further(said, expected, connections):
    """And a connection on which it ends otherwise is not used again."""
    results, server = delivered(2, [said, said])
    told = [replace(each, answer=b"") if isinstance(each, Delivered) else each for each in results]
    assert (told, server.connections) == ([expected] * 2, connections)
