"""Tells open pages that what they show has changed: server-sent events with a mark, never with data.

A page is told that it is old, and fetches itself again; so whoever sees it is asked for each time who they are.
However many pages are open in a process, each kind of thing is looked at once a second at most, with one query.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import ClassVar, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from console.parts import Parts
from console.person import Person
from statemachine.errors import ServiceError
from storage import console_sessions
from storage.engine import Unit
from storage.errors import NotFound, StorageUnavailable

log = structlog.get_logger()

#: Seconds between two looks; of all who wait together.
LOOK_EVERY: Final = 1.0

#: Seconds after which a silent stream sends a comment, and whether its session is still open is looked at again.
BEAT: Final = 15.0

#: Seconds after which a stream ends; a page comes again by itself.
LONGEST: Final = 600.0

#: Pages that may wait at once for one kind of thing, in one process.
MOST: Final = 200

Reads = Callable[[Unit, Sequence[str]], Mapping[str, str]]


class TooManyWatching(ServiceError):
    """Too many pages are open here that wait for changes; this one has to be loaded again to see them."""

    type = "rate_limit_error"
    code = "too_many_watching"
    status = 503
    retryable: ClassVar[bool] = True


class Live:
    """Watches one kind of thing, each by its key. One for the process."""

    def __init__(self, parts: Parts, read: Reads, *, most: int = MOST) -> None:
        """`read` answers with the marks of those keys that exist; a mark is another after every change."""
        self._parts, self._read, self._most = parts, read, most
        self._keys: Counter[str] = Counter()
        self._marks: Mapping[str, str] = {}
        self._looked_at = float("-inf")
        self._turn = asyncio.Lock()

    @property
    def watching(self) -> int:
        """How many pages wait now."""
        return self._keys.total()

    def stream(self, request: Request, key: str) -> Response:
        """The marks of one thing as server-sent events: the present one, then each other that it comes to have.

        Ends when the thing is gone, the session ends, the service stops, or after ten minutes. Raises TooManyWatching.
        """
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if self.watching >= self._most:
            raise TooManyWatching
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(self._events(request, key), media_type="text/event-stream", headers=headers)

    async def _events(self, request: Request, key: str) -> AsyncIterator[bytes]:
        person: Person = request.state.person
        ends_at, beat_at, told = time.monotonic() + LONGEST, time.monotonic() + BEAT, None
        self._keys[key] += 1
        try:
            yield b"retry: 2000\n\n"
            while time.monotonic() < ends_at and not self._parts.stopping.is_set():
                mark = await self._mark(key)
                if mark is None:
                    return
                if mark != told:
                    told = mark
                    yield f"data: {mark}\n\n".encode()
                if time.monotonic() >= beat_at:
                    if not await self._is_open(person):
                        yield b"event: over\ndata: session\n\n"
                        return
                    beat_at = time.monotonic() + BEAT
                    yield b": still here\n\n"
                await self._pause()
        except StorageUnavailable as away:
            log.info("request.refused", request_id=request.state.request_id, code=away.code, status=away.status)
        finally:
            self._keys[key] -= 1
            self._keys += Counter()  # drops what nobody waits for

    async def _mark(self, key: str) -> str | None:
        """The mark as of at most a look ago; None where there is no such thing. Raises StorageUnavailable."""
        asked_at = time.monotonic()
        async with self._turn:
            if self._looked_at < asked_at - LOOK_EVERY or (self._looked_at < asked_at and key not in self._marks):
                await asyncio.sleep(max(0.0, self._looked_at + LOOK_EVERY - time.monotonic()))
                keys, looked_at = sorted(self._keys), time.monotonic()
                self._marks = await self._parts.read(lambda unit: self._read(unit, keys))
                self._looked_at = looked_at
            return self._marks.get(key)

    async def _is_open(self, person: Person) -> bool:
        """Whether the session still opens anything. A page that waits is no use of it."""
        now, idle = self._parts.clock(), self._parts.bounds.idle
        try:
            kept = await self._parts.read(lambda unit: console_sessions.get(unit, person.session_id))
        except NotFound:
            return False
        return console_sessions.is_open(kept, now, idle)

    async def _pause(self) -> None:
        """Return after a look's time, or at once when the service stops."""
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await self._parts.stopping.wait()
        except TimeoutError:
            return
