"""The feed of effects: read on from a number, waited for, or streamed; each effect once, and none is passed over."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import structlog
from pydantic import BeforeValidator, Field, WithJsonSchema

from api.answers import RecordId, Shape
from api.errors import CursorAhead, Fault, InvalidRequest, KeyInvalid, TooManyWaiting
from api.feed import KEY_CHECK_INTERVAL_S, Feed
from api.operation import Call, Operation, Plain
from api.reading import WHOLE, Id, Input, Name
from service.permissions import Permission
from statemachine.phases import Alarm, Effect
from storage import event_feed
from storage.database import Unit
from storage.errors import StorageUnavailable
from storage.event_feed import Cursor

log = structlog.get_logger()

#: Seconds after which a silent stream sends a comment.
_BEAT: Final = 15.0

#: Seconds after which a stream ends; a reader comes again with the last id that it had.
_LONGEST: Final = 600.0


def _effect(value: Any) -> Any:
    """Effects of money that goes out have names of their own, made of a kind and an Effect."""
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


def _place(value: Any) -> Any:
    if isinstance(value, str) and event_feed.read_cursor(value) is not None:
        return value
    raise ValueError("Input should be `next` or the id of an event as they were told, or 0")


#: What a reader was told of where it is; nothing else says so.
Place = Annotated[
    str,
    BeforeValidator(_place),
    WithJsonSchema({"type": "string", "pattern": "^(0|[1-9][0-9]{0,17}(-[0-9a-f]{12})?)$"}, mode="validation"),
]


class EventsQuery(Input):
    """From where on, how many, and how long to wait where there is nothing."""

    after: Place = Field("0", description="the `next`, or the id, that was had last; 0 for all")
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = Field(100, description="how many at most")
    wait: Annotated[int, Field(ge=0, le=60), WHOLE] = Field(
        0, description="seconds to wait for one where there is none; as a stream it does not count"
    )
    account: Name | None = Field(None, description="of this account")
    payment: Id | None = Field(None, description="of this payment")
    type: EffectName | None = Field(None, description="of this type, such as payment.paid")


class EventAnswer(Shape):
    """One effect, as it is owed to the world."""

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


class Reading:
    """The operations of the feed, with what they share: one look for all that wait."""

    def __init__(self) -> None:
        self._feed: Feed | None = None

    async def find(self, call: Call) -> Events | Plain:
        """Read the effects that follow a number, the oldest first.

        Each effect is there once, however many sinks it is owed to, and nothing is ever added before a number that was
        seen: who always reads on from `next` misses nothing and gets nothing twice.
        With `wait`, an empty answer is put off until there is something.
        With `Accept: text/event-stream` the effects come as server-sent events, and a reader that comes again with
        `Last-Event-ID` goes on there.
        """
        query: EventsQuery = call.query
        feed = self._of(call)
        is_stream = "text/event-stream" in call.headers.get("accept", "").lower()
        after = _resumed(call, query.after) if is_stream else read_place(query.after)
        reader = _Reader(call, query, feed)
        await feed.last()
        if is_stream:
            await reader.check(after)
            reader.check_room()
            return Plain("text/event-stream", chunks=reader.stream(after), headers={"x-accel-buffering": "no"})
        page = await reader.page(after)
        if not page.data and query.wait:
            page = await reader.waited(after, read_place(page.next).number, query.wait)
        return page

    def _of(self, call: Call) -> Feed:
        if self._feed is None:
            self._feed = Feed(call.parts)
        return self._feed


class _Reader:
    """One reader of the feed."""

    def __init__(self, call: Call, query: EventsQuery, feed: Feed) -> None:
        self._call, self._query, self._feed = call, query, feed
        self._accounts = call.accounts(query.account)

    def check_room(self) -> None:
        """Return where one more may wait; raises TooManyWaiting."""
        if self._feed.waiting >= self._call.parts.bounds.waiting:
            raise TooManyWaiting

    async def check(self, after: Cursor) -> None:
        """Return where the feed can be read on from there; raises CursorAhead."""

        def read(unit: Unit) -> None:
            require_held(unit, after)

        await self._call.read(read)

    async def page(self, after: Cursor) -> Events:
        """Return the next page. Where all of it fits, the one after begins at the feed's end of this snapshot.

        Raises CursorAhead.
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

        found, end = await self._call.read(read)
        has_more = len(found) > query.limit
        rows = found[: query.limit]
        following = rows[-1].cursor if has_more else end
        return Events(data=[_told(row) for row in rows], has_more=has_more, next=str(following))

    async def waited(self, after: Cursor, seen: int, seconds: float) -> Events:
        """As page(), once it holds something, the time is up, or the caller has gone.

        Raises KeyInvalid where the key ends meanwhile.
        """
        self.check_room()
        deadline = time.monotonic() + seconds
        gone = asyncio.create_task(self._gone())
        self._feed.waiting += 1
        try:
            while True:
                known, seen = seen, await self._beyond(seen, min(deadline, _next_check()), gone)
                if not await self._feed.is_good(self._call.key.id):
                    raise KeyInvalid
                is_over = gone.done() or time.monotonic() >= deadline
                if seen <= known and not is_over:
                    continue
                page = await self.page(after)
                if page.data or is_over:
                    return page
                after = read_place(page.next)
        finally:
            self._feed.waiting -= 1
            gone.cancel()

    async def stream(self, after: Cursor) -> AsyncIterator[bytes]:
        """Server-sent events, until the reader goes, its key is good no more, or it is time to come again."""
        ends_at = time.monotonic() + _LONGEST
        gone = asyncio.create_task(self._gone())
        self._feed.waiting += 1
        key_id = self._call.key.id
        try:
            yield b"retry: 1000\n\n"
            beat_at, has_news = time.monotonic() + _BEAT, True
            while not gone.done() and time.monotonic() < ends_at and await self._feed.is_good(key_id):
                if has_news:
                    page = await self.page(after)
                    for event in page.data:
                        if not await self._feed.is_good(key_id):  # a reader may take a page slowly
                            return
                        yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()
                    after = read_place(page.next)
                    if page.has_more:
                        continue
                    beat_at = time.monotonic() + _BEAT
                end = await self._beyond(after.number, min(beat_at, _next_check()), gone)
                has_news = end > after.number
                if not has_news and time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + _BEAT
                    yield b": still here\n\n"
        except (StorageUnavailable, CursorAhead) as fault:  # a reader that comes again is told so
            log.info("request.refused", request_id=self._call.request_id, code=fault.code, status=fault.status)
        finally:
            self._feed.waiting -= 1
            gone.cancel()

    async def _beyond(self, number: int, deadline: float, gone: "asyncio.Task[None]") -> int:
        """How far the feed goes, once that is beyond the number, the deadline has passed, or the caller has gone."""
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
        while (await self._call.receive())["type"] != "http.disconnect":
            pass

    async def _stopping(self) -> None:
        await self._call.parts.stopping.wait()


