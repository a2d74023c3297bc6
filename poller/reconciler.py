"""Starts, resumes and reports reconciliations: one for each account at a time, on request or by period."""

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
from poller.reconciliation import Told, Tools, Walk, WalkedAccount
from poller.reconciliation_report import Report, report
from statemachine.errors import ServiceError
from statemachine.phases import Alarm
from storage import inbox, reconciliations
from storage.database import Database
from storage.errors import LeaseLost, StorageUnavailable
from storage.reconciliations import Wanted
from storage.tables_support import Reconciliation
from storage.types import CLOCK_WAS_WRONG, ReconciliationStatus

log = structlog.get_logger()

#: Who wants the walks that nobody asked for.
SCHEDULE: Final = "schedule"

#: How long the schedule leaves a provider alone that gave no answers, where it does not say how long.
_PAUSE: Final = timedelta(minutes=10)

#: How long it leaves a walk alone that met a bug of ours.
_AFTER_A_BUG: Final = timedelta(hours=1)


#: What is told of a report in a log line and an alarm.
_FIGURES: Final = ("drift", "alarming", "fresh", "adopted", "effects", "reviews")


@dataclass(frozen=True, slots=True)
class Started:
    """A walk that this process has the lease of, and whether it was begun before."""

    row: Reconciliation
    is_resumed: bool


class Reconciler:
    """Walks accounts, one run at a time for each. `holder` names this process for whoever comes second."""

    def __init__(
        self,
        tools: Tools,
        accounts: Mapping[str, WalkedAccount],
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

    def start(self, wanted: Wanted, *, anew: bool = False) -> Started:
        """The account's unfinished walk, to go on with, else a new one; this process has its lease.

        With `anew` the unfinished one is ended as failed first. Raises ReconciliationRunning while another process
        has it, whatever is wanted. Writes to storage, so call it in a thread.
        """
        tools, now = self._tools, self._tools.clock()
        with tools.database.write() as unit:
            row = reconciliations.unfinished(unit, wanted.account, lock=True)
            if row is not None:
                _refuse_held(row, now)
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
        return Started(row, is_resumed)

    async def walk(self, row: Reconciliation, told: Told = lambda _: None) -> Reconciliation:
        """The walk is done and its report kept; `told` is called with the row whenever it is further.

        Everything was asked within the account's budget, behind whatever is more urgent. Raises ReconciliationPaused
        where the provider is away, LeaseLost and StorageUnavailable. However this ends, a kill included, another run
        goes on from there: at once, or after a kill when the lease has run out.
        """
        walk = Walk(self._tools, self._accounts[row.account], row, self._rng, told)
        try:
            with rate_limiter.patiently():
                found = await self._holding(row, self._run(walk))
            return await asyncio.to_thread(self._finish, walk.row, found)
        except ReconciliationPaused as paused:
            wait = timedelta(seconds=paused.wait) if paused.wait else _PAUSE
            log.warning("reconcile.paused", **_about(row), seconds=wait.total_seconds())
            await asyncio.to_thread(self._release, row, wait, paused.message)
            raise
        except LeaseLost:
            raise
        except asyncio.CancelledError:
            self._give_back(row)  # at once: who cancels us is about to end the process
            raise
        except StorageUnavailable:
            await asyncio.to_thread(self._give_back, row)
            raise
        except Exception as fault:
            words = f"walking failed here: {type(fault).__name__}"
            await asyncio.to_thread(self._release, row, _AFTER_A_BUG, words)
            raise

    async def _run(self, walk: Walk) -> Report:
        await walk.run()
        return await asyncio.to_thread(self._report, walk.row)

    def _report(self, row: Reconciliation) -> Report:
        with self._tools.database.read() as unit:
            return report(unit, row, self._grace)

    async def _holding(self, row: Reconciliation, work: Coroutine[Any, Any, Report]) -> Report:
        """What comes of the work; the lease is held meanwhile. Raises LeaseLost where it is lost, and ends the work."""
        working, renewing = asyncio.ensure_future(work), asyncio.ensure_future(self._renew(row))
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                renewing.result()
            return working.result()
        finally:
            working.cancel()
            renewing.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)

    async def _renew(self, row: Reconciliation) -> None:
        """The lease never runs out while this runs: a question may wait long for its turn."""
        while True:
            await asyncio.sleep(self._tools.lease.total_seconds() / 3)
            await asyncio.to_thread(self._keep, row)

    def _keep(self, row: Reconciliation) -> None:
        with self._tools.database.write() as unit:
            reconciliations.keep(unit, row, self._tools.clock(), self._tools.lease)

    def _release(self, row: Reconciliation, wait: timedelta, error: str | None) -> None:
        now = self._tools.clock()
        with self._tools.database.write() as unit:
            reconciliations.release(unit, row, now, resume_at=now + wait, error=error)

    def _give_back(self, row: Reconciliation) -> None:
        """The lease is given back, or runs out by itself where that cannot be written."""
        try:
            self._release(row, timedelta(0), None)
        except (LeaseLost, StorageUnavailable) as fault:
            log.warning("reconcile.lease_lost", **_about(row), error=fault.code)

    def _finish(self, row: Reconciliation, found: Report) -> Reconciliation:
        """The report is kept, the alarm recorded where there is one, and the walk at its end, in one commit."""
        tools = self._tools
        is_alarming = row.asked_by == SCHEDULE and found.alarms
        with tools.database.write() as unit:
            now = tools.clock()
            done = reconciliations.finish(
                unit, row, now, ReconciliationStatus.DONE, drift=found.drift, counts=found.counts
            )
            if is_alarming:
                reason, details = _in_words(row, found)
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
        figures = {name: found.counts[name] for name in _FIGURES}
        log.info("reconcile.done", **_about(row), asked=row.asked, failed=row.failed, pages=row.pages, **figures)
        if is_alarming:
            log.warning("reconcile.drift", **_about(row), **figures)
        return done


def _in_words(row: Reconciliation, found: Report) -> tuple[str, dict[str, float | int | str | None]]:
    """Why there is an alarm, and its figures."""
    counts = found.counts
    were = " was" if counts["alarming"] == 1 else "s were"
    reason = (
        f"{counts['alarming']} payment{were} not as known here, and nobody had told: "
        f"receipted reconciliations show {row.id}"
    )
    return reason, {"reconciliation": row.id, "failed": row.failed, **{name: counts[name] for name in _FIGURES}}


def _refuse_held(row: Reconciliation, now: datetime) -> None:
    if reconciliations.is_held(row, now):
        raise ReconciliationRunning(
            f"{row.held_by} has been walking {row.account} since {row.held_at:%Y-%m-%d %H:%M:%SZ}; if that process is "
            f"dead, its lease ends at {row.lease_ends_at:%H:%M:%SZ}"
        )


def _about(row: Reconciliation) -> dict[str, str]:
    return {"account": row.account, "reconciliation_id": row.id}


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
