"""Poll due payments and record the answers; the worker decides what they mean."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from poller import circuit_breaker
from poller.journal import JournalReader, JournalStep
from poller.rate_limiter import low_priority
from poller.schedule import UNPAID, PollSchedule, poll_times_of, select_most_urgent
from providers.contract import Answer, Client
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine import own_statements
from statemachine.errors import ServiceError
from statemachine.histograms import Counts, counts
from statemachine.phases import Review, Source
from storage import hints, inbox, payment_polls, payments, rate_limits
from storage.database import Database, Unit, build_record, values
from storage.errors import StorageUnavailable
from storage.hints import HintToAsk
from storage.ids import new_id
from storage.payment_polls import PolledPayment
from storage.rate_limits import Gate
from storage.tables import InboxMessage, Payment, PaymentPoll
from storage.types import PollPriority

log = structlog.get_logger()

#: Lease of a payment while its poll waits for its turn and the answer.
POLL_LEASE: Final = timedelta(seconds=120)

#: Due payments read for each free slot; the most urgent of them are chosen.
_CANDIDATES_PER_SLOT: Final = 4

#: Names of tasks, by the slots that they take.
_URGENT_TASK: Final = "urgent"
_SCHEDULED_TASK: Final = "scheduled"


@dataclass(frozen=True, slots=True)
class ClaimedPolls:
    """Payments to poll now, leased to this process."""

    payments: list[PolledPayment] = field(default_factory=list)
    is_probe: bool = False  #: the provider was away: this one poll shows whether it still is


class PollClaims:
    """Claim due payments. Safe in any number of processes at once."""

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

    def claim(self, account: str, urgent: int = 0, scheduled: int = 0) -> ClaimedPolls:
        """Claim the account's most urgent payments, up to the free slots.

        Nothing while the provider wants no requests, or is away; then one probe at a time. A payment that has gone
        without a change for too long is given up visibly instead. Raises StorageUnavailable.
        """
        now = self._clock()
        if not self._is_any_due(account, now):
            return ClaimedPolls()  # the usual case, without waiting for the right to write
        with self._database.write() as unit:
            for silent in payments.unanswered_creates(unit, account, now - self._create_grace):
                self._give_up(unit, silent, Review.CREATE_UNKNOWN, "the create call left no answer", now)
            if rate_limits.pause_left(unit, account, now):
                return ClaimedPolls()
            room = self._concurrency
            wanted = payment_polls.wanted(unit, account, now, max(room - urgent, 0))
            candidates = max(room - scheduled, 0) * _CANDIDATES_PER_SLOT
            due = payment_polls.due_by_schedule(unit, account, now, candidates)
            if not wanted and not due:
                return ClaimedPolls()
            gate = rate_limits.gate(unit, account, now, self._lease)
            if gate is Gate.OPEN:
                return ClaimedPolls()
            chosen = self._choose(unit, [p for p in due if not self._gives_up(unit, p, now)], room - scheduled, now)
            claimed = [p for p in wanted if not self._gives_up(unit, p, now)] + chosen
            if gate is Gate.PROBE:
                claimed = claimed[:1]
            payment_polls.set_next_of(unit, {each.payment.id: now + self._lease for each in claimed})
        for each in claimed:
            each.poll.next_poll_at = now + self._lease
        return ClaimedPolls(claimed, is_probe=gate is Gate.PROBE)

    def claim_hint(self, account: str) -> HintToAsk | None:
        """Claim an id that a delivery named and nobody knows here; None while barred."""
        now = self._clock()
        with self._database.read() as unit:
            if not hints.is_any_due(unit, account, now) or rate_limits.is_barred(unit, account, now):
                return None
        with self._database.write() as unit:
            return hints.claim(unit, account, now, self._lease)

    def _is_any_due(self, account: str, now: datetime) -> bool:
        with self._database.read() as unit:
            is_unanswered, is_due = payment_polls.anything_to_ask(unit, account, now, now - self._create_grace)
            return is_unanswered or (is_due and not rate_limits.is_barred(unit, account, now))

    def _choose(self, unit: Unit, due: list[PolledPayment], room: int, now: datetime) -> list[PolledPayment]:
        if not due:
            return []
        entries = [(each, self._schedule.forecast(each.payment), poll_times_of(*each)) for each in due]
        chosen = select_most_urgent(self._schedule.policy(due[0].payment.account), entries, room, now)
        payment_polls.set_next_of(unit, {each.payment.id: at for each, at in chosen.later})
        return chosen.now

    def _gives_up(self, unit: Unit, polled: PolledPayment, now: datetime) -> bool:
        """Give up a payment unchanged for too long; drop one that cannot be asked about."""
        payment, poll = polled
        # A payment already under review is polled because a caller requested it.
        is_unseen = payment.phase in UNPAID and payment.review is None
        if is_unseen and self._schedule.policy(payment.account).has_given_up(payment.changed_at, now):
            self._give_up(unit, payment, Review.GAVE_UP, "no change for as long as payments are watched", now)
            payment_polls.set_next(unit, payment.id, None)
            return True
        if self._schedule.can_ask(payment):
            return False
        planned = self._schedule.next_poll(payment, poll, now)
        payment_polls.set_next(unit, payment.id, planned.at if planned is not None and planned.at >= now else None)
        return True

    def _give_up(self, unit: Unit, payment: Payment, review: Review, reason: str, now: datetime) -> None:
        message = inbox.new_message(
            account=payment.account,
            source=Source.POLLER.value,
            delivery_key=f"gave_up:{payment.id}:{review.value}:{payment.version}:{payment.reviews}",
            body=own_statements.encode(own_statements.GaveUp(review.value, reason)),
            headers=(("content-type", own_statements.CONTENT_TYPE),),
            received_at=now,
            about=payment.id,
        )
        inbox.record(unit, [message])
        log.warning("poll.gave_up", account=payment.account, payment_id=payment.id, review=review.value)


class PollTracer(Protocol):
    """Receiver of poll outcomes for tracing; never waits or raises. Thread-safe."""

    def answered(self, message: InboxMessage) -> None:
        """Trace an answer that was recorded as this message."""
        ...

    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """Trace a failed poll."""
        ...


class _NoTracer:
    def answered(self, message: InboxMessage) -> None:
        """Ignore the answer."""

    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """Ignore the failure."""


@dataclass(frozen=True, slots=True)
class PollResult:
    """Result of one poll: the inbox message that holds the answer, or the error."""

    message_id: str | None = None
    error: ProviderError | None = None


def answer_message(
    account: str,
    source: Source,
    answer: Answer,
    payment_id: str | None,
    received_at: datetime,
    *,
    wish: str | None = None,
) -> InboxMessage:
    """Build the inbox message that holds the answer to our own call, verbatim.

    `wish` is the message of the capture or refund that it answers.
    """
    return inbox.new_message(
        account=account,
        source=source.value,
        delivery_key=f"{source.value}:{new_id()}",
        body=answer.body,
        headers=() if wish is None else ((own_statements.WISH_HEADER, wish),),
        received_at=received_at,
        provider_time=answer.asked_at,
        kind=answer.kind,
        ref=answer.ref,
        http_status=answer.status,
        about=payment_id,
    )


class Poller:
    """Poll due payments within each account's budget.

    Polls that a caller requested go before scheduled ones and have slots of their own: a payer who has come back does
    not wait for the answers to other polls.
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
        tracer: PollTracer | None = None,
        journal: JournalReader | None = None,
    ) -> None:
        self._database = database
        self._clients = clients
        self._schedule = schedule
        self._clock = clock
        self._rng = rng
        self._tracer = tracer or _NoTracer()
        self.journal = journal  #: reads the journals of the accounts that have one
        self._on_answer = on_answer  #: called with the account after each poll
        self._claims = PollClaims(
            database, schedule, clock, concurrency=concurrency, create_grace=create_grace, lease=POLL_LEASE
        )
        self._concurrency = concurrency
        self._under_way: dict[str, set[asyncio.Task[PollResult]]] = {name: set() for name in clients}
        self.asked: Counts = counts()  #: by account and outcome: answered, refused, limited, away or failed

    async def step(self) -> int:
        """Poll one round of due payments of every account, to the end; return the count."""
        return sum(await asyncio.gather(*(self.step_account(name) for name in self._clients)))

    async def step_account(self, account: str) -> int:
        """Poll one round of the account's due payments, to the end; return the count."""
        started = await self.start(account)
        while self._under_way[account]:
            await asyncio.wait(self._under_way[account])
            self._collect_finished(account)
        return started

    async def start(self, account: str) -> int:
        """Start polls of due payments, as many as there are free slots; return the count.

        Does not wait for answers, so that a slow one holds up no other: `on_answer` is called after each. Raises
        StorageUnavailable, also where a poll that started earlier met it.
        """
        self._collect_finished(account)
        under_way = self._under_way[account]
        logged = JournalStep() if self.journal is None else await self.journal.step(account)
        urgent = sum(task.get_name() == _URGENT_TASK for task in under_way)
        scheduled = len(under_way) - urgent
        if logged.events or logged.has_more:
            self._on_answer(account)  # its events may answer what is due: the schedule waits for the next round
            scheduled = self._concurrency
        claimed = await asyncio.to_thread(self._claims.claim, account, urgent, scheduled)
        for polled in claimed.payments:
            is_urgent = polled.poll.poll_priority < PollPriority.SCHEDULE
            question = self.ask(polled, is_low_priority=not is_urgent, is_probe=claimed.is_probe)
            task = asyncio.create_task(question, name=_URGENT_TASK if is_urgent else _SCHEDULED_TASK)
            task.add_done_callback(lambda _task: self._on_answer(account))
            under_way.add(task)
        hint = None if claimed.is_probe else await asyncio.to_thread(self._claims.claim_hint, account)
        if hint is not None:
            task = asyncio.create_task(self.ask_about_id(hint), name=_SCHEDULED_TASK)
            task.add_done_callback(lambda _task: self._on_answer(account))
            under_way.add(task)
        return len(claimed.payments) + (hint is not None)

    async def aclose(self) -> None:
        """Cancel the polls under way; their payments are due again when their leases end."""
        tasks = [task for under_way in self._under_way.values() for task in under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, polled: PolledPayment, *, is_low_priority: bool = False, is_probe: bool = False) -> PollResult:
        """Poll one payment: record the answer or the error, and set the next poll.

        At low priority all others of the account go first. Raises StorageUnavailable.
        """
        payment = polled.payment
        if payment.provider_ref is None:
            return PollResult(error=ProviderError("the provider has not named this payment yet"))
        if not self._schedule.can_ask(payment):
            unsupported = UnsupportedByProvider(f"the provider cannot be asked about a {payment.kind}")
            return PollResult(error=ProviderError(unsupported.message, provider_code=unsupported.code))
        began_at = self._clock()
        ref, about = payment.provider_ref, {"payment_id": payment.id}
        answer = await self._fetch(payment.account, payment.kind, ref, about, is_low_priority=is_low_priority)
        if isinstance(answer, Answer):
            return PollResult(message_id=await asyncio.to_thread(self._record, polled, answer, is_probe))
        error = answer
        self._tracer.unanswered(Source.POLL, payment.account, payment.id, error, began_at)
        await asyncio.to_thread(self._note_failure, polled, error, is_probe)
        return PollResult(error=error)

    async def ask_about_id(self, hint: HintToAsk) -> PollResult:
        """Ask about an id that a delivery named; record the answer, which makes it known.

        What the provider does not know is forgotten; what it does not answer is asked again. Raises StorageUnavailable.
        """
        answer = await self._fetch(hint.account, hint.kind, hint.ref, {"ref": hint.ref}, is_low_priority=True)
        if isinstance(answer, Answer):
            return PollResult(message_id=await asyncio.to_thread(self._record_hint, hint, answer))
        await asyncio.to_thread(self._note_hint_failure, hint, answer)
        return PollResult(error=answer)

    async def _fetch(
        self, account: str, kind: str, ref: str, about: Mapping[str, str], *, is_low_priority: bool
    ) -> Answer | ProviderError:
        """Fetch and count; raise StorageUnavailable where nothing was sent."""
        client = self._clients[account]
        try:
            if is_low_priority:
                with low_priority():
                    answer = await client.fetch(kind, ref)
            else:
                answer = await client.fetch(kind, ref)
        except StorageUnavailable:
            raise  # no turn was granted: nothing was sent
        except ProviderError as failed:
            error = failed.with_traceback(None)  # a value from here on; its frames would form a reference cycle with it
            log.warning("poll.failed", account=account, code=error.code, http_status=error.http_status, **about)
        except Exception as fault:  # a bug met by one payment must not stop the polls of all others
            error = ProviderError(f"asking failed here: {type(fault).__name__}", provider_code="internal")
            log.exception("poll.failed", account=account, **about)
        else:
            self.asked[account, "answered"] += 1
            return answer
        self.asked[account, _outcome(error)] += 1
        return error

    def _record_hint(self, hint: HintToAsk, answer: Answer) -> str:
        now = self._clock()
        message = answer_message(hint.account, Source.POLL, answer, None, now)
        with self._database.write() as unit:
            inbox.record(unit, [message])
            hints.finish(unit, hint, answer.asked_at)
            change = circuit_breaker.record_outcome(unit, hint.account, None, now, self._rng.random(), was_probe=False)
        circuit_breaker.log_change(hint.account, change)
        self._tracer.answered(message)
        log.info("poll.answered", account=hint.account, ref=hint.ref, message_id=message.id)
        return message.id

    def _note_hint_failure(self, hint: HintToAsk, error: ProviderError) -> None:
        now, jitter = self._clock(), self._rng.random()
        policy = self._schedule.policy(hint.account)
        again_at = policy.after_failure(hint.attempts, error.retry_after, error.may_retry, now, jitter)
        with self._database.write() as unit:
            if error.may_retry or circuit_breaker.classify(error) is circuit_breaker.ProviderSign.OUTAGE:
                hints.ask_again(unit, hint, again_at)
            else:
                hints.finish(unit, hint, now)
            change = circuit_breaker.record_outcome(unit, hint.account, error, now, jitter, was_probe=False)
        circuit_breaker.log_change(hint.account, change)

    def _collect_finished(self, account: str) -> None:
        under_way = self._under_way[account]
        for task in [task for task in under_way if task.done()]:
            under_way.discard(task)
            if not task.cancelled():
                task.result()

    def _record(self, polled: PolledPayment, answer: Answer, is_probe: bool) -> str:
        now = self._clock()
        payment, poll = polled
        message = answer_message(payment.account, Source.POLL, answer, payment.id, now)
        seen = build_record(PaymentPoll, {**values(poll), "asked_at": answer.asked_at})
        next_at = self._schedule.next_at(payment, seen, now)  # as if unchanged; if it changed, the worker sets another
        jitter = self._rng.random()
        try:
            with self._database.write() as unit:
                inbox.record(unit, [message])
                payment_polls.note_asked(unit, poll, next_at, seen_at=answer.asked_at)
                change = circuit_breaker.record_outcome(unit, payment.account, None, now, jitter, was_probe=is_probe)
        except StorageUnavailable as fault:
            if not fault.is_held:
                raise
            # Another session holds the payment: the answer is recorded all the same, and the payment is polled again
            # when its lease has run out.
            log.warning("payment.waiting", payment_id=payment.id, messages=1, error="another session holds it")
            with self._database.write() as unit:
                inbox.record(unit, [message])
                change = circuit_breaker.record_outcome(unit, payment.account, None, now, jitter, was_probe=is_probe)
        circuit_breaker.log_change(payment.account, change)
        self._tracer.answered(message)
        log.info("poll.answered", account=payment.account, payment_id=payment.id, message_id=message.id)
        return message.id

    def _after_failure(self, polled: PolledPayment, error: ProviderError, now: datetime) -> datetime | None:
        payment, poll = polled
        policy = self._schedule.policy(payment.account)
        is_terminal = self._schedule.is_terminal(payment)
        if is_terminal and error.http_status in (None, 404) and not error.may_retry:
            # Nothing to fetch: that would fail every hour for ever.
            return self._schedule.next_at(payment, poll, now)
        is_watched = payment.phase not in UNPAID or (payment.review is not None and not error.may_retry)
        if policy.has_given_up(payment.changed_at, now) and is_watched:
            return None
        # A requested poll is retried once soon, whatever the error says of repeats.
        may_retry = error.may_retry or poll.poll_priority < PollPriority.SCHEDULE
        jitter = self._rng.random()
        return policy.after_failure(poll.poll_failures, error.retry_after, may_retry, now, jitter)

    def _note_failure(self, polled: PolledPayment, error: ProviderError, is_probe: bool) -> None:
        now = self._clock()
        payment, poll = polled
        next_at = self._after_failure(polled, error, now)
        with self._database.write() as unit:
            payment_polls.note_asked(unit, poll, next_at, error=f"{error.code}: {error.message}")
            change = circuit_breaker.record_outcome(
                unit, payment.account, error, now, self._rng.random(), was_probe=is_probe
            )
        circuit_breaker.log_change(payment.account, change)


def _outcome(error: ProviderError) -> str:
    """Return the outcome by which a failed poll is counted; "failed" if never sent."""
    sign = circuit_breaker.classify(error)
    if sign is circuit_breaker.ProviderSign.OUTAGE:
        return "away"
    if sign is circuit_breaker.ProviderSign.NOTHING:
        return "failed"
    return "limited" if error.http_status == 429 else "refused"
