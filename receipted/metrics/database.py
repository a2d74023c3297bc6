"""Metrics of the database, cached for seconds; what cannot be read is left out."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from receipted.metrics import catalogue
from receipted.metrics.catalogue import LabelBounds, Metric, Rows, add
from statemachine.errors import ServiceError
from statemachine.histograms import Counts
from statemachine.phases import Alarm, Review
from storage import audits, counts, journals
from storage.database import Database, Unit

log = structlog.get_logger()

#: Seconds that a response waits for them, and after which no more queries start: Prometheus waits for ten, and a
#: provider's delivery must not wait for them.
_READ_TIMEOUT_S: Final = 4.0

#: Seconds for which figures are reused that change once a minute.
_SLOW_MAX_AGE_S: Final = 60.0

_SLOW_GROUPS: Final = frozenset({"push", "audit"})

_Found = Iterator[tuple[Metric, tuple[str, ...], float]]


class DatabaseFigures:
    """Cached metrics of the database; one reading at a time, however many requests."""

    def __init__(
        self,
        database: Database,
        bounds: LabelBounds,
        accounts: tuple[str, ...],
        clock: Callable[[], datetime],
        errors: Counts,
        *,
        fresh_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._bounds = bounds
        self._accounts = accounts
        self._clock = clock
        self._errors = errors
        self._max_age_s = fresh_seconds
        self._monotonic = monotonic
        self._kept: dict[str, tuple[float, Rows]] = {}  #: by group, with when it was read
        self._reading: asyncio.Task[None] | None = None
        self._groups: Mapping[str, Callable[[Unit], _Found]] = {
            "inbox": self._inbox,
            "outbox": self._outbox,
            "reviews": self._reviews,
            "quarantine": self._quarantine,
            "asking": self._asking,
            "push": self._push,
            "audit": self._audit,
        }

    async def rows(self) -> Rows:
        """Return what could be read; the database never makes this raise."""
        began = self._monotonic()
        while (due := self._due(began)) and (left := began + _READ_TIMEOUT_S - self._monotonic()) > 0:
            is_ours = self._reading is None or self._reading.done()
            if self._reading is None or is_ours:
                self._reading = asyncio.create_task(asyncio.to_thread(self._read, due))
            await asyncio.wait([self._reading], timeout=left)
            if is_ours:
                break
        unread_groups = self._due(began)
        for group in unread_groups:
            self._errors[group, ""] += 1
        rows: Rows = {}
        for group, (_, found) in self._kept.copy().items():
            if group not in unread_groups:
                rows |= found
        return rows

    def _due(self, now: float) -> list[str]:
        """Return groups that were too old at that moment and have not been read since."""
        return [group for group in self._groups if not self._is_fresh(group, now)]

    def _is_fresh(self, group: str, now: float) -> bool:
        kept = self._kept.get(group)
        return kept is not None and now - kept[0] <= (_SLOW_MAX_AGE_S if group in _SLOW_GROUPS else self._max_age_s)

    def _read(self, groups: list[str]) -> None:
        began = self._monotonic()
        unread: dict[str, str] = {}
        for group in groups:
            if self._monotonic() - began > _READ_TIMEOUT_S:
                unread[group] = "late"
                continue
            rows: Rows = {}
            try:
                with counts.bounded_read(self._database) as unit:
                    for metric, labels, number in self._groups[group](unit):
                        add(rows, metric, self._bounds.bounded(metric, labels), [number])
            except ServiceError as fault:
                unread[group] = fault.code
            except Exception:
                log.exception("database.unreadable", figures=group)
            else:
                self._kept[group] = (self._monotonic(), rows)
        if unread:
            log.warning("database.unreadable", figures=sorted(unread), errors=sorted(set(unread.values())))

    def _inbox(self, unit: Unit) -> _Found:
        yield from self._queue(counts.inbox(unit), catalogue.INBOX, catalogue.INBOX_AGE)

    def _outbox(self, unit: Unit) -> _Found:
        yield from self._queue(counts.outbox(unit), catalogue.OUTBOX, catalogue.OUTBOX_AGE)

    def _queue(self, queue: counts.Queue, messages: Metric, age: Metric) -> _Found:
        for status, number in queue.counts.items():
            yield messages, (status,), number
        yield age, (), _seconds(self._clock() - queue.since) if queue.since is not None else 0.0

    def _reviews(self, unit: Unit) -> _Found:
        found = counts.reviews(unit)
        for review in dict.fromkeys((*(review.value for review in Review), *found)):
            yield catalogue.REVIEWS, (review,), found.get(review, 0)

    def _quarantine(self, unit: Unit) -> _Found:
        for account, number in counts.quarantine(unit, self._accounts).items():
            yield catalogue.QUARANTINE, (account,), number

    def _asking(self, unit: Unit) -> _Found:
        found = counts.polling_gauges(unit, self._clock())
        for account, log_state in journals.states(unit).items():
            if log_state.read_at is not None:
                yield catalogue.JOURNAL_AGE, (account,), _seconds(self._clock() - log_state.read_at)
        for account in self._accounts:
            known = found.get(account)
            if known is None:
                continue
            yield catalogue.BREAKER, (account,), float(known.is_broken)
            yield catalogue.PAUSED, (account,), _seconds(known.paused)
            yield catalogue.BACKLOG, (account,), _seconds(known.backlog)
            if known.left is not None:
                yield catalogue.BUDGET_LEFT, (account,), known.left
            if known.stretch is not None:
                yield catalogue.STRETCH, (account,), known.stretch

    def _push(self, unit: Unit) -> _Found:
        found = counts.webhook_gauges(unit, self._clock())
        for account in self._accounts:
            known = found.get(account)
            for alarm in Alarm:
                if alarm is not Alarm.DRIFT:
                    yield catalogue.ALARM, (account, alarm.value), float(known is not None and alarm in known.alarms)
            if known is None:
                continue
            if known.heard_at is not None:
                yield catalogue.HEARD, (account,), known.heard_at.timestamp()
            if known.loss is not None:
                yield catalogue.LOSS, (account,), known.loss
            for quantile, lag in known.lags.items():
                yield catalogue.LAG, (account, quantile), lag.total_seconds()

    def _audit(self, unit: Unit) -> _Found:
        run = audits.last(unit)
        if run is not None:
            yield catalogue.AUDIT_FAULTS, (), run.faults
            yield catalogue.AUDITED, (), run.ended_at.timestamp()


def _seconds(span: timedelta) -> float:
    """Return the seconds, at least 0, since clocks differ."""
    return max(span.total_seconds(), 0.0)
