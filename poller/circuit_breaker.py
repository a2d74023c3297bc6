"""Circuit breaker: stop polling a provider that is away, and decide for how long.

The decisions are pure; the counts are rows of storage.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Final

import structlog

from providers.errors import ProviderError
from storage import rate_limits
from storage.database import Unit

log = structlog.get_logger()

#: Outages in a row that open the breaker: one lost answer says nothing of the next.
OUTAGES_TO_OPEN: Final = 3

_FIRST_WAIT: Final = timedelta(seconds=5)
_MAX_WAIT: Final = timedelta(minutes=5)

#: The share of itself by which jitter may lengthen a wait, so that accounts do not come back together.
_MAX_JITTER_SHARE: Final = 0.2


class ProviderSign(Enum):
    """Sign, from the end of one call, of the provider's being there."""

    ANSWER = "answer"  #: it answered, if only with a refusal or a 429
    OUTAGE = "outage"  #: no connection, no answer in time, or a 5xx
    NOTHING = "nothing"  #: it was not asked, or its answer could not be read here


def classify(error: ProviderError | None) -> ProviderSign:
    """Classify the end of a call; `error` is None for an answer.

    Total, and never an outage for a 4xx.
    """
    if error is None:
        return ProviderSign.ANSWER
    if error.http_status is not None:
        return ProviderSign.OUTAGE if error.http_status >= 500 else ProviderSign.ANSWER
    # Without a status: what may be retried met no answer (providers/http.py); the rest is a fault of ours or of a body.
    return ProviderSign.OUTAGE if error.may_retry else ProviderSign.NOTHING


def open_duration(failures: int, jitter: float) -> timedelta | None:
    """Return how long the breaker stays open after `failures` outages; None if closed.

    5 s at the third, twice as long at each further one, never longer than 5 minutes. `jitter`, from 0 to 1, makes a
    wait up to a fifth longer within that.
    """
    if failures < OUTAGES_TO_OPEN:
        return None
    wait = _FIRST_WAIT * (1 << min(failures - OUTAGES_TO_OPEN, 16))
    return min(wait * (1 + _MAX_JITTER_SHARE * jitter), _MAX_WAIT)


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker that opened or stays open for a time, or that closed."""

    opened_for: timedelta | None = None  #: None: it closed


def record_outcome(
    unit: Unit, account: str, error: ProviderError | None, now: datetime, jitter: float, *, was_probe: bool = False
) -> BreakerChange | None:
    """Count the end of one call; return the change of the breaker for `log_change`.

    None where nothing changed, and nothing is written after an answer that follows an answer. `error` is None for an
    answer, `jitter` lies between 0 and 1, `was_probe` says that `storage.rate_limits.gate` had answered PROBE.
    """
    sign = classify(error)
    if sign is ProviderSign.ANSWER:
        return BreakerChange() if rate_limits.note_answer(unit, account) else None
    if sign is ProviderSign.NOTHING:
        return None
    wait = rate_limits.note_outage(unit, account, now, partial(open_duration, jitter=jitter), was_probe=was_probe)
    return None if wait is None else BreakerChange(wait)


def log_change(account: str, change: BreakerChange | None) -> None:
    """Log the change of the breaker; call after the commit."""
    if change is None:
        return
    if change.opened_for is None:
        log.info("breaker.closed", account=account)
    else:
        log.warning("breaker.opened", account=account, seconds=round(change.opened_for.total_seconds(), 3))
