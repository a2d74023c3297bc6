"""Walks through a provider's list: fitting pages, cursors, and single items."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from providers.contract import Answer, HttpAnswer, Page, Statement
from providers.decoding import Unreadable, name
from providers.errors import AnswerTooLarge, ProviderError
from providers.http import MAX_ANSWER
from statemachine.errors import InvalidAmount
from statemachine.observation import Observation

#: A page with more things than that is none that we asked for.
MAX_THINGS: Final = 1000

#: How many walks one client keeps apart; an older one is only watched less closely.
_WALKS: Final = 16

_CURSOR_STEP: Final = timedelta(microseconds=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Extent:
    """A page's own account of its items and of the next page, as in Page."""

    count: int
    next: str | None
    fault: str = ""


def extent(count: int, size: int, *, has_more: object, cursor: str | None) -> Extent:
    """Find where a page of `count` items leads, with `size` asked for; total.

    Never ends a list on a guess.

    Where the page does not say whether more follows, the walk goes on from the cursor until a page is empty; without a
    cursor, only a page that is not full is the last one.
    """
    if has_more is False:
        return Extent(count, None)
    if has_more is not True and (count == 0 or (cursor is None and count < size)):
        return Extent(count, None)
    if cursor is None:
        return Extent(count, None, "more may follow, and the page does not say where")
    return Extent(count, cursor)


def last_id(things: Sequence[object]) -> str | None:
    """Return the id of the last item that has one.

    Items after it are read twice, which is harmless.
    """
    return next((ref for thing in reversed(things) if (ref := id_of(thing)) is not None), None)


def id_of(thing: object) -> str | None:
    """Return the item's `id`, where it is an object with a readable one."""
    return name(thing.get("id")) if isinstance(thing, dict) else None


def things_in(value: object, field: str = "data") -> list[object]:
    """Return the list of that name in a page's envelope; raise Unreadable.

    For any other shape, or far too many items.
    """
    return things_at(value.get(field) if isinstance(value, dict) else None, f"list named {field}")


def things_at(things: object, words: str = "list") -> list[object]:
    """Return a page's items; raise Unreadable for no list, or far too many."""
    if not isinstance(things, list):
        raise Unreadable(f"the page has no {words}")
    if len(things) > MAX_THINGS:
        raise Unreadable(f"the page holds more than {MAX_THINGS} things")
    return things


def read_each(
    things: Sequence[object],
    statement: Statement,
    kind: str | None,
    read: Callable[[Mapping[str, object]], Observation],
    id_at: Callable[[object], object] | None = None,
) -> Iterator[Observation]:
    """One observation for each thing, as `read` reads it; total.

    What cannot be read is an observation without a status (ask about it), or without an id (the page is parked).
    """
    for thing in things:
        try:
            if not isinstance(thing, dict):
                raise Unreadable("it is no JSON object")
            yield read(thing)
        except (Unreadable, InvalidAmount) as fault:
            yield Observation(
                source=statement.source,
                kind=kind,
                provider_ref=id_of(thing) if id_at is None else name(id_at(thing)),
                as_of=statement.received_at,
                note=f"unreadable in the list: {fault}",
            )


def after(since: datetime) -> str:
    """Return `since` less one microsecond, for filters that exclude the instant."""
    return text_of(since - _CURSOR_STEP if since > _FIRST else since)


def text_of(at: datetime) -> str:
    """Format the instant as ISO 8601 in UTC with microseconds."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class Lister:
    """Walks of one client through a list, any number at once, each with its own range."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = most
        self._walks: dict[tuple[datetime, datetime], _Walk] = {}

    async def page(
        self,
        window: tuple[datetime, datetime],
        position: str | None,
        kind: str,
        ask: Callable[[int], Awaitable[HttpAnswer]],
        read: Callable[[bytes, int], Extent],
    ) -> Page:
        """Fetch a page by `ask(size)`; `read(body, size)` finds where it leads.

        Raises ProviderError where the pages lead round in a circle, and AnswerTooLarge where one thing alone is.
        """
        answer, size = await self._fitting(ask)
        try:
            found = read(answer.body, size)
        except Unreadable as fault:
            found = Extent(0, None, f"the page is unreadable: {fault}")
        self._watch(window, position, found.next)
        return Page(
            Answer(answer.status, answer.body, answer.sent_at, kind), found.count, found.next, fault=found.fault
        )

    async def _fitting(self, ask: Callable[[int], Awaitable[HttpAnswer]]) -> tuple[HttpAnswer, int]:
        """Return the answer and the size asked for, halved while a page is too large."""
        while True:
            size = self._size
            try:
                answer = await ask(size)
            except AnswerTooLarge:
                if size == 1:
                    raise
                self._size = size // 2
                continue
            if len(answer.body) <= MAX_ANSWER // 4:
                self._size = min(self._most, size * 2)  # what made the pages large is behind us
            return answer, size

    def _watch(self, window: tuple[datetime, datetime], position: str | None, onward: str | None) -> None:
        walk = self._walks.pop(window, None)
        if onward is None:
            return
        if walk is None or position not in (walk.asked, walk.onward):
            walk = _Walk(mark=position)
        if not walk.is_led_on(position, onward):
            raise ProviderError("the provider's list leads round in a circle")
        self._walks[window] = walk
        if len(self._walks) > _WALKS:
            del self._walks[next(iter(self._walks))]


@dataclass(slots=True)
class _Walk:
    """Detects a cycle of cursors by Brent's algorithm, with two positions kept.

    Takes at most three times the length of the cycle.
    """

    mark: str | None  #: a place that was passed; moved on after 1, 2, 4, 8, ... pages
    asked: str | None = None
    onward: str | None = None
    steps: int = 0
    power: int = 1

    def is_led_on(self, position: str | None, onward: str) -> bool:
        is_repeat = self.onward is not None and position == self.asked
        self.asked, self.onward = position, onward
        if onward == position:
            return False
        if is_repeat:
            return True
        if onward == self.mark:
            return False
        self.steps += 1
        if self.steps == self.power:
            self.mark, self.power, self.steps = onward, self.power * 2, 0
        return True
