"""Run one reconciliation: read the provider's list, then fetch the other payments."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import structlog

from poller import circuit_breaker
from poller.errors import ReconciliationPaused
from poller.polling import POLL_LEASE
from providers.contract import Answer, Client, Page
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine.errors import ServiceError
from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import Outcome, Phase, Source
from storage import inbox, payment_polls, rate_limits, reconciliations
from storage.database import Database, Unit
from storage.rate_limits import Gate
from storage.reconciliations import Candidate
from storage.tables import InboxMessage
from storage.tables_support import Reconciliation

log = structlog.get_logger()

Answered = TypeVar("Answered")
Item = TypeVar("Item")
IsTerminal = Callable[[str, str | None], bool]  #: of kind and state
Sleep = Callable[[float], Awaitable[None]]
Apply = Callable[[Sequence[str]], Awaitable[None]]
OnProgress = Callable[[Reconciliation], None]

#: Stages of a reconciliation.
LISTING: Final = "listing"
ASKING: Final = "asking"

#: Phases with the money there, or given back: a terminal state of one of them is the provider's last word.
_FINAL_MONEY_PHASES: Final = frozenset({Phase.PAID, Phase.SETTLED, Phase.REFUNDED})

#: Tries of one call.
_MAX_ATTEMPTS: Final = 3

#: The wait after the first try; doubles.
_FIRST_WAIT_S: Final = 1.0

#: A longer wait that the provider asks for pauses the reconciliation.
_MAX_WAIT_S: Final = 60.0

#: Calls in a row without an answer that are an outage: one that fails says nothing of the next.
_OUTAGE_FAILURES: Final = 5

#: The outage after which a reconciliation is paused.
_MAX_OUTAGE: Final = timedelta(seconds=60)

#: Statuses that concern the account and not the payment: the key is refused, or there are too many requests.
_ACCOUNT_STATUSES: Final = frozenset({401, 403, 429})

#: A key may be valid for payments and not for the list; the next call shows a key that is valid for nothing.
_LIST_FORBIDDEN_STATUS: Final = 403

#: Payments fetched between two saves of the position, for each concurrent call.
_PAYMENTS_PER_TASK: Final = 8

#: Payments that could not be fetched and of which the row keeps the reason; the others are counted.
_MAX_UNASKED: Final = 1000

#: Rows read or named by one statement.
BATCH_SIZE: Final = 500


def may_have_changed(candidate: Candidate, is_terminal: IsTerminal) -> bool:
    """Return whether the provider may know more of the payment than is known here.

    - Open, processing, or in any state that something legal follows: yes. A paid payment that its provider can still
      settle or refund is one of these, however long ago it was paid.
    - Ended without money (failed, cancelled, expired): yes, although most lifecycles call that terminal. Money comes
      late, and a provider that then changes its word may send nothing; that is the most expensive drift of all, since
      the goods are not given out.
    - Terminal with the money there, or given back: no. By the provider's own lifecycle nothing follows, so a fetch
      could only confirm what is known.
    - Refused by the provider at creation, so that there is nothing to fetch: no.

    The reconciliation's range bounds all of it: what neither began nor changed within it is not fetched.
    """
    if candidate.state == NOT_CREATED:
        return False
    return not is_terminal(candidate.kind, candidate.state) or candidate.phase not in _FINAL_MONEY_PHASES


def settles_state(outcome: Mapping[str, Any]) -> bool:
    """Return whether a decision confirms the state of the payment at the provider.

    A conflict, an unknown status, a stale statement or a mere hint does not: the payment is fetched.
    """
    return bool(outcome["outcome"] == Outcome.ADVANCED or outcome.get("state_confirmed"))


def payments_to_ask(
    in_range: Sequence[Candidate], named: Sequence[Candidate], settled: frozenset[str], is_terminal: IsTerminal
) -> list[Candidate]:
    """Return the payments to fetch, in order and each once.

    Of the range those that may have changed, and those that the list only named. `settled` are the ids of payments
    whose state the list has confirmed; they are left out. A payment without a provider's id cannot be fetched (see
    without_provider_id()).
    """
    wanted = {candidate.id: candidate for candidate in in_range if may_have_changed(candidate, is_terminal)}
    wanted |= {candidate.id: candidate for candidate in named}
    return sorted(
        (c for c in wanted.values() if c.id not in settled and c.provider_ref is not None), key=lambda found: found.id
    )


def without_provider_id(in_range: Iterable[Candidate]) -> list[Candidate]:
    """Return the payments without a provider's id: their create call left no answer."""
    return [found for found in in_range if found.provider_ref is None and found.state is None]


def is_outage(error: ProviderError) -> bool:
    """Return whether the next call will probably fail too.

    No answer, a fault of the provider's, or a refused key.
    """
    if error.http_status is None:
        return error.may_retry
    return error.http_status >= 500 or error.http_status in _ACCOUNT_STATUSES


