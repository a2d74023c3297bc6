"""Start, resume and report reconciliations: one at a time for each account.

On request, or by period.
"""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import structlog

from poller import rate_limiter
from poller.alarms import alarm_message
from poller.errors import ReconciliationPaused, ReconciliationRunning
from poller.reconciliation import OnProgress, ReconciledAccount, ReconciliationRun, ReconciliationTools
from poller.reconciliation_report import DriftReport, build_report
from statemachine.errors import ServiceError
from statemachine.phases import Alarm
from storage import inbox, reconciliations
from storage.database import Database
from storage.errors import LeaseLost, StorageUnavailable
from storage.reconciliations import ReconciliationRequest
from storage.tables_support import Reconciliation
from storage.types import CLOCK_WAS_WRONG, ReconciliationStatus

log = structlog.get_logger()

#: Requester of the reconciliations that no person asked for.
SCHEDULE: Final = "schedule"

#: The pause after a provider gave no answers and did not say how long to wait.
_PAUSE_DURATION: Final = timedelta(minutes=10)

#: The pause after a bug of ours.
_BUG_PAUSE_DURATION: Final = timedelta(hours=1)

#: The most that the range grows after a long absence, in look-backs, so that no hole is left since the last one.
_MAX_LOOK_BACKS: Final = 10

#: Counts of a report that are given in a log line and an alarm.
_REPORTED_COUNTS: Final = ("drift", "alarming", "fresh", "adopted", "effects", "reviews")


@dataclass(frozen=True, slots=True)
class StartedRun:
    """Reconciliation that this process holds the lease of, and whether it was resumed."""

    row: Reconciliation
    is_resumed: bool


class Reconciler:
    """Run reconciliations, one at a time for each account.

    `holder` names this process to others that want the same account.
    """

    def __init__(
        self,
        tools: ReconciliationTools,
        accounts: Mapping[str, ReconciledAccount],
        rng: random.Random,
        *,
        holder: str,
        grace: timedelta = timedelta(minutes=5),
    ) -> None:
        self._tools = tools
        self._accounts = accounts
        self._rng = rng
        self._holder = holder[:128]
        self._grace = grace

    def start(self, wanted: ReconciliationRequest, *, anew: bool = False) -> StartedRun:
        """Take the lease of the account's unfinished reconciliation, or of a new one.

        With `anew` an unfinished one is ended as failed first. Raises ReconciliationRunning while another process
        holds it, whatever is wanted. Writes to storage, so call it in a thread.
        """
        tools, now = self._tools, self._tools.clock()
        with tools.database.write() as unit:
            row = reconciliations.unfinished(unit, wanted.account, lock=True)
            if row is not None:
                _check_not_held(row, now)
                row = reconciliations.claim(unit, row, self._holder, now, tools.lease)
            is_resumed = row is not None and not anew
            if row is not None and anew:
                words = f"left unfinished; {wanted.asked_by} began another"
                reconciliations.finish(unit, row, now, ReconciliationStatus.FAILED, last_error=words)
            if not is_resumed:
                row = reconciliations.begin(unit, wanted, self._holder, now, tools.lease)
        if row is None:
            raise ReconciliationRunning("another process has just begun one")
        about = {"account": row.account, "reconciliation_id": row.id, "asked_by": row.asked_by}
        if is_resumed:
            log.info("reconcile.resumed", **about, stage=row.stage, asked=row.asked, pages=row.pages)
        else:
            log.info("reconcile.started", **about, since=row.since.isoformat(), until=row.until.isoformat())
        return StartedRun(row, is_resumed)

    async def run(self, row: Reconciliation, on_progress: OnProgress = lambda _: None) -> Reconciliation:
        """Run to the end and save the report; `on_progress` gets the row at each step.

        Everything is fetched within the account's budget, at low priority. Raises ReconciliationPaused where the
        provider is away, LeaseLost and StorageUnavailable. However this ends, a kill included, another run continues
        from there: at once, or after a kill when the lease has run out.
        """
        run = ReconciliationRun(self._tools, self._accounts[row.account], row, self._rng, on_progress)
        try:
            with rate_limiter.low_priority():
                found = await self._run_holding_lease(row, self._run(run))
            return await asyncio.to_thread(self._finish, run.row, found)
        except ReconciliationPaused as paused:
            wait = timedelta(seconds=paused.wait) if paused.wait else _PAUSE_DURATION
            log.warning("reconcile.paused", **_about(row), seconds=wait.total_seconds())
            await asyncio.to_thread(self._release, row, wait, paused.message)
            raise
        except LeaseLost:
            raise
        except asyncio.CancelledError:
            self._try_release(row)  # in this thread: the process is about to end
            raise
        except StorageUnavailable:
            await asyncio.to_thread(self._try_release, row)
            raise
        except Exception as fault:
            words = f"reconciling failed here: {type(fault).__name__}"
            await asyncio.to_thread(self._release, row, _BUG_PAUSE_DURATION, words)
            raise

    async def _run(self, run: ReconciliationRun) -> DriftReport:
        await run.run()
        return await asyncio.to_thread(self._report, run.row)

    def _report(self, row: Reconciliation) -> DriftReport:
        with self._tools.database.read() as unit:
            return build_report(unit, row, self._grace)

    async def _run_holding_lease(self, row: Reconciliation, work: Coroutine[Any, Any, DriftReport]) -> DriftReport:
        """Run the work while renewing the lease. Raises LeaseLost, which ends the work."""
        working, renewing = asyncio.ensure_future(work), asyncio.ensure_future(self._renew_lease(row))
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                renewing.result()
            return working.result()
        finally:
            working.cancel()
            renewing.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)

    async def _renew_lease(self, row: Reconciliation) -> None:
        """Renew the lease until cancelled: a call may wait long for its turn."""
        while True:
            await asyncio.sleep(self._tools.lease.total_seconds() / 3)
            await asyncio.to_thread(self._extend_lease, row)

    def _extend_lease(self, row: Reconciliation) -> None:
        with self._tools.database.write() as unit:
            reconciliations.keep(unit, row, self._tools.clock(), self._tools.lease)

    def _release(self, row: Reconciliation, wait: timedelta, error: str | None) -> None:
        now = self._tools.clock()
        with self._tools.database.write() as unit:
            reconciliations.release(unit, row, now, resume_at=now + wait, error=error)

    def _try_release(self, row: Reconciliation) -> None:
        """Release the lease; if that cannot be written it runs out by itself."""
        try:
            self._release(row, timedelta(0), None)
        except (LeaseLost, StorageUnavailable) as fault:
            log.warning("reconcile.lease_lost", **_about(row), error=fault.code)

    def _finish(self, row: Reconciliation, found: DriftReport) -> Reconciliation:
        """Save the report, its alarm and the end of the reconciliation in one commit."""
        tools = self._tools
        is_alarming = row.asked_by == SCHEDULE and found.is_alarming
        with tools.database.write() as unit:
            now = tools.clock()
            done = reconciliations.finish(
                unit, row, now, ReconciliationStatus.DONE, drift=found.drift, counts=found.counts
            )
            if is_alarming:
                reason, details = _alarm_text(row, found)
                message = alarm_message(
                    row.account,
                    Alarm.DRIFT,
                    since=row.began_at,
                    is_over=False,
                    reason=reason,
                    details=details,
                    now=now,
                )
                inbox.record(unit, [message])
        figures = {name: found.counts[name] for name in _REPORTED_COUNTS}
        log.info("reconcile.done", **_about(row), asked=row.asked, failed=row.failed, pages=row.pages, **figures)
        if is_alarming:
            log.warning("reconcile.drift", **_about(row), **figures)
        return done


