"""Captures and refunds: recorded wishes, each sent under a key of its own."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from poller.polling import answer_message
from providers.contract import Capability, Client, MoneyRequest, Provider
from providers.errors import ProviderError
from service.command_inbox import CommandContext, CommandInbox
from service.errors import (
    AnswerUnclear,
    InvalidCommand,
    MoneyExceeded,
    MoneyInDoubt,
    MoneyUnanswered,
    NotNamedYet,
    UnknownAccountName,
    WishConflict,
)
from statemachine import own_statements
from statemachine.errors import ServiceError
from statemachine.lifecycle import Lifecycle
from statemachine.money import amount_text
from statemachine.names import is_kept
from statemachine.own_statements import CONTENT_TYPE, MoneyWanted, point_of, wish_of
from statemachine.phases import MONEY_PHASES, Phase, Source
from statemachine.sums import PartKind, PartStatus
from storage import inbox, payment_polls, payments
from storage.errors import StorageUnavailable
from storage.tables import InboxMessage, Payment
from storage.types import PollPriority

#: A wish without an outcome for this long was left behind by a process that ended: longer than any call takes.
_ABANDONED_AFTER: Final = timedelta(seconds=120)

_MAX_KEY_CHARS: Final = 255

_SOURCES: Final = {Capability.CAPTURE: Source.CAPTURE, Capability.REFUND: Source.REFUND}
_PART_KINDS: Final = {Capability.CAPTURE: PartKind.CAPTURE, Capability.REFUND: PartKind.REFUND}
_DONE: Final = {Capability.CAPTURE: "captured", Capability.REFUND: "refunded"}


@dataclass(slots=True)
class Wish:
    """One recorded wish to capture or refund, and what became of its calls."""

    id: str  #: of its inbox message
    wanted: MoneyWanted
    at: datetime
    refusals: int = 0
    is_answered: bool = False  #: by an answer that could be read
    is_in_doubt: bool = False  #: a call had no answer, or one that says nothing
    is_accepted: bool = False  #: a person has looked, and resolved the payment

    @property
    def is_open(self) -> bool:
        """Return whether its money may still move, or have moved unseen."""
        if self.is_answered or self.is_accepted:
            return False
        return self.is_in_doubt or not self.refusals

    @property
    def idempotency_key(self) -> str:
        """The key for the provider: the same while in doubt, another after a refusal.

        A provider may repeat its refusal for the old one.
        """
        return self.id if self.is_in_doubt or not self.refusals else f"{self.id}.{self.refusals}"


def wishes_of(messages: Sequence[InboxMessage], accepted: Sequence[str]) -> dict[str, Wish]:
    """Return the wishes to capture and refund among a payment's messages, by id."""
    found: dict[str, Wish] = {}
    for message in messages:
        is_ours = ["content-type", CONTENT_TYPE] in message.headers
        if message.scrubbed_at is not None or message.variant_of is not None:
            continue  # what is so old that its body was deleted is over
        if message.source == Source.MERCHANT and is_ours:
            wanted = own_statements.decode(bytes(message.body))
            if isinstance(wanted, MoneyWanted):
                point = point_of(wanted.call, message.id)
                found[message.id] = Wish(message.id, wanted, message.received_at, is_accepted=point in accepted)
        elif message.source in (Source.CAPTURE, Source.REFUND):
            _learn(found, message, is_ours=is_ours)
    return found


def _learn(wishes: dict[str, Wish], message: InboxMessage, *, is_ours: bool) -> None:
    """Note on its wish what a call's answer, or its failure, says of it."""
    said = own_statements.decode(bytes(message.body)) if is_ours else None
    named = said.wish if isinstance(said, own_statements.CallFailed) else wish_of(message.headers)
    wish = wishes.get(named or "")
    if wish is None:
        return
    if isinstance(said, own_statements.CallFailed):
        if said.is_ambiguous:
            wish.is_in_doubt = True
        else:
            wish.refusals += 1
    elif message.outcomes and message.outcomes[-1].get("unreadable"):
        wish.is_in_doubt = True
    else:
        wish.is_answered = True


