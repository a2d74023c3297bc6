"""Collaborators of the API, which the application passes in."""

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

#: Threads for database work of the API in one process: fewer than the database has connections for.
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Limits of the API."""

    requests_per_second: float = 50
    burst: int = 200
    waiting: int = 100  #: how many readers may wait for events at once, in this process


@dataclass(frozen=True, slots=True)
class ApiDeps:
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
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  #: set when readers that wait must end

    async def in_thread(self, do: Callable[[], Result]) -> Result:
        """Run blocking work in a thread of the API's own.

        Intake has others, so that it never waits behind queries of the API.
        """
        return await asyncio.get_running_loop().run_in_executor(self.threads, do)