class ProviderCalls:
    """Call one provider account; give up after several outages in a row.

    The account's circuit breaker is heeded and updated with each outcome, so that other callers find out sooner.
    """

    def __init__(
        self, database: Database, account: str, clock: Callable[[], datetime], sleep: Sleep, rng: random.Random
    ) -> None:
        self._database = database
        self._account = account
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._failures = 0
        self._paused: ReconciliationPaused | None = None
        self.is_probe = False  #: only one call may go, to probe whether the provider is back

    async def wait_until_reachable(self) -> None:
        """Wait until calls may go. Raises ReconciliationPaused in a long outage."""
        while not self.is_probe and (wait := await asyncio.to_thread(self._check_breaker)):
            await self._sleep(wait)

    async def call(self, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        """Return the answer after at most three tries.

        Raises ProviderError, or what else the call raises, where there is none, and ReconciliationPaused, for this and
        every later call, where the provider is away.
        """
        for attempt in range(_MAX_ATTEMPTS):
            if self._paused is not None:
                raise self._paused
            try:
                answer = await ask()
            except ProviderError as error:
                if not error.may_retry or attempt + 1 == _MAX_ATTEMPTS:
                    await asyncio.to_thread(self._note_failure, error)
                    self._count_failure(error)
                    raise
                await self._sleep(self._wait(error, attempt))
            else:
                self._failures = 0
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def pause(self, error: ProviderError, *, wait: float | None = None) -> ReconciliationPaused:
        """Refuse further calls; return the error to raise."""
        words = f"the provider gives no answers now ({error.code}: {error.message})"
        self._paused = self._paused or ReconciliationPaused(words, wait=wait or error.retry_after)
        return self._paused

    def _check_breaker(self) -> float:
        """Return the seconds to wait for the breaker; 0 if a call, or a probe, may go."""
        now = self._clock()
        with self._database.write() as unit:
            gate = rate_limits.gate(unit, self._account, now, POLL_LEASE)
            state = rate_limits.breaker(unit, self._account)
        self.is_probe = gate is Gate.PROBE
        if gate is not Gate.OPEN:
            return 0.0
        if state.broken_at is not None and now - state.broken_at > _MAX_OUTAGE:
            words = f"it has been away since {state.broken_at:%Y-%m-%d %H:%M:%SZ}"
            raise self.pause(ProviderError(words, provider_code="provider_away"))
        return max(1.0, (state.probe_at - now).total_seconds()) if state.probe_at else 1.0

    def note_answer(self, unit: Unit) -> circuit_breaker.BreakerChange | None:
        """Record an answer at the breaker; return the change for `log_change`.

        Writes nothing where no answer was missing before.
        """
        was_probe, self.is_probe = self.is_probe, False
        return circuit_breaker.record_outcome(unit, self._account, None, self._clock(), 0.0, was_probe=was_probe)

    def _note_failure(self, error: ProviderError) -> None:
        now, jitter = self._clock(), self._rng.random()
        was_probe, self.is_probe = self.is_probe, False
        with self._database.write() as unit:
            change = circuit_breaker.record_outcome(unit, self._account, error, now, jitter, was_probe=was_probe)
        circuit_breaker.log_change(self._account, change)

    def _count_failure(self, error: ProviderError) -> None:
        self._failures = self._failures + 1 if is_outage(error) else 0
        if self._failures >= _OUTAGE_FAILURES:
            raise self.pause(error) from error

    def _wait(self, error: ProviderError, attempt: int) -> float:
        if error.retry_after is not None and error.retry_after > _MAX_WAIT_S:
            raise self.pause(error) from error
        return max(error.retry_after or 0.0, _FIRST_WAIT_S * 2.0**attempt * (1 + self._rng.random() / 5))


async def run_all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all to the end; where one raises, cancel the others first, then raise."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@dataclass(frozen=True, slots=True)
class ReconciledAccount:
    """Client, terminal states and capabilities of an account to reconcile."""

    client: Client
    is_terminal: IsTerminal
    can_list: bool
    kinds: frozenset[str]  #: that the provider can be asked about


@dataclass(frozen=True, slots=True)
class ReconciliationTools:
    """Database, clock and limits that every reconciliation uses."""

    database: Database
    clock: Callable[[], datetime]
    apply: Apply  #: applies these messages as far as possible now; another process may do it later
    sleep: Sleep
    concurrency: int = 4  #: concurrent calls
    lease: timedelta = timedelta(seconds=60)
    #: How long to wait for messages while none is applied. Longer than a page may wait for a create call under way, or
    #: its payments would be missing in the report.
    settle_timeout: timedelta = timedelta(seconds=180)


class ReconciliationRun:
    """One run of a reconciliation, by the process that holds its lease."""

    def __init__(
        self,
        tools: ReconciliationTools,
        account: ReconciledAccount,
        row: Reconciliation,
        rng: random.Random,
        settled: OnProgress,
    ) -> None:
        self._tools = tools
        self._account = account
        self.row = row  #: as it was last committed
        self._calls = ProviderCalls(tools.database, row.account, tools.clock, tools.sleep, rng)
        self._on_progress = settled
        self._writing = asyncio.Lock()  # one task at a time counts in the row

    async def run(self) -> None:
        """Read the list, fetch the remaining payments, and wait until all is applied.

        What cannot be fetched is counted and recorded. Raises ReconciliationPaused where the provider is away,
        LeaseLost and StorageUnavailable; what was received until then is kept, and another run continues from there.
        """
        is_restarted = False
        if self.row.stage == LISTING and not self._account.can_list:
            unlisted = UnsupportedByProvider("the provider documents no call that lists payments")
            await self._save(stage=ASKING, position=None, unasked=self._with_unasked([_unlisted_entry(unlisted)]))
        while self.row.stage == LISTING:
            await self._calls.wait_until_reachable()
            try:
                await self._save_page(await self._calls.call(self._page))
            except ProviderError as error:
                if is_outage(error) and error.http_status != _LIST_FORBIDDEN_STATUS:
                    raise self._calls.pause(error) from error
                if (
                    self.row.position is not None and not is_restarted
                ):  # the cursor may have expired: once more from the start
                    is_restarted = True
                    await self._save(position=None)
                    continue
                await self._save(stage=ASKING, position=None, unasked=self._with_unasked([_unlisted_entry(error)]))
        await self._settle()
        await self._ask_remaining()
        await self._settle()

    # -- listing

    async def _page(self) -> Page:
        try:
            return await self._account.client.list_page(self.row.since, self.row.until, self.row.position)
        except ServiceError:
            raise
        except Exception as fault:  # a bug in reading the list must not prevent the fetches
            log.exception("reconcile.failed", account=self.row.account, reconciliation_id=self.row.id)
            raise ProviderError(f"listing failed here: {type(fault).__name__}", provider_code="internal") from fault

    async def _save_page(self, page: Page) -> None:
        row, number = self.row, self.row.pages + 1
        message = self._message(Source.LIST, page.answer, f"page:{number}", None)
        changes: dict[str, Any] = {"pages": number, "listed": row.listed + page.count, "position": page.next}
        if page.next is None or page.fault:
            changes |= {"stage": ASKING, "position": None}
        if page.fault:
            changes["unasked"] = self._with_unasked([_unlisted_entry(ProviderError(page.fault))])
        await self._save(message, **changes)
        await self._tools.apply([message.id])

    # -- asking

    async def _ask_remaining(self) -> None:
        remaining, unnamed = await asyncio.to_thread(self._remaining)
        kinds = self._account.kinds
        unsupported = [found for found in remaining if found.kind not in kinds]
        remaining = [found for found in remaining if found.kind in kinds]
        position = self.row.position
        if position is None:
            missing = [_with_unasked(found, "unnamed", "the provider has not named it") for found in unnamed]
            missing += [
                _with_unasked(found, UnsupportedByProvider.code, f"the provider cannot be asked about a {found.kind}")
                for found in unsupported
            ]
            await self._save(to_ask=self.row.asked + len(remaining), unasked=self._with_unasked(missing))
        left = [found for found in remaining if position is None or found.id > position]
        while left:
            await self._calls.wait_until_reachable()
            count = 1 if self._calls.is_probe else _PAYMENTS_PER_TASK * self._tools.concurrency
            await self._ask_about(left[:count])
            left = left[count:]

    def _remaining(self) -> tuple[list[Candidate], list[Candidate]]:
        """Return the payments still to fetch, and those without a provider's id."""
        row, settled, named = self.row, set[str](), set[str]()
        with self._tools.database.read() as unit:
            after = ""
            while page := reconciliations.messages(unit, row, after=after, limit=BATCH_SIZE):
                after = page[-1].id
                settled |= {message.about for message in page if message.about is not None}  # fetched by an earlier run
                for outcome in (outcome for message in page for outcome in message.outcomes if "payment" in outcome):
                    (settled if settles_state(outcome) else named).add(outcome["payment"])
            in_range = reconciliations.candidates(unit, row)
            others = [
                found for ids in in_batches(sorted(named - settled)) for found in reconciliations.these(unit, ids)
            ]
        return payments_to_ask(in_range, others, frozenset(settled), self._account.is_terminal), without_provider_id(
            in_range
        )

    async def _ask_about(self, payments: Sequence[Candidate]) -> None:
        """Fetch one round of payments; save each answer, then failures and position."""
        gate, failures, message_ids = asyncio.Semaphore(self._tools.concurrency), dict[str, ServiceError](), list[str]()

        async def ask(found: Candidate) -> None:
            async with gate:
                answer = await self._answer(found)
                if isinstance(answer, ServiceError):
                    failures[found.id] = answer
                    return
                message = self._message(Source.POLL, answer, found.id, found.id)
                await self._save(message, asked=1)
                message_ids.append(message.id)

        await run_all(ask(found) for found in payments)
        missing = [
            _with_unasked(found, error.code, error.message) for found in payments if (error := failures.get(found.id))
        ]
        await self._save(
            position=payments[-1].id, failed=self.row.failed + len(missing), unasked=self._with_unasked(missing)
        )
        await self._tools.apply(message_ids)

    async def _answer(self, found: Candidate) -> Answer | ServiceError:
        """Return the provider's answer, or the error; raise what ends the run."""
        ref = found.provider_ref or ""
        try:
            return await self._calls.call(lambda: self._account.client.fetch(found.kind, ref))
        except ProviderError as error:
            log.warning("reconcile.failed", **self._about(found), code=error.code, http_status=error.http_status)
            return error
        except ServiceError:
            raise  # storage is away, or the reconciliation is paused: nothing was sent
        except Exception as fault:  # a bug met by one payment must not stop the fetches of all others
            log.exception("reconcile.failed", **self._about(found))
            return ProviderError(f"asking failed here: {type(fault).__name__}", provider_code="internal")

    def _about(self, found: Candidate) -> dict[str, str]:
        return {"account": self.row.account, "reconciliation_id": self.row.id, "payment_id": found.id}

    # -- parts

    def _message(self, source: Source, answer: Answer, part: str, about: str | None) -> InboxMessage:
        return inbox.new_message(
            account=self.row.account,
            source=source.value,
            delivery_key=reconciliations.key(self.row.id, part),
            body=answer.body,
            received_at=self._tools.clock(),
            provider_time=answer.asked_at,
            kind=answer.kind,
            ref=answer.ref,
            http_status=answer.status,
            about=about,
        )

    async def _save(self, message: InboxMessage | None = None, *, asked: int = 0, **changes: Any) -> None:
        """Save the message and the progress in one commit; LeaseLost saves neither."""
        async with self._writing:
            work = asyncio.ensure_future(
                asyncio.to_thread(self._write, message, {"asked": self.row.asked + asked, **changes})
            )
            try:
                self.row = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])  # short; the lease is given back after it, not before
                raise
        self._on_progress(self.row)

    def _write(self, message: InboxMessage | None, changes: dict[str, Any]) -> Reconciliation:
        tools = self._tools
        with tools.database.write() as unit:
            change = None
            kept = reconciliations.keep(unit, self.row, tools.clock(), tools.lease, **changes)
            if message is not None:
                inbox.record(unit, [message])
                change = self._calls.note_answer(unit)
            if message is not None and message.about is not None and message.provider_time is not None:
                payment_polls.note_answered(unit, message.about, message.provider_time)
        circuit_breaker.log_change(self.row.account, change)
        return kept

    def _with_unasked(self, missing: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the row's entries of payments not fetched with these added, each once."""
        known = {(entry["payment"], entry["code"]) for entry in self.row.unasked}
        new = [entry for entry in missing if (entry["payment"], entry["code"]) not in known]
        return [*self.row.unasked, *new][:_MAX_UNASKED]

    async def _settle(self) -> None:
        """Wait until every message is applied, or none progresses for `settle_timeout`."""
        tools, before = self._tools, list[str]()
        give_up_at = tools.clock() + tools.settle_timeout
        while waiting := await asyncio.to_thread(self._pending):
            if waiting != before:
                before, give_up_at = waiting, tools.clock() + tools.settle_timeout
            elif tools.clock() >= give_up_at:
                return  # the report counts them
            else:
                await tools.sleep(0.2)
            await tools.apply(waiting)

    def _pending(self) -> list[str]:
        with self._tools.database.read() as unit:
            return reconciliations.pending(unit, self.row)


def _with_unasked(found: Candidate, code: str, reason: str) -> dict[str, Any]:
    return {
        "payment": found.id,
        "kind": found.kind,
        "provider_ref": found.provider_ref,
        "code": code,
        "reason": reason,
    }


def _unlisted_entry(error: ServiceError) -> dict[str, Any]:
    """Return the entry for a list that could not be read to its end."""
    return {"payment": None, "kind": None, "provider_ref": None, "code": error.code, "reason": error.message}


def in_batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split the items into batches that one statement can name."""
    return (items[at : at + BATCH_SIZE] for at in range(0, len(items), BATCH_SIZE))
