"""Dependencies of the console, passed in by the application."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from starlette.types import Receive, Scope

from console.oidc_client import OidcClient
from console.signing import ConsoleSigner
from service.accounts import ConfiguredAccount
from service.audit import Prover
from service.commands import Commands
from service.passwords import PasswordThreads
from service.quarantine import Redeemer
from service.second_factor import KeySealer
from storage.database import Database, Unit
from storage.tables import Payment, PaymentPoll

Result = TypeVar("Result")

#: Statements of the console that are under way at once in one process: fewer than the database has connections for.
_MAX_THREADS: Final = 4


class PollingStatus(Protocol):
    """Explains when and why the provider is asked next about a payment."""

    def why(self, payment: Payment, poll: PaymentPoll, now: datetime) -> str | None:
        """Explain the time of the next poll; None where none is planned."""
        ...


@dataclass(frozen=True, slots=True)
class ConsoleLimits:
    """Limits of sessions, log-in attempts and bulk actions."""

    idle_timeout: timedelta = timedelta(hours=8)  #: a session ends after so much time without use
    max_age: timedelta = timedelta(hours=24)  #: and at this age in any case
    attempts: int = 10  #: log-ins that may fail in a window with one name from one network, or in a browser it knows
    attempts_per_network: int = 50  #: and from one network, whatever the names
    attempts_everywhere: int = 100  #: and with one name from all networks together
    attempts_window: timedelta = timedelta(minutes=15)
    codes: int = 5  #: codes of a second factor that may fail in a window, wherever they come from
    requires_second_factor: bool = False  #: of everybody, before anything else
    redrive_batch: int = 100  #: effects that one request makes due again


@dataclass(frozen=True, slots=True)
class ConsoleDeps:
    """Dependencies of every page, and access to the database from threads."""

    database: Database
    clock: Callable[[], datetime]
    commands: Callable[[], Commands]  #: while the application runs
    accounts: Mapping[str, ConfiguredAccount]
    prover: Prover
    polling: PollingStatus
    redeemer: Redeemer
    signing: ConsoleSigner
    sealer: KeySealer  #: of the keys of second factors
    origin: str  #: public origin of the service: scheme and host, without a path
    is_secure: Callable[[Scope], bool]
    address_of: Callable[[Scope], str]
    read_body: Callable[[Scope, Receive], Awaitable[bytes]]
    oidc: OidcClient | None = None  #: the provider that people may log in at
    is_development: bool = False  #: plain HTTP on loopback, and cookies without Secure
    limits: ConsoleLimits = ConsoleLimits()
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(_MAX_THREADS, "console"))
    passwords: PasswordThreads = field(default_factory=PasswordThreads)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  #: set when the service stops: streams end

    async def in_thread(self, do: Callable[[], Result]) -> Result:
        """Run it in a thread of the console's own, so that intake never waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, do)

    async def read(self, do: Callable[[Unit], Result]) -> Result:
        """Read in one snapshot, in a thread."""
        return await self.in_thread(lambda: self._read(do))

    async def write(self, do: Callable[[Unit], Result]) -> Result:
        """Write in one commit, in a thread."""
        return await self.in_thread(lambda: self._write(do))

    def _read(self, do: Callable[[Unit], Result]) -> Result:
        with self.database.read() as unit:
            return do(unit)

    def _write(self, do: Callable[[Unit], Result]) -> Result:
        with self.database.write() as unit:
            return do(unit)
