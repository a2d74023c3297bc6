"""When to stop asking an account that is away, and for how long. What decides is pure; the counts are storage's."""

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

#: So many outages in a row open the breaker: one answer that was lost says nothing of the next.
OPENS_AFTER: Final = 3

_FIRST: Final = timedelta(seconds=5)
_LONGEST: Final = timedelta(minutes=5)

#: By what share of itself a wait may grow, so that accounts that failed together do not come back together.
_SPREAD: Final = 0.2


class Sign(Enum):
    """What one question told of whether the provider is there."""

    ANSWER = "answer"  #: it answered, if only with a refusal or a 429
    OUTAGE = "outage"  #: no connection, no answer in time, or a 5xx
    NOTHING = "nothing"  #: it was not asked, or its answer could not be read here


def sign_of(error: ProviderError | None) -> Sign:
    """What a question's end says of the provider; None for an answer. Total, and never an outage for a 4xx."""
    if error is None:
        return Sign.ANSWER
    if error.http_status is not None:
        return Sign.OUTAGE if error.http_status >= 500 else Sign.ANSWER
    # Without a status: what may be retried met no answer (providers/http.py); the rest is a fault of ours or of a body.
    return Sign.OUTAGE if error.may_retry else Sign.NOTHING


def wait_after(failures: int, jitter: float) -> timedelta | None:
    """How long the breaker is open after so many outages in a row; None where it stays closed.

    5 s at the third, twice as long at each further one, never longer than 5 minutes. `jitter`, from 0 to 1, makes a
    wait up to a fifth longer within that.
    """
    if failures < OPENS_AFTER:
        return None
    wait = _FIRST * (1 << min(failures - OPENS_AFTER, 16))
    return min(wait * (1 + _SPREAD * jitter), _LONGEST)


@dataclass(frozen=True, slots=True)
class Change:
    """That the breaker opened, or stays open, for so long; or that it closed."""

    opened_for: timedelta | None = None  #: None: it closed


def note(
    unit: Unit, account: str, error: ProviderError | None, now: datetime, jitter: float, *, was_probe: bool = False
) -> Change | None:
    """What one question's end says of the provider is counted; what that did to the breaker, for `log_change`.

    None where nothing changed, and nothing is written after an answer that follows an answer. `error` is None for an
    answer, `jitter` lies between 0 and 1, `was_probe` says that `storage.rate_limits.gate` had answered PROBE.
    """
    sign = sign_of(error)
    if sign is Sign.ANSWER:
        return Change() if rate_limits.note_answer(unit, account) else None
    if sign is Sign.NOTHING:
        return None
    wait = rate_limits.note_outage(unit, account, now, partial(wait_after, jitter=jitter), was_probe=was_probe)
    return None if wait is None else Change(wait)


def log_change(account: str, change: Change | None) -> None:
    """The log says what changed; call it after the commit."""
    if change is None:
        return
    if change.opened_for is None:
        log.info("breaker.closed", account=account)
    else:
        log.warning("breaker.opened", account=account, seconds=round(change.opened_for.total_seconds(), 3))
