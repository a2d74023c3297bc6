"""Commands of merchants and operators: each records its statement and applies it."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from poller.polling import answer_message
from providers.contract import Capability, Client, CreateRequest, Provider
from providers.errors import ProviderError
from providers.http import require_https
from receiver.returns import About
from service.command_inbox import CommandContext, CommandInbox
from service.errors import (
    AnswerUnclear,
    CancelNotSent,
    CancelUnanswered,
    CreateUnanswered,
    InvalidCommand,
    NotNamedYet,
    ReferenceConflict,
    StillApplying,
    UnknownAccountName,
)
from service.money_calls import MoneyCalls
from statemachine import own_statements
from statemachine.errors import ServiceError
from statemachine.lifecycle import NOT_CREATED
from statemachine.money import currency_code
from statemachine.names import NAME_RULE, is_kept, is_name
from statemachine.phases import MOVING_PHASES, Outcome, Source
from storage import inbox, operator_actions, outbox, payment_polls
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.tables import InboxMessage, OutboxMessage, Payment
from storage.types import PollPriority

#: Only from here can a payment still be cancelled, or still be paid.
_CANCELLABLE_PHASES: Final = frozenset(phase.value for phase in MOVING_PHASES)

#: Answers that were not understood, or that fit nothing known: a person looks before anything is cancelled.
_UNCLEAR_OUTCOMES: Final = frozenset({Outcome.PARKED.value, Outcome.CONFLICT.value})

#: While it is not known what a cancel call has done, and should we die over it, the next question is due this soon:
#: longer than any call takes.
_POLL_AFTER_CANCEL: Final = timedelta(seconds=120)


class Cancellation:
    """Cancels payments of the accounts whose clients are given."""

    def __init__(self, context: CommandContext, command_inbox: CommandInbox) -> None:
        self._context = context
        self._inbox = command_inbox

    async def cancel(self, payment_id: str) -> Payment:
        """Cancel the payment, as Commands.cancel() says; return it as it is then."""
        payment = await self._inbox.payment(payment_id)
        if has_ended(payment):
            return payment
        client = self._context.clients.get(payment.account)
        if client is None:
            raise UnknownAccountName(f"account {payment.account!r} is not configured any more", param="account")
        provider = self._context.providers[payment.account]
        provider.require(Capability.CANCEL, payment.kind)
        can_ask = provider.can(Capability.ASK, payment.kind)
        ref = payment.provider_ref
        if ref is None:
            raise NotNamedYet
        if can_ask:
            payment = await self._asked_first(payment)
            if has_ended(payment):
                return payment
            await self._ask_in(payment, _POLL_AFTER_CANCEL)
        began_at = self._context.clock()
        try:
            answer = await client.cancel(payment.kind, ref)
        except ProviderError as error:
            return await self._without_answer(payment, error, began_at)
        message = answer_message(payment.account, Source.CANCEL, answer, payment.id, self._context.clock())
        applied = await self._inbox.apply(message)
        payment = await self._inbox.payment(payment_id)
        if has_ended(payment):
            return payment
        if can_ask:
            payment = await self._asked_again(payment)  # taken, and not told what it is now
        if not has_ended(payment):
            self._check_clear(applied, payment)
        return payment

    def _check_clear(self, answer: InboxMessage, payment: Payment) -> None:
        """Raise CancelUnanswered where the answer to the cancel call could not be read."""
        try:
            self._inbox.check_readable(answer)
        except AnswerUnclear as unclear:
            words = f"{unclear.message}; the provider, asked again, says {payment.state}"
            raise CancelUnanswered(words) from unclear

    async def _asked_first(self, payment: Payment) -> Payment:
        """Ask the provider before anything is sent; raises CancelNotSent without answer."""
        try:
            message = await self._inbox.ask(payment.id)
        except ProviderError as silence:
            words = f"nothing was cancelled: the provider could not be asked first ({silence.message})"
            raise CancelNotSent(words) from silence
        payment = await self._inbox.payment(payment.id)
        if message.decision in _UNCLEAR_OUTCOMES and not has_ended(payment):
            raise CancelNotSent(f"nothing was cancelled: a person must look at the payment first ({message.reason})")
        return payment

    async def _without_answer(self, payment: Payment, error: ProviderError, began_at: datetime) -> Payment:
        """Handle a failed cancel call: return the payment, or raise what is known of it."""
        failed = await self._inbox.call_failed(payment, Source.CANCEL, error, began_at)
        if not failed.is_ambiguous and error.http_status in (None, 429):
            raise error  # it was not sent, or not looked at
        is_refused = error.type == "conflict_error" and not error.is_ambiguous
        if not self._context.providers[payment.account].can(Capability.ASK, payment.kind):
            if failed.is_ambiguous:
                words = "the cancel call has left no answer, and the provider cannot be asked"
                raise CancelUnanswered(words) from error
            raise error
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
        """Ask the provider after the call; else raise CancelUnanswered, a poll being due."""
        try:
            self._inbox.check_readable(await self._inbox.ask(payment.id))
        except (ProviderError, AnswerUnclear) as silence:
            await self._ask_in(payment, timedelta(0))
            words = "the cancel call may have been heard, and the provider cannot be asked now"
            raise CancelUnanswered(f"{words} ({silence.message})") from silence
        payment = await self._inbox.payment(payment.id)
        if not has_ended(payment):
            await self._ask_in(payment, _POLL_AFTER_CANCEL)  # the call may still do its work
        return payment

    async def _ask_in(self, payment: Payment, wait: timedelta) -> None:
        await asyncio.to_thread(self._set_question, payment.id, wait)

    def _set_question(self, payment_id: str, wait: timedelta) -> None:
        with self._context.database.write() as unit:
            payment_polls.ask_at(unit, [payment_id], self._context.work_clock() + wait, PollPriority.DOUBT)


def has_ended(payment: Payment) -> bool:
    """Return True where the payment is over, so that there is nothing left to cancel."""
    return payment.phase not in _CANCELLABLE_PHASES


_MAX_TEXT_CHARS = 2000
_MAX_PERSON_CHARS = 128  #: of a person; as wide as the columns


class Commands:
    """The commands of one service, with its clients open."""

    def __init__(self, context: CommandContext) -> None:
        self._context = context
        self._inbox = CommandInbox(context)
        self._cancellation = Cancellation(context, self._inbox)
        self._money = MoneyCalls(context, self._inbox)

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
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Payment:
        """Create the payment at the provider and here, once for each reference.

        A repeat with the same reference returns the same one.

        The wish is recorded before the provider is called, and the answer after. Raises ProviderError when the
        provider refused or did not answer (the payment is kept, needing review where the outcome is unknown),
        AnswerUnclear where the answer names no payment (it needs review), ReferenceConflict, InsecureUrl for a
        `return_url` that no payer may be sent to, and CreateUnanswered where a repeat might pay twice.
        """
        kind = self._kind(account, kind)
        currency = currency_code(currency)
        if amount_minor <= 0:
            raise InvalidCommand("a payment needs a positive amount", param="amount")
        _check_name("reference", reference)
        if return_url is not None:
            _check_text("return_url", return_url, _MAX_TEXT_CHARS)
            require_https(return_url, allow_loopback=self._context.is_development, param="return_url")
        check_own_words(description, metadata or {})
        self._provider(account).require(Capability.CREATE, kind)
        client = self._context.clients[account]
        wanted = own_statements.CreateWanted(
            kind, reference, amount_minor, currency, return_url, description, dict(metadata or {})
        )
        payment, is_new = await self._wanted(account, wanted)
        if payment.provider_ref is not None or payment.state not in (None, NOT_CREATED):
            return payment  # named by the provider, or a person has said what became of it
        is_unanswered = not is_new and payment.state is None
        if is_unanswered and not self._may_repeat(client, payment):
            raise CreateUnanswered
        began_at = self._context.clock()
        try:
            answer = await client.create(self._request(payment, extra or {}))
        except StorageUnavailable:
            raise  # the account's turn could not be had, so nothing was sent, and nothing can be recorded
        except ServiceError as error:
            # A refused repeat says nothing about an earlier call that has left no answer.
            failed = await self._inbox.call_failed(payment, Source.CREATE, error, began_at, is_in_doubt=is_unanswered)
            if isinstance(error, ProviderError):
                error.is_ambiguous = failed.is_ambiguous
            raise
        message = answer_message(account, Source.CREATE, answer, payment.id, self._context.clock())
        applied = await self._inbox.apply(message)
        made = await self.get(payment.id)
        if made.provider_ref is None and made.state in (None, NOT_CREATED):
            raise AnswerUnclear(f"{applied.reason}; the answer is kept as inbox message {applied.id}")
        return made

    async def track(
        self,
        account: str,
        ref: str,
        kind: str | None = None,
        *,
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Payment:
        """Begin to track a payment of the provider's, as the provider describes it now.

        A description or metadata takes the place of both as they were known.

        Raises ProviderError, and AnswerUnclear where its answer says nothing.
        """
        kind = self._kind(account, kind)
        self._provider(account).require(Capability.ASK, kind)
        _check_name("ref", ref)
        check_own_words(description, metadata or {})
        answer = await self._context.clients[account].fetch(kind, ref)
        message = answer_message(account, Source.POLL, answer, None, self._context.clock())
        applied = await self._inbox.apply(message)
        self._inbox.check_readable(applied)
        if applied.payment_id is None:
            raise InvalidCommand(f"the provider's answer is about no payment: {applied.reason}")
        if description is not None or metadata:
            said = own_statements.PaymentDescribed(description, dict(metadata or {}))
            body = own_statements.encode(said)
            await self._inbox.apply(
                self._inbox.ours(account, Source.MERCHANT, f"describe:{new_id()}", body, applied.payment_id)
            )
        return await self.get(applied.payment_id)

    async def refresh(self, payment_id: str) -> Payment:
        """Ask the provider now and apply its answer.

        Raises ProviderError, NotNamedYet, and AnswerUnclear where the answer says nothing.
        """
        payment = await self.get(payment_id)
        self._provider(payment.account).require(Capability.ASK, payment.kind)
        if payment.provider_ref is None:
            raise NotNamedYet
        self._inbox.check_readable(await self._inbox.ask(payment_id))
        return await self.get(payment_id)

    async def cancel(self, payment_id: str) -> Payment:
        """Ask the provider, tell it to cancel, and ask again where that is needed.

        It need not be cancelled: look at its phase. Paid, settled or refunded: it was paid first, and its effects are
        owed as ever. Expired or failed: it had ended without money, or the provider says so of what it cancels. Open
        or processing: the provider took or refused the cancel, and says that the payment goes on. For one that is
        known to have ended nothing is asked or sent, so that a repeat is harmless.

        Raises UnsupportedByProvider before anything is asked; CancelNotSent where the provider could not be asked
        first; ProviderError where it refused for another reason than the payment's state; CancelUnanswered where
        nobody knows: the payment stays as it is, and is asked about until the provider says. Only what
        the provider states makes it cancelled (rule R6).
        """
        return await self._cancellation.cancel(payment_id)

    async def capture(self, payment_id: str, *, key: str, amount_minor: int | None = None) -> Payment:
        """Capture so much of an authorised payment, or what remains; once for each key.

        As refund(), of what is authorised and not captured yet.
        """
        return await self._money.move(Capability.CAPTURE, payment_id, amount_minor, key)

    async def refund(self, payment_id: str, *, key: str, amount_minor: int | None = None) -> Payment:
        """Refund so much of a paid payment, or all that remains; once for each key.

        The wish is recorded before the provider is called, and its answer after; the sums move by what the provider
        says, so that a refund that is pending there is not refunded here. A repeat with the same key of what was
        answered sends nothing; of what was refused it is a new call.

        Raises UnsupportedByProvider, MoneyExceeded and MoneyInDoubt before anything is sent; ProviderError where the
        provider refused; MoneyUnanswered where nobody knows: the payment needs review, and the same key is the way on.
        """
        return await self._money.move(Capability.REFUND, payment_id, amount_minor, key)

    async def resolve(self, payment_id: str, *, state: str, reason: str, by: str) -> Payment:
        """Record and apply a named person's word on the state; any review is closed."""
        payment = await self.get(payment_id)
        lifecycle = self._provider(payment.account).lifecycles[payment.kind]
        if not lifecycle.knows(state):
            known = ", ".join(lifecycle.by_name)
            raise InvalidCommand(f"{state!r} is not a state of {lifecycle.name}; it has: {known}", param="state")
        if not reason.strip() or not by.strip():
            raise InvalidCommand("a resolution needs a reason and the name of who decides", param="reason")
        _check_reason(reason, by)
        body = own_statements.encode(own_statements.Resolution(state, reason.strip(), by.strip()))
        await asyncio.to_thread(self._note, payment.account, by, "resolve", payment.id, reason)
        message = self._inbox.ours(payment.account, Source.OPERATOR, f"resolve:{new_id()}", body, payment.id)
        await self._inbox.apply(message)
        return await self.get(payment_id)

    async def replay(self, message_id: str, *, reason: str, by: str) -> InboxMessage:
        """Apply the message once more, by the program as it is now.

        History is only added to.

        Raises InvalidCommand for what a person or our poller once said: that may be said anew, not repeated.
        """
        if not reason.strip() or not by.strip():
            raise InvalidCommand("a replay needs a reason and the name of who asks for it", param="reason")
        _check_reason(reason, by)
        message = await asyncio.to_thread(self._inbox.message, message_id)
        if message.source in (Source.OPERATOR, Source.POLLER):
            raise InvalidCommand(f"a statement of source {message.source} is not replayed; resolve the payment anew")
        await asyncio.to_thread(self._reopen, message_id, reason, by)
        return await self._inbox.applied(message_id)

    async def redrive(self, message_id: str, *, reason: str, by: str, overtaken: bool = False) -> OutboxMessage:
        """Make a dead effect due again; the dispatcher delivers it.

        Raises EffectOvertaken where its sink has had a later one of its payment, unless `overtaken` ones are meant too.
        """
        if not reason.strip() or not by.strip():
            raise InvalidCommand("a redrive needs a reason and the name of who asks for it", param="reason")
        _check_reason(reason, by)
        return await asyncio.to_thread(self._redrive, message_id, reason, by, overtaken)

    async def get(self, payment_id: str) -> Payment:
        """Read the payment; raises NotFound."""
        return await self._inbox.payment(payment_id)

    # -- parts --------------------------------------------------------------------------------------------------

    def _provider(self, account: str) -> Provider:
        providers = self._context.providers
        if account not in providers:
            raise UnknownAccountName(f"no account {account!r}; there are: {', '.join(providers)}", param="account")
        return providers[account]

    def _kind(self, account: str, kind: str | None) -> str:
        provider = self._provider(account)
        kind = kind or provider.default_kind
        if kind not in provider.lifecycles:
            raise InvalidCommand(
                f"{provider.name} has no {kind!r}; it has: {', '.join(provider.lifecycles)}", param="kind"
            )
        return kind

    def _request(self, payment: Payment, extra: Mapping[str, object]) -> CreateRequest:
        if payment.amount_minor is None or payment.currency is None or payment.reference is None:
            raise InvalidCommand("the payment was not created here", param="payment")
        about = About(payment.account, payment.kind, payment.id)
        base, tokens = self._context.public_url, self._context.tokens
        return CreateRequest(
            kind=payment.kind,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            reference=payment.reference,
            idempotency_key=_idempotency_key(payment),
            return_url=f"{base}/return/{tokens.issue('return', about)}",
            callback_url=f"{base}/callbacks/{tokens.issue('callback', about)}",
            extra=extra,
        )

    async def _wanted(self, account: str, wanted: own_statements.CreateWanted) -> tuple[Payment, bool]:
        """Record the wish; return its payment, and whether this call made it."""
        message = self._inbox.ours(
            account,
            Source.MERCHANT,
            f"create:{wanted.kind}:{wanted.reference}",
            own_statements.encode(wanted),
            new_id(),
        )
        recorded = await self._inbox.take(message)
        if recorded.is_variant:
            raise ReferenceConflict(param="reference")
        applied = await self._inbox.applied(recorded.id)
        if applied.about is None:
            raise StillApplying
        return await self.get(applied.about), not recorded.is_duplicate

    def _may_repeat(self, client: Client, payment: Payment) -> bool:
        """Return True where the provider takes a repeated create call for the same one."""
        remembers = client.create_is_remembered_for
        return client.is_create_idempotent and (
            remembers is None or self._context.clock() - payment.created_at < remembers
        )

    def _note(self, account: str, by: str, action: str, subject: str, reason: str) -> None:
        with self._context.database.write() as unit:
            operator_actions.note(
                unit,
                account=account,
                at=self._context.clock(),
                actor=by,
                action=action,
                subject=subject,
                reason=reason.strip(),
            )

    def _reopen(self, message_id: str, reason: str, by: str) -> None:
        with self._context.database.write() as unit:
            now = self._context.work_clock()
            account = inbox.replay(unit, message_id, now).account
            operator_actions.note(
                unit, account=account, at=now, actor=by, action="replay", subject=message_id, reason=reason.strip()
            )

    def _redrive(self, message_id: str, reason: str, by: str, overtaken: bool) -> OutboxMessage:
        with self._context.database.write() as unit:
            now = self._context.work_clock()
            redriven = outbox.redrive(unit, message_id, now, overtaken=overtaken)
            account = redriven.account
            operator_actions.note(
                unit, account=account, at=now, actor=by, action="redrive", subject=redriven.id, reason=reason.strip()
            )
        return redriven


