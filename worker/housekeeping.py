"""Housekeeping: make partitions ahead of time, apply retention in small batches."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from storage import partitions
from storage.database import Database
from storage.partitions import Period
from storage.retention import Retention, rested
from storage.tables_support import RetentionRun
from storage.types import RetentionStatus

log = structlog.get_logger()

#: Interval between checks for missing partitions: three exist ahead of time, so that many checks may fail.
_PARTITION_CHECK_INTERVAL: Final = timedelta(hours=1)


class Housekeeping:
    """Housekeeping in steps; any number of processes may run it, one at a time works."""

    def __init__(
        self,
        database: Database,
        period: Period,
        retention: Retention,
        clock: Callable[[], datetime],
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._period = period
        self._retention = retention
        self._clock = clock
        self._rest = rest
        self._looked_at: datetime | None = None
        self._strays: dict[str, int] = {}

    async def step(self) -> int:
        """Check partitions if due, run one batch of retention, and rest.

        Returns 1 where more is due. Raises what either of them met, after both had their turn; a repeat goes on from
        there.
        """
        now, fault = self._clock(), None
        if self._looked_at is None or not self._looked_at <= now < self._looked_at + _PARTITION_CHECK_INTERVAL:
            try:
                await asyncio.to_thread(self._keep_partitions, now)
                self._looked_at = now
            except Exception as met:  # noqa: BLE001 - raised below: retention does not wait for partitions
                fault = met
        began = time.monotonic()
        stepped = await asyncio.to_thread(self._retention.step)
        if fault is not None:
            raise fault
        if stepped.run is None:
            return 0
        _tell(stepped.run)
        await self._rest(rested(time.monotonic() - began, stepped.pause))
        return 1

    def _keep_partitions(self, now: datetime) -> None:
        kept = partitions.keep_ahead(self._database, now, self._period)
        if kept.made:
            log.info("partition.created", partitions=kept.made)
        for table, rows in kept.moved.items():
            log.warning("partition.late", table=table, rows=rows)
        if kept.strays != self._strays and kept.strays:
            log.warning("partition.skipped", rows=kept.strays)
        self._strays = kept.strays


def _tell(run: RetentionRun) -> None:
    if run.status == RetentionStatus.DONE and run.rows:
        log.info("retention.done", rule=run.rule, rows=run.rows, partition=run.partition)
    elif run.status == RetentionStatus.HELD:
        log.warning("retention.waiting", rule=run.rule, partition=run.partition, held_by=run.held_back)
