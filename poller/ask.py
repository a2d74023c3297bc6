"""Asks the provider about payments and records the answers; what they mean is the worker's to decide."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from poller import breaker
from poller.book import Book
from poller.claim import Claims
from poller.pace import patiently
from providers.contract import Answer, Client
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine.errors import ServiceError
from statemachine.phases import Phase, Source
from statemachine.tally import Counts, counts
from storage import inbox, payments
from storage.database import Database, made, values
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.tables import InboxMessage, Payment
from storage.types import PollPriority

log = structlog.get_logger()

#: How long one poller has a payment to itself while it waits for its turn and the answer.
LEASE: Final = timedelta(seconds=120)

_UNPAID: Final = (Phase.OPEN, Phase.PROCESSING)

#: Names of tasks: whose room a question takes.
_URGENT: Final = "urgent"
_PATIENT: Final = "patient"


class Traced(Protocol):
    """Told of questions; it never waits, and raises nothing. Any thread may call it."""

    def answered(self, message: InboxMessage) -> None:
        """The answer is kept as this message."""
        ...

    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """The question has failed."""
        ...


class _Untraced:
    def answered(self, message: InboxMessage) -> None:
        """Nothing is told."""

    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """Nothing is told."""


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
    """Asks about payments whose time has come, within each account's budget.

    What somebody wants to know goes before what the schedule wants, and has room of its own: a payer who has come back
    does not wait for the answers to other questions.
    """

    def __init__(
        self,
        database: Database,
        clients: Mapping[str, Client],
        book: Book,
        clock: Callable[[], datetime],
        rng: random.Random,
        *,
        concurrency: int = 8,
        create_grace: timedelta = timedelta(seconds=120),
        on_answer: Callable[[str], None] = lambda _account: None,
        traced: Traced | None = None,
    ) -> None:
        self._database = database
        self._clients = clients
        self._book = book
        self._clock = clock
        self._rng = rng
        self._traced = traced or _Untraced()
        self._on_answer = on_answer  #: called with the account after each question
        self._claims = Claims(database, book, clock, concurrency=concurrency, create_grace=create_grace, lease=LEASE)
        self._under_way: dict[str, set[asyncio.Task[Asked]]] = {name: set() for name in clients}
        self.asked: Counts = counts()  #: by account and outcome: answered, refused, limited, away or failed

    async def step(self) -> int:
        """Ask about one round of due payments of every account, to the end; returns how many were asked about."""
        return sum(await asyncio.gather(*(self.step_account(name) for name in self._clients)))

    async def step_account(self, account: str) -> int:
        """Ask about one round of the account's due payments, to the end; returns how many."""
        started = await self.start(account)
        while self._under_way[account]:
            await asyncio.wait(self._under_way[account])
            self._harvest(account)
        return started

    async def start(self, account: str) -> int:
        """Questions about due payments are under way, as many as there is room for; returns how many were begun.

        Does not wait for answers, so that a slow one holds up no other: `on_answer` is called after each. Raises
        StorageUnavailable, also where a question that began earlier met it.
        """
        self._harvest(account)
        under_way = self._under_way[account]
        urgent = sum(task.get_name() == _URGENT for task in under_way)
        claimed = await asyncio.to_thread(self._claims.take, account, urgent, len(under_way) - urgent)
        for payment in claimed.payments:
            is_urgent = payment.poll_priority < PollPriority.SCHEDULE
            question = self.ask(payment, is_patient=not is_urgent, is_probe=claimed.is_probe)
            task = asyncio.create_task(question, name=_URGENT if is_urgent else _PATIENT)
            task.add_done_callback(lambda _task: self._on_answer(account))
            under_way.add(task)
        return len(claimed.payments)

    async def aclose(self) -> None:
        """Questions under way are given up; their payments are asked about again when their leases end."""
        tasks = [task for under_way in self._under_way.values() for task in under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, payment: Payment, *, is_patient: bool = False, is_probe: bool = False) -> Asked:
        """The provider's answer is in the inbox afterwards, or the error is noted, and the next question is set.

        A patient question lets all others of the account go first. Raises StorageUnavailable.
        """
        if payment.provider_ref is None:
            return Asked(error=ProviderError("the provider has not named this payment yet"))
        began_at = self._clock()
        try:
            client = self._clients[payment.account]
            if is_patient:
                with patiently():
                    answer = await client.fetch(payment.kind, payment.provider_ref)
            else:
                answer = await client.fetch(payment.kind, payment.provider_ref)
        except StorageUnavailable:
            raise  # the account's turn could not be had: nothing was asked
        except UnsupportedByProvider as unsupported:  # heard of by webhook, of a kind that cannot be asked about
            error = ProviderError(unsupported.message, provider_code=unsupported.code)
        except ProviderError as failed:
            error = failed.with_traceback(None)  # a value from here on; its frames would hold it, and it them
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
            self.asked[payment.account, "answered"] += 1
            return Asked(message_id=await asyncio.to_thread(self._record, payment, answer, is_probe))
        self.asked[payment.account, _outcome(error)] += 1
        self._traced.unanswered(Source.POLL, payment.account, payment.id, error, began_at)
        await asyncio.to_thread(self._note_failure, payment, error, is_probe)
        return Asked(error=error)

    def _harvest(self, account: str) -> None:
        under_way = self._under_way[account]
        for task in [task for task in under_way if task.done()]:
            under_way.discard(task)
            if not task.cancelled():
                task.result()

    def _record(self, payment: Payment, answer: Answer, is_probe: bool) -> str:
        now = self._clock()
        message = answer_message(payment.account, Source.POLL, answer, payment.id, now)
        seen = made(Payment, {**values(payment), "asked_at": answer.asked_at})
        next_at = self._book.next_at(seen, now)  # as if it had not changed; where it has, the worker sets another
        jitter = self._rng.random()
        try:
            with self._database.write() as unit:
                inbox.record(unit, [message])
                payments.note_asked(unit, payment, next_at, seen_at=answer.asked_at)
                change = breaker.note(unit, payment.account, None, now, jitter, was_probe=is_probe)
        except StorageUnavailable as fault:
            if not fault.is_held:
                raise
            # Another session holds the payment: the answer is kept all the same, and it is asked about again when its
            # lease has run out.
            log.warning("payment.waiting", payment_id=payment.id, messages=1, error="another session holds it")
            with self._database.write() as unit:
                inbox.record(unit, [message])
                change = breaker.note(unit, payment.account, None, now, jitter, was_probe=is_probe)
        breaker.log_change(payment.account, change)
        self._traced.answered(message)
        log.info("poll.answered", account=payment.account, payment_id=payment.id, message_id=message.id)
        return message.id

    def _after_failure(self, payment: Payment, error: ProviderError, now: datetime) -> datetime | None:
        schedule = self._book.schedule(payment.account)
        is_terminal = self._book.is_terminal(payment)
        if is_terminal and error.http_status in (None, 404) and not error.may_retry:
            # Nothing there to ask about: that is no answer, and would be none every hour for ever.
            return self._book.next_at(payment, now)
        is_watched = payment.phase not in _UNPAID or (payment.review is not None and not error.may_retry)
        if schedule.has_given_up(payment.changed_at, now) and is_watched:
            return None
        # What somebody wants to know is tried once more soon, whatever the error says of repeats.
        may_retry = error.may_retry or payment.poll_priority < PollPriority.SCHEDULE
        jitter = self._rng.random()
        return schedule.after_failure(payment.poll_failures, error.retry_after, may_retry, now, jitter)

    def _note_failure(self, payment: Payment, error: ProviderError, is_probe: bool) -> None:
        now = self._clock()
        next_at = self._after_failure(payment, error, now)
        with self._database.write() as unit:
            payments.note_asked(unit, payment, next_at, error=f"{error.code}: {error.message}")
            change = breaker.note(unit, payment.account, error, now, self._rng.random(), was_probe=is_probe)
        breaker.log_change(payment.account, change)


def _outcome(error: ProviderError) -> str:
    """What a question without an answer is counted as; one that was never sent has failed."""
    sign = breaker.sign_of(error)
    if sign is breaker.Sign.OUTAGE:
        return "away"
    if sign is breaker.Sign.NOTHING:
        return "failed"
    return "limited" if error.http_status == 429 else "refused"
