"""Asks the provider about payments and records the answers; what they mean is the worker's to decide."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from poller.policy import Schedule
from providers.contract import Answer, Client
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine import statements
from statemachine.phases import Phase, Review, Source
from storage import inbox, payments
from storage.engine import Database, Unit
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.tables import InboxMessage, Payment

log = structlog.get_logger()

#: How long one poller has a payment to itself while it waits for its turn and the answer.
_LEASE = timedelta(seconds=120)

_UNPAID = (Phase.OPEN, Phase.PROCESSING)


@dataclass(frozen=True, slots=True)
class AskedAccount:
    """One account that is asked: its client, its patience, and which states end asking."""

    client: Client
    schedule: Schedule
    is_terminal: Callable[[str, str | None], bool]  #: of kind and state


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of one question: the inbox message that keeps the answer, or the error."""

    message_id: str | None = None
    error: ProviderError | None = None


def answer_message(
    account: str, source: Source, answer: Answer, payment_id: str | None, received_at: datetime
) -> InboxMessage:
    """The inbox message that keeps an answer to our own call, verbatim."""
    return inbox.new_message(
        account=account,
        source=source.value,
        delivery_key=f"{source.value}:{new_id()}",
        body=answer.body,
        received_at=received_at,
        provider_time=answer.asked_at,
        kind=answer.kind,
        ref=answer.ref,
        http_status=answer.status,
        about=payment_id,
    )


class Poller:
    """Asks about payments whose time has come, within each account's budget."""

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, AskedAccount],
        clock: Callable[[], datetime],
        rng: random.Random,
        *,
        concurrency: int = 4,
        create_grace: timedelta = timedelta(seconds=120),
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._clock = clock
        self._rng = rng
        self._concurrency = concurrency
        self._create_grace = create_grace

    async def step(self) -> int:
        """Ask about one round of due payments of every account; returns how many were asked about."""
        asked = await asyncio.gather(*(self.step_account(name) for name in self._accounts))
        return sum(asked)

    async def step_account(self, account: str) -> int:
        """Ask about one round of the account's due payments; returns how many. Raises StorageUnavailable."""
        due = await asyncio.to_thread(self._claim, account)
        await asyncio.gather(*(self.ask(payment) for payment in due))
        return len(due)

    async def ask(self, payment: Payment) -> Asked:
        """The provider's answer is in the inbox afterwards, or the error is noted, and the next question is set."""
        asked = self._accounts[payment.account]
        ref = payment.provider_ref
        if ref is None:
            return Asked(error=ProviderError("the provider has not named this payment yet"))
        try:
            answer = await asked.client.fetch(payment.kind, ref)
        except StorageUnavailable:
            raise  # the account's turn could not be had: nothing was asked
        except UnsupportedByProvider as unsupported:  # heard of by webhook, of a kind that cannot be asked about
            error = ProviderError(unsupported.message, provider_code=unsupported.code)
        except ProviderError as failed:
            error = failed
            log.warning(
                "poll.failed",
                account=payment.account,
                payment_id=payment.id,
                code=error.code,
                http_status=error.http_status,
            )
        except Exception as fault:  # a bug met by one payment must not end the questions about all others
            error = ProviderError(f"asking failed here: {type(fault).__name__}", provider_code="internal")
            log.exception("poll.failed", account=payment.account, payment_id=payment.id)
        else:
            return Asked(message_id=await asyncio.to_thread(self._record, payment, answer))
        await asyncio.to_thread(self._note_failure, payment, error)
        return Asked(error=error)

    def _claim(self, account: str) -> list[Payment]:
        now, asked = self._clock(), self._accounts[account]
        due: list[Payment] = []
        with self._database.write() as unit:
            for silent in payments.unanswered_creates(unit, account, now - self._create_grace):
                self._give_up(unit, silent, Review.CREATE_UNKNOWN, "the create call left no answer", now)
            for payment in payments.due_for_poll(unit, account, now, self._concurrency):
                # Where a person is to look already, somebody has asked for this question since.
                is_unseen = payment.phase in _UNPAID and payment.review is None
                if is_unseen and asked.schedule.has_given_up(payment.changed_at, now):
                    self._give_up(unit, payment, Review.GAVE_UP, "no change for as long as we go on asking", now)
                    payments.set_next_poll(unit, payment.id, None)
                    continue
                payment.next_poll_at = now + _LEASE
                payments.set_next_poll(unit, payment.id, payment.next_poll_at)
                due.append(payment)
        return due

    def _give_up(self, unit: Unit, payment: Payment, review: Review, reason: str, now: datetime) -> None:
        message = inbox.new_message(
            account=payment.account,
            source=Source.POLLER.value,
            delivery_key=f"gave_up:{payment.id}:{review.value}:{payment.version}:{payment.reviews}",
            body=statements.encode(statements.GaveUp(review.value, reason)),
            headers=(("content-type", statements.CONTENT_TYPE),),
            received_at=now,
            about=payment.id,
        )
        inbox.record(unit, [message])
        log.warning("poll.gave_up", account=payment.account, payment_id=payment.id, review=review.value)

    def _record(self, payment: Payment, answer: Answer) -> str:
        now = self._clock()
        next_at = self._accounts[payment.account].schedule.next_poll(
            phase=Phase(payment.phase),
            is_terminal=self._accounts[payment.account].is_terminal(payment.kind, payment.state),
            polls=payment.polls + 1,
            changed_at=payment.changed_at,
            expires_at=payment.expires_at,
            now=now,
        )
        message = answer_message(payment.account, Source.POLL, answer, payment.id, now)
        with self._database.write() as unit:
            inbox.record(unit, [message])
            payments.note_asked(unit, payment, answer.asked_at, next_at, None)
        log.info("poll.answered", account=payment.account, payment_id=payment.id, message_id=message.id)
        return message.id

    def _after_failure(self, payment: Payment, error: ProviderError, now: datetime) -> datetime | None:
        asked = self._accounts[payment.account]
        is_terminal = asked.is_terminal(payment.kind, payment.state)
        has_given_up = asked.schedule.has_given_up(payment.changed_at, now)
        if is_terminal and error.http_status in (None, 404) and not error.may_retry:
            # Nothing there to ask about: that is no answer, and would be none every hour for ever.
            return asked.schedule.next_poll(
                phase=Phase(payment.phase),
                is_terminal=True,
                polls=payment.polls + 1,
                changed_at=payment.changed_at,
                expires_at=payment.expires_at,
                now=now,
            )
        is_watched = payment.phase not in _UNPAID or (payment.review is not None and not error.may_retry)
        if has_given_up and is_watched:
            return None
        return asked.schedule.after_failure(payment.polls, error.retry_after, error.may_retry, now, self._rng.random())

    def _note_failure(self, payment: Payment, error: ProviderError) -> None:
        now = self._clock()
        next_at = self._after_failure(payment, error, now)
        with self._database.write() as unit:
            payments.note_asked(unit, payment, now, next_at, f"{error.code}: {error.message}")
