"""Server-sent events that tell open pages of changes: a mark, never data.

A page learns that it is old and fetches itself again, so that its permissions are checked each time.
However many pages are open in a process, each kind of object is read once a second at most, with one query.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import ClassVar, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from console.access import Person
from console.deps import ConsoleDeps
from statemachine.errors import ServiceError
from storage import console_sessions
from storage.database import Unit
from storage.errors import StorageUnavailable

log = structlog.get_logger()

#: Seconds between two reads, which all waiting pages share.
READ_INTERVAL_S: Final = 1.0

#: Seconds after which a silent stream sends a comment.
KEEPALIVE_INTERVAL_S: Final = 15.0

#: Seconds after which a stream ends; a page comes again by itself.
MAX_STREAM_S: Final = 600.0

#: Pages that may wait at once for one kind of object, in one process.
MAX_WAITING_PAGES: Final = 200

ReadMarks = Callable[[Unit, Sequence[str]], Mapping[str, str]]


class TooManyWatching(ServiceError):
    """Too many pages wait for changes here; load this page again to see them."""

    type = "rate_limit_error"
    code = "too_many_watching"
    status = 503
    retryable: ClassVar[bool] = True


class LiveUpdates:
    """Streams the marks of one kind of object, each by its key. One for the process."""

    def __init__(self, deps: ConsoleDeps, read: ReadMarks, *, most: int = MAX_WAITING_PAGES) -> None:
        """Take `read`, which returns the marks of existing keys; changes alter marks."""
        self._deps, self._read, self._most = deps, read, most
        self._keys: Counter[str] = Counter()
        self._marks: Mapping[str, str] = {}
        self._sessions: Counter[str] = Counter()
        self._open: frozenset[str] = frozenset()  # sessions that were open at the last read
        self._looked_at = float("-inf")
        self._turn = asyncio.Lock()

    @property
    def watching(self) -> int:
        """Number of pages that wait now."""
        return self._keys.total()

    def stream(self, request: Request, key: str) -> Response:
        """Stream the marks of one object: the present one, then every other.

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
        ends_at, beat_at, sent = time.monotonic() + MAX_STREAM_S, time.monotonic() + KEEPALIVE_INTERVAL_S, None
        session = person.session_id
        self._keys[key] += 1
        self._sessions[session] += 1
        try:
            yield b"retry: 2000\n\n"
            while time.monotonic() < ends_at and not self._deps.stopping.is_set():
                mark = await self._mark(key, session)
                if session not in self._open:
                    yield b"event: over\ndata: session\n\n"
                    return
                if mark is None:
                    return
                if mark != sent:
                    sent = mark
                    yield f"data: {mark}\n\n".encode()
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + KEEPALIVE_INTERVAL_S
                    yield b": still here\n\n"
                await self._pause()
        except StorageUnavailable as away:
            log.info("request.refused", request_id=request.state.request_id, code=away.code, status=away.status)
        finally:
            self._keys[key] -= 1
            self._sessions[session] -= 1
            self._keys += Counter()  # drops keys without a waiting page
            self._sessions += Counter()

    async def _mark(self, key: str, session: str) -> str | None:
        """Return the mark, at most one interval old; None where there is no such object.

        What `_open` says is of the same look. Raises StorageUnavailable.
        """
        asked_at = time.monotonic()
        async with self._turn:
            is_known = key in self._marks and session in self._open
            if self._looked_at < asked_at - READ_INTERVAL_S or (self._looked_at < asked_at and not is_known):
                await asyncio.sleep(max(0.0, self._looked_at + READ_INTERVAL_S - time.monotonic()))
                keys, sessions, looked_at = sorted(self._keys), sorted(self._sessions), time.monotonic()
                self._marks, self._open = await self._deps.read(lambda unit: self._look(unit, keys, sessions))
                self._looked_at = looked_at
            return self._marks.get(key)

    def _look(
        self, unit: Unit, keys: Sequence[str], sessions: Sequence[str]
    ) -> tuple[Mapping[str, str], frozenset[str]]:
        """Read the marks and the open sessions; waiting is no use of a session."""
        now, idle = self._deps.clock(), self._deps.limits.idle_timeout
        return self._read(unit, keys), console_sessions.open_among(unit, sessions, now, idle)

    async def _pause(self) -> None:
        """Wait for one interval, or less when the service stops."""
        try:
            async with asyncio.timeout(READ_INTERVAL_S):
                await self._deps.stopping.wait()
        except TimeoutError:
            return
