"""Slots of the deliveries that run at once at each sink, shared with retries.

A delivery that takes much longer than usual leaves its slot to others, within bounds: otherwise a few requests that
are never answered would hold all slots until they time out. While others wait for their first try, retries have a
quarter of the slots; otherwise they leave a quarter free, so that a new effect does not wait for one of them to end.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

#: Bounds of the time after which a delivery counts as stalled: it is a multiple of its sink's usual time.
MAX_STALL_AFTER_S: Final = 0.5
_MIN_STALL_AFTER_S: Final = 0.1
_STALL_FACTOR: Final = 4
#: Weight of one delivery in its sink's usual time, a moving average.
_DURATION_WEIGHT: Final = 1 / 16
#: Stalled deliveries for each slot that run beside it, and the share of them that may be retries.
MAX_STALLED_PER_SLOT: Final = 8
_STALLED_RETRY_SHARE: Final = 1 / 4


@dataclass(slots=True, eq=False)
class DeliverySlot:
    """The slot of one delivery."""

    sink: str
    is_retry: bool
    began: float
    timer: asyncio.TimerHandle | None = None
    is_stalled: bool = False  #: its slot is free for others


class DeliverySlots:
    """Slots at each sink, and bounded room for stalled deliveries."""

    def __init__(
        self,
        number: int,
        threads: Mapping[str, int],
        on_free: Callable[[], None],
        *,
        stall_after: float = MAX_STALL_AFTER_S,
    ) -> None:
        """Call `on_free` when a stalled delivery leaves its slot.

        `threads` are of sinks that have some: more deliveries at once would only queue up for them.
        """
        self._number = number
        self._threads = threads
        self._on_free = on_free
        self._max_stall_after = stall_after
        self._usual_s: dict[str, float] = {}  #: by sink, of deliveries that have ended
        self._taken: Counter[tuple[str, bool]] = Counter()  #: by sink, and whether it is a retry
        self._stalled: Counter[tuple[str, bool]] = Counter()
        self._late: dict[str, dict[DeliverySlot, None]] = {}  #: would leave their slots if there were room

    def number(self, sink: str) -> int:
        """Return how many slots the sink has."""
        return min(self._number, self._threads.get(sink, self._number))

    def free(self, sink: str) -> int:
        """Return how many of them are free."""
        return self.number(sink) - self._taken[sink, False] - self._taken[sink, True]

    def free_for_retries(self, sink: str, *, is_alone: bool) -> int:
        """Return how many more retries may run, alone or beside first tries that wait."""
        number = self.number(sink)
        share = number // 4 or 1
        most = max(number - number // 4, 1) if is_alone else share
        return min(self.free(sink), most - self._taken[sink, True])

    def stall_after(self, sink: str) -> float:
        """Return the seconds after which a delivery to the sink counts as stalled."""
        usual = self._usual_s.get(sink)
        if usual is None:
            return self._max_stall_after
        return min(self._max_stall_after, max(_STALL_FACTOR * usual, _MIN_STALL_AFTER_S))

    def take(self, sink: str, *, is_retry: bool = False) -> DeliverySlot:
        """Take a slot at the sink from now on."""
        loop = asyncio.get_running_loop()
        slot = DeliverySlot(sink, is_retry, loop.time())
        slot.timer = loop.call_later(self.stall_after(sink), self._leave, slot)
        self._taken[sink, is_retry] += 1
        return slot

    def give_back(self, slot: DeliverySlot) -> None:
        """Free the slot: its delivery has ended."""
        if slot.timer is not None:
            slot.timer.cancel()
        took = min(asyncio.get_running_loop().time() - slot.began, self._max_stall_after)
        usual = self._usual_s.get(slot.sink, self._max_stall_after)
        self._usual_s[slot.sink] = usual + (took - usual) * _DURATION_WEIGHT
        late = self._late.get(slot.sink, {})
        if not slot.is_stalled:
            self._taken[slot.sink, slot.is_retry] -= 1
            late.pop(slot, None)
            return
        self._stalled[slot.sink, slot.is_retry] -= 1
        next_late = next((each for each in late if self._has_room_aside(each)), None)
        if next_late is not None:
            self._leave(next_late)

    def _leave(self, slot: DeliverySlot) -> None:
        late = self._late.setdefault(slot.sink, {})
        if not self._has_room_aside(slot):
            late[slot] = None
            return
        late.pop(slot, None)
        slot.is_stalled = True
        self._taken[slot.sink, slot.is_retry] -= 1
        self._stalled[slot.sink, slot.is_retry] += 1
        self._on_free()

    def _has_room_aside(self, slot: DeliverySlot) -> bool:
        if slot.sink in self._threads:
            return False
        room, retries = MAX_STALLED_PER_SLOT * self._number, self._stalled[slot.sink, True]
        if slot.is_retry and retries >= room * _STALLED_RETRY_SHARE:
            return False
        return self._stalled[slot.sink, False] + retries < room
