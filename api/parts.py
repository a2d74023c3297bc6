"""What the API needs of the application, passed in: it makes none of it, and reaches for nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from starlette.types import Receive, Scope

from service.accounts import ConfiguredAccount
from service.audit import Prover
from service.commands import Commands
from statemachine.lifecycle import Lifecycle
from storage.database import Database

Result = TypeVar("Result")

#: Statements of the API that are under way at once in one process: fewer than the database has connections for.
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """The limits of the API."""

    requests_per_second: float = 50
    burst: int = 200
    waiting: int = 100  #: how many readers may wait for events at once, in this process


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the operations work with."""

    database: Database
    clock: Callable[[], datetime]
    commands: Callable[[], Commands]  #: while the application runs
    accounts: Mapping[str, ConfiguredAccount]
    lifecycles: Mapping[tuple[str, str], Lifecycle]  #: of every provider, by provider and kind
    prover: Prover
    is_secure: Callable[[Scope], bool]
    read_body: Callable[[Scope, Receive], Awaitable[bytes]]
    bounds: ApiLimits = ApiLimits()
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "api"))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  #: whoever waits for events is to go

    async def in_thread(self, do: Callable[[], Result]) -> Result:
        """What is done in a thread of the API's own, so that its queries never stand before what the way in does."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, do)
