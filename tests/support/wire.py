"""The wire between a program and its database, which can be cut, and can go dead without anybody being told."""

import asyncio
import socket
from types import TracebackType
from typing import Self


class Wire:
    """Forwards TCP from a port of its own to another, until it is cut or dead. Used within a running event loop."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Every connection is reset, and so is every one that is made, until `mend()`."""
        self._is_cut = True
        for writer in self._writers:
            _reset(writer)

    def go_dead(self) -> None:
        """Connections stay open and new ones are accepted, and nothing is forwarded either way, until `mend()`."""
        self._flows.clear()

    def mend(self) -> None:
        """It forwards again; what was on its way while it was dead arrives now."""
        self._is_cut = False
        self._flows.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while found := await source.read(65536):
                await self._flows.wait()
                sink.write(found)
                await sink.drain()
        except OSError:
            pass  # either end was reset
        await self._flows.wait()  # a dead wire does not tell that the other end has closed
        self._writers.discard(sink)
        sink.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closed by RST, as by a firewall or a machine that was switched off and on."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
