"""What the console needs of the application, passed in: it makes none of it, and reaches for nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from starlette.types import Receive, Scope

from console.passwords import Turns
from console.signing import Signing
from providers.contract import Scheme
from statemachine.lifecycle import Lifecycle
from storage.database import Database, Unit
from storage.tables import InboxMessage, OutboxMessage, Payment

Result = TypeVar("Result")

#: Statements of the console that are under way at once in one process: fewer than the database has connections for.
_THREADS: Final = 4


class Commands(Protocol):
    """What an operator may ask for; every one records its statement before it returns."""

    async def refresh(self, payment_id: str) -> Payment:
        """The provider was asked just now."""
        ...

    async def cancel(self, payment_id: str) -> Payment:
        """The payment as the provider has it after it was told to cancel."""
        ...

    async def resolve(self, payment_id: str, *, state: str, reason: str, by: str) -> Payment:
        """A named person's word is recorded and applied."""
        ...

    async def replay(self, message_id: str, *, reason: str, by: str) -> InboxMessage:
        """The message is applied once more."""
        ...

    async def redrive(self, message_id: str, *, reason: str, by: str, overtaken: bool = False) -> OutboxMessage:
        """The dead effect is due again."""
        ...


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that verifies an account's deliveries, without what opens anything."""

    id: str
    not_before: datetime | None
    not_after: datetime | None


@dataclass(frozen=True, slots=True)
class Account:
    """One configured account, without its secrets."""

    name: str
    provider: str
    environment: str  #: live or test
    webhook_url: str
    default_kind: str
    lifecycles: Mapping[str, Lifecycle]  #: by kind
    configuration: Sequence[tuple[str, str]] = ()  #: name and shown value; of secrets, where they come from
    keys: Sequence[VerifyingKey] = ()  #: in the order of the settings
    budget: tuple[int, float] | None = None  #: so many requests in so many seconds; None where no limit is known
    window: tuple[float, float] = (300, 300)  #: seconds that a signed time may be old, and ahead
    authentication: Scheme | None = None  #: how its deliveries are told from forged ones, in words


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of proving one payment's history."""

    messages: int
    signatures: int
    unverifiable: int
    transitions: int
    effects: int
    faults: Sequence[tuple[str, str, str]]  #: table, row, problem
    retained: Mapping[str, int] = field(default_factory=dict)  #: what a rule of retention took, by what it is
    read_again: int = 0  #: statements that were read and decided again, with the same result
    not_readable: int = 0  #: statements that could not be: their bytes are gone by a rule


class Prover(Protocol):
    """Proves and exports the history of one payment."""

    def prove(self, payment_id: str) -> Proof:
        """Everything that is kept of the payment is checked; reads only. Raises NotFound."""
        ...

    def export(self, payment_id: str) -> Iterable[str]:
        """The payment's rows with their digests and bytes, one JSON object a line. Raises NotFound."""
        ...


class Asking(Protocol):
    """Says when and why the provider is asked next about a payment."""

    def why(self, payment: Payment, now: datetime) -> str | None:
        """Why the next question is when it is, in words; None where none is planned."""
        ...

    def can_cancel(self, payment: Payment) -> bool:
        """Whether the provider has a call that cancels such a payment."""
        ...


class Redeem(Protocol):
    """Verifies one rejected delivery again."""

    def __call__(self, rejected_id: str, *, reason: str, by: str) -> str:
        """The id of the inbox message that it is now; raises NotFound, or a refusal that says why it is not authentic.

        It is in the inbox or in quarantine, never in both or in neither. Uses the database, so call it in a thread.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of the console."""

    idle: timedelta = timedelta(hours=8)  #: a session ends after so long without use
    longest: timedelta = timedelta(hours=24)  #: and after so long in any case
    attempts: int = 10  #: log-ins that may fail in a window with one name from one network, or in a browser it knows
    attempts_per_network: int = 50  #: and from one network, whatever the names
    attempts_everywhere: int = 100  #: and with one name from all networks together
    attempts_window: timedelta = timedelta(minutes=15)
    redrive_batch: int = 100  #: effects that one request makes due again


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the pages work with."""

    database: Database
    clock: Callable[[], datetime]
    commands: Callable[[], Commands]  #: while the application runs
    accounts: Mapping[str, Account]
    prover: Prover
    asking: Asking
    redeem: Redeem
    signing: Signing
    origin: str  #: where browsers reach the service from outside, without a path
    is_secure: Callable[[Scope], bool]
    address_of: Callable[[Scope], str]
    read_body: Callable[[Scope, Receive], Awaitable[bytes]]
    is_development: bool = False  #: plain HTTP on loopback, and cookies without Secure
    bounds: Bounds = Bounds()
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "console"))
    passwords: Turns = field(default_factory=Turns)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  #: whoever waits for events is to go

    async def in_thread(self, do: Callable[[], Result]) -> Result:
        """What is done in a thread of the console's own, so that its queries never stand before the way in."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, do)

    async def read(self, do: Callable[[Unit], Result]) -> Result:
        """What is read in one snapshot, in a thread."""
        return await self.in_thread(lambda: self._read(do))

    async def write(self, do: Callable[[Unit], Result]) -> Result:
        """What is done in one commit, in a thread."""
        return await self.in_thread(lambda: self._write(do))

    def _read(self, do: Callable[[Unit], Result]) -> Result:
        with self.database.read() as unit:
            return do(unit)

    def _write(self, do: Callable[[Unit], Result]) -> Result:
        with self.database.write() as unit:
            return do(unit)
