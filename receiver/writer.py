"""Group commit: one writer takes what waits and commits it in one transaction, without any artificial delay."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from receiver.errors import IntakeFull, Unstorable
from statemachine.errors import ServiceError
from storage import inbox, migrate
from storage.engine import Database
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.inbox import Recorded
from storage.tables import InboxMessage

log = structlog.get_logger()

#: Messages committed at once; more wait for the next transaction.
_BATCH = 500


class GroupWriter:
    """Records messages for every request of this process. Load makes batches; an idle service commits at once."""

    def __init__(self, database: Database, *, queue: int, on_recorded: Callable[[], None]) -> None:
        self._database = database
        self._queue = queue
        self._on_recorded = on_recorded
        self._waiting: deque[tuple[InboxMessage, asyncio.Future[Recorded]]] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._is_schema_checked = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")

    async def record(self, message: InboxMessage) -> Recorded:
        """The message is committed durably when this returns.

        Raises StorageUnavailable, SchemaOutdated, Unstorable or IntakeFull: nothing of it was kept. A caller that is
        cancelled leaves its batch alone: the message may be recorded all the same, which a redelivery then finds.
        """
        if len(self._waiting) >= self._queue:
            raise IntakeFull
        recorded: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, recorded))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await recorded

    async def close(self) -> None:
        """Everything that waits is committed; then the writer's thread ends."""
        if self._draining is not None:
            await self._draining
        self._thread.shutdown()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
                results = await loop.run_in_executor(self._thread, self._commit, [message for message, _ in batch])
                for (_, waiter), result in zip(batch, results, strict=True):
                    if waiter.done():
                        continue  # its request was cancelled
                    if isinstance(result, ServiceError):
                        waiter.set_exception(result)
                    else:
                        waiter.set_result(result)
                self._on_recorded()
        finally:
            self._draining = None

    def _commit(self, messages: Sequence[InboxMessage]) -> list[Recorded | ServiceError]:
        """One result for each message; a message that cannot be stored fails alone."""
        try:
            if not self._is_schema_checked:
                migrate.check(self._database)
                self._is_schema_checked = True
            with self._database.write() as unit:
                return list(inbox.record(unit, messages))
        except (StorageUnavailable, SchemaOutdated) as fault:
            log.error("storage.unavailable", messages=len(messages), error=fault.message)
            return [type(fault)() for _ in messages]
        except Exception as fault:  # noqa: BLE001 - a poison message must not fail its neighbours
            if len(messages) == 1:
                # a database's words repeat what it was given, so only their kind is logged
                log.error(
                    "delivery.unstorable",
                    account=messages[0].account,
                    message_id=messages[0].id,
                    error=type(fault).__name__,
                )
                return [Unstorable()]
        half = len(messages) // 2
        return self._commit(messages[:half]) + self._commit(messages[half:])