MAX_DESCRIPTION_CHARS: Final = 1000
#: As at Stripe. Source: https://docs.stripe.com/api/metadata
MAX_METADATA_KEYS: Final = 50
MAX_METADATA_KEY_CHARS: Final = 40
MAX_METADATA_VALUE_CHARS: Final = 500


def check_own_words(description: str | None, metadata: Mapping[str, str]) -> None:
    """Raise InvalidCommand for a description or metadata beyond the limits."""
    if description is not None:
        _check_text("description", description, MAX_DESCRIPTION_CHARS)
    if len(metadata) > MAX_METADATA_KEYS:
        raise InvalidCommand(f"metadata has at most {MAX_METADATA_KEYS} keys, not {len(metadata)}", param="metadata")
    for key, value in metadata.items():
        if not key or not is_kept(key, MAX_METADATA_KEY_CHARS):
            raise InvalidCommand(
                f"a key of metadata has 1 to {MAX_METADATA_KEY_CHARS} characters, and no NUL", param="metadata"
            )
        if not is_kept(value, MAX_METADATA_VALUE_CHARS):
            raise InvalidCommand(
                f"metadata.{key} has at most {MAX_METADATA_VALUE_CHARS} characters, and no NUL", param="metadata"
            )


def _check_name(param: str, text: str) -> None:
    """Raise InvalidCommand for a text that cannot name a payment and be read back."""
    if not is_name(text):
        raise InvalidCommand(f"{param} {NAME_RULE}", param=param)


def _check_text(param: str, text: str, max_chars: int) -> None:
    """Raise InvalidCommand for what not every database keeps as it is."""
    if not is_kept(text, max_chars):
        raise InvalidCommand(f"{param} has at most {max_chars} characters, and no NUL", param=param)


def _check_reason(reason: str, by: str) -> None:
    _check_text("reason", reason, _MAX_TEXT_CHARS)
    _check_text("by", by, _MAX_PERSON_CHARS)


def _idempotency_key(payment: Payment) -> str:
    """Return a create call's key: the same for a repeat, another after a refusal.

    A provider may repeat its refusal for the old one.

    A person's word that nothing was created has no failure's name, and keeps the key: it might be mistaken.
    """
    is_refused = payment.state == NOT_CREATED and payment.failure_reason is not None
    return f"{payment.id}.{payment.version}" if is_refused else payment.id
