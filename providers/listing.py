"""Walking through a provider's list: pages that fit, cursors that lead on, things that are read one by one."""

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

_TICK: Final = timedelta(microseconds=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a page says of itself: how many things it names, and where the next page begins, as in Page."""

    count: int
    next: str | None
    fault: str = ""


def extent(count: int, size: int, *, has_more: object, cursor: str | None) -> Extent:
    """Where a page of `count` things leads, `size` having been asked for; total, and never ends a list on a guess.

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
    """The id of the last thing that has one; what comes after that one is then read twice, which is harmless."""
    return next((ref for thing in reversed(things) if (ref := id_of(thing)) is not None), None)


def id_of(thing: object) -> str | None:
    """The thing's `id`, where it is an object with a readable one."""
    return name(thing.get("id")) if isinstance(thing, dict) else None


def things_in(value: object, field: str = "data") -> list[object]:
    """The list of that name in a page's envelope; raises Unreadable for any other shape, or far too many things."""
    things = value.get(field) if isinstance(value, dict) else None
    if not isinstance(things, list):
        raise Unreadable(f"the page has no list named {field}")
    if len(things) > MAX_THINGS:
        raise Unreadable(f"the page holds more than {MAX_THINGS} things")
    return things


def read_each(
    things: Sequence[object],
    statement: Statement,
    kind: str | None,
    read: Callable[[Mapping[str, object]], Observation],
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
                provider_ref=id_of(thing),
                as_of=statement.received_at,
                note=f"unreadable in the list: {fault}",
            )


def after(since: datetime) -> str:
    """`since` for a filter that takes what was created after an instant: one microsecond earlier, so that it is in."""
    return text_of(since - _TICK if since > _FIRST else since)


def text_of(at: datetime) -> str:
    """The instant in ISO 8601, in UTC and with microseconds."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class Lister:
    """One client's walks through a list. Any number of them may be under way, each with its own window."""

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
        """The page that `ask(size)` is answered with; `read(body, size)` says where it leads, or raises Unreadable.

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
        """The answer and how many things were asked for: half as many each time that a page is too large."""
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
    """Finds a circle of any length with two places kept (Brent's algorithm), after at most three times its length."""

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