class MoneyCalls:
    """Captures and refunds payments of the accounts whose clients are given."""

    def __init__(self, context: CommandContext, command_inbox: CommandInbox) -> None:
        self._context = context
        self._inbox = command_inbox

    async def move(self, call: Capability, payment_id: str, amount_minor: int | None, key: str) -> Payment:
        """Capture or refund, as Commands.refund() says; return the payment as it is then."""
        if not key or not is_kept(key, _MAX_KEY_CHARS):
            raise InvalidCommand(f"a key has 1 to {_MAX_KEY_CHARS} characters, and no NUL", param="key")
        payment = await self._inbox.payment(payment_id)
        provider, client = self._provider(payment.account), self._context.clients.get(payment.account)
        provider.require(call, payment.kind)
        if client is None:
            raise UnknownAccountName(f"account {payment.account!r} is not configured any more", param="account")
        if payment.provider_ref is None:
            raise NotNamedYet
        wish, is_new = await self._wish(call, payment, amount_minor, key)
        if wish.is_answered or wish.is_accepted:
            return await self._inbox.payment(payment_id)
        if wish.is_open and not is_new and not self._may_repeat(client, call, wish):
            words = f"the {call} call left no answer, and a repeat might move the money twice; look in the provider's"
            raise MoneyInDoubt(f"{words} dashboard, and resolve the payment")
        return await self._send(call, client, payment, wish)

    async def _wish(self, call: Capability, payment: Payment, amount_minor: int | None, key: str) -> tuple[Wish, bool]:
        """Record the wish, or find the one of this key; return whether it is new.

        Raises where it cannot be sent.
        """
        name = f"{call.value}:{payment.id}:{sha256(key.encode()).hexdigest()[:32]}"
        known = await asyncio.to_thread(self._wish_id, payment.account, name)
        wishes = await asyncio.to_thread(self._wishes, payment.id)
        if known is not None:
            wish = wishes.get(known)
            if wish is None or (amount_minor is not None and wish.wanted.amount_minor != amount_minor):
                raise WishConflict(param="key")
            if amount_minor is None and not wish.wanted.is_whole:
                raise WishConflict(param="key")
            if not wish.refusals or wish.is_in_doubt or wish.is_answered or wish.is_accepted:
                return wish, False  # its amount stands aside from what remains already
            await self._check(call, payment, wish.wanted.amount_minor, wishes, wish.id)
            return wish, False
        if amount_minor is not None and amount_minor <= 0:
            raise InvalidCommand(f"a {call.value} needs a positive amount", param="amount")
        remaining = await self._check(call, payment, amount_minor or 1, wishes, None)
        amount = remaining if amount_minor is None else amount_minor
        wanted = MoneyWanted(call.value, amount, payment.currency or "", is_whole=amount_minor is None)
        body = own_statements.encode(wanted)
        message = self._inbox.ours(payment.account, Source.MERCHANT, name, body, payment.id)
        recorded = await self._inbox.take(message)
        if recorded.is_variant:
            raise WishConflict(param="key")
        await self._inbox.applied(recorded.id)
        wishes = await asyncio.to_thread(self._wishes, payment.id)
        wish = wishes[recorded.id]
        if recorded.is_duplicate:
            return wish, False
        try:  # of two at once, neither sees the other before both are recorded
            await self._check(call, payment, amount, wishes, wish.id)
        except ServiceError as refusal:
            await self._inbox.call_failed(payment, _SOURCES[call], refusal, self._context.clock(), wish=wish.id)
            raise
        return wish, True

    async def _check(
        self, call: Capability, payment: Payment, amount_minor: int, wishes: dict[str, Wish], own: str | None
    ) -> int:
        """Return what remains; raise MoneyExceeded or MoneyInDoubt where that is less."""
        others = [wish for wish in wishes.values() if wish.id != own and wish.is_open and wish.wanted.call == call]
        now = self._context.clock()
        for wish in others:
            if not wish.is_in_doubt and now - wish.at > _ABANDONED_AFTER:
                silent = ProviderError(f"the process that made the {call.value} call has ended", is_ambiguous=True)
                await self._inbox.call_failed(payment, _SOURCES[call], silent, now, wish=wish.id)
                wish.is_in_doubt = True
            if wish.is_in_doubt:
                amount = amount_text(wish.wanted.amount_minor, payment.currency)
                words = f"whether {amount} were {_DONE[call]} before is not known yet"
                raise MoneyInDoubt(f"{words}; repeat that {call.value} with its key, or resolve the payment")
        lifecycle = self._provider(payment.account).lifecycles[payment.kind]
        remaining = remaining_minor(call, payment, lifecycle) - sum(wish.wanted.amount_minor for wish in others)
        if remaining < amount_minor or remaining <= 0:
            words = f"no more than {amount_text(max(remaining, 0), payment.currency)} can be {_DONE[call]}"
            raise MoneyExceeded(f"{words}; the payment is {payment.phase}", param="amount")
        return remaining

    async def _send(self, call: Capability, client: Client, payment: Payment, wish: Wish) -> Payment:
        """Make the call, and record and apply its answer."""
        assert payment.provider_ref is not None  # noqa: S101 - move() has looked
        request = MoneyRequest(
            kind=payment.kind,
            ref=payment.provider_ref,
            amount_minor=wish.wanted.amount_minor,
            currency=wish.wanted.currency,
            idempotency_key=wish.idempotency_key,
        )
        source, began_at = _SOURCES[call], self._context.clock()
        if self._provider(payment.account).can(Capability.ASK, payment.kind):
            await asyncio.to_thread(self._ask_later, payment.id)
        try:
            answer = await (client.capture(request) if call is Capability.CAPTURE else client.refund(request))
        except StorageUnavailable:
            raise  # the account's turn could not be had, so nothing was sent, and nothing can be recorded
        except ServiceError as error:
            failed = await self._inbox.call_failed(
                payment, source, error, began_at, is_in_doubt=wish.is_in_doubt, wish=wish.id
            )
            if failed.is_ambiguous:
                words = f"the {call.value} call has left no answer that says what became of it ({error.message})"
                raise MoneyUnanswered(f"{words}; call again with the same key") from error
            raise
        message = answer_message(payment.account, source, answer, payment.id, self._context.clock(), wish=wish.id)
        applied = await self._inbox.apply(message)
        try:
            self._inbox.check_readable(applied)
        except AnswerUnclear as unclear:
            raise MoneyUnanswered(f"{unclear.message}; call again with the same key") from unclear
        return await self._asked(payment)

    async def _asked(self, payment: Payment) -> Payment:
        """Return the payment, as the provider describes it after the call where it can."""
        if self._provider(payment.account).can(Capability.ASK, payment.kind):
            with suppress(ProviderError):  # the call was answered; the next question is due soon
                await self._inbox.ask(payment.id)
        return await self._inbox.payment(payment.id)

    def _may_repeat(self, client: Client, call: Capability, wish: Wish) -> bool:
        """Return whether the provider takes a repeat of this call for the same one."""
        within = client.repeats_within(call)
        return within is None or self._context.clock() - wish.at < within

    def _provider(self, account: str) -> Provider:
        found = self._context.providers.get(account)
        if found is None:
            raise UnknownAccountName(f"account {account!r} is not configured any more", param="account")
        return found

    def _wish_id(self, account: str, name: str) -> str | None:
        with self._context.database.read() as unit:
            return inbox.id_of_key(unit, account, name)

    def _wishes(self, payment_id: str) -> dict[str, Wish]:
        with self._context.database.read() as unit:
            found = inbox.concerning(unit, payment_id)
            accepted = payments.get(unit, payment_id).accepted
        return wishes_of(found, accepted or [])

    def _ask_later(self, payment_id: str) -> None:
        """Have the provider asked soon, should this process end over the call."""
        with self._context.database.write() as unit:
            at = self._context.work_clock() + _ABANDONED_AFTER
            payment_polls.ask_at(unit, [payment_id], at, PollPriority.DOUBT)


def remaining_minor(call: Capability, payment: Payment, lifecycle: Lifecycle) -> int:
    """Return what can still be captured or refunded by the sums and pending parts."""
    asked, done = payment.amount_minor or 0, _sum_of(call, payment)
    if call is Capability.CAPTURE:
        is_known = payment.state is None or lifecycle.knows(payment.state)
        is_authorised = is_known and lifecycle.phase(payment.state) is Phase.AUTHORISED
        return (payment.authorised_minor or asked) - done if is_authorised else 0
    if payment.phase not in {phase.value for phase in MONEY_PHASES}:
        return 0
    captured = asked if payment.captured_minor is None else payment.captured_minor
    return captured - done - (payment.charged_back_minor or 0)


def _sum_of(call: Capability, payment: Payment) -> int:
    """Return what is captured or refunded, and pending unless a stated sum has it."""
    name = f"{_DONE[call]}_minor"
    told: int = getattr(payment, name) or 0
    if name in (payment.stated or {}):
        return told
    pending = PartStatus.PENDING.value
    parts = [part for part in payment.parts or () if part["kind"] == _PART_KINDS[call].value]
    return told + sum(part["amount_minor"] or 0 for part in parts if part["status"] == pending)
