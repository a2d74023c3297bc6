"""Places of deliveries under way at each sink. One that its sink keeps waiting steps aside for those that may be quick.

Otherwise a few that are never answered would hold all places until their time is up, one time-out after the other.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

#: A delivery that takes longer steps aside: a shop that is well answers sooner.
SLOW_AFTER_S: Final = 0.5

#: How many may have stepped aside, for each place: of a sink that answers nobody so many more requests are open.
MAX_STALLED_PER_SLOT: Final = 8


@dataclass(slots=True, eq=False)
class DeliverySlot:
    """The place that one delivery takes up."""

    sink: str
    timer: asyncio.TimerHandle | None = None
    is_aside: bool = False


class DeliverySlots:
    """Places at each sink, and bounded room aside."""

    def __init__(
        self,
        number: int,
        threads: Mapping[str, int],
        on_free: Callable[[], None],
        *,
        slow_after: float = SLOW_AFTER_S,
    ) -> None:
        """`on_free` is called when one steps aside.

        `threads` are of sinks that have some: more deliveries at once would only queue up for them.
        """
        self._number = number
        self._threads = threads
        self._on_free = on_free
        self._slow_after = slow_after
        self._taken: Counter[str] = Counter()
        self._aside: Counter[str] = Counter()
        self._late: dict[str, dict[DeliverySlot, None]] = {}  #: that would step aside if there were room

    def number(self, sink: str) -> int:
        """Return how many places the sink has."""
        return min(self._number, self._threads.get(sink, self._number))

    def free(self, sink: str) -> int:
        """Return how many of them are free."""
        return self.number(sink) - self._taken[sink]

    def take(self, sink: str) -> DeliverySlot:
        """A place at the sink, from now on."""
        place = DeliverySlot(sink)
        place.timer = asyncio.get_running_loop().call_later(self._slow_after, self._step_aside, place)
        self._taken[sink] += 1
        return place

    def give_back(self, place: DeliverySlot) -> None:
        """The delivery has ended."""
        if place.timer is not None:
            place.timer.cancel()
        late = self._late.get(place.sink, {})
        if not place.is_aside:
            self._taken[place.sink] -= 1
            late.pop(place, None)
            return
        self._aside[place.sink] -= 1
        if late:
            self._step_aside(next(iter(late)))

    def _step_aside(self, place: DeliverySlot) -> None:
        room = 0 if place.sink in self._threads else MAX_STALLED_PER_SLOT * self._number
        if self._aside[place.sink] >= room:
            self._late.setdefault(place.sink, {})[place] = None
            return
        self._late.get(place.sink, {}).pop(place, None)
        place.is_aside = True
        self._taken[place.sink] -= 1
        self._aside[place.sink] += 1
        self._on_free()
