"""Asks the provider about due payments and records the answers; the worker decides what they mean."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from poller import circuit_breaker
from poller.rate_limiter import patiently
from poller.schedule import UNPAID, PollSchedule, poll_times_of, select_most_urgent
from providers.contract import Answer, Client
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine import statements
from statemachine.errors import ServiceError
from statemachine.measures import Counts, counts
from statemachine.phases import Review, Source
from storage import inbox, payments, rate_limits
from storage.database import Database, Unit, made, values
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.rate_limits import Gate
from storage.tables import InboxMessage, Payment
from storage.types import PollPriority

log = structlog.get_logger()

#: Of how many due payments the most urgent are chosen, for each one that there is room for.
_CHOICE: Final = 4


@dataclass(frozen=True, slots=True)
class Claimed:
    """The payments to ask about now; nobody else's until their lease ends."""

    payments: list[Payment] = field(default_factory=list)
    is_probe: bool = False  #: the provider was away: this one question tells whether it still is


class Claims:
    """Takes what is due. Any number of processes may do so at once."""

    def __init__(
        self,
        database: Database,
        schedule: PollSchedule,
        clock: Callable[[], datetime],
        *,
        concurrency: int,
        create_grace: timedelta,
        lease: timedelta,
    ) -> None:
        self._database = database
        self._schedule = schedule
        self._clock = clock
        self._concurrency = concurrency
        self._create_grace = create_grace
        self._lease = lease

    def take(self, account: str, urgent: int = 0, patient: int = 0) -> Claimed:
        """The account's most urgent payments, as many as there is room for beside those under way.

        Nothing while the provider wants no requests, or is away; then one at a time tries. A payment that has gone
        without a change for too long is given up visibly instead. Raises StorageUnavailable.
        """
        now = self._clock()
        if not self._is_any_due(account, now):
            return Claimed()  # mostly: so nobody waits for the right to write
        with self._database.write() as unit:
            for silent in payments.unanswered_creates(unit, account, now - self._create_grace):
                self._give_up(unit, silent, Review.CREATE_UNKNOWN, "the create call left no answer", now)
            if rate_limits.pause_left(unit, account, now):
                return Claimed()
            room = self._concurrency
            wanted = payments.wanted(unit, account, now, max(room - urgent, 0))
            due = payments.due_by_schedule(unit, account, now, max(room - patient, 0) * _CHOICE)
            if not wanted and not due:
                return Claimed()
            gate = rate_limits.gate(unit, account, now, self._lease)
            if gate is Gate.OPEN:
                return Claimed()
            chosen = self._choose(unit, [p for p in due if not self._gives_up(unit, p, now)], room - patient, now)
            taken = [p for p in wanted if not self._gives_up(unit, p, now)] + chosen
            if gate is Gate.PROBE:
                taken = taken[:1]
            payments.set_next_polls(unit, {payment.id: now + self._lease for payment in taken})
        for payment in taken:
            payment.next_poll_at = now + self._lease
        return Claimed(taken, is_probe=gate is Gate.PROBE)

    def _is_any_due(self, account: str, now: datetime) -> bool:
        with self._database.read() as unit:
            is_unanswered, is_due = payments.anything_to_ask(unit, account, now, now - self._create_grace)
            return is_unanswered or (is_due and not rate_limits.is_barred(unit, account, now))

    def _choose(self, unit: Unit, due: list[Payment], room: int, now: datetime) -> list[Payment]:
        if not due:
            return []
        entries = [(payment, self._schedule.forecast(payment), poll_times_of(payment)) for payment in due]
        chosen = select_most_urgent(self._schedule.policy(due[0].account), entries, room, now)
        payments.set_next_polls(unit, {payment.id: at for payment, at in chosen.later})
        return chosen.now

    def _gives_up(self, unit: Unit, payment: Payment, now: datetime) -> bool:
        # Where a person is to look already, somebody has asked for this question since.
        is_unseen = payment.phase in UNPAID and payment.review is None
        if not is_unseen or not self._schedule.policy(payment.account).has_given_up(payment.changed_at, now):
            return False
        self._give_up(unit, payment, Review.GAVE_UP, "no change for as long as we go on asking", now)
        payments.set_next_poll(unit, payment.id, None)
        return True

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


#: How long one poller has a payment to itself while it waits for its turn and the answer.
LEASE: Final = timedelta(seconds=120)


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
        schedule: PollSchedule,
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
        self._schedule = schedule
        self._clock = clock
        self._rng = rng
        self._traced = traced or _Untraced()
        self._on_answer = on_answer  #: called with the account after each question
        self._claims = Claims(
            database, schedule, clock, concurrency=concurrency, create_grace=create_grace, lease=LEASE
        )
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
        next_at = self._schedule.next_at(seen, now)  # as if it had not changed; where it has, the worker sets another
        jitter = self._rng.random()
        try:
            with self._database.write() as unit:
                inbox.record(unit, [message])
                payments.note_asked(unit, payment, next_at, seen_at=answer.asked_at)
                change = circuit_breaker.note(unit, payment.account, None, now, jitter, was_probe=is_probe)
        except StorageUnavailable as fault:
            if not fault.is_held:
                raise
            # Another session holds the payment: the answer is kept all the same, and it is asked about again when its
            # lease has run out.
            log.warning("payment.waiting", payment_id=payment.id, messages=1, error="another session holds it")
            with self._database.write() as unit:
                inbox.record(unit, [message])
                change = circuit_breaker.note(unit, payment.account, None, now, jitter, was_probe=is_probe)
        circuit_breaker.log_change(payment.account, change)
        self._traced.answered(message)
        log.info("poll.answered", account=payment.account, payment_id=payment.id, message_id=message.id)
        return message.id

    def _after_failure(self, payment: Payment, error: ProviderError, now: datetime) -> datetime | None:
        policy = self._schedule.policy(payment.account)
        is_terminal = self._schedule.is_terminal(payment)
        if is_terminal and error.http_status in (None, 404) and not error.may_retry:
            # Nothing there to ask about: that is no answer, and would be none every hour for ever.
            return self._schedule.next_at(payment, now)
        is_watched = payment.phase not in UNPAID or (payment.review is not None and not error.may_retry)
        if policy.has_given_up(payment.changed_at, now) and is_watched:
            return None
        # What somebody wants to know is tried once more soon, whatever the error says of repeats.
        may_retry = error.may_retry or payment.poll_priority < PollPriority.SCHEDULE
        jitter = self._rng.random()
        return policy.after_failure(payment.poll_failures, error.retry_after, may_retry, now, jitter)

    def _note_failure(self, payment: Payment, error: ProviderError, is_probe: bool) -> None:
        now = self._clock()
        next_at = self._after_failure(payment, error, now)
        with self._database.write() as unit:
            payments.note_asked(unit, payment, next_at, error=f"{error.code}: {error.message}")
            change = circuit_breaker.note(unit, payment.account, error, now, self._rng.random(), was_probe=is_probe)
        circuit_breaker.log_change(payment.account, change)


def _outcome(error: ProviderError) -> str:
    """What a question without an answer is counted as; one that was never sent has failed."""
    sign = circuit_breaker.sign_of(error)
    if sign is circuit_breaker.Sign.OUTAGE:
        return "away"
    if sign is circuit_breaker.Sign.NOTHING:
        return "failed"
    return "limited" if error.http_status == 429 else "refused"