def _next_check() -> float:
    """The instant of time.monotonic() at which a reader's key is looked at again."""
    return time.monotonic() + KEY_CHECK_INTERVAL_S


def require_held(unit: Unit, after: Cursor) -> None:
    """Raise CursorAhead where the database is older than what was read of it."""
    if event_feed.holds(unit, after):
        return
    last = event_feed.last_number(unit)
    why = f"the feed ends at {last}" if after.number > last else f"at {after.number} it is not the feed that was read"
    raise CursorAhead(f"{why}: begin anew from 0", param="after")


def read_place(text: str) -> Cursor:
    """The cursor that a checked text writes."""
    found = event_feed.read_cursor(text)
    if found is None:
        raise InvalidRequest([Fault("invalid_value", "it is no id of an event", "after", "query")])
    return found


def _resumed(call: Call, after: str) -> Cursor:
    """Where the reader's stream broke off, if it says so."""
    given = (call.headers.get("last-event-id") or "").strip()
    found = event_feed.read_cursor(given or after)
    if found is None:
        raise InvalidRequest([Fault("invalid_value", "it is no id of an event", "Last-Event-ID", "header")])
    return found


def _told(row: event_feed.Told) -> EventAnswer:
    data = json.loads(row.payload)["data"] if row.payload is not None else None
    return EventAnswer(
        id=str(row.cursor),
        type=row.effect,
        account=row.account,
        payment=row.payment_id,
        created_at=row.created_at,
        data=data,
    )


def operations() -> tuple[Operation, ...]:
    """The feed's, with a place of their own to share what waits."""
    return (
        Operation(
            "GET",
            "/v1/events",
            "list_events",
            "Events",
            Permission.READ,
            Reading().find,
            Events,
            query=EventsQuery,
            media_types=("application/json", "text/event-stream"),
            refusals={
                404: "no such account",
                409: "the feed does not hold `after`: the database is older than what was read of it",
            },
        ),
    )
