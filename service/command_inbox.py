"""The inbox as commands use it: records a statement or an answer, and applies it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from poller.polling import Poller
from providers.contract import Client, Provider
from providers.errors import ProviderError
from receiver.returns import Tokens
from service.errors import AnswerUnclear, StillApplying
from statemachine import own_statements
from statemachine.errors import ServiceError
from statemachine.phases import Source
from storage import inbox, payment_polls, payments
from storage.database import Database
from storage.ids import new_id
from storage.payment_polls import PolledPayment
from storage.tables import InboxMessage, Payment
from storage.types import InboxStatus
from worker.inbox_loop import InboxWorker

#: How long a command waits for another process that is applying its message.
APPLY_TIMEOUT: Final = timedelta(seconds=15)

#: Seconds between two looks at a message that another process is applying.
APPLY_POLL_INTERVAL_S: Final = 0.02

#: Answers of 4xx that do not say that nothing was done: a gateway gave up waiting; our idempotency key was used before.
AMBIGUOUS_STATUSES: Final = frozenset({408, 409})


class CallTraces(Protocol):
    """Traces of calls to providers, by the message of the answer or failure."""

    def answered(self, message: InboxMessage) -> None:
        """Trace a call by the message of its answer."""
        ...

    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """Trace a call that failed."""
        ...


@dataclass(frozen=True, slots=True)
class CommandContext:
    """Dependencies of the commands, in a process whose clients are open."""

    database: Database
    clock: Callable[[], datetime]
    work_clock: Callable[[], datetime]  #: the database's: for what is due
    worker: InboxWorker
    poller: Poller
    traces: CallTraces
    providers: Mapping[str, Provider]  #: by account
    clients: Mapping[str, Client]  #: by account
    tokens: Tokens  #: sign the URLs that a provider and a payer are given
    public_url: str  #: without a slash at the end
    is_development: bool = False  #: a payer may be sent to plain HTTP on loopback


class CommandInbox:
    """Records a command's statements in the inbox and has them applied (rule R1)."""

    def __init__(self, context: CommandContext) -> None:
        self._context = context

    async def payment(self, payment_id: str) -> Payment:
        """Read the payment; raises NotFound."""
        return await asyncio.to_thread(self._payment, payment_id)

    async def take(self, message: InboxMessage) -> inbox.Recorded:
        """Commit the message to the inbox, or find it there."""
        recorded = await asyncio.to_thread(self._context.worker.take, message)
        self._context.traces.answered(message)
        return recorded

    async def apply(self, message: InboxMessage) -> InboxMessage:
        """Record the message and have it decided; raises StillApplying."""
        return await self.applied((await self.take(message)).id)

    async def applied(self, message_id: str) -> InboxMessage:
        """Wait until the message is decided here or elsewhere; raises StillApplying."""
        give_up_at = self._context.clock() + APPLY_TIMEOUT
        while True:
            message = await asyncio.to_thread(self.message, message_id)
            if message.status != InboxStatus.PENDING:
                return message
            await asyncio.to_thread(self._context.worker.step, [message_id])
            if self._context.clock() > give_up_at:
                raise StillApplying
            await asyncio.sleep(APPLY_POLL_INTERVAL_S)

    async def ask(self, payment_id: str) -> InboxMessage:
        """Ask the provider and apply its answer; raises ProviderError without one."""
        asked = await self._context.poller.ask(await asyncio.to_thread(self._polled, payment_id))
        if asked.message_id is None:
            raise asked.error or ProviderError("the provider was not asked")
        return await self.applied(asked.message_id)

    def ours(self, account: str, source: Source, key: str, body: bytes, about: str) -> InboxMessage:
        """Make the inbox message of a statement of our own."""
        return inbox.new_message(
            account=account,
            source=source.value,
            delivery_key=key,
            body=body,
            headers=(("content-type", own_statements.CONTENT_TYPE),),
            received_at=self._context.clock(),
            about=about,
        )

    async def call_failed(
        self,
        payment: Payment,
        source: Source,
        error: ServiceError,
        began_at: datetime,
        *,
        is_in_doubt: bool = False,
        wish: str | None = None,
    ) -> own_statements.CallFailed:
        """Record and apply that a call of ours failed; `began_at` is when it was begun.

        Nothing but a refusal, or no sending, says that nothing was done; anything else is ambiguous, and so is what
        was in doubt before.
        """
        self._context.traces.unanswered(source, payment.account, payment.id, error, began_at)
        http_status = error.http_status if isinstance(error, ProviderError) else None
        is_refusal = http_status is None or (400 <= http_status < 500 and http_status not in AMBIGUOUS_STATUSES)
        is_ambiguous = is_in_doubt or not is_refusal
        if isinstance(error, ProviderError):
            is_ambiguous = is_in_doubt or error.is_ambiguous or not (is_refusal or error.is_unsent)
        failed = own_statements.CallFailed(source.value, error.code, error.message, http_status, is_ambiguous, wish)
        key = f"{source.value}:{new_id()}"
        await self.apply(self.ours(payment.account, source, key, own_statements.encode(failed), payment.id))
        return failed

    @staticmethod
    def check_readable(message: InboxMessage) -> None:
        """Raise AnswerUnclear where the answer that this message keeps could not be read."""
        if message.outcomes and message.outcomes[-1].get("unreadable"):
            raise AnswerUnclear(f"{message.reason}; the answer is kept as inbox message {message.id}")

    def message(self, message_id: str) -> InboxMessage:
        """Read the inbox message; raises NotFound. Reads storage, so call it in a thread."""
        with self._context.database.read() as unit:
            return inbox.get(unit, message_id)

    def _payment(self, payment_id: str) -> Payment:
        with self._context.database.read() as unit:
            return payments.get(unit, payment_id)

    def _polled(self, payment_id: str) -> PolledPayment:
        with self._context.database.read() as unit:
            return PolledPayment(payments.get(unit, payment_id), payment_polls.get(unit, payment_id))
