"""The reconciliation that nobody asks for: one per account and period, by whichever process comes first."""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

import structlog

from poller.errors import ReconciliationPaused, ReconciliationRunning
from poller.reconcile import SCHEDULE, Reconciler
from statemachine.errors import ServiceError
from storage import reconciliations
from storage.database import Database
from storage.reconciliations import Wanted
from storage.types import CLOCK_WAS_WRONG

log = structlog.get_logger()

#: After a long absence the range grows so far, so that there is no hole since the last reconciliation.
_LONGEST: Final = 10


def slot(account: str, every: timedelta, now: datetime) -> datetime:
    """The last instant, not after now, at which the account's reconciliation was to begin. Pure.

    Accounts differ by a fraction of the period that their name decides, so that they do not all begin together.
    """
    fraction = int.from_bytes(sha256(account.encode()).digest()[:8]) / 2**64
    period = every.total_seconds()
    offset = fraction * period
    return datetime.fromtimestamp(offset + math.floor((now.timestamp() - offset) / period) * period, UTC)


class Timetable:
    """Begins each account's reconciliation when its time has come, and goes on with those that were left unfinished."""

    def __init__(
        self,
        database: Database,
        reconciler: Reconciler,
        clock: Callable[[], datetime],
        *,
        every: timedelta,
        look_back: timedelta,
    ) -> None:
        self._database = database
        self._reconciler = reconciler
        self._clock = clock
        self._every = every
        self._look_back = look_back
        self._started_at = clock()

    async def step(self, account: str) -> int:
        """Walk the account if that is due, to the end; how many walks were done, 0 or 1.

        One that this schedule began and a process left behind is gone on with at once, one that a person began when
        the next is due. After a time without us the next is due at once, and looks back to the end of the one before.
        An account that was never walked waits for its slot. A provider that is away is left alone until `resume_at`.
        Raises StorageUnavailable and LeaseLost.
        """
        wanted = await asyncio.to_thread(self._due, account)
        if wanted is None:
            return 0
        try:
            started = await asyncio.to_thread(self._reconciler.start, wanted)
            await self._reconciler.walk(started.row)
        except (ReconciliationPaused, ReconciliationRunning):
            return 0  # told in the log; another process goes on, or a later step does
        except ServiceError:
            raise
        except Exception:  # a bug must be seen, and must not stop the process that payments are applied by
            log.exception("reconcile.failed", account=account)
            return 0
        return 1

    def _due(self, account: str) -> Wanted | None:
        """What is wanted now; also where that means to go on with a walk that was begun before."""
        now = self._clock()
        with self._database.read() as unit:
            left = reconciliations.unfinished(unit, account)
            begun = reconciliations.last_begun(unit, account, SCHEDULE)
            covered_to = reconciliations.covered_to(unit, account, SCHEDULE)
        if begun is None or begun > now:  # never, or by a clock that was wrong
            begun = self._started_at
        is_time = begun < slot(account, self._every, now)
        if left is not None and (reconciliations.is_held(left, now) or now < left.resume_at <= now + CLOCK_WAS_WRONG):
            return None
        if not is_time and (left is None or left.asked_by != SCHEDULE):
            return None
        since = min(now - self._look_back, covered_to or now)
        return Wanted(account, max(since, now - _LONGEST * self._look_back), now, SCHEDULE)
