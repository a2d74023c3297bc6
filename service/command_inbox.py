"""Statements of our own and answers to our own calls: recorded in the inbox, and applied before we go on."""

import asyncio
from datetime import datetime, timedelta

from poller.polling import Poller
from providers.errors import ProviderError
from receipted.errors import AnswerUnclear, StillApplying
from receipted.wiring import Service
from statemachine import statements
from statemachine.errors import ServiceError
from statemachine.phases import Source
from storage import inbox, payments
from storage.ids import new_id
from storage.tables import InboxMessage, Payment
from storage.types import InboxStatus

#: How long a command waits for another process that is applying its message.
_PATIENCE = timedelta(seconds=15)

#: Answers of 4xx that do not say that nothing was done: a gateway gave up waiting; our idempotency key was used before.
_NO_REFUSAL = frozenset({408, 409})


class CommandInbox:
    """The way of a command's statements into the inbox, and through it (rule R1)."""

    def __init__(self, service: Service, poller: Poller) -> None:
        self._service = service
        self._poller = poller
        self._worker = service.inbox_worker()

    async def payment(self, payment_id: str) -> Payment:
        """The payment as it is; raises NotFound."""
        return await asyncio.to_thread(self._payment, payment_id)

    async def take(self, message: InboxMessage) -> inbox.Recorded:
        """The message is committed to the inbox, or was there already."""
        recorded = await asyncio.to_thread(self._worker.take, message)
        self._service.traces.answered(message)
        return recorded

    async def apply(self, message: InboxMessage) -> InboxMessage:
        """The message is recorded and decided; raises StillApplying."""
        return await self.applied((await self.take(message)).id)

    async def applied(self, message_id: str) -> InboxMessage:
        """The message once it is decided, by us or by a worker that was quicker; raises StillApplying."""
        give_up_at = self._service.clock() + _PATIENCE
        while True:
            message = await asyncio.to_thread(self.message, message_id)
            if message.status != InboxStatus.PENDING:
                return message
            await asyncio.to_thread(self._worker.step, [message_id])
            if self._service.clock() > give_up_at:
                raise StillApplying
            await asyncio.sleep(0.02)

    async def ask(self, payment_id: str) -> InboxMessage:
        """The provider's answer of just now, applied; raises ProviderError where there is none."""
        asked = await self._poller.ask(await self.payment(payment_id))
        if asked.message_id is None:
            raise asked.error or ProviderError("the provider was not asked")
        return await self.applied(asked.message_id)

    def ours(self, account: str, source: Source, key: str, body: bytes, about: str) -> InboxMessage:
        """The inbox message of a statement of our own (statemachine/statements.py)."""
        return inbox.new_message(
            account=account,
            source=source.value,
            delivery_key=key,
            body=body,
            headers=(("content-type", statements.CONTENT_TYPE),),
            received_at=self._service.clock(),
            about=about,
        )

    async def call_failed(
        self, payment: Payment, source: Source, error: ServiceError, began_at: datetime, *, is_in_doubt: bool = False
    ) -> statements.CallFailed:
        """That a call of ours failed is kept and applied; `began_at` is when we began to call.

        Nothing but a refusal, or no sending, says that nothing was done; anything else is ambiguous, and so is what
        was in doubt before.
        """
        self._service.traces.unanswered(source, payment.account, payment.id, error, began_at)
        http_status = error.http_status if isinstance(error, ProviderError) else None
        is_refusal = http_status is None or (400 <= http_status < 500 and http_status not in _NO_REFUSAL)
        is_ambiguous = is_in_doubt or not is_refusal
        if isinstance(error, ProviderError):
            is_ambiguous = is_in_doubt or error.is_ambiguous or not (is_refusal or error.is_unsent)
        failed = statements.CallFailed(source.value, error.code, error.message, http_status, is_ambiguous)
        key = f"{source.value}:{new_id()}"
        await self.apply(self.ours(payment.account, source, key, statements.encode(failed), payment.id))
        return failed

    @staticmethod
    def check_readable(message: InboxMessage) -> None:
        """Return where the answer that this message keeps said something; raises AnswerUnclear."""
        if message.outcomes and message.outcomes[-1].get("unreadable"):
            raise AnswerUnclear(f"{message.reason}; the answer is kept as inbox message {message.id}")

    def message(self, message_id: str) -> InboxMessage:
        """The inbox message as it is; raises NotFound. Reads storage, so call it in a thread."""
        with self._service.database.read() as unit:
            return inbox.get(unit, message_id)

    def _payment(self, payment_id: str) -> Payment:
        with self._service.database.read() as unit:
            return payments.get(unit, payment_id)
