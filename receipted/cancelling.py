"""Cancelling a payment at its provider: asks first, sends the cancel, and believes nothing but the provider's word."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from poller.polling import answer_message
from providers.contract import Client
from providers.errors import ProviderError
from receipted.applying import Applying
from receipted.errors import AnswerUnclear, CancelNotSent, CancelUnanswered, NotNamedYet, UnknownAccountName
from receipted.wiring import Service
from statemachine.phases import Outcome, Phase, Source
from storage import payments
from storage.tables import InboxMessage, Payment
from storage.types import PollPriority

#: Only from here can a payment still be cancelled, or still be paid.
_UNDECIDED: Final = frozenset({Phase.OPEN.value, Phase.PROCESSING.value})

#: Answers that were not understood, or that fit nothing known: a person looks before anything is cancelled.
_NEEDS_A_PERSON: Final = frozenset({Outcome.PARKED.value, Outcome.CONFLICT.value})

#: While it is not known what a cancel call has done, and should we die over it, the next question is due this soon:
#: longer than any call takes.
_SOON: Final = timedelta(seconds=120)


class Cancelling:
    """Cancels payments of the accounts whose clients are given."""

    def __init__(self, service: Service, clients: Mapping[str, Client], applying: Applying) -> None:
        self._service = service
        self._clients = clients
        self._applying = applying

    async def cancel(self, payment_id: str) -> Payment:
        """The payment as the provider has it once it was told to cancel; Commands.cancel() says all of it."""
        payment = await self._applying.payment(payment_id)
        if has_ended(payment):
            return payment
        client = self._clients.get(payment.account)
        if client is None:
            raise UnknownAccountName(f"account {payment.account!r} is not configured any more", param="account")
        client.check_cancel(payment.kind)
        ref = payment.provider_ref
        if ref is None:
            raise NotNamedYet
        payment = await self._asked_first(payment)
        if has_ended(payment):
            return payment
        await self._ask_in(payment, _SOON)
        began_at = self._service.clock()
        try:
            answer = await client.cancel(payment.kind, ref)
        except ProviderError as error:
            return await self._without_answer(payment, error, began_at)
        message = answer_message(payment.account, Source.CANCEL, answer, payment.id, self._service.clock())
        applied = await self._applying.apply(message)
        payment = await self._applying.payment(payment_id)
        if has_ended(payment):
            return payment
        payment = await self._asked_again(payment)  # taken, and not told what it is now
        if not has_ended(payment):
            self._check_clear(applied, payment)
        return payment

    def _check_clear(self, answer: InboxMessage, payment: Payment) -> None:
        """Return where the answer to the cancel call said something; raises CancelUnanswered."""
        try:
            self._applying.check_readable(answer)
        except AnswerUnclear as unclear:
            words = f"{unclear.message}; the provider, asked again, says {payment.state}"
            raise CancelUnanswered(words) from unclear

    async def _asked_first(self, payment: Payment) -> Payment:
        """The payment as the provider has it before anything is sent; raises CancelNotSent where that is not known."""
        try:
            message = await self._applying.ask(payment.id)
        except ProviderError as silence:
            words = f"nothing was cancelled: the provider could not be asked first ({silence.message})"
            raise CancelNotSent(words) from silence
        payment = await self._applying.payment(payment.id)
        if message.decision in _NEEDS_A_PERSON and not has_ended(payment):
            raise CancelNotSent(f"nothing was cancelled: a person must look at the payment first ({message.reason})")
        return payment

    async def _without_answer(self, payment: Payment, error: ProviderError, began_at: datetime) -> Payment:
        """What the payment is after a cancel call that failed; raises where it was not cancelled, or nobody knows."""
        failed = await self._applying.call_failed(payment, Source.CANCEL, error, began_at)
        if not failed.is_ambiguous and error.http_status in (None, 429):
            raise error  # it was not sent, or not looked at
        is_refused = error.type == "conflict_error" and not error.is_ambiguous
        try:
            payment = await self._asked_again(payment)
        except CancelUnanswered:
            if failed.is_ambiguous or is_refused:
                raise
            raise error from None
        if is_refused or has_ended(payment):
            return payment
        if failed.is_ambiguous:
            words = f"the cancel call has left no answer; the provider was asked again, and it is {payment.state}"
            raise CancelUnanswered(words) from error
        raise error

    async def _asked_again(self, payment: Payment) -> Payment:
        """The payment as the provider has it after the call; else CancelUnanswered, and a question is due at once."""
        try:
            self._applying.check_readable(await self._applying.ask(payment.id))
        except (ProviderError, AnswerUnclear) as silence:
            await self._ask_in(payment, timedelta(0))
            words = "the cancel call may have been heard, and the provider cannot be asked now"
            raise CancelUnanswered(f"{words} ({silence.message})") from silence
        payment = await self._applying.payment(payment.id)
        if not has_ended(payment):
            await self._ask_in(payment, _SOON)  # the call may still do its work
        return payment

    async def _ask_in(self, payment: Payment, wait: timedelta) -> None:
        await asyncio.to_thread(self._set_question, payment.id, wait)

    def _set_question(self, payment_id: str, wait: timedelta) -> None:
        with self._service.database.write() as unit:
            payments.ask_at(unit, [payment_id], self._service.work_clock() + wait, PollPriority.DOUBT)


def has_ended(payment: Payment) -> bool:
    """Whether it is known what became of the payment, so that there is nothing left to cancel."""
    return payment.phase not in _UNDECIDED