def _alarm_text(row: Reconciliation, found: DriftReport) -> tuple[str, dict[str, float | int | str | None]]:
    """Return the reason of the alarm, and its figures."""
    counts = found.counts
    were = " was" if counts["alarming"] == 1 else "s were"
    reason = (
        f"{counts['alarming']} payment{were} not as known here, and no push had reported it: "
        f"receipted reconciliations show {row.id}"
    )
    return reason, {"reconciliation": row.id, "failed": row.failed, **{name: counts[name] for name in _REPORTED_COUNTS}}


def _check_not_held(row: Reconciliation, now: datetime) -> None:
    if reconciliations.is_held(row, now):
        raise ReconciliationRunning(
            f"{row.held_by} has been reconciling {row.account} since {row.held_at:%Y-%m-%d %H:%M:%SZ}; if that process "
            f"is dead, its lease ends at {row.lease_ends_at:%H:%M:%SZ}"
        )


def _about(row: Reconciliation) -> dict[str, str]:
    return {"account": row.account, "reconciliation_id": row.id}


def last_slot(account: str, every: timedelta, now: datetime) -> datetime:
    """Return the last instant, not after now, at which a reconciliation was due. Pure.

    Accounts differ by a fraction of the period derived from their name, so that they do not all begin together.
    """
    fraction = int.from_bytes(sha256(account.encode()).digest()[:8]) / 2**64
    period = every.total_seconds()
    offset = fraction * period
    return datetime.fromtimestamp(offset + math.floor((now.timestamp() - offset) / period) * period, UTC)


class ReconciliationSchedule:
    """Begin each account's reconciliation when due, and resume unfinished ones."""

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
        """Reconcile the account if that is due, to the end; return 0 or 1.

        A reconciliation that this schedule began and a process left behind is resumed at once, one that a person began
        when the next is due. After a time without a process the next is due at once, and looks back to the end of the
        one before. An account that was never reconciled waits for its slot. A provider that is away is left alone
        until `resume_at`. Raises StorageUnavailable and LeaseLost.
        """
        wanted = await asyncio.to_thread(self._next_wanted, account)
        if wanted is None:
            return 0
        try:
            started = await asyncio.to_thread(self._reconciler.start, wanted)
            await self._reconciler.run(started.row)
        except (ReconciliationPaused, ReconciliationRunning):
            return 0  # logged; another process continues, or a later step does
        except ServiceError:
            raise
        except Exception:  # a bug is logged, and must not stop the process that applies payments
            log.exception("reconcile.failed", account=account)
            return 0
        return 1

    def _next_wanted(self, account: str) -> ReconciliationRequest | None:
        """Return the reconciliation to begin or resume now; None where none is due."""
        now = self._clock()
        with self._database.read() as unit:
            left = reconciliations.unfinished(unit, account)
            begun = reconciliations.last_begun(unit, account, SCHEDULE)
            covered_to = reconciliations.covered_to(unit, account, SCHEDULE)
        if begun is None or begun > now:  # never, or by a wrong clock
            begun = self._started_at
        is_time = begun < last_slot(account, self._every, now)
        if left is not None and (reconciliations.is_held(left, now) or now < left.resume_at <= now + CLOCK_WAS_WRONG):
            return None
        if not is_time and (left is None or left.asked_by != SCHEDULE):
            return None
        since = min(now - self._look_back, covered_to or now)
        return ReconciliationRequest(account, max(since, now - _MAX_LOOK_BACKS * self._look_back), now, SCHEDULE)
