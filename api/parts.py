"""What the API needs of the application, passed in: it makes none of it, and reaches for nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar

from starlette.types import Receive, Scope

from statemachine.lifecycle import Lifecycle
from storage.database import Database
from storage.tables import InboxMessage, OutboxMessage, Payment

Result = TypeVar("Result")

#: Statements of the API that are under way at once in one process: fewer than the database has connections for.
_THREADS: Final = 8


class Commands(Protocol):
    """What a merchant or an operator may ask for; every one records its statement before it returns."""

    async def create(
        self,
        account: str,
        *,
        amount_minor: int,
        currency: str,
        reference: str,
        kind: str | None = None,
        return_url: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> Payment:
        """The payment exists at the provider; a repeat with the same reference returns the same one."""
        ...

    async def track(self, account: str, ref: str, kind: str | None = None) -> Payment:
        """The provider's payment is known here."""
        ...

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
class Account:
    """One configured account, without its secrets."""

    name: str
    provider: str
    environment: str  #: live or test
    webhook_url: str
    default_kind: str
    lifecycles: Mapping[str, Lifecycle]  #: by kind


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


@dataclass(frozen=True, slots=True)
class Bounds:
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
    accounts: Mapping[str, Account]
    lifecycles: Mapping[tuple[str, str], Lifecycle]  #: of every provider, by provider and kind
    prover: Prover
    is_secure: Callable[[Scope], bool]
    read_body: Callable[[Scope, Receive], Awaitable[bytes]]
    bounds: Bounds = Bounds()
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "api"))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  #: whoever waits for events is to go

    async def in_thread(self, do: Callable[[], Result]) -> Result:
        """What is done in a thread of the API's own, so that its queries never stand before what the way in does."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, do)
