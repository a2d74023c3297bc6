"""NOTIFY and LISTEN of PostgreSQL: wake workers in other processes.

Only a hint: a notice may be lost with its connection, or never come behind a pooler of transactions. Whoever listens
looks for work from time to time all the same.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from storage.database import Database
from storage.errors import DatabaseUnsupported
from storage.postgresql_url import read_url

try:
    from storage.asyncpg_connection import ConfirmingConnection, connect
except ModuleNotFoundError:
    raise DatabaseUnsupported(
        "notices of PostgreSQL need asyncpg: install receipted with the extra postgres", param="database"
    ) from None

log = structlog.get_logger()

_CHANNEL: Final = "receipted_inbox"

#: What a crash of the server would lose is only a notice, and each would wait for the disk. Not for the session, which
#: behind a pooler is the next one's: its commits would be answered before they are safe.
_NOTIFY: Final = f"BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {_CHANNEL}; COMMIT"

#: Seconds between two notices: whoever is told often enough finds all of it.
_GAP: Final = 0.005

#: Seconds for one notice, and the longest wait until a lost connection is tried again.
_NOTICE_TIMEOUT_S: Final = 5.0
_LONGEST_WAIT: Final = 30.0

#: Seconds between two proofs that the connection of whoever listens still stands.
_PROOF: Final = 30.0


class Notices:
    """Sends notices on a connection of its own, since NOTIFY in commits queues them."""

    def __init__(self, database: Database) -> None:
        self._url = database.url
        self._due = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def __call__(self) -> None:
        """Something was recorded."""
        self._due.set()

    async def close(self) -> None:
        """Stop sending notices."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        connection: ConfirmingConnection | None = None
        wait = 0.0
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                try:
                    async with asyncio.timeout(_NOTICE_TIMEOUT_S):
                        connection = connection or await connect(self._url)
                        await connection.execute(_NOTIFY)
                    wait = 0.0
                except Exception:  # noqa: BLE001 - see below; of any kind, since nothing else ends this loop
                    # Nothing is lost: those who would have been told look by themselves.
                    wait = min(max(1.0, 2 * wait), _LONGEST_WAIT)
                    if connection is not None:
                        connection.terminate()
                        connection = None
                await asyncio.sleep(max(_GAP, wait))
        finally:
            if connection is not None:
                connection.terminate()


@asynccontextmanager
async def listening(database: Database, on_notice: Callable[[], None]) -> AsyncIterator[None]:
    """Call `on_notice` soon after another process has recorded something.

    Not behind a pooler of transactions: a session that listens would be somebody else's a moment later.
    """
    if read_url(database.url).is_pooled:
        yield
        return
    task = asyncio.create_task(_listen(database.url, on_notice))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(url: str, on_notice: Callable[[], None]) -> None:
    """Listen, and reconnect after a lost connection; what came meanwhile is one call."""
    wait = 0.0

    def told(*_: Any) -> None:
        on_notice()

    while True:
        connection: ConfirmingConnection | None = None
        try:
            connection = await connect(url)
            await connection.add_listener(_CHANNEL, told)
            on_notice()
            wait = 0.0
            while True:
                await asyncio.sleep(_PROOF)
                async with asyncio.timeout(_NOTICE_TIMEOUT_S):
                    await connection.execute("SELECT 1")
        except Exception as fault:  # noqa: BLE001 - whoever listens goes on, whatever the connection met
            wait = min(max(1.0, 2 * wait), _LONGEST_WAIT)
            log.warning("service.waiting", loop="notices", error=type(fault).__name__, seconds=wait)
        finally:
            if connection is not None:
                connection.terminate()
        await asyncio.sleep(wait)
