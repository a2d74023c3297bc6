"""How fast each key may call: a token bucket per key, in this process alone."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Buckets that are remembered; the one that was used longest ago is full again anyway.
_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may still send, for its headers."""

    is_granted: bool
    limit: int  #: requests at once, after a rest
    remaining: int
    reset_seconds: int  #: until the bucket is full again
    retry_after: int  #: until one request is granted; 0 where one is


class RateLimit:
    """One bucket per key. Several processes allow several times as much: say so where it is configured."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, as of when

    def take(self, key: str) -> Allowance:
        """One request's token, where there is one."""
        now = self._clock()
        tokens, since = self._buckets.get(key, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - since) * self._per_second)
        is_granted = tokens >= 1
        tokens -= 1 if is_granted else 0
        self._buckets[key] = (tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        return Allowance(
            is_granted=is_granted,
            limit=self._burst,
            remaining=int(tokens),
            reset_seconds=math.ceil((self._burst - tokens) / self._per_second),
            retry_after=0 if is_granted else max(1, math.ceil((1 - tokens) / self._per_second)),
        )
