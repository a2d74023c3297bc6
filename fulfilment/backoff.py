"""Back-off between attempts. Pure: of their number, a seed and Retry-After."""

import math
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from fulfilment.errors import InvalidSchedule

#: Seconds until the second, third, ... attempt; the last is repeated. Source: Standard Webhooks, specification,
#: "Deliverability and reliability".
SCHEDULE_S: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
MAX_ATTEMPTS: Final = 10
JITTER_SHARE: Final = 0.1
#: No sink can make us wait longer than this by Retry-After.
MAX_RETRY_AFTER_S: Final = 36_000.0

_SECONDS = re.compile(r"[0-9]{1,9}")


class Backoff:
    """Delay before each next attempt, until there is none.

    Raises InvalidSchedule for a schedule that cannot work.
    """

    def __init__(
        self, schedule: Sequence[float] = SCHEDULE_S, *, max_attempts: int = MAX_ATTEMPTS, jitter: float = JITTER_SHARE
    ) -> None:
        if not schedule or not all(math.isfinite(delay) and delay > 0 for delay in schedule):
            raise InvalidSchedule("a back-off schedule holds one or more delays above 0", param="schedule")
        if max_attempts < 1:
            raise InvalidSchedule("at least one attempt is needed", param="max_attempts")
        if not 0 <= jitter < 1:
            raise InvalidSchedule("jitter is a share from 0 to below 1", param="jitter")
        self._schedule = tuple(schedule)
        self._max_attempts = max_attempts
        self._jitter = jitter

    def next_delay(self, attempts: int, rng: random.Random, retry_after: float | None = None) -> float | None:
        """Return the seconds until the next attempt; None when they are exhausted.

        `attempts` have failed before.

        Within the jitter of the schedule, but never earlier than the sink asked for by `retry_after`, of which at
        most MAX_RETRY_AFTER_S counts. The same seed gives the same delays.
        """
        if attempts >= self._max_attempts:
            return None
        base = self._schedule[min(max(attempts, 1), len(self._schedule)) - 1]
        delay = base * rng.uniform(1 - self._jitter, 1 + self._jitter)
        return max(delay, min(retry_after, MAX_RETRY_AFTER_S)) if retry_after is not None else delay


def read_retry_after(header: str | None, now: datetime) -> float | None:
    """Parse a Retry-After header into seconds from now, 0 to MAX_RETRY_AFTER_S.

    None where it says nothing.

    Takes seconds and HTTP dates; anything else counts as nothing. Source: RFC 9110, section 10.2.3.
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # which of them depends on the version of Python
        return None
    aware = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    return min(max((aware - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)
