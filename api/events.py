"""Feed of effects by pages, long polling or a stream; no effect is missed."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import Query, Request
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.types import Receive

from api.caller import ApiCaller, ReadCaller
from api.errors import CursorAhead, InvalidRequest, KeyInvalid, RequestFault, TooManyWaiting
from api.feed import KEY_CHECK_INTERVAL_S, Feed, require_held
from api.responses import EventStream, Responses
from api.routing import api_router
from api.schemas import RecordId, Shape
from api.validation import WHOLE, Id, Input, Name
from statemachine.phases import Alarm, Effect
from storage import event_feed
from storage.database import Unit
from storage.errors import StorageUnavailable
from storage.event_feed import Cursor

log = structlog.get_logger()

router = api_router("Events")

#: Seconds after which a silent stream sends a comment.
_KEEPALIVE_INTERVAL_S: Final = 15.0

#: Seconds after which a stream ends; a reader comes again with the last id that it had.
_MAX_STREAM_S: Final = 600.0

_RESPONSES: Final[Responses] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    404: {"description": "no such account"},
    409: {"description": "the feed does not hold `after`: the database is older than what was read of it"},
}


def _effect(value: Any) -> Any:
    """Check the name of an effect.

    Effects of money that goes out have names of their own, made of a kind and an Effect.
    """
    if isinstance(value, str) and (value in _ALARMS or value.partition(".")[2] in _ENDINGS):
        return value
    raise ValueError("Input should be an effect, such as payment.paid")


_ALARMS: Final = frozenset(alarm.effect for alarm in Alarm)
_ENDINGS: Final = frozenset(effect.value.partition(".")[2] for effect in Effect)
_FORM: Final = (
    rf"^([a-z]{{1,20}}\.({'|'.join(sorted(_ENDINGS))})|{'|'.join(sorted(_ALARMS)).replace('.', chr(92) + '.')})$"
)

EffectName = Annotated[
    str, BeforeValidator(_effect), WithJsonSchema({"type": "string", "pattern": _FORM}, mode="validation")
]


def _cursor(value: Any) -> Any:
    if isinstance(value, str) and event_feed.read_cursor(value) is not None:
        return value
    raise ValueError("Input should be `next` or the id of an event as they were told, or 0")


#: A place in the feed, as a reader was given it.
FeedCursor = Annotated[
    str,
    BeforeValidator(_cursor),
    WithJsonSchema({"type": "string", "pattern": "^(0|[1-9][0-9]{0,17}(-[0-9a-f]{12})?)$"}, mode="validation"),
]


class EventsQuery(Input):
    """Begin, size and filters of a page of events, and the time to wait for one."""

    after: FeedCursor = Field("0", description="the `next`, or the id, that was had last; 0 for all")
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = Field(100, description="how many at most")
    wait: Annotated[int, Field(ge=0, le=60), WHOLE] = Field(
        0, description="seconds to wait for one where there is none; as a stream it does not count"
    )
    account: Name | None = Field(None, description="of this account")
    payment: Id | None = Field(None, description="of this payment")
    type: EffectName | None = Field(None, description="of this type, such as payment.paid")


class EventAnswer(Shape):
    """Effect, as sinks get it."""

    object: Literal["event"] = "event"
    id: str = Field(description="its place in the feed; opaque, and a reader may go on after it")
    type: str = Field(description="the effect, such as payment.paid")
    account: str
    payment: RecordId | None = Field(description="null where it is about an account")
    created_at: datetime
    data: dict[str, Any] | None = Field(description="as sinks get it; null where retention took it")


class Events(Shape):
    """Effects that follow a number, the oldest first."""

    object: Literal["list"] = "list"
    data: list[EventAnswer]
    has_more: bool
    next: str = Field(description="give it as `after` next time: nothing that comes later is passed over")


@router.get("/events", operation_id="list_events", response_model=Events, responses=_RESPONSES)
async def list_events(
    request: Request, caller: ReadCaller, query: Annotated[EventsQuery, Query()]
) -> Events | EventStream:
    """Read the effects that follow a number, the oldest first.

    Each effect is there once, however many sinks it is owed to, and nothing is ever added before a number that was
    seen: who always reads on from `next` misses nothing and gets nothing twice.
    With `wait`, an empty answer is put off until there is something.
    With `Accept: text/event-stream` the effects come as server-sent events, and a reader that comes again with
    `Last-Event-ID` goes on there.
    """
    feed: Feed = request.app.state.feed
    is_stream = "text/event-stream" in request.headers.get("accept", "").lower()
    after = _resumed(request, query.after) if is_stream else read_cursor(query.after)
    reader = _Reader(caller, query, feed, request.receive)
    await feed.last()
    if is_stream:
        await reader.check(after)
        reader.check_room()
        return EventStream(reader.stream(after))
    page = await reader.page(after)
    if not page.data and query.wait:
        page = await reader.waited(after, read_cursor(page.next).number, query.wait)
    return page


class _Reader:
    """One reader of the feed, for one request."""

    def __init__(self, caller: ApiCaller, query: EventsQuery, feed: Feed, receive: Receive) -> None:
        self._caller, self._query, self._feed, self._receive = caller, query, feed, receive
        self._accounts = caller.accounts(query.account)

    def check_room(self) -> None:
        """Check that one more reader may wait; raises TooManyWaiting."""
        if self._feed.waiting >= self._caller.deps.bounds.waiting:
            raise TooManyWaiting

    async def check(self, after: Cursor) -> None:
        """Check that the feed can be read on from there; raises CursorAhead."""

        def read(unit: Unit) -> None:
            require_held(unit, after)

        await self._caller.read(read)

    async def page(self, after: Cursor) -> Events:
        """Return the next page; raises CursorAhead.

        Where everything fits in it, the page after it begins at the end of the feed in this snapshot.
        """
        query = self._query

        def read(unit: Unit) -> tuple[list[event_feed.Told], Cursor]:
            require_held(unit, after)
            found = event_feed.find(
                unit,
                self._accounts,
                after=after.number,
                limit=query.limit + 1,
                effects=[query.type] if query.type else (),
                payment_id=query.payment,
            )
            return found, event_feed.end(unit)

        found, end = await self._caller.read(read)
        has_more = len(found) > query.limit
        rows = found[: query.limit]
        following = rows[-1].cursor if has_more else end
        return Events(data=[_event(row) for row in rows], has_more=has_more, next=str(following))

    async def waited(self, after: Cursor, seen: int, seconds: float) -> Events:
        """Return the page once it has events, the time is up, or the caller has gone.

        Raises KeyInvalid where the key ends meanwhile.
        """
        self.check_room()
        deadline = time.monotonic() + seconds
        gone = asyncio.create_task(self._gone())
        self._feed.waiting += 1
        try:
            while True:
                known, seen = seen, await self._beyond(seen, min(deadline, _next_check()), gone)
                if not await self._feed.is_good(self._caller.key.id):
                    raise KeyInvalid
                is_over = gone.done() or time.monotonic() >= deadline
                if seen <= known and not is_over:
                    continue
                page = await self.page(after)
                if page.data or is_over:
                    return page
                after = read_cursor(page.next)
        finally:
            self._feed.waiting -= 1
            gone.cancel()

    async def stream(self, after: Cursor) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events.

        Ends when the reader leaves, its key ends, or the stream is _MAX_STREAM_S old.
        """
        ends_at = time.monotonic() + _MAX_STREAM_S
        gone = asyncio.create_task(self._gone())
        self._feed.waiting += 1
        key_id = self._caller.key.id
        try:
            yield b"retry: 1000\n\n"
            keepalive_at, has_news = time.monotonic() + _KEEPALIVE_INTERVAL_S, True
            while not gone.done() and time.monotonic() < ends_at and await self._feed.is_good(key_id):
                if has_news:
                    page = await self.page(after)
                    for event in page.data:
                        if not await self._feed.is_good(key_id):  # a reader may take a page slowly
                            return
                        yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()
                    after = read_cursor(page.next)
                    if page.has_more:
                        continue
                    keepalive_at = time.monotonic() + _KEEPALIVE_INTERVAL_S
                end = await self._beyond(after.number, min(keepalive_at, _next_check()), gone)
                has_news = end > after.number
                if not has_news and time.monotonic() >= keepalive_at:
                    keepalive_at = time.monotonic() + _KEEPALIVE_INTERVAL_S
                    yield b": still here\n\n"
        except (StorageUnavailable, CursorAhead) as fault:  # a reader that comes again gets the error
            log.info("request.refused", request_id=self._caller.request_id, code=fault.code, status=fault.status)
        finally:
            self._feed.waiting -= 1
            gone.cancel()

    async def _beyond(self, number: int, deadline: float, gone: "asyncio.Task[None]") -> int:
        """Return the end of the feed once it is beyond the number.

        Returns earlier when the deadline has passed or the caller has gone.
        """
        look = asyncio.create_task(self._feed.beyond(number, deadline))
        await asyncio.wait({look, gone}, return_when=asyncio.FIRST_COMPLETED)
        if look.done():
            return look.result()
        look.cancel()
        return number

    async def _gone(self) -> None:
        """Return when the caller has gone, or the process is about to."""
        parts = [asyncio.create_task(self._disconnected()), asyncio.create_task(self._stopping())]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _stopping(self) -> None:
        await self._caller.deps.stopping.wait()


def _next_check() -> float:
    """Return the instant of time.monotonic() at which a reader's key is checked again."""
    return time.monotonic() + KEY_CHECK_INTERVAL_S


def read_cursor(text: str) -> Cursor:
    """Parse a cursor that was validated."""
    found = event_feed.read_cursor(text)
    if found is None:
        raise InvalidRequest([RequestFault("invalid_value", "it is no id of an event", "after", "query")])
    return found


def _resumed(request: Request, after: str) -> Cursor:
    """Return the cursor of Last-Event-ID; without that header, `after`."""
    given = request.headers.get("last-event-id", "").strip()
    found = event_feed.read_cursor(given or after)
    if found is None:
        raise InvalidRequest([RequestFault("invalid_value", "it is no id of an event", "Last-Event-ID", "header")])
    return found


def _event(row: event_feed.Told) -> EventAnswer:
    data = json.loads(row.payload)["data"] if row.payload is not None else None
    return EventAnswer(
        id=str(row.cursor),
        type=row.effect,
        account=row.account,
        payment=row.payment_id,
        created_at=row.created_at,
        data=data,
    )
